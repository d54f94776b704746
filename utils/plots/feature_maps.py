"""Feature maps as pictures: what every layer of a detector gives for one image."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from utils.plots.draw import save_image

MAX_CHANNELS, COLUMNS = 32, 8
CELL = 128  # pixels of a map's longer side in the picture, at least
GAP = 2


class FeatureMaps:
    """Hooks on the layers of a detector that keep what each gives for the first image of a batch.

    ``save(folder)`` draws them, a picture per layer, and forgets them: ``stage{index}_{block}_features.png``, with
    ``_{n}`` for each map of a layer that gives several.
    """

    def __init__(self, layers: nn.Sequential):
        self.kept: dict[str, np.ndarray] = {}  # file name → [c, h, w]
        for index, layer in enumerate(layers):
            layer.register_forward_hook(lambda layer, _, output, index=index: self._keep(index, layer, output))

    def _keep(self, index: int, layer: nn.Module, output: torch.Tensor | tuple | list) -> None:
        outputs = [output] if isinstance(output, torch.Tensor) else list(output)
        maps = [o for o in outputs if isinstance(o, torch.Tensor) and o.ndim == 4]  # not the boxes of the head
        # A row that is repeated is a Sequential of its block.
        block = type(layer[0] if type(layer) is nn.Sequential else layer).__name__
        for n, features in enumerate(maps):
            number = f"_{n}" if len(maps) > 1 else ""
            # Test-time augmentation passes three times; the first is the image itself.
            name = f"stage{index}_{block}_features{number}.png"
            if name not in self.kept:
                self.kept[name] = features[0, :MAX_CHANNELS].float().cpu().numpy()

    def save(self, folder: Path) -> None:
        """Draw what was kept into ``folder``, and keep nothing."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, features in self.kept.items():
            save_image(folder / name, feature_grid(features))
        self.kept.clear()


def feature_grid(channels: np.ndarray) -> np.ndarray:
    """The channels of a map [c, h, w] side by side in rows of eight, each from its least (dark blue) to its
    greatest value (yellow); uint8 [H, W, 3] RGB.
    """
    height, width = channels.shape[1:]
    zoom = max(1, -(-CELL // max(height, width)))
    columns = min(COLUMNS, len(channels))
    rows = -(-len(channels) // columns)
    cell_height, cell_width = height * zoom + GAP, width * zoom + GAP
    grid = np.full((rows * cell_height - GAP, columns * cell_width - GAP, 3), 255, np.uint8)
    for i, channel in enumerate(channels):
        low, high = np.nanmin(channel), np.nanmax(channel)
        levels = np.nan_to_num((channel - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
        colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
        colours = colours.repeat(zoom, 0).repeat(zoom, 1)
        top, left = i // columns * cell_height, i % columns * cell_width
        grid[top : top + height * zoom, left : left + width * zoom] = colours
    return grid
