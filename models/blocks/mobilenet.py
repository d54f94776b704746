"""MobileNetV3's block (1905.02244). MobileNetV4's are UniversalInvertedBottleneckBlock (models/common.py, with
``paper=True``) and MobileMQA (models/blocks/attention.py)."""

from torch import nn

from models.blocks.attention import SE
from models.common import Conv, make_divisible


class MobileNetV3_InvertedResidual(nn.Module):
    """1×1 expansion → k×k depthwise → squeeze-excitation → 1×1 projection without activation; residual where the shape stays.

    ``expansion`` may be a fraction; c1·expansion is rounded to a multiple of 8, never down by more than a tenth, and an
    expansion of 1 has no convolution. ``se``: squeeze-excitation to a quarter of the expanded channels, with a hard sigmoid.
    ``act``: nn.ReLU() in the early rows, nn.Hardswish() in the late ones.
    """

    def __init__(self, c1, c2, k=3, s=1, expansion=1.0, se=False, act=None):
        super().__init__()
        act = nn.Hardswish() if act is None else act
        hidden = make_divisible(c1 * expansion)
        self.expand = nn.Identity() if hidden == c1 else Conv(c1, hidden, act=act)
        self.depthwise = Conv(hidden, hidden, k, s, g=hidden, act=act)
        self.se = SE(hidden, hidden=make_divisible(hidden // 4), gate=nn.Hardsigmoid()) if se else nn.Identity()
        self.project = Conv(hidden, c2, act=False)
        self.add = s == 1 and c1 == c2

    def forward(self, x):
        y = self.project(self.se(self.depthwise(self.expand(x))))
        return x + y if self.add else y
