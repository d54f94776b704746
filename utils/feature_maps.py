"""Feature maps as pictures: what every layer of a detector gives for one image."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from utils.draw import save_image

MAX_CHANNELS, COLUMNS = 32, 8
CELL = 128  # pixels of a map's longer side in the picture, at least
GAP = 2


class FeatureMaps:
    """Hooks on the layers of a detector that draw their maps into ``folder``, one picture per layer.

    Set ``folder`` before an image goes through the model; None draws nothing. The files are called
    ``stage{index}_{block}_features.png``, with ``_{n}`` for each map of a layer that gives several.
    """

    def __init__(self, layers: nn.Sequential):
        self.folder: Path | None = None
        for index, layer in enumerate(layers):
            layer.register_forward_hook(lambda layer, _, output, index=index: self._draw(index, layer, output))

    def _draw(self, index: int, layer: nn.Module, output: torch.Tensor | tuple | list) -> None:
        if self.folder is None:
            return
        outputs = [output] if isinstance(output, torch.Tensor) else list(output)
        maps = [o for o in outputs if isinstance(o, torch.Tensor) and o.ndim == 4]  # not the boxes of the head
        # A row that is repeated is a Sequential of its block.
        block = type(layer[0] if type(layer) is nn.Sequential else layer).__name__
        for n, features in enumerate(maps):
            number = f"_{n}" if len(maps) > 1 else ""
            path = self.folder / f"stage{index}_{block}_features{number}.png"
            if not path.exists():  # test-time augmentation passes three times; the first is the image itself
                self.folder.mkdir(parents=True, exist_ok=True)
                save_image(path, feature_grid(features[0].float().cpu().numpy()))


def feature_grid(features: np.ndarray, max_channels: int = MAX_CHANNELS) -> np.ndarray:
    """The first channels of a map [c, h, w] side by side in rows of eight, each from its least (dark blue) to its
    greatest value (yellow); uint8 [H, W, 3] RGB.
    """
    channels = features[:max_channels]
    height, width = features.shape[1:]
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
