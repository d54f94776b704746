"""What a head is: the last row of a model, which makes boxes of maps, and knows the loss they are trained by.

A new head is a file of this folder and a line of HEADS in models/heads/table.py. Those who build, check, train and export a
model ask the head for all they need:

    Kind.from_row(row, sources, channels, description)     built as its row says
    head.set_strides(strides)                              once the strides of its inputs are known
    head.doubts(row, description)                          what builds, and is probably not what was meant
    head(inputs)                                           maps in training; boxes and maps in eval
    head.fix_sizes(sizes)                                  before it is exported for images of one size
    head.loss(hyp, imgsz)                                  what it is trained by
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn

from models.description.rows import Row


class Loss(Protocol):
    """The maps of a head in training and targets → loss.

    ``targets`` [n, 6], on the CPU wherever the maps are: image, class, x, y, w, h (0..1). Returns the scalar to go down by,
    which is summed over the images of the batch, and its terms for box, objectness and class, [3], detached, means over the
    images; a loss that lacks one of them gives a zero there.
    """

    def __call__(self, maps: list[torch.Tensor], targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]: ...


class Head(nn.Module):
    """Base of all heads. Attributes: ``nc`` classes, ``stride`` [levels], float32, in the order of its inputs.

    ``arguments``: what its row takes, as it is written. ``anchored``: whether it has ``anchors`` [levels, na, 2] in grid
    units, which a model YAML then has to give, and which are fitted to the data before a training.
    """

    arguments = "[nc]"
    anchored = False
    nc: int
    stride: torch.Tensor

    @classmethod
    def from_row(cls, row: Row, sources: list[int | str], channels: list[int], description: dict[str, Any]) -> "Head":
        """The head that ``row`` of ``description`` asks for, over maps of ``channels`` from the layers ``sources``.

        Notes in ``row.built_args`` what the table of layers is to show. Raises UserError that names the row.
        """
        raise NotImplementedError

    def set_strides(self, strides: list[float]) -> None:
        """Fix the strides of the levels, and start what is to learn from them, such as biases."""
        raise NotImplementedError

    def doubts(self, row: Row, description: dict[str, Any]) -> list[str]:
        """What builds, and is probably not what was meant: sentences that begin with the place of the row."""
        return []

    def forward(self, x: list[torch.Tensor]):
        """Maps [b, c, h, w], one per level → in training raw maps, one per level [b, …, n]; in eval (boxes, raw maps).

        Every place of a raw map but for its last axis is a box. ``boxes`` [b, boxes of all levels, nc + 5], level by level:
        x, y, w, h in pixels of the input, objectness and scores of the classes, 0..1.
        """
        raise NotImplementedError

    def fix_sizes(self, sizes: list[tuple[int, int]]) -> None:
        """From now on each level's map has one size (height, width): what follows from it may be computed once and kept.

        For a copy that is exported, so that its file doesn't compute it anew for every image.
        """

    def loss(
        self,
        hyp: dict[str, float],
        imgsz: int,
        total: Callable[[torch.Tensor], torch.Tensor] = lambda counts: counts,
        processes: int = 1,
        zoom: float = 1.0,
    ) -> Loss:
        """What it is trained by, of images at ``imgsz`` pixels.

        Where ``processes`` share a batch, ``total`` sums a tensor over them. Those with anchors take them ``zoom`` times as
        large: for a stage of images that much smaller than those the anchors are for. The others are not asked to.
        """
        raise NotImplementedError
