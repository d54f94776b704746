"""How large a model is and how much it computes."""

import copy
import warnings

import torch
from torch import nn

from utils.errors import UserError, shown


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Parameters in all, and those of them that are trained."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def count_layers(model: nn.Module) -> int:
    """Modules of every depth, containers included, as YOLOv5 counts them; Identity does nothing and isn't counted."""
    return sum(not isinstance(m, nn.Identity) for m in model.modules())


def count_gflops(model: nn.Module, size: int | tuple[int, int] = 640, channels: int = 3) -> float:
    """GFLOPs of one image of ``size`` (h, w): two per multiply-add as thop counts them.

    Computed on the meta device, where tensors have a shape and no content: exact at the asked size, and free.
    A model whose forward needs real numbers is measured on the CPU instead. Raises UserError where images of that size
    can't go through it.
    """
    height, width = (size, size) if isinstance(size, int) else size
    for device in ("meta", "cpu"):
        try:
            image = torch.empty(1, channels, height, width, dtype=torch.float32, device=device)
            return _multiply_adds(model, image) * 2 / 1e9
        # whatever a layer raises for maps of a size that it was not made for, such as a pool larger than its map
        except Exception as e:
            if device == "cpu":
                said = shown(" ".join(f"{type(e).__name__}: {e}".split()))
                raise UserError(f"images of {height}×{width} pixels can't go through this model: {said}") from e
    raise AssertionError("unreachable")


def _multiply_adds(model: nn.Module, image: torch.Tensor) -> float:
    with warnings.catch_warnings():  # thop imports distutils, which warns on Python 3.11
        warnings.simplefilter("ignore")
        from thop import profile
    clone = copy.deepcopy(model).to(image.device).float().eval()
    rules = {type(m): _count_by_its_own_rule for m in clone.modules() if hasattr(m, "multiply_adds")}
    rules[nn.MultiheadAttention] = _count_attention
    return profile(clone, inputs=(image,), custom_ops=rules, verbose=False)[0]


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
