"""Any network by name as a detector's backbone: layer 0, which gives one map per level of the pyramid.

create_backbone("efficientnet_b0", levels=["P3", "P4", "P5"])
    resolve_name    efficientnet_b0 → torchvision/efficientnet_b0
    describe        which levels the network has, their channels, strides and layout (networks.py)
    Backbone        normalises the image, runs the network without its classifier, gives {level: map}
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from models.backbones.networks import Network, build_network, describe
from utils.errors import UserError


class Backbone(nn.Module):
    """A network as a detector's first layer: images [b, 3, h, w], 0..1 → {level: map [b, c, h/stride, w/stride]}.

    ``name``, ``levels`` {level: Level}, finest first, ``default`` the level that a row with `from` -1 gets; ``mean`` and
    ``std`` of the input that the network expects, part of the model and of what is exported from it.
    """

    i, f = 0, -1  # its place in a detector

    def __init__(self, network: Network, levels: Sequence[str], mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.name = network.name
        self.levels = {name: level for name, level in network.levels.items() if name in levels}
        self.default = network.default if network.default in self.levels else list(self.levels)[-1]
        self.net = build_network(network.name, self.levels)
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1), persistent=False)  # the YAML is where these are kept
        self.register_buffer("std", torch.ones(1, 3, 1, 1), persistent=False)
        self.normalize(mean, std)

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self.net.train(self.training)  # copies of what torchvision's feature extraction makes begin in training mode

    @property
    def channels(self) -> dict[str, int]:
        return {name: level.channels for name, level in self.levels.items()}

    @property
    def strides(self) -> dict[str, int]:
        return {name: level.stride for name, level in self.levels.items()}

    def normalize(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Expect inputs of this mean and standard deviation per channel."""
        self.normalization = {"mean": [float(v) for v in mean], "std": [float(v) for v in std]}
        for name, values in self.normalization.items():
            getattr(self, name).copy_(torch.tensor(values).view(1, 3, 1, 1))

    def description(self) -> dict:
        """The keys of a model YAML that stand for it."""
        return {"backbone": self.name, "normalize": {k: list(v) for k, v in self.normalization.items()}}

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.net((image - self.mean) / self.std)
        maps = maps.values() if isinstance(maps, dict) else maps
        height, width = image.shape[2:]
        return {
            name: to_nchw(x, level.layout, height // level.stride, width // level.stride)
            for (name, level), x in zip(self.levels.items(), maps, strict=True)
        }

    def multiply_adds(self, image: torch.Tensor) -> float:
        """Of all convolutions and matrix products for one image, those of attention among them."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.net(image)
        return counter.get_total_flops() / 2


def split_levels(layer: nn.Module, x: Any) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """{level: map} of what a detector's first layer gave, and the map for a row with `from` -1.

    A row that is a whole network has ``map_names``, the levels of the maps that it gives; any other layer has none.
    """
    if isinstance(layer, Backbone):
        return x, x[layer.default]
    names = getattr(layer, "map_names", None)
    return (dict(zip(names, x, strict=True)), x[-1]) if names else ({}, x)


def create_backbone(
    name: str,
    pretrained: bool | str = False,
    levels: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Backbone:
    """The network ``name`` without its classifier: ``efficientnet_b0``, ``torchvision/resnet50``, ``timm/…``.

    ``pretrained``: True or "imagenet" for the library's weights, or a file of weights. ``levels``: those it shall give,
    such as ["P3", "P4", "P5"]; by default all from P2 on. ``mean``, ``std``: of the input, where they are other than those
    of the library's weights. Raises UserError for unknown names, levels that the network lacks and networks without a pyramid.
    """
    network = describe(name)
    levels = [k for k in network.levels if k != "P1"] if levels is None else list(levels)
    for level in levels:
        if level not in network.levels:
            raise UserError(f"{name}: has no level {level}; {network}")
    backbone = Backbone(network, levels, mean or network.mean, std or network.std)
    if pretrained:
        from models.backbones.pretrained import load_pretrained

        print(load_pretrained(backbone, "imagenet" if pretrained is True else pretrained))
    return backbone


def to_nchw(x: torch.Tensor, layout: str, height: int, width: int) -> torch.Tensor:
    if layout == "NHWC":
        return x.permute(0, 3, 1, 2)
    if layout == "tokens":
        return x.transpose(1, 2).unflatten(2, (height, width))
    return x
