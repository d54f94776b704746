"""How large a model is and how much it computes."""

import copy
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from utils.errors import UserError, shown

T = TypeVar("T")


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Parameters in all, and those of them that are trained."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def count_layers(model: nn.Module) -> int:
    """Modules of every depth, containers included, as YOLOv5 counts them; Identity does nothing and isn't counted."""
    return sum(not isinstance(m, nn.Identity) for m in model.modules())


def count_gflops(model: nn.Module, size: int | tuple[int, int] = 640, channels: int = 3) -> float:
    """GFLOPs of one image of ``size`` (h, w): two per multiply-add as thop counts them.

    Raises UserError where images of that size can't go through the model.
    """
    return _measured(_multiply_adds, model, size, channels) * 2 / 1e9


def layer_shapes(
    model: nn.Module, size: int | tuple[int, int] = 640, channels: int = 3
) -> list[tuple[int, int, int] | None]:
    """(channels, height, width) of what every layer of a detector gives for an image of ``size`` (h, w); of the head, None.

    Of a backbone by name, its default level. Raises UserError where images of that size can't go through the model.
    """
    return _measured(_trace_layers, model, size, channels)


def _measured(
    measure: Callable[[nn.Module, torch.Tensor], T], model: nn.Module, size: int | tuple[int, int], channels: int
) -> T:
    """What ``measure`` tells of a copy of the model and an image [1, channels, h, w].

    That is on the meta device, where tensors have a shape and no content: exact at the asked size, and free. A model whose
    forward needs real numbers is measured on the CPU instead.
    """
    height, width = (size, size) if isinstance(size, int) else size
    for device in ("meta", "cpu"):
        try:
            image = torch.empty(1, channels, height, width, dtype=torch.float32, device=device)
            return measure(copy.deepcopy(model).to(device).float().eval(), image)
        # whatever a layer raises for maps of a size that it was not made for, such as a pool larger than its map
        except Exception as e:
            if device == "cpu":
                said = shown(" ".join(f"{type(e).__name__}: {e}".split()))
                raise UserError(f"images of {height}×{width} pixels can't go through this model: {said}") from e
    raise AssertionError("unreachable")


def _trace_layers(model: nn.Module, image: torch.Tensor) -> list[tuple[int, int, int] | None]:
    shapes = []

    def note(layer: nn.Module, _: tuple, output: torch.Tensor | dict | tuple) -> None:
        output = output[layer.default] if isinstance(output, dict) else output
        # of a first row that is a network, its coarsest map
        output = output[-1] if hasattr(layer, "map_names") else output
        shapes.append(tuple(output.shape[1:]) if isinstance(output, torch.Tensor) else None)

    for layer in model.model:
        layer.register_forward_hook(note)
    with torch.no_grad():
        model(image)
    return shapes


def _multiply_adds(model: nn.Module, image: torch.Tensor) -> float:
    with warnings.catch_warnings():  # thop imports distutils, which warns on Python 3.11
        warnings.simplefilter("ignore")
        from thop import profile
    rules = {type(m): _count_by_its_own_rule for m in model.modules() if hasattr(m, "multiply_adds")}
    rules[nn.MultiheadAttention] = _count_attention
    return profile(model, inputs=(image,), custom_ops=rules, verbose=False)[0]


def _count_by_its_own_rule(module: nn.Module, inputs: tuple, _) -> None:
    """Multiply-adds of a block without layers that thop knows, such as products of maps: its method ``multiply_adds(*inputs)``
    tells them, and stands for all that is inside the block."""
    module.total_ops += module.multiply_adds(*inputs)


def _count_attention(module: nn.MultiheadAttention, inputs: tuple, _) -> None:
    """Multiply-adds of attention, which thop doesn't know: the four projections, q·kᵀ, and the weighted sum of v."""
    query, key = inputs[0], inputs[1]
    length, batch, width = query.shape if not module.batch_first else query.transpose(0, 1).shape
    others = key.shape[1 if module.batch_first else 0]
    projections = 2 * length * width**2 + others * width * (module.kdim + module.vdim)
    module.total_ops += batch * (projections + 2 * length * others * width)
