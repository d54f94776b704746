"""YOLOv5's head."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from models.description.rows import CHECK_SIZE, MOST_CLASSES, Row, is_count, listed, parse_arguments
from models.heads.anchors import anchors_in_stride_order, anchors_off, read_anchors
from models.heads.protocol import Head
from utils.errors import shown
from utils.loss.detection import DetectionLoss, scale_gains


class Detect(Head):
    """YOLOv5's head: one 1×1 convolution per level.

    In training returns the raw maps, one [b, anchors, ny, nx, nc + 5] per level. In eval returns
    (boxes [b, Σ anchors·ny·nx, nc + 5] as x, y, w, h in input pixels, objectness and class scores after sigmoid; raw maps).
    """

    arguments = "[nc, anchors]"
    anchored = True
    # whether the sizes of its maps are known ahead
    fixed = False

    def __init__(self, nc: int, anchors: list[list[float]], ch: list[int]):
        super().__init__()
        self.nc = nc
        self.no = nc + 5
        self.nl = len(anchors)
        self.na = len(anchors[0]) // 2
        # in pixels until the strides are known, in grid units from then on
        self.register_buffer("anchors", torch.tensor(anchors).float().view(self.nl, -1, 2))
        self.register_buffer("stride", torch.ones(self.nl), persistent=False)
        # the cells of a map are counted from it: whoever traces the model finds no device in the graph
        self.register_buffer("one", torch.ones(1, 1), persistent=False)
        self.m = nn.ModuleList(nn.Conv2d(c, self.no * self.na, 1) for c in ch)

    @classmethod
    def from_row(cls, row: Row, sources: list[int | str], channels: list[int], description: dict[str, Any]) -> "Detect":
        args, kwargs = parse_arguments(row, {"nc": description["nc"], "anchors": description["anchors"]})
        if len(args) != 2 or kwargs:
            raise row.error(f"{row.block} takes {cls.arguments}")
        nc, anchors = args
        if not is_count(nc, MOST_CLASSES):
            raise row.error(
                f"the first argument of {row.block} is {shown(repr(nc))}; write {cls.arguments}, the number of classes first"
            )
        anchors = read_anchors(row, anchors, sources)
        row.built_args = [nc, f"{len(anchors)}×{len(anchors[0]) // 2} anchors", channels]
        return cls(nc, anchors, channels)

    def forward(self, x):
        maps, boxes = [], []
        for level, conv in enumerate(self.m):
            raw = conv(x[level])
            b, _, ny, nx = raw.shape
            raw = raw.view(b, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2).contiguous()
            maps.append(raw)
            if not self.training:
                boxes.append(self.decode(raw, level))
        return maps if self.training else (torch.cat(boxes, 1), maps)

    def decode(self, raw: torch.Tensor, level: int) -> torch.Tensor:
        """Raw map [b, na, ny, nx, no] of one level → [b, na·ny·nx, no]: centre 2σ−0.5+cell, size (2σ)²·anchor."""
        b, _, ny, nx, _ = raw.shape
        cells, anchors = self.fixed_places(level) if self.fixed else self.places(level, ny, nx)
        found = raw.sigmoid()
        xy, wh, scores = found[..., :2], found[..., 2:4], found[..., 4:]
        xy = (xy * 2 + cells.to(raw.dtype)) * self.stride[level].to(raw.dtype)
        wh = wh * 2
        # as products: not every runtime that models are exported to has a power operator
        wh = wh * wh * anchors.to(raw.dtype)
        return torch.cat((xy, wh, scores), 4).view(b, self.na * ny * nx, self.no)

    def places(self, level: int, ny: int, nx: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What decoding adds to 2σ in cells [ny, nx, 2], and the anchors in pixels [1, na, 1, 1, 2], of one level."""
        ones = self.one.expand(ny, nx)
        cells = torch.stack((ones.cumsum(1), ones.cumsum(0)), 2) - 1.5
        return cells, (self.anchors[level] * self.stride[level]).view(1, self.na, 1, 1, 2)

    def fix_sizes(self, sizes: list[tuple[int, int]]) -> None:
        for level, (ny, nx) in enumerate(sizes):
            # one for every place: not every runtime broadcasts constants of five dimensions
            cells, anchors = (place.expand(1, self.na, ny, nx, 2).contiguous() for place in self.places(level, ny, nx))
            self.register_buffer(f"cells{level}", cells, persistent=False)
            self.register_buffer(f"sizes{level}", anchors, persistent=False)
        self.fixed = True

    def fixed_places(self, level: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, [1, na, ny, nx, 2] both, of the size that ``fix_sizes`` was told."""
        return getattr(self, f"cells{level}"), getattr(self, f"sizes{level}")

    def set_strides(self, strides: list[float]) -> None:
        """Fix the strides of the levels, bring the anchors to grid units, and start the biases from them."""
        self.stride = torch.tensor(strides, dtype=torch.float32)
        self.anchors = anchors_in_stride_order(self.anchors, self.stride) / self.stride.view(-1, 1, 1)
        for conv, stride in zip(self.m, strides, strict=True):
            bias = conv.bias.detach().view(self.na, -1)
            bias[:, 4] += math.log(8 / (CHECK_SIZE / stride) ** 2)  # about 8 objects in a 640 px image
            bias[:, 5 : 5 + self.nc] += math.log(0.6 / (self.nc - 0.99999))

    def doubts(self, row: Row, description: dict[str, Any]) -> list[str]:
        strides = self.stride.tolist()
        _, anchors = parse_arguments(row, description)[0]
        if strides != sorted(strides):
            return [
                f"{row.place}: the strides of its outputs are {listed(strides)}, not rising; name the layers in `from` from "
                "fine to coarse, in the order of `anchors`: the loss weighs the outputs in that order"
            ]
        return [] if isinstance(anchors, int) else anchors_off(row, anchors, strides)

    def loss(
        self,
        hyp: dict[str, float],
        imgsz: int,
        total: Callable[[torch.Tensor], torch.Tensor] = lambda counts: counts,
        processes: int = 1,
        zoom: float = 1.0,
    ) -> DetectionLoss:
        gains = scale_gains(hyp, self.nl, self.nc, imgsz)
        anchors = self.anchors if zoom == 1 else self.anchors * zoom
        return DetectionLoss(anchors, self.nc, gains, total, processes)
