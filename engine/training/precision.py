"""The precision of the forward pass in training: --amp.

choose_precision(options.amp, …)    auto, fastest, off, fp16 or bf16 → off, fp16 or bf16
mixed(device, precision)            the context of a forward pass
mixed_fault(model, …)               what speaks against it on this device, found by a trial
"""

from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy

import torch
from torch import nn

from utils.data.images import letterbox, read_image, stack_images, to_float
from utils.device import computes_bf16, describe_device, keeping_random_state
from utils.distributed import World
from utils.errors import UserError
from utils.paths import ROOT

DTYPES = {"off": None, "fp16": torch.float16, "bf16": torch.bfloat16}
# of a trial: the difference to float32, by its own size, that is more than rounding. Rounding makes 0.1 in float16.
MOST_APART = 0.5


def mixed(device: torch.device, precision: str) -> AbstractContextManager:
    """Within it layers compute in ``precision``, a name of DTYPES. Nothing is entered where that is off: not every device
    of every PyTorch has such a context."""
    dtype = DTYPES[precision]
    return nullcontext() if dtype is None else torch.amp.autocast(device.type, dtype=dtype)


def choose_precision(asked: str, model: nn.Module, imgsz: int, world: World, before: str = "") -> str:
    """--amp → a name of DTYPES. ``before``: what a resumed run computed in, see ``precision_as_saved``.

    Of auto: float16 on CUDA, unless a trial finds fault with it in any of the processes, and off elsewhere. Of fastest: the
    same, but bfloat16 on processors that have it in all of the processes. Raises UserError for a precision that the device
    doesn't have.
    """
    device = world.device
    if asked not in ("auto", "fastest"):
        if asked != "off" and device.type not in ("cuda", "cpu"):
            raise UserError(f"--amp {asked}: mixed precision is for CUDA and the CPU; on {device.type} leave it out")
        if asked == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise UserError(f"--amp bf16: {describe_device(device)} has no bfloat16; take --amp fp16")
        return asked
    kind, _, name = before.partition(" ")
    if kind == device.type and name in DTYPES:
        return name
    if device.type == "cpu" and asked == "fastest":
        return "off" if world.any(not computes_bf16()) else "bf16"
    if device.type == "cpu" and computes_bf16():
        print("note: this processor computes in bfloat16: --amp bf16 trains faster, in lower precision")
    if device.type != "cuda":
        return "off"
    fault = mixed_fault(model, imgsz, device, "fp16")
    if world.any(bool(fault)):
        print(f"--amp {asked}: mixed precision is off: {fault or 'another process found fault with it'}")
        return "off"
    return "fp16"


def precision_as_saved(device: torch.device, precision: str) -> str:
    """What a checkpoint says of the precision: «cuda fp16»."""
    return f"{device.type} {precision}"


def mixed_fault(model: nn.Module, imgsz: int, device: torch.device, precision: str) -> str:
    """What is wrong with a step in ``precision`` on a picture of ``imgsz`` pixels, against one in float32, or "".

    Some GPUs compute nonsense in float16. It is done on a copy of ``model``, and what is drawn later stays the same.
    """
    file = sorted((ROOT / "data" / "images").glob("*.jpg"))[0]
    image = letterbox(read_image(file), (imgsz, imgsz), auto=False)[0]
    images = to_float(stack_images([image, image[:, ::-1].copy()]), device)
    expected, _ = _trial(model, images, device, "off")
    found, gradients = _trial(model, images, device, precision)
    if not (found.isfinite().all() and gradients.isfinite()):
        return f"{precision} gives values here that are no numbers"
    apart = float((found - expected).norm() / expected.norm())
    return f"{precision} is {apart:.0%} off float32 here" if apart > MOST_APART else ""


def _trial(
    model: nn.Module, images: torch.Tensor, device: torch.device, precision: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """The maps of a copy of ``model`` in training, flat, in float32, and the sum of its gradients."""
    copy = deepcopy(model).train()
    with keeping_random_state(device):
        torch.manual_seed(0)
        with mixed(device, precision):
            maps = copy(images)
        found = torch.cat([m.float().flatten() for m in maps])
        found.square().mean().backward()
    gradients = [p.grad.sum() for p in copy.parameters() if p.grad is not None]
    return found.detach(), torch.stack(gradients).sum()
