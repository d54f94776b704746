"""An exported file against PyTorch, on the pictures of data/images."""

from dataclasses import replace
from pathlib import Path

import torch

from engine.export.formats.table import is_exported
from engine.export.runtime import Runtime
from engine.export.settings import Settings
from models.load import detector_from
from models.yolo import DetectionModel
from utils.checkpoint import read_checkpoint
from utils.data.images import letterbox, read_image, stack_images, to_float
from utils.device import full_precision
from utils.errors import UserError
from utils.paths import ROOT


@full_precision()
@torch.inference_mode()
def compare(model: DetectionModel, file: Path, settings: Settings) -> tuple[float, float]:
    """Worst absolute differences of a file's boxes (pixels) and scores to PyTorch's, on pictures of data/images.

    Files of any size are tried at another one than they were traced at.
    """
    if settings.dynamic:
        stride = int(model.stride.max())
        settings = replace(settings, imgsz=(settings.imgsz[0] + stride, settings.imgsz[1]))
    images = example_pictures(settings) if model.yaml["ch"] == 3 else settings.images(model)
    expected = settings.without_half().graph(model)(images).cpu()
    written = Runtime(file, settings.device, trust=True) if is_exported(file) else _read_back(file, settings.device)
    found = written(images)[0].cpu()
    if found.shape != expected.shape:
        raise UserError(f"it gives {list(found.shape)}, PyTorch {list(expected.shape)}")
    if settings.nms:
        found, expected = paired(found, expected)
    difference = (found - expected).abs()
    return float(difference[..., :4].max()), float(difference[..., 4:].max())


def _read_back(file: Path, device: torch.device) -> DetectionModel:
    """The detector of a checkpoint that was written."""
    return detector_from(read_checkpoint(file)).fuse().to(device)


def paired(found: torch.Tensor, expected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each detection [b, m, 6] of ``found`` beside the nearest of its class: two of almost equal confidence may have
    changed places."""
    apart = (found[:, :, None, :4] - expected[:, None, :, :4]).abs().amax(3)
    apart += (found[:, :, None, 5] != expected[:, None, :, 5]) * 1e6
    nearest = apart.argmin(2, keepdim=True)
    return found, expected.gather(1, nearest.expand(-1, -1, 6))


def example_pictures(settings: Settings) -> torch.Tensor:
    """A batch of the pictures that come with the project."""
    files = sorted((ROOT / "data" / "images").glob("*.jpg"))
    boxed = [letterbox(read_image(file), settings.imgsz, auto=False)[0] for file in files[: settings.batch]]
    boxed += boxed[:1] * (settings.batch - len(boxed))
    # contiguous as the noise that was traced, so that PyTorch takes the same convolutions
    return to_float(stack_images(boxed).contiguous(), settings.device)
