"""A picture of a data set's labels."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.ticker import MaxNLocator

from utils.plots.figure import MAX_TICKS, class_ticks, new_figure, plot_color, save_figure, show_names, shown_name


def plot_labels(labels: np.ndarray, names: dict[int, str], path: str | Path) -> Path:
    """Statistics of a data set's boxes: instances per class, shapes overlaid, and where the centres and the sizes lie.

    labels: float32 [n, 5] = class, x, y, w, h, normalised.
    """
    labels = np.asarray(labels, np.float32).reshape(-1, 5)
    classes = labels[:, 0].astype(int)
    figure = new_figure(12, 9)
    panels = figure.subplot_mosaic([["counts"] * 3, ["shapes", "centres", "sizes"]])

    _plot_class_counts(panels["counts"], classes, names)
    # Evenly over the data set: neighbours in it are often frames of one scene.
    chosen = np.linspace(0, len(labels) - 1, min(len(labels), 1000)).astype(int)
    _plot_box_shapes(panels["shapes"], labels[chosen, 3:5], classes[chosen])
    _plot_density(panels["centres"], labels[:, 1], labels[:, 2], "x", "y", "centres")
    panels["centres"].invert_yaxis()  # as in the image: y grows downwards
    _plot_density(panels["sizes"], labels[:, 3], labels[:, 4], "width", "height", "sizes")
    return save_figure(figure, path)


def _plot_class_counts(axes: Axes, classes: np.ndarray, names: dict[int, str]) -> None:
    nc = max([*names, *classes.tolist(), 0]) + 1
    counts = np.bincount(classes, minlength=nc)
    bars = axes.bar(range(nc), counts, color=[plot_color(i) for i in range(nc)], width=0.8)
    axes.set(title=f"{len(classes):,} instances", ylabel="instances", xlim=(-0.6, nc - 0.4))
    axes.set_ylim(0, 1.15 * max(counts.max(), 1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)

    shown = class_ticks(nc)
    labels = [shown_name(names, i, 20) for i in shown]
    font_size = float(np.clip(480 / nc, 5, 10))
    upright = nc * max(len(label) for label in labels) > 80  # side by side they would touch
    axes.set_xticks(shown, labels, rotation=90 if upright else 0, fontsize=font_size)
    show_names(axes.get_xticklabels())
    if nc <= MAX_TICKS:  # one frequent class makes the others' bars too low to be read
        axes.bar_label(bars, [f"{n:,}" for n in counts], fontsize=font_size, padding=3, rotation=90 if nc > 20 else 0)


def _plot_box_shapes(axes: Axes, wh: np.ndarray, classes: np.ndarray) -> None:
    order = np.argsort(-wh.prod(1), kind="stable")  # small ones on top
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
    outlines = 0.5 + wh[order, None, :] * corners
    colors = [(*plot_color(c), 0.5) for c in classes[order]]
    axes.add_collection(PolyCollection(outlines, facecolors="none", edgecolors=colors, linewidths=0.6))
    axes.set(title="shapes", xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], aspect="equal")


def _plot_density(axes: Axes, x: np.ndarray, y: np.ndarray, xlabel: str, ylabel: str, title: str) -> None:
    counts, x_edges, y_edges = np.histogram2d(x, y, bins=50, range=[[0, 1], [0, 1]])
    # The root keeps rare places visible beside crowded ones.
    axes.pcolormesh(x_edges, y_edges, np.sqrt(counts.T), cmap="Blues", vmin=0, vmax=max(np.sqrt(counts.max()), 1))
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title, aspect="equal")
