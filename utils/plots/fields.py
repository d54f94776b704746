"""How far a detector sees."""

from pathlib import Path

import numpy as np
from matplotlib.patches import Rectangle

from utils.plots.figure import new_figure, save_figure


def plot_fields(
    fields: list[tuple[float, np.ndarray, tuple[float, float], tuple[float, ...]]],
    shares: tuple[float, ...],
    path: str | Path,
) -> Path:
    """Effective receptive fields (erf.png), a panel for each level: its stride, the weight [size, size] of each pixel, the
    centre (x, y) and the sides of the squares around it that hold ``shares`` of it, in pixels.

    Brightness is the logarithm of the weight over four decades, as RepLKNet draws it (arXiv:2203.06717, figure 1).
    """
    figure = new_figure(1 + 4 * len(fields), 4.6)
    for axes, (stride, weight, (x, y), sides) in zip(
        np.atleast_1d(figure.subplots(1, len(fields))), fields, strict=True
    ):
        size = len(weight)
        shade = np.log10(1 + 9999 * weight / weight.max()) / 4
        axes.imshow(shade, cmap="inferno", extent=(0, size, size, 0), vmin=0, vmax=1, interpolation="nearest")
        for i, (share, side) in enumerate(zip(shares, sides, strict=True)):
            label = f"{share:.0%}: {side:.0f} px"
            corner = (x - side / 2, y - side / 2)
            axes.add_patch(
                Rectangle(corner, side, side, fill=False, lw=1.5, ec=("white", "#56b4e9")[i % 2], label=label)
            )
        axes.set(xlim=(0, size), ylim=(size, 0), title=f"stride {stride:g}")
        axes.legend(loc="upper right", fontsize=8, framealpha=0.8, facecolor="0.3", labelcolor="white")
    return save_figure(figure, path)
