"""--compile: the layers of a detector turned into code of their own by torch.compile.

compile_layers(model)              in place: its tensors keep their names; code is made when it is called
compile_detector(detector, …)      for inference, at any size and number of images; says what it took
compile_errors()                   around calls: what goes wrong in making code becomes one line

On a CPU the code is C++, made by the compiler that is installed; on CUDA it is Triton's, which takes one as well.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.detection.detector import Detector, Ensemble
from models.yolo import DetectionModel
from utils.data.images import stack_images, to_float
from utils.errors import UserError, shown

COMPILERS = ("g++", "clang++", "c++", "cl")
# modules whose errors are of making code, and not of what is computed
MAKERS = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")


def compile_layers(model: nn.Module, **how: Any) -> None:
    """Let ``model`` compile itself, in place, when it is called; ``how``: see torch.compile.

    Raises UserError where there is no C++ compiler.
    """
    known = [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS
    if not any(map(shutil.which, known)):
        raise UserError(
            f"--compile: needs a C++ compiler, and there is none ({', '.join(known)}); install one, such as "
            "build-essential on Debian and Ubuntu, or leave --compile out"
        )
    model.compile(**how)


def compile_detector(detector: Detector, device: torch.device, batch: int, imgsz: int) -> None:
    """Compile a checkpoint's model, or those of an ensemble, for images of any number and size, best for ``batch`` of about
    ``imgsz`` pixels. Raises UserError for an exported file."""
    if not isinstance(detector, DetectionModel | Ensemble):
        raise UserError("--compile: is for checkpoints (.pt); an exported file has been compiled by its own runtime")
    members = detector.members if isinstance(detector, Ensemble) else [detector]
    for member in members:
        compile_layers(member, dynamic=True)
    # sides that differ, and more than one image: else the code would be for squares, or for one image, alone
    stride = int(detector.stride.max())
    blank = np.zeros((imgsz, max(imgsz - stride, stride), members[0].yaml["ch"]), np.uint8)
    images = to_float(stack_images([blank] * max(batch, 2)), device)
    started = time.monotonic()
    with compile_errors(), torch.inference_mode():
        detector(images)
    print(f"--compile: took {time.monotonic() - started:.0f} s")


def any_number(images: torch.Tensor) -> None:
    """Have code made that serves a batch [b, ch, h, w] of any b: the last one of an epoch may be smaller."""
    torch._dynamo.maybe_mark_dynamic(images, 0)


@contextmanager
def compile_errors() -> Iterator[None]:
    """Raises UserError where code can't be made."""
    try:
        yield
    except Exception as e:
        if not type(e).__module__.startswith(MAKERS):
            raise
        lines = [line.strip() for line in str(e).splitlines() if line.strip()]
        why = next((line for line in lines if "raised:" not in line), type(e).__name__)
        raise UserError(
            f"--compile: no code can be made of this model here: {shown(why, 300)}; leave --compile out"
        ) from None
