"""How far each level of a detector sees: effective receptive fields (Luo et al., arXiv:1701.04128).

effective_fields(model, size, device) → [Field], one for each map that enters the head
report_fields(model, size, device, file)   the same as text and as a picture
"""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from utils.errors import UserError, shown
from utils.files import free_path
from utils.plots.fields import plot_fields

IMAGES = 4  # of noise, that a field is the mean of
SHARES = (0.5, 0.95)
SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Field:
    """What the unit in the middle of a level's map depends on: ``weight`` [size, size] of each pixel, of the sum 1.

    ``center`` (x, y) is its centre of mass, in pixels, and ``sides`` the sides in pixels of the squares around it that hold
    each of SHARES of it.
    """

    stride: float
    weight: np.ndarray
    center: tuple[float, float]
    sides: tuple[float, ...]


def effective_fields(model: nn.Module, size: int, device: torch.device, images: int = IMAGES) -> list[Field]:
    """The field of each level of a detector for square images of ``size``, finest first as the head takes them.

    The weight of a pixel is the absolute gradient there, summed over its colours, of the middle unit of the map, summed over
    its channels, as a mean over images of noise. ``model`` is left as it is; in its copy BatchNorm first learns the statistics
    of such images, as in a training, without which the layers of a fresh model barely bend. The noise is always the same.
    """
    model = deepcopy(model).requires_grad_(False).to(device).eval()
    shape = (images, model.yaml["ch"], size, size)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)
    _learn_statistics(model, noise)
    entering: list[torch.Tensor] = []
    model.detect.register_forward_pre_hook(lambda _, inputs: entering.extend(inputs[0]))
    weights = [torch.zeros(size, size) for _ in model.stride]
    for image in noise:
        pixels = image[None].requires_grad_()
        entering.clear()
        with torch.enable_grad():
            model(pixels)
            for weight, x in zip(weights, entering, strict=True):
                middle = x[0, :, x.shape[2] // 2, x.shape[3] // 2].sum()
                weight += torch.autograd.grad(middle, pixels, retain_graph=True)[0][0].abs().sum(0).cpu()
    return [
        _field(stride, weight.double().numpy()) for stride, weight in zip(model.stride.tolist(), weights, strict=True)
    ]


def _learn_statistics(model: nn.Module, images: torch.Tensor) -> None:
    """Let each BatchNorm of ``model`` take the mean and variance of what it is given for these images, and keep to them."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.track_running_stats]
    for norm in norms:
        norm.reset_running_stats()
        # the plain mean of all batches, of which there is one
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        model(images)
    model.eval()


def _field(stride: float, weight: np.ndarray) -> Field:
    weight = weight / weight.sum() if weight.sum() > 0 else np.full(weight.shape, 1 / weight.size)
    rows, columns = np.indices(weight.shape) + 0.5
    x, y = float((weight * columns).sum()), float((weight * rows).sum())
    # half the side of the smallest square around the centre that holds the whole pixel
    half = np.maximum(abs(columns - x), abs(rows - y)) + 0.5
    order = half.ravel().argsort(kind="stable")
    held = weight.ravel()[order].cumsum()
    ends = np.minimum(np.searchsorted(held, np.array(SHARES) - 1e-9), weight.size - 1)
    return Field(stride, weight, (x, y), tuple(2 * float(half.ravel()[order[end]]) for end in ends))


def report_fields(model: nn.Module, size: int, device: torch.device, file: str) -> str:
    """Draw the fields to ``file``, or a numbered name where that is taken, and say their sides.

    Raises UserError where the file's name is none of a picture.
    """
    path = Path(file)
    if path.suffix.lower() not in SUFFIXES or not path.stem:
        raise UserError(f"--erf {shown(file)}: name a picture to write, such as erf.png")
    fields = effective_fields(model, size, device)
    lines = [f"effective receptive fields at {size} px, sides of the squares that hold 50 % and 95 % of the gradient:"]
    for field in fields:
        half, most = field.sides
        lines.append(f"  stride {field.stride:>3g}: {half:>4.0f} px and {most:>4.0f} px")
    if max(max(field.sides) for field in fields) > 0.8 * size:
        lines.append("note: the edge of the image cuts the largest off; a larger --imgsz shows all of it")
    drawn = [(field.stride, field.weight, field.center, field.sides) for field in fields]
    return "\n".join([*lines, f"drawn in {plot_fields(drawn, SHARES, free_path(path))}"])
