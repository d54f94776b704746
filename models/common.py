"""The blocks a YAML row can name: YOLOv5's own, and those of the "improve YOLOv5" write-ups.

Every class is built as ``Block(c1, c2, *args)`` (input channels, output channels, then the row's arguments) or, where it
repeats an inner block, as ``Block(c1, c2, n, *args)``. To add yours: paste the class at the end of this file and add its
name to ``BLOCKS`` in models/yolo.py. All tensors are [batch, channels, height, width] unless a docstring says otherwise.

Attribute names are part of the checkpoint format (``model.0.conv.weight``) and stay as they are.
"""

# some of these are for code that is pasted here, which takes them for granted
import copy  # noqa: F401
import math
import warnings  # noqa: F401
from collections import OrderedDict  # noqa: F401
from contextlib import contextmanager
from copy import deepcopy  # noqa: F401
from functools import partial  # noqa: F401
from pathlib import Path  # noqa: F401

import numpy as np  # noqa: F401
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn import Parameter, init  # noqa: F401
from torch.nn.modules.conv import _ConvNd  # noqa: F401
from torch.nn.modules.utils import _pair  # noqa: F401

from utils.extras import handed_on

# for programs written for stock
__getattr__ = handed_on(
    __name__,
    {
        "AutoShape": "engine.detection.autoshape",
        "DetectMultiBackend": "engine.detection.backend",
        "Detections": "engine.detection.results",
        "create_backbone": "models.backbones.backbone",
    },
)


def autopad(k, p=None, d=1):
    """Padding that keeps the size at stride 1: half of the dilated kernel, for an int or a pair of ints; ``p`` where given."""
    if p is not None:
        return p
    if isinstance(k, int):
        return d * (k - 1) // 2
    return [d * (side - 1) // 2 for side in k]


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round to a multiple of ``divisor``, never down by more than a tenth (the rule of the MobileNet papers)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


# YOLOv5: convolutions --------------------------------------------------------------------------------------------------


class Conv(nn.Module):
    """Convolution without bias → BatchNorm → activation (SiLU unless the YAML's ``activation`` says otherwise)."""

    default_act = nn.SiLU()

    def __init__(self, c1, c2, k=1, s=1, p=None, g=1, d=1, act=True):
        super().__init__()
        if isinstance(d, nn.Module | bool):  # code of earlier releases and YOLOv7's rows: k, s, p, g, act
            d, act = 1, d
        self.conv = nn.Conv2d(c1, c2, k, s, autopad(k, p, d), groups=g, dilation=d, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.act = self.default_act if act is True else act if isinstance(act, nn.Module) else nn.Identity()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


@contextmanager
def default_activation(act: nn.Module | None):
    """Within the block, every new Conv takes ``act`` as its activation; None leaves SiLU."""
    # a Conv that was pasted over ours may have none
    before = getattr(Conv, "default_act", None)
    Conv.default_act = before if act is None else act
    try:
        yield
    finally:
        Conv.default_act = before


class DWConv(Conv):
    """Depthwise convolution: as many groups as both channel counts allow."""

    def __init__(self, c1, c2, k=1, s=1, d=1, act=True):
        super().__init__(c1, c2, k, s, g=math.gcd(c1, c2), d=d, act=act)


class DWConvTranspose2d(nn.ConvTranspose2d):
    """Depthwise transposed convolution; ``p1`` is its padding, ``p2`` its output padding."""

    def __init__(self, c1, c2, k=1, s=1, p1=0, p2=0):
        super().__init__(c1, c2, k, s, p1, p2, groups=math.gcd(c1, c2))


class Focus(nn.Module):
    """Space to depth, then a convolution: each 2×2 patch becomes four times the channels at half the size."""

    def __init__(self, c1, c2, k=1, s=1, p=None, g=1, act=True):
        super().__init__()
        self.conv = Conv(4 * c1, c2, k, s, p, g, act=act)

    def forward(self, x):
        patches = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.conv(torch.cat(patches, 1))


class GhostConv(nn.Module):
    """Half of the channels by a convolution, the other half from those by a cheap 5×5 depthwise one (GhostNet, 1911.11907)."""

    def __init__(self, c1, c2, k=1, s=1, g=1, act=True):
        super().__init__()
        half = c2 // 2
        self.cv1 = Conv(c1, half, k, s, None, g, act=act)
        self.cv2 = Conv(half, half, 5, 1, None, half, act=act)

    def forward(self, x):
        primary = self.cv1(x)
        return torch.cat((primary, self.cv2(primary)), 1)


class MixConv2d(nn.Module):
    """Several kernel sizes side by side, each giving a share of the channels (MixConv, 1907.09595); adds its input.

    ``equal_ch`` gives each kernel the same number of channels, otherwise about the same number of weights.
    The sum with the input asks for c1 = c2 and s = 1.
    """

    def __init__(self, c1, c2, k=(1, 3), s=1, equal_ch=True):
        super().__init__()
        shares = [1.0 if equal_ch else 1.0 / kernel**2 for kernel in k]
        edges = [round(c2 * sum(shares[:i]) / sum(shares)) for i in range(len(k) + 1)]
        widths = [end - start for start, end in zip(edges, edges[1:], strict=False)]
        self.m = nn.ModuleList(
            nn.Conv2d(c1, c, kernel, s, kernel // 2, groups=math.gcd(c1, c), bias=False)
            for kernel, c in zip(k, widths, strict=True)
        )
        self.bn = nn.BatchNorm2d(c2)
        self.act = nn.SiLU()

    def forward(self, x):
        return x + self.act(self.bn(torch.cat([conv(x) for conv in self.m], 1)))


class CrossConv(nn.Module):
    """A k×k convolution split into 1×k and k×1, with a residual where the shapes allow it and ``shortcut`` asks for it."""

    def __init__(self, c1, c2, k=3, s=1, g=1, e=1.0, shortcut=False):
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, (1, k), (1, s))
        self.cv2 = Conv(hidden, c2, (k, 1), (s, 1), g=g)
        self.add = shortcut and c1 == c2

    def forward(self, x):
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


# YOLOv5: bottlenecks and cross-stage-partial blocks --------------------------------------------------------------------


class Bottleneck(nn.Module):
    """1×1 convolution to e·c2 channels, 3×3 back to c2, and a residual where c1 = c2."""

    def __init__(self, c1, c2, shortcut=True, g=1, e=0.5):
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = Conv(hidden, c2, 3, 1, g=g)
        self.add = shortcut and c1 == c2

    def forward(self, x):
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class BottleneckCSP(nn.Module):
    """Cross-stage-partial bottleneck (CSPNet, 1911.11929): n bottlenecks on one half, a plain 1×1 on the other."""

    def __init__(self, c1, c2, n=1, shortcut=True, g=1, e=0.5):
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = nn.Conv2d(c1, hidden, 1, 1, bias=False)
        self.cv3 = nn.Conv2d(hidden, hidden, 1, 1, bias=False)
        self.cv4 = Conv(2 * hidden, c2, 1, 1)
        self.bn = nn.BatchNorm2d(2 * hidden)  # over both halves
        self.act = nn.SiLU()
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, g, e=1.0) for _ in range(n)))

    def forward(self, x):
        halves = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), 1)
        return self.cv4(self.act(self.bn(halves)))


class C3(nn.Module):
    """The CSP bottleneck of YOLOv5, with three convolutions: cv3(concat(m(cv1(x)), cv2(x)))."""

    def __init__(self, c1, c2, n=1, shortcut=True, g=1, e=0.5):
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = Conv(c1, hidden, 1, 1)
        self.cv3 = Conv(2 * hidden, c2, 1)
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, g, e=1.0) for _ in range(n)))

    def forward(self, x):
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class C3x(C3):
    """C3 of cross convolutions."""

    def __init__(self, c1, c2, n=1, shortcut=True, g=1, e=0.5):
        super().__init__(c1, c2, 0, shortcut, g, e)
        hidden = int(c2 * e)
        self.m = nn.Sequential(*(CrossConv(hidden, hidden, 3, 1, g, 1.0, shortcut) for _ in range(n)))


class C3TR(C3):
    """C3 with a transformer of n layers and four heads."""

    def __init__(self, c1, c2, n=1, shortcut=True, g=1, e=0.5):
        super().__init__(c1, c2, 0, shortcut, g, e)
        hidden = int(c2 * e)
        self.m = TransformerBlock(hidden, hidden, 4, n)


class C3SPP(C3):
    """C3 with spatial pyramid pooling inside."""

    def __init__(self, c1, c2, k=(5, 9, 13), n=1, shortcut=True, g=1, e=0.5):
        super().__init__(c1, c2, n, shortcut, g, e)
        hidden = int(c2 * e)
        self.m = SPP(hidden, hidden, k)


class C3Ghost(C3):
    """C3 of ghost bottlenecks."""

    def __init__(self, c1, c2, n=1, shortcut=True, g=1, e=0.5):
        super().__init__(c1, c2, 0, shortcut, g, e)
        hidden = int(c2 * e)
        self.m = nn.Sequential(*(GhostBottleneck(hidden, hidden) for _ in range(n)))


class GhostBottleneck(nn.Module):
    """Two ghost convolutions with a depthwise stride between them, and a residual (GhostNet, 1911.11907)."""

    def __init__(self, c1, c2, k=3, s=1):
        super().__init__()
        hidden = c2 // 2
        self.conv = nn.Sequential(
            GhostConv(c1, hidden, 1, 1),
            DWConv(hidden, hidden, k, s, act=False) if s == 2 else nn.Identity(),
            GhostConv(hidden, c2, 1, 1, act=False),
        )
        self.shortcut = (
            nn.Sequential(DWConv(c1, c1, k, s, act=False), Conv(c1, c2, 1, 1, act=False)) if s == 2 else nn.Identity()
        )

    def forward(self, x):
        return self.conv(x) + self.shortcut(x)


class TransformerLayer(nn.Module):
    """Self-attention and a two-layer perceptron on tokens [positions, batch, c], both residual, without LayerNorm."""

    def __init__(self, c, num_heads):
        super().__init__()
        self.q = nn.Linear(c, c, bias=False)
        self.k = nn.Linear(c, c, bias=False)
        self.v = nn.Linear(c, c, bias=False)
        self.ma = nn.MultiheadAttention(embed_dim=c, num_heads=num_heads)
        self.fc1 = nn.Linear(c, c, bias=False)
        self.fc2 = nn.Linear(c, c, bias=False)

    def forward(self, x):
        x = x + self.ma(self.q(x), self.k(x), self.v(x), need_weights=False)[0]
        return x + self.fc2(self.fc1(x))


class TransformerBlock(nn.Module):
    """Transformer layers over the positions of a feature map; a linear layer stands for the position embedding."""

    def __init__(self, c1, c2, num_heads, num_layers):
        super().__init__()
        self.conv = Conv(c1, c2) if c1 != c2 else None
        self.linear = nn.Linear(c2, c2)
        self.tr = nn.Sequential(*(TransformerLayer(c2, num_heads) for _ in range(num_layers)))

    def forward(self, x):
        if self.conv is not None:
            x = self.conv(x)
        tokens = x.flatten(2).permute(2, 0, 1)
        tokens = self.tr(tokens + self.linear(tokens))
        return tokens.permute(1, 2, 0).reshape(x.shape)


# YOLOv5: pooling, reshaping, joining -----------------------------------------------------------------------------------


class SPP(nn.Module):
    """Spatial pyramid pooling (1406.4729): the map beside its max-pools of several sizes."""

    def __init__(self, c1, c2, k=(5, 9, 13)):
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = Conv(hidden * (len(k) + 1), c2, 1, 1)
        self.m = nn.ModuleList(nn.MaxPool2d(kernel, 1, kernel // 2) for kernel in k)

    def forward(self, x):
        x = self.cv1(x)
        return self.cv2(torch.cat([x, *(pool(x) for pool in self.m)], 1))


class SPPF(nn.Module):
    """SPP by three small pools in a row: with k = 5 the result equals SPP's of 5, 9 and 13, at less cost."""

    def __init__(self, c1, c2, k=5):
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = Conv(hidden * 4, c2, 1, 1)
        self.m = nn.MaxPool2d(k, 1, k // 2)

    def forward(self, x):
        pools = [self.cv1(x)]
        for _ in range(3):
            pools.append(self.m(pools[-1]))
        return self.cv2(torch.cat(pools, 1))


class Contract(nn.Module):
    """Space to depth: [b, c, h, w] → [b, c·gain², h/gain, w/gain]."""

    def __init__(self, gain=2):
        super().__init__()
        self.gain = gain

    def forward(self, x):
        b, c, h, w = x.shape
        g = self.gain
        x = x.view(b, c, h // g, g, w // g, g)
        return x.permute(0, 3, 5, 1, 2, 4).reshape(b, c * g * g, h // g, w // g)


class Expand(nn.Module):
    """Depth to space: [b, c, h, w] → [b, c/gain², h·gain, w·gain]; undoes Contract."""

    def __init__(self, gain=2):
        super().__init__()
        self.gain = gain

    def forward(self, x):
        b, c, h, w = x.shape
        g = self.gain
        x = x.view(b, g, g, c // g**2, h, w)
        return x.permute(0, 3, 4, 1, 5, 2).reshape(b, c // g**2, h * g, w * g)


class Concat(nn.Module):
    """Join a list of maps along one dimension (1 = channels)."""

    def __init__(self, dimension=1):
        super().__init__()
        self.d = dimension

    def forward(self, x):
        return torch.cat(x, self.d)


# EfficientNetV2 (2104.00298), as the write-up has it; ``paper=True`` gives the paper's -----------------------------------


class stem(nn.Module):
    """Convolution without bias, "same" padding → BatchNorm(eps 1e-3) → SiLU; every convolution of the blocks below."""

    def __init__(self, c1, c2, kernel_size=3, stride=1, groups=1):
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, kernel_size, stride, (kernel_size - 1) // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(c2, eps=1e-3, momentum=0.1)
        self.act = nn.SiLU()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class DropPath(nn.Module):
    """Stochastic depth (1603.09382): in training each sample loses the branch with probability ``p``, the others are
    scaled by 1/(1-p); identity in eval."""

    def __init__(self, p=0.0):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training or self.p == 0:
            return x
        keep = torch.rand(x.shape[0], 1, 1, 1, device=x.device, dtype=torch.float32) >= self.p
        return x * keep.to(x.dtype) / (1 - self.p)


class SqueezeExcite_efficientv2(nn.Module):
    """Channel gate: global average → 1×1 to ``reduced`` channels → activation → 1×1 to c2 → sigmoid.

    ``reduced`` defaults to int(c1·se_ratio), c1 being the expanded channels it gates (the write-up's choice).
    """

    def __init__(self, c1, c2, se_ratio=0.25, reduced=None, act=None):
        super().__init__()
        reduced = int(c1 * se_ratio) if reduced is None else reduced
        self.conv_reduce = nn.Conv2d(c1, reduced, 1)
        self.act = nn.ReLU() if act is None else act
        self.conv_expand = nn.Conv2d(reduced, c2, 1)

    def forward(self, x):
        gate = F.adaptive_avg_pool2d(x, 1)
        return x * self.conv_expand(self.act(self.conv_reduce(gate))).sigmoid()


def _project(c1, c2, k, s, paper):
    """The projection of both blocks: the paper's ends without an activation, the write-up's with one."""
    conv = stem(c1, c2, k, s)
    if paper:
        conv.act = nn.Identity()
    return conv


class FusedMBConv(nn.Module):
    """Fused-MBConv: k×k expansion → 1×1 projection, or one k×k where expansion is 1; residual where s = 1 and c1 = c2.

    ``se_ratio`` and ``dropout_rate`` are part of the published rows and change nothing: the block has no
    squeeze-excitation in the paper either, and the only dropout is the stochastic depth of ``drop_connect_rate``.
    With ``paper`` the projection has no activation and the model scales the drop rate linearly with depth;
    at expansion 1 the single convolution keeps its activation, as in the paper.
    """

    def __init__(
        self, c1, c2, k=3, s=1, expansion=1, se_ratio=0.0, dropout_rate=0.2, drop_connect_rate=0.2, paper=False
    ):
        super().__init__()
        self.paper = paper
        self.add = s == 1 and c1 == c2
        if expansion == 1:
            self.expansion_conv = None
            self.project_conv = stem(c1, c2, k, s)
        else:
            self.expansion_conv = stem(c1, c1 * expansion, k, s)
            self.project_conv = _project(c1 * expansion, c2, 1, 1, paper)
        self.drop_path = DropPath(drop_connect_rate if self.add else 0.0)

    def forward(self, x):
        y = x if self.expansion_conv is None else self.expansion_conv(x)
        y = self.project_conv(y)
        return x + self.drop_path(y) if self.add else y


class MBConv(nn.Module):
    """MBConv: 1×1 expansion → k×k depthwise → squeeze-excitation → 1×1 projection; residual where s = 1 and c1 = c2.

    ``dropout_rate`` is part of the published signature and changes nothing; ``drop_connect_rate`` is the stochastic depth.
    With ``paper``: no activation after the projection, squeeze-excitation reduced from the block's *input* channels with
    SiLU, no expansion convolution at expansion 1, and a drop rate that the model scales linearly with depth.
    """

    def __init__(
        self, c1, c2, k=3, s=1, expansion=4, se_ratio=0.25, dropout_rate=0.2, drop_connect_rate=0.2, paper=False
    ):
        super().__init__()
        self.paper = paper
        self.add = s == 1 and c1 == c2
        hidden = c1 * expansion
        self.expansion_conv = nn.Identity() if paper and expansion == 1 else stem(c1, hidden, 1, 1)
        self.dw_conv = stem(hidden, hidden, k, s, groups=hidden)
        if se_ratio <= 0:
            self.se = nn.Identity()
        elif paper:
            self.se = SqueezeExcite_efficientv2(hidden, hidden, reduced=max(1, int(c1 * se_ratio)), act=nn.SiLU())
        else:
            self.se = SqueezeExcite_efficientv2(hidden, hidden, se_ratio)
        self.project_conv = _project(hidden, c2, 1, 1, paper)
        self.drop_path = DropPath(drop_connect_rate if self.add else 0.0)

    def forward(self, x):
        y = self.project_conv(self.se(self.dw_conv(self.expansion_conv(x))))
        return x + self.drop_path(y) if self.add else y


# ShuffleNetV2 (1807.11164) ----------------------------------------------------------------------------------------------


class Conv_maxpool(nn.Module):
    """ShuffleNetV2's entry: 3×3 convolution of stride 2 → BatchNorm → ReLU, then a 3×3 max-pool of stride 2."""

    def __init__(self, c1, c2):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(c1, c2, 3, 2, 1, bias=False),
            nn.BatchNorm2d(c2),
            nn.ReLU(inplace=True),
        )
        self.maxpool = nn.MaxPool2d(3, 2, 1)

    def forward(self, x):
        return self.maxpool(self.conv(x))


def channel_shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Interleave ``groups`` equal runs of channels, so that the next split mixes them."""
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


class ShuffleNetV2_InvertedResidual(nn.Module):
    """The unit of ShuffleNetV2. Stride 1 (needs inp = oup): split the channels, transform one half, concatenate, shuffle.
    Stride 2: transform the whole input by both branches, concatenate, shuffle.

    ``bias`` of the depthwise convolutions: the write-up has it, torchvision's networks and weights don't.
    """

    def __init__(self, inp, oup, stride, bias=True):
        super().__init__()
        if stride not in (1, 2):
            raise ValueError(f"stride must be 1 or 2, not {stride}")
        if oup % 2:
            raise ValueError(f"output channels must be even, not {oup}")
        if stride == 1 and inp != oup:
            raise ValueError(f"stride 1 keeps the channels, but {inp} come in and {oup} should go out; use stride 2")
        self.stride = stride
        half = oup // 2
        if stride == 2:
            self.branch1 = nn.Sequential(
                nn.Conv2d(inp, inp, 3, 2, 1, groups=inp, bias=bias),
                nn.BatchNorm2d(inp),
                nn.Conv2d(inp, half, 1, bias=False),
                nn.BatchNorm2d(half),
                nn.ReLU(inplace=True),
            )
        self.branch2 = nn.Sequential(
            nn.Conv2d(inp if stride == 2 else half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, stride, 1, groups=half, bias=bias),
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
        )

    def forward(self, x):
        if self.stride == 1:
            kept, changed = x.chunk(2, dim=1)
            joined = torch.cat((kept, self.branch2(changed)), 1)
        else:
            joined = torch.cat((self.branch1(x), self.branch2(x)), 1)
        return channel_shuffle(joined, 2)


# MobileNetV4 (2404.10518) ----------------------------------------------------------------------------------------------


def _conv_bn(c1, c2, k=1, s=1, groups=1, act=None):
    """Convolution → BatchNorm → activation, under the key names of the write-up's checkpoints."""
    layers = nn.Sequential()
    layers.add_module("conv", nn.Conv2d(c1, c2, k, s, (k - 1) // 2, groups=groups, bias=False))
    layers.add_module("BatchNorm2d", nn.BatchNorm2d(c2))
    if act is not None:
        layers.add_module("Activation", act)
    return layers


class UniversalInvertedBottleneckBlock(nn.Module):
    """MobileNetV4's universal inverted bottleneck; as the write-up has it with ReLU6 and without a residual, with ``paper``
    with ReLU and a residual where the shape stays.

    Depthwise kernels of 0 leave that convolution out, which gives the four forms: ExtraDW (both), IB (middle only),
    ConvNext (start only), FFN (none). The stride sits on the middle depthwise convolution where ``middle_dw_downsample``
    is set, else on the first.
    """

    def __init__(
        self,
        inp,
        oup,
        start_dw_kernel_size=3,
        middle_dw_kernel_size=3,
        middle_dw_downsample=1,
        stride=1,
        expand_ratio=1,
        paper=False,
    ):
        super().__init__()
        carrier = middle_dw_kernel_size if middle_dw_downsample else start_dw_kernel_size
        if stride > 1 and not carrier:
            place = "middle" if middle_dw_downsample else "start"
            raise ValueError(f"stride {stride} has no place: the {place} depthwise convolution is left out (kernel 0)")
        start_stride, middle_stride = (1, stride) if middle_dw_downsample else (stride, 1)
        hidden = make_divisible(inp * expand_ratio)
        act = nn.ReLU() if paper else nn.ReLU6()
        self.add = paper and stride == 1 and inp == oup
        self._start_dw_ = nn.Identity()
        if start_dw_kernel_size:
            self._start_dw_ = _conv_bn(inp, inp, start_dw_kernel_size, start_stride, groups=inp)
        self._expand_conv = _conv_bn(inp, hidden, act=act)
        self._middle_dw = nn.Identity()
        if middle_dw_kernel_size:
            self._middle_dw = _conv_bn(hidden, hidden, middle_dw_kernel_size, middle_stride, groups=hidden, act=act)
        self._proj_conv = _conv_bn(hidden, oup)

    def forward(self, x):
        y = self._proj_conv(self._middle_dw(self._expand_conv(self._start_dw_(x))))
        return x + y if self.add else y


class C3_UIB(C3):
    """C3 with n universal inverted bottlenecks (expansion 1); ``shortcut`` and ``g`` stand in the rows as for C3, the
    inner block has neither residual nor groups to set."""

    def __init__(self, c1, c2, n=1, shortcut=True, g=1, e=0.5):
        super().__init__(c1, c2, 0, shortcut, g, e)
        hidden = int(c2 * e)
        self.m = nn.Sequential(*(UniversalInvertedBottleneckBlock(hidden, hidden, expand_ratio=1) for _ in range(n)))
