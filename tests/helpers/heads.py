"""A head that is not the stock one, and its loss."""

import torch
import torch.nn.functional as F
from torch import nn

from models.description.rows import parse_arguments
from models.heads.protocol import Head


class Points(Head):
    """One box a place and no anchors: x, y, w, h and class scores of each. Its loss is in the largest level only."""

    def __init__(self, nc, channels):
        super().__init__()
        self.nc = nc
        self.register_buffer("stride", torch.ones(len(channels)), persistent=False)
        self.m = nn.ModuleList(nn.Conv2d(c, nc + 4, 1) for c in channels)

    @classmethod
    def from_row(cls, row, sources, channels, description):
        args, kwargs = parse_arguments(row, {"nc": description["nc"]})
        if len(args) != 1 or kwargs:
            raise row.error(f"{row.block} takes {cls.arguments}")
        row.built_args = [*args, channels]
        return cls(args[0], channels)

    def set_strides(self, strides):
        self.stride = torch.tensor(strides)
        for conv in self.m:
            conv.bias.detach()[4:] = -2

    def doubts(self, row, description):
        return [f"{row.place}: a single level"] if len(self.stride) == 1 else []

    def forward(self, x):
        maps = [conv(level).permute(0, 2, 3, 1) for conv, level in zip(self.m, x, strict=True)]
        if self.training:
            return maps
        return torch.cat([self.decode(raw, stride) for raw, stride in zip(maps, self.stride, strict=True)], 1), maps

    def decode(self, raw, stride):
        _, ny, nx, _ = raw.shape
        y, x = torch.meshgrid(torch.arange(ny), torch.arange(nx), indexing="ij")
        xy = (torch.stack((x, y), 2) + raw[..., :2].sigmoid()) * stride
        wh = raw[..., 2:4].exp() * stride
        scores = raw[..., 4:].sigmoid()
        return torch.cat((xy, wh, torch.ones_like(scores[..., :1]), scores), 3).flatten(1, 2)

    def loss(self, hyp, imgsz, total=None, processes=1):
        return PointsLoss(hyp)


class PointsLoss:
    """Sizes and classes where targets have their centres; there is no objectness."""

    def __init__(self, hyp):
        self.hyp = hyp

    def __call__(self, maps, targets):
        raw = maps[0]
        b, ny, nx, _ = raw.shape
        image, cls = targets[:, :2].long().T
        column, row = (targets[:, 2:4] * torch.tensor([nx, ny])).long().T
        found = raw[image, row, column]
        box = F.smooth_l1_loss(found[:, 2:4].exp(), targets[:, 4:6] * torch.tensor([nx, ny]))
        wanted = torch.zeros_like(raw[..., 4:])
        wanted[image, row, column, cls] = 1
        classes = F.binary_cross_entropy_with_logits(raw[..., 4:], wanted)
        items = torch.stack((box * self.hyp["box"], torch.zeros(()), classes * self.hyp["cls"]))
        return items.sum() * b, items.detach()
