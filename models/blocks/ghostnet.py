"""GhostNet's own blocks (1911.11907). Stock YOLOv5 has others of the same idea: GhostConv, GhostBottleneck, C3Ghost."""

import torch
from torch import nn

from models.blocks.attention import SE
from models.common import Conv, make_divisible


class GhostModule(nn.Module):
    """Half of the channels by a 1×1 convolution, the other half from those by a cheap 3×3 depthwise one, each with ReLU.

    ``act=False`` leaves the ReLU out. An odd c2 drops the last channel of the cheap half.
    """

    def __init__(self, c1, c2, act=True):
        super().__init__()
        half = (c2 + 1) // 2
        self.c2 = c2
        self.primary = Conv(c1, half, act=nn.ReLU() if act else False)
        self.cheap = Conv(half, half, 3, g=half, act=nn.ReLU() if act else False)

    def forward(self, x):
        primary = self.primary(x)
        return torch.cat((primary, self.cheap(primary)), 1)[:, : self.c2]


class GhostNetBottleneck(nn.Module):
    """Ghost module to c1·expansion channels → k×k depthwise where s = 2 → squeeze-excitation → ghost module to c2, residual.

    ``expansion`` may be a fraction; the expanded channels are rounded to a multiple of 4. ``se``: squeeze-excitation to a
    quarter of them, with a hard sigmoid. Where the shape changes, the residual goes through k×k depthwise and 1×1.
    """

    def __init__(self, c1, c2, k=3, s=1, expansion=1.0, se=False):
        super().__init__()
        hidden = make_divisible(c1 * expansion, 4)
        self.ghost1 = GhostModule(c1, hidden)
        self.depthwise = Conv(hidden, hidden, k, s, g=hidden, act=False) if s > 1 else nn.Identity()
        self.se = SE(hidden, hidden=make_divisible(hidden / 4, 4), gate=nn.Hardsigmoid()) if se else nn.Identity()
        self.ghost2 = GhostModule(hidden, c2, act=False)
        self.shortcut = nn.Identity()
        if s > 1 or c1 != c2:
            self.shortcut = nn.Sequential(Conv(c1, c1, k, s, g=c1, act=False), Conv(c1, c2, act=False))

    def forward(self, x):
        return self.ghost2(self.se(self.depthwise(self.ghost1(x)))) + self.shortcut(x)
