"""AutoShape: a detector as a function of pictures, as torch.hub gives it (hubconf.py): ``results = model("image.jpg")``."""

import time
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.detection.pictures import read_images, stack_letterboxed
from engine.detection.results import Detections
from engine.export.runtime import find_boxes, fixed_size
from utils.boxes import scale_boxes
from utils.device import synchronize
from utils.errors import UserError


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
