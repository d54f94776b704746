"""Folding what only training needs: BatchNorm into the convolution before it, parallel branches into one convolution; and for
inference on a CPU, activations into the convolution before them."""

import platform
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.backbones.backbone import Backbone
from models.common import Conv, stem
from models.pasted import is_foreign

# on others it does not compute all of them within a convolution
X86 = platform.machine().lower() in ("x86_64", "amd64")
ONEDNN = X86 and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
# what oneDNN computes within a convolution: its word for an activation, and the numbers that go with it
WITHIN = {
    nn.Identity: ("none", ()),
    nn.SiLU: ("swish", ()),
    nn.ReLU: ("relu", ()),
    nn.ReLU6: ("hardtanh", (0.0, 6.0)),
    nn.Hardswish: ("hardswish", ()),
}


def fuse_conv_bn(model: nn.Module) -> nn.Module:
    """Fold every BatchNorm that directly follows its convolution into it, in place; ``model`` must be in eval mode.

    A block with branches that fold into one, such as RepConv, does so in its method ``reparameterize()``.

    Pairs are known by construction only: the ``conv`` and ``bn`` of Conv and stem, and neighbours in an nn.Sequential,
    where the order of the children is the order of execution; and by its graph, where it can be traced, in a network by name
    and in blocks that are not the project's own. A BatchNorm anywhere else stays.
    """
    for module in [m for m in model.modules() if hasattr(m, "reparameterize")]:
        module.reparameterize()
    for module in list(model.modules()):
        if isinstance(module, Backbone):
            _fuse_traced(module.net)
        if isinstance(module, (Conv, stem)):
            _fuse_pair(module, "conv", "bn")
        elif is_foreign(type(module)):
            _fuse_traced(module)
        elif type(module) is nn.Sequential:
            names = list(module._modules)
            for first, second in zip(names, names[1:], strict=False):
                _fuse_pair(module, first, second)
    return model


def _fuse_pair(parent: nn.Module, conv_name: str, bn_name: str) -> None:
    conv, bn = parent._modules.get(conv_name), parent._modules.get(bn_name)
    if type(conv) is nn.Conv2d and type(bn) is nn.BatchNorm2d:
        parent._modules[conv_name] = fuse_conv_bn_eval(conv, bn)
        parent._modules[bn_name] = nn.Identity()


class _ConvolutionTracer(fx.Tracer):
    """Follows a network down to its convolutions and normalisations."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, (nn.Conv2d, nn.BatchNorm2d)) or super().is_leaf_module(module, name)


def _fuse_traced(network: nn.Module) -> None:
    """Fuse the pairs of a foreign network where nothing but the BatchNorm uses what the convolution gives."""
    try:
        graph = _ConvolutionTracer().trace(network)
    # A forward that depends on numbers can't be traced; it stays as it is, which is slower and computes the same.
    except Exception:
        return
    uses = [node.target for node in graph.nodes if node.op == "call_module"]
    for node in graph.nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if isinstance(source, fx.Node) and source.op == "call_module" and len(source.users) == 1:
            conv, bn = network.get_submodule(source.target), network.get_submodule(node.target)
            alone = uses.count(source.target) == uses.count(node.target) == 1
            if alone and isinstance(bn, nn.BatchNorm2d) and type(conv).__name__ in ("Conv2d", "Conv2dSame"):
                _replace(network, source.target, fuse_conv_bn_eval(conv, bn))
                _replace(network, node.target, _what_follows(bn))


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    """What nn.Module.set_submodule does from PyTorch 2.5 on."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


def _what_follows(bn: nn.BatchNorm2d) -> nn.Module:
    """The activation that timm's BatchNormAct2d holds; an Identity for a plain BatchNorm."""
    return bn.act if isinstance(getattr(bn, "act", None), nn.Module) else nn.Identity()


class SettledConv2d(nn.Conv2d):
    """A convolution whose weights no longer change and the activation ``act`` after it, in one pass of oneDNN on a CPU.

    The weights are kept a second time, in the layout that oneDNN asks for at the first image; else they would be brought into
    it for each. On other devices, where a gradient is wanted, and where the model is traced or compiled, it is the two one
    after the other.
    """

    def __init__(self, conv: nn.Conv2d, act: nn.Module):
        nn.Module.__init__(self)
        self.__dict__.update(conv.__dict__)
        # not those of the one that it stands for
        self._modules = {"act": act}
        self.geometry = conv.padding, conv.stride, conv.dilation, conv.groups
        self.within = WITHIN[type(act)]
        # by their type; no part of what the layer is, as threads that share it see
        self.laid_out: dict[torch.dtype, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self._in_one_pass(x):
            return self.act(super().forward(x))
        if (weight := self.laid_out.get(x.dtype)) is None:
            weight = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self.geometry, x.shape)
            self.laid_out[x.dtype] = weight
        return torch.ops.mkldnn._convolution_pointwise(x, weight, self.bias, *self.geometry, *self.within, "")

    def _in_one_pass(self, x: torch.Tensor) -> bool:
        return (
            not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype
        )

    def multiply_adds(self, x: torch.Tensor) -> int:
        """As thop counts those of a convolution."""
        return super().forward(x).numel() * self.weight[0].numel()

    def __getstate__(self) -> dict[str, Any]:
        # a layout can't be copied
        return self.__dict__ | {"laid_out": {}}


def settle(model: nn.Module) -> None:
    """Make the convolutions of a fused ``model`` SettledConv2d, in place, where it is on a CPU of x86 and has oneDNN.

    An activation goes with its convolution where it is known to follow: in Conv, stem and what is called as they are, and in
    an nn.Sequential.
    """
    if not (ONEDNN and all(p.device.type == "cpu" for p in model.parameters())):
        return
    for module in list(model.modules()):
        if is_called_as_conv(module) and isinstance(module.bn, nn.Identity):
            _settle_pair(module, "conv", "act")
        names = list(module._modules)
        for name, following in zip(names, [*names[1:], ""], strict=False):
            _settle_pair(module, name, following if type(module) is nn.Sequential else "")


def is_called_as_conv(module: nn.Module) -> bool:
    """Whether its conv, bn and act are known to follow each other: by the forward of Conv or of stem."""
    return getattr(module.forward, "__func__", None) in (Conv.forward, stem.forward)


def _settle_pair(parent: nn.Module, name: str, following: str) -> None:
    """``following``: the name of what comes after the convolution, or empty where that is not known."""
    conv, act = parent._modules[name], parent._modules.get(following)
    if type(conv) is not nn.Conv2d or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return
    joined = type(act) in WITHIN
    parent._modules[name] = SettledConv2d(conv, act if joined else nn.Identity())
    if joined:
        parent._modules[following] = nn.Identity()
