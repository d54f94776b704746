"""Which parameters of a model learn, and how its stochastic depth and dropout are set."""

from copy import deepcopy

import torch
from torch import nn

from models.yolo import DetectionModel
from utils.errors import UserError


def freeze_layers(model: DetectionModel, layers: list[int | str]) -> None:
    """Exclude layers from learning: [10] the first ten, [3, 5, 7] these three, [0] none, ["backbone"] its backbone.

    BatchNorm goes on counting. Raises UserError for a layer the model doesn't have.
    """
    count = len(model.model)
    said = f"--freeze {' '.join(map(str, layers))}"
    if layers == ["backbone"]:
        layers = [len(model.backbone)]
    if not all(isinstance(i, int) for i in layers):
        raise UserError(f"{said}: takes numbers of layers, or the word backbone alone")
    frozen = list(range(layers[0])) if len(layers) == 1 else layers
    if min([0, *layers, *frozen]) < 0 or max([0, *frozen]) >= count:
        raise UserError(f"{said}: {model.name} has layers 0 to {count - 1}")
    if len(set(frozen)) == count:
        raise UserError(f"{said}: that is all layers of {model.name}, and nothing would learn")
    for i in frozen:
        model.model[i].requires_grad_(False)


def idle_parameters(model: DetectionModel, imgsz: int) -> list[str]:
    """Names of the parameters that would learn, but that no gradient reaches: layers nothing uses, or a part of a block
    that its forward leaves out. Found by a step on a copy of the model, with two blank images."""
    copy = deepcopy(model).train()
    maps = copy(torch.zeros(2, model.yaml["ch"], imgsz, imgsz, device=next(model.parameters()).device))
    sum(m.sum() for m in maps).backward()
    return [name for name, p in copy.named_parameters() if p.requires_grad and p.grad is None]


def set_drop_path(model: torch.nn.Module, rate: float) -> None:
    """Let the stochastic depth of the blocks that have it grow linearly from 0 to ``rate`` with depth (1603.09382).

    A single such block gets the whole ``rate``. Knows ours, torchvision's (StochasticDepth) and timm's (drop_prob).
    Raises UserError where no block has it.
    """
    drops = [m for m in model.modules() if _drops_paths(m)]
    if not drops:
        raise UserError(f"--drop-path {rate}: no block of {model.name} has stochastic depth; leave the flag out")
    last = len(drops) - 1
    for i, drop in enumerate(drops):
        setattr(drop, _rate_of(drop), rate * i / last if last else rate)


class Drops:
    """The stochastic depth and dropout of a model, whose rates, as they are now, can be weakened together."""

    def __init__(self, model: nn.Module):
        drops = [m for m in model.modules() if _drops_paths(m) or isinstance(m, nn.modules.dropout._DropoutNd)]
        self.rates = [(drop, _rate_of(drop), getattr(drop, _rate_of(drop))) for drop in drops]

    def weaken(self, strength: float) -> None:
        """Set every rate to ``strength`` times what it was at first."""
        for drop, name, rate in self.rates:
            setattr(drop, name, rate * strength)


def _drops_paths(module: nn.Module) -> bool:
    return type(module).__name__ in ("DropPath", "StochasticDepth")


def _rate_of(drop: nn.Module) -> str:
    """What its rate is called: timm's has another name."""
    return "p" if hasattr(drop, "p") else "drop_prob"
