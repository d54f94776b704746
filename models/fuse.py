"""Folding what only training needs: BatchNorm into the convolution before it, parallel branches into one convolution."""

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.common import Conv, stem


def fuse_conv_bn(model: nn.Module) -> nn.Module:
    """Fold every BatchNorm that directly follows its convolution into it, in place; ``model`` must be in eval mode.

    A block with branches that fold into one, such as RepConv, does so in its method ``reparameterize()``.

    Pairs are known by construction only: the ``conv`` and ``bn`` of Conv and stem, and neighbours in an nn.Sequential,
    where the order of the children is the order of execution. A BatchNorm anywhere else stays.
    """
    for module in [m for m in model.modules() if hasattr(m, "reparameterize")]:
        module.reparameterize()
    for module in list(model.modules()):
        if isinstance(module, (Conv, stem)):
            _fuse_pair(module, "conv", "bn")
        elif type(module) is nn.Sequential:
            names = list(module._modules)
            for first, second in zip(names, names[1:], strict=False):
                _fuse_pair(module, first, second)
    return model


def _fuse_pair(parent: nn.Module, conv_name: str, bn_name: str) -> None:
    conv, bn = parent._modules[conv_name], parent._modules[bn_name]
    if type(conv) is nn.Conv2d and type(bn) is nn.BatchNorm2d:
        parent._modules[conv_name] = fuse_conv_bn_eval(conv, bn)
        parent._modules[bn_name] = nn.Identity()
