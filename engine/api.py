"""Detectors in a Python program, as torch.hub gives them (hubconf.py): ``results = model("image.jpg")``.

AutoShape(model)     pictures of every kind → letterboxed batch → model → NMS → Detections (engine/results.py)
load_hub_model       checkpoint, or YAML by name → AutoShape or the bare model
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.detector import load_detector
from engine.export.formats.table import is_exported
from engine.export.runtime import find_boxes, fixed_size
from engine.results import Detections
from models.load import detector_from, load_backbone, transfer_weights
from models.yolo import DetectionModel
from utils.boxes import scale_boxes
from utils.checkpoint import read_checkpoint
from utils.data.images import ImageError, letterbox, read_image, to_uint8
from utils.device import select_device, synchronize
from utils.download import is_url
from utils.errors import UserError
from utils.sources.sources import fetch


class AutoShape(nn.Module):
    """A detector, ready for inference, for pictures as they come: ``model(images, size=640)`` gives Detections.

    ``images``: a path, a URL, an array [h, w, 3] RGB (or [3, h, w], or grey [h, w]; turn OpenCV's pictures round with
    ``[..., ::-1]``), a PIL image, or a list of these, of any sizes. A tensor [b, 3, h, w] with values 0..1 goes through
    the model as it is and returns what the model returns.

    The settings are attributes: ``conf`` and ``iou`` thresholds, ``classes`` (None or a list), ``agnostic``,
    ``multi_label``, ``max_det``; ``names`` {index: name} and ``stride`` are the model's.
    """

    conf = 0.25
    iou = 0.45
    agnostic = False
    multi_label = False
    classes: list[int] | None = None
    max_det = 1000

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.names = model.names
        self.stride = model.stride

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @torch.no_grad()  # not inference_mode, whose tensors refuse to be changed by the caller
    def forward(self, ims: Any, size: int | tuple[int, int] = 640, augment: bool = False) -> "Detections | Any":
        """Detect in one or several pictures; ``size`` is that of the longer side, in pixels, or (height, width)."""
        precision = next((p.dtype for p in self.parameters()), torch.float32)
        if isinstance(ims, torch.Tensor):
            return self.model(ims.to(self.device, precision), augment=augment)
        for setting in ("conf", "iou"):
            if not 0 <= getattr(self, setting) <= 1:
                raise UserError(f"model.{setting} = {getattr(self, setting)}: must lie between 0 and 1")
        device, times = self.device, [time.perf_counter()]
        images, files = read_images(ims)
        boxed, ratios, pads = stack_letterboxed(images, size, int(self.stride.max()), fixed_size(self.model))
        batch = torch.from_numpy(boxed).to(device).permute(0, 3, 1, 2).to(precision) / 255
        times.append(_now(device))
        predictions = self.model(batch, augment=augment)[0]
        times.append(_now(device))
        thresholds = {"conf_thres": self.conf, "iou_thres": self.iou, "max_det": self.max_det}
        choice = {"classes": self.classes, "agnostic": self.agnostic, "multi_label": self.multi_label}
        found = find_boxes(self.model, predictions.float(), **thresholds, **choice)
        for boxes, ratio, pad, image in zip(found, ratios, pads, images, strict=True):
            boxes[:, :4] = scale_boxes(boxes[:, :4], ratio, pad, image.shape[:2])
        times.append(_now(device))
        return Detections(images, found, files, self.names, tuple(np.diff(times) * 1e3), tuple(batch.shape))


def _now(device: torch.device) -> float:
    synchronize(device)
    return time.perf_counter()


def read_images(ims: Any) -> tuple[list[np.ndarray], list[str]]:
    """One or several pictures of any kind → arrays uint8 [h, w, 3] RGB, and a file name for each.

    Raises UserError that names what can't be read.
    """
    ims = list(ims) if isinstance(ims, (list, tuple)) else [ims]
    if not ims:
        raise UserError("model(images): the list of images is empty")
    images, files = [], []
    for i, im in enumerate(ims):
        name = f"image{i}.jpg"
        if isinstance(im, (str, Path)):
            image, name = _read_file(str(im))
        elif isinstance(im, np.ndarray):
            image = _as_rgb(im, i)
        elif hasattr(im, "convert"):  # PIL, which need not be installed for the other kinds
            from PIL import ImageOps

            image = np.asarray(ImageOps.exif_transpose(im).convert("RGB"))
            name = Path(getattr(im, "filename", "") or name).with_suffix(".jpg").name
        else:
            raise UserError(
                f"model(images): image {i} is of type {type(im).__name__}; give a path, URL, array or PIL image"
            )
        images.append(np.ascontiguousarray(image))
        files.append(name)
    return images, files


def _read_file(path: str) -> tuple[np.ndarray, str]:
    try:
        if not is_url(path):
            return read_image(path), Path(path).with_suffix(".jpg").name
        with tempfile.TemporaryDirectory() as folder:
            file = fetch(path, folder)
            return read_image(file), file.with_suffix(".jpg").name
    except ImageError as e:
        raise UserError(f"{path}: {e}") from None


def _as_rgb(array: np.ndarray, i: int) -> np.ndarray:
    """An array of a picture in one of the usual layouts → uint8 [h, w, 3]."""
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise UserError(f"model(images): image {i} has the shape {array.shape}; [h, w, 3] was expected, RGB")
    channels = array[..., [0, 0, 0]] if array.shape[2] == 1 else array[..., :3]
    return to_uint8(channels)


def stack_letterboxed(
    images: list[np.ndarray], size: int | tuple[int, int], stride: int, fixed: tuple[int, int] | None = None
) -> tuple[np.ndarray, list[tuple[float, float]], list[tuple[float, float]]]:
    """Letterbox pictures to the least common shape: their longer sides at ``size``, rounded up to the stride;
    or to the ``fixed`` (height, width) of an exported file.

    Returns the batch uint8 [b, h, w, 3], and ratios and paddings as of letterbox.
    """
    longest = max(size) if isinstance(size, (tuple, list)) else size
    if longest < 1:
        raise UserError(f"model(images, size={size}): the size is a number of pixels")
    scaled = np.array([np.array(image.shape[:2]) * longest / max(image.shape[:2]) for image in images])
    shape = np.ceil(scaled.max(0).round(6) / stride).astype(int) * stride
    shape = np.array(fixed) if fixed else shape
    boxed, ratios, pads = zip(*(letterbox(image, tuple(shape.tolist()), auto=False) for image in images), strict=True)
    return np.stack(boxed), list(ratios), list(pads)


def load_hub_model(
    weights: str | Path,
    pretrained: bool = True,
    channels: int = 3,
    classes: int | None = None,
    autoshape: bool = True,
    device: str | torch.device | None = None,
) -> nn.Module:
    """The detector of a checkpoint (fetched, where its name is official) or exported file, or of the YAML ``weights`` names.

    ``pretrained`` off: the model of the YAML with the checkpoint's name, with initial weights. ``classes`` and
    ``channels`` other than the checkpoint's: a new model with all weights that fit. ``autoshape`` off: the bare
    DetectionModel, not fused, to train on or to take apart.
    """
    weights = Path(weights)
    place = device if isinstance(device, torch.device) else select_device(device or "")
    if is_exported(weights):
        if not (autoshape and pretrained) or classes is not None or channels != 3:
            raise UserError(
                f"{weights}: an exported file runs as it is; for other classes or channels load its checkpoint"
            )
        return AutoShape(load_detector(weights, place))
    if weights.suffix in {".yaml", ".yml"} or not pretrained:
        model = DetectionModel(str(weights.with_suffix(".yaml")), ch=channels, nc=classes)
    elif autoshape and classes is None and channels == 3:
        return AutoShape(load_detector(weights, place)).to(place)
    else:
        checkpoint = read_checkpoint(weights)
        model = detector_from(checkpoint)
        if (classes or model.nc, channels) != (model.nc, model.yaml["ch"]):
            model = DetectionModel(checkpoint.yaml | {"yaml_file": str(weights)}, ch=channels, nc=classes)
            print(transfer_weights(model, checkpoint))
    return _placed(model, place, autoshape)


def load_hub_backbone(
    name: str,
    cfg: str = "yolov5s.yaml",
    weights: str = "",
    classes: int = 80,
    autoshape: bool = True,
    device: str | torch.device | None = None,
) -> nn.Module:
    """A network of torchvision or timm as the backbone of ``cfg``, the rest with initial weights.

    ``weights`` of the backbone: "imagenet" (downloaded once), a file, or none. Raises UserError for an unknown name.
    """
    place = device if isinstance(device, torch.device) else select_device(device or "")
    model = DetectionModel(cfg, nc=classes, backbone=name)
    if weights:
        print(load_backbone(model, weights))
    return _placed(model, place, autoshape)


def _placed(model: DetectionModel, place: torch.device, autoshape: bool) -> nn.Module:
    model = model.to(place, memory_format=torch.channels_last)
    return AutoShape(model.fuse()) if autoshape else model
