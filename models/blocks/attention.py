"""Attention: blocks that weigh a map and keep its shape, and C3 with each of them inside.

In a YAML: ``[-1, 1, SE, []]`` on a row of its own, or ``[-1, 3, C3SE, [128]]`` in the place of C3, where every bottleneck
weighs its branch before the residual is added.

    SE          channels, by their averages                            1709.01507
    CBAM        channels by averages and maxima, then positions        1807.06521
    CoordAtt    rows and columns of each channel                       2103.02907
    ECA         channels, each with its neighbours                     1910.03151
    SOCA        channels, by their covariance                          CVPR 2019, Dai et al.: SAN
    SimAM       every value, without a parameter                       ICML 2021, Yang et al.
    MobileMQA   positions, by multi-query self-attention               2404.10518

All take and return [batch, channels, height, width].
"""

from contextlib import AbstractContextManager, nullcontext
from math import log2

import torch
from torch import nn

from models.common import C3, Bottleneck, Conv


def in_float32(x: torch.Tensor) -> AbstractContextManager:
    """Within, products of what is float32 stay so under mixed precision, too: for sums that float16 cannot hold."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


class SE(nn.Module):
    """Squeeze-and-excitation (1709.01507): global average → 1×1 → ReLU → 1×1 → ``gate``, one factor per channel.

    ``ratio`` of channels to hidden channels, of which there are at least 8, as fewer may all be cut off by the ReLU;
    ``hidden`` says them outright. The MobileNet papers have nn.Hardsigmoid() as gate.
    """

    def __init__(self, c1, ratio=16, hidden=None, gate=None):
        super().__init__()
        hidden = max(8, c1 // ratio) if hidden is None else hidden
        self.fc1 = nn.Conv2d(c1, hidden, 1)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, c1, 1)
        self.gate = nn.Sigmoid() if gate is None else gate

    def forward(self, x):
        average = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.fc2(self.act(self.fc1(average))))


class ChannelAttention(nn.Module):
    """First half of CBAM: one factor per channel, from its average and its maximum through the same two layers."""

    def __init__(self, c1, ratio=16):
        super().__init__()
        hidden = max(8, c1 // ratio)
        self.fc1 = nn.Conv2d(c1, hidden, 1, bias=False)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, c1, 1, bias=False)

    def forward(self, x):
        average, maximum = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return x * sum(self.fc2(self.act(self.fc1(pooled))) for pooled in (average, maximum)).sigmoid()


class SpatialAttention(nn.Module):
    """Second half of CBAM: one factor per position, by a k×k convolution over the channels' average and maximum."""

    def __init__(self, k=7):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, k, padding=k // 2, bias=False)

    def forward(self, x):
        pooled = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)
        return x * self.conv(pooled).sigmoid()


class CBAM(nn.Module):
    """Convolutional block attention (1807.06521): which channels, then which positions."""

    def __init__(self, c1, ratio=16, k=7):
        super().__init__()
        self.channel = ChannelAttention(c1, ratio)
        self.spatial = SpatialAttention(k)

    def forward(self, x):
        return self.spatial(self.channel(x))


class CoordAtt(nn.Module):
    """Coordinate attention (2103.02907): per channel, one factor for each row and one for each column.

    Averages along rows and along columns share a 1×1 convolution to max(8, c1 / ratio) channels, BatchNorm and Hardswish;
    each has its own 1×1 convolution back.
    """

    def __init__(self, c1, ratio=32):
        super().__init__()
        hidden = max(8, c1 // ratio)
        self.cv1 = Conv(c1, hidden, act=nn.Hardswish())
        self.conv_h = nn.Conv2d(hidden, c1, 1)
        self.conv_w = nn.Conv2d(hidden, c1, 1)

    def forward(self, x):
        height, width = x.shape[2:]
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)
        rows, columns = self.cv1(torch.cat((rows, columns), 2)).split((height, width), 2)
        return x * self.conv_h(rows).sigmoid() * self.conv_w(columns.transpose(2, 3)).sigmoid()


class ECA(nn.Module):
    """Efficient channel attention (1910.03151): one factor per channel, from its average and its neighbours'.

    ``k`` neighbours in a 1-d convolution; unless given, the odd number nearest above (log2(c1) + 1) / 2, as in the paper.
    """

    def __init__(self, c1, k=None):
        super().__init__()
        if k is None:
            k = int((log2(c1) + 1) / 2)
            k += k % 2 == 0
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False)

    def forward(self, x):
        average = x.mean((2, 3)).unsqueeze(1)
        return x * self.conv(average).sigmoid().transpose(1, 2).unsqueeze(3)


class CovarianceRoot(nn.Module):
    """[b, c, h, w] → [b, c, c]: the square root of the covariance of the channels over the positions.

    By ``iterations`` of Newton and Schulz on the covariance divided by its trace (iSQRT-COV, 1712.01034). Always in
    float32, which the iteration needs; a map without any variance gives zero.
    """

    def __init__(self, c1, iterations=5):
        super().__init__()
        self.iterations = iterations
        self.register_buffer("triple", 3 * torch.eye(c1), persistent=False)

    def forward(self, x):
        with in_float32(x):
            values = x.float().flatten(2)
            values = values - values.mean(2, keepdim=True)
            covariance = values @ values.transpose(1, 2) / values.shape[2]
            trace = covariance.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].clamp(min=1e-6)
            triple = self.triple.float()
            y = covariance / trace
            z = 0.5 * (triple - y)
            y = y @ z
            for _ in range(self.iterations - 1):
                step = 0.5 * (triple - z @ y)
                y, z = y @ step, step @ z
            return y * trace.sqrt()

    def multiply_adds(self, x):
        """For models/flops.py: the covariance, one product in the first iteration, three in each of the others."""
        b, c, h, w = x.shape
        return b * (c * c * h * w + (3 * self.iterations - 2) * c**3)


class SOCA(nn.Module):
    """Second-order channel attention (SAN, Dai et al., CVPR 2019): one factor per channel, from how it varies with the others.

    The rows of the covariance's square root are averaged, then as in SE. Costs about 13·c1³ multiply-adds.
    """

    def __init__(self, c1, ratio=8):
        super().__init__()
        hidden = max(8, c1 // ratio)
        self.covariance = CovarianceRoot(c1)
        self.fc1 = nn.Conv2d(c1, hidden, 1)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, c1, 1)

    def forward(self, x):
        average = self.covariance(x).mean(1)[:, :, None, None].to(x.dtype)
        return x * self.fc2(self.act(self.fc1(average))).sigmoid()


class SimAM(nn.Module):
    """SimAM (Yang et al., ICML 2021): each value weighed by how far it stands out from its channel, without parameters.

    The factor is the sigmoid of (x − μ)² / (4 (σ² + λ)) + ½, the inverse of the energy of the paper's eq. 5; computed in
    float32, as squares of more than 255 and their sum are beyond float16.
    """

    def __init__(self, c1, e_lambda=1e-4):
        super().__init__()
        self.e_lambda = e_lambda

    def forward(self, x):
        others = max(x.shape[2] * x.shape[3] - 1, 1)
        values = x.float()
        distance = (values - values.mean((2, 3), keepdim=True)).square()
        variance = distance.sum((2, 3), keepdim=True) / others
        return x * (distance / (4 * (variance + self.e_lambda)) + 0.5).sigmoid().to(x.dtype)


class MultiQuery(nn.Module):
    """softmax(q·kᵀ / √d)·v, where all heads share k and v: q [b, heads, n, d], k and v [b, m, d] → [b, heads, n, d].

    q·kᵀ in float32: before it is divided it may be beyond float16.
    """

    def forward(self, q, k, v):
        with in_float32(q):
            logits = q.float() @ k.float().transpose(1, 2).unsqueeze(1) * q.shape[3] ** -0.5
        return logits.softmax(3).to(v.dtype) @ v.unsqueeze(1)

    def multiply_adds(self, q, k, v):
        """For models/flops.py: q·kᵀ and the weighted sum of v."""
        return q.numel() * k.shape[1] * 2


class MobileMQA(nn.Module):
    """MobileNetV4's attention block (2404.10518): BatchNorm → multi-query self-attention → layer scale, residual.

    Keys and values are taken from the map shrunk by ``kv_stride`` with a k×k depthwise convolution, and are common to all
    ``heads``: unless given, as many as c1 holds 64 channels, at least one. Its memory grows with the square of the
    positions; made for strides 16 and 32.
    """

    def __init__(self, c1, heads=None, kv_stride=2, k=3):
        super().__init__()
        self.heads = max(1, c1 // 64) if heads is None else heads
        if c1 % self.heads:
            raise ValueError(f"{c1} channels do not divide among {self.heads} heads")
        d = c1 // self.heads
        self.norm = nn.BatchNorm2d(c1)
        self.query = nn.Conv2d(c1, c1, 1, bias=False)
        self.key = self._shrink(c1, d, kv_stride, k)
        self.value = self._shrink(c1, d, kv_stride, k)
        self.attention = MultiQuery()
        self.output = nn.Conv2d(c1, c1, 1, bias=False)
        self.scale = nn.Parameter(torch.full((c1, 1, 1), 1e-5))

    @staticmethod
    def _shrink(c1, c2, stride, k):
        if stride == 1:
            return nn.Sequential(nn.Conv2d(c1, c2, 1, bias=False))
        return nn.Sequential(
            nn.Conv2d(c1, c1, k, stride, k // 2, groups=c1, bias=False),
            nn.BatchNorm2d(c1),
            nn.Conv2d(c1, c2, 1, bias=False),
        )

    def forward(self, x):
        b, c, h, w = x.shape
        y = self.norm(x)
        q = self.query(y).reshape(b, self.heads, c // self.heads, h * w).transpose(2, 3)
        k, v = (part(y).flatten(2).transpose(1, 2) for part in (self.key, self.value))
        y = self.attention(q, k, v).transpose(2, 3).reshape(b, c, h, w)
        return x + self.scale * self.output(y)


# inside C3 --------------------------------------------------------------------------------------------------------------


class AttentionBottleneck(Bottleneck):
    """Bottleneck whose branch ends in an attention block, before the residual is added."""

    def __init__(self, c1, c2, attention, shortcut=True, g=1, e=0.5):
        super().__init__(c1, c2, shortcut, g, e)
        self.attention = attention(c2)

    def forward(self, x):
        y = self.attention(self.cv2(self.cv1(x)))
        return x + y if self.add else y


class C3Attention(C3):
    """C3 of attention bottlenecks; a subclass says which ``attention``."""

    attention: type[nn.Module]

    def __init__(self, c1, c2, n=1, shortcut=True, g=1, e=0.5):
        super().__init__(c1, c2, 0, shortcut, g, e)
        hidden = int(c2 * e)
        self.m = nn.Sequential(
            *(AttentionBottleneck(hidden, hidden, self.attention, shortcut, g, e=1.0) for _ in range(n))
        )


class C3SE(C3Attention):
    """C3 with SE in every bottleneck."""

    attention = SE


class C3CBAM(C3Attention):
    """C3 with CBAM in every bottleneck."""

    attention = CBAM


class C3CoordAtt(C3Attention):
    """C3 with CoordAtt in every bottleneck."""

    attention = CoordAtt


class C3ECA(C3Attention):
    """C3 with ECA in every bottleneck."""

    attention = ECA


class C3SOCA(C3Attention):
    """C3 with SOCA in every bottleneck."""

    attention = SOCA


class C3SimAM(C3Attention):
    """C3 with SimAM in every bottleneck."""

    attention = SimAM


class C3MobileMQA(C3Attention):
    """C3 with MobileMQA in every bottleneck."""

    attention = MobileMQA
