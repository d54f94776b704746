"""YOLOv7's blocks (2207.02696) beyond those it shares with YOLOv5. Attribute names are those of its checkpoints."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from models.common import Conv


class MP(nn.Module):
    """k×k max-pool of stride k."""

    def __init__(self, k=2):
        super().__init__()
        self.m = nn.MaxPool2d(k, k)

    def forward(self, x):
        return self.m(x)


class SP(nn.Module):
    """k×k max-pool that keeps the size at stride 1."""

    def __init__(self, k=3, s=1):
        super().__init__()
        self.m = nn.MaxPool2d(k, s, k // 2)

    def forward(self, x):
        return self.m(x)


class SPPCSPC(nn.Module):
    """Spatial pyramid pooling on one half of a cross-stage-partial block, a plain 1×1 on the other.

    The halves have 2·c2·e channels each.
    """

    def __init__(self, c1, c2, e=0.5, k=(5, 9, 13)):
        super().__init__()
        hidden = int(2 * c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = Conv(c1, hidden, 1, 1)
        self.cv3 = Conv(hidden, hidden, 3, 1)
        self.cv4 = Conv(hidden, hidden, 1, 1)
        self.m = nn.ModuleList(nn.MaxPool2d(kernel, 1, kernel // 2) for kernel in k)
        self.cv5 = Conv((len(k) + 1) * hidden, hidden, 1, 1)
        self.cv6 = Conv(hidden, hidden, 3, 1)
        self.cv7 = Conv(2 * hidden, c2, 1, 1)

    def forward(self, x):
        y = self.cv4(self.cv3(self.cv1(x)))
        y = self.cv6(self.cv5(torch.cat([y, *(pool(y) for pool in self.m)], 1)))
        return self.cv7(torch.cat((y, self.cv2(x)), 1))


class RepConv(nn.Module):
    """Re-parameterised convolution (RepVGG, 2101.03697): trained as k×k + 1×1 (+ identity where the shape stays), each with
    its own BatchNorm; for inference `reparameterize` folds all of them into one k×k convolution. ``k`` is odd."""

    def __init__(self, c1, c2, k=3, s=1, g=1, act=True):
        super().__init__()
        if k % 2 == 0:
            raise ValueError(f"the kernel must be odd, not {k}")
        self.act = Conv.default_act if act is True else act if isinstance(act, nn.Module) else nn.Identity()
        self.rbr_identity = nn.BatchNorm2d(c1) if c1 == c2 and s == 1 else None
        self.rbr_dense = nn.Sequential(
            nn.Conv2d(c1, c2, k, s, k // 2, groups=g, bias=False),
            nn.BatchNorm2d(c2),
        )
        self.rbr_1x1 = nn.Sequential(
            nn.Conv2d(c1, c2, 1, s, groups=g, bias=False),
            nn.BatchNorm2d(c2),
        )
        self.rbr_reparam = None

    def forward(self, x):
        if self.rbr_reparam is not None:
            return self.act(self.rbr_reparam(x))
        y = self.rbr_dense(x) + self.rbr_1x1(x)
        return self.act(y if self.rbr_identity is None else y + self.rbr_identity(x))

    @torch.no_grad()
    def reparameterize(self) -> None:
        """Fold the branches into one convolution, in place, for inference; called by the model's ``fuse()``."""
        dense = self.rbr_dense[0]
        side = dense.kernel_size[0] // 2
        branches = [(dense.weight, self.rbr_dense[1]), (F.pad(self.rbr_1x1[0].weight, [side] * 4), self.rbr_1x1[1])]
        if self.rbr_identity is not None:
            identity = torch.zeros_like(dense.weight)
            channel = torch.arange(len(identity))
            identity[channel, channel % identity.shape[1], side, side] = 1
            branches.append((identity, self.rbr_identity))
        folded = [
            fuse_conv_bn_weights(weight, None, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias)
            for weight, bn in branches
        ]
        conv = nn.Conv2d(
            dense.in_channels, dense.out_channels, dense.kernel_size, dense.stride, side, groups=dense.groups
        ).to(dense.weight)
        conv.weight.copy_(sum(weight for weight, _ in folded))
        conv.bias.copy_(sum(bias for _, bias in folded))
        self.rbr_reparam = conv
        self.rbr_dense = self.rbr_1x1 = self.rbr_identity = None
