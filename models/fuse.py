"""Folding what only training needs: BatchNorm into the convolution before it, parallel branches into one convolution."""

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.backbones.backbone import Backbone
from models.common import Conv, stem
from models.pasted import is_foreign


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
