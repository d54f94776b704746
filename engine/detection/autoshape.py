"""AutoShape: a detector as a function of pictures, as torch.hub gives it (hubconf.py): ``results = model("image.jpg")``."""

from typing import Any

import torch
from torch import nn

from engine.detection.backend import DetectMultiBackend
from engine.detection.detector import Detector
from engine.detection.pictures import common_shape, read_images
from engine.detection.pipeline import PRE_PROCESS, Pipeline, Thresholds
from engine.detection.results import Detections
from utils.errors import UserError


class AutoShape(nn.Module):
    """A detector, ready for inference, for pictures as they come: ``model(images, size=640)`` gives Detections.

    ``images``: a path, a URL, an array [h, w, 3] RGB (or [3, h, w], or grey [h, w]; turn OpenCV's pictures round with
    ``[..., ::-1]``), a PIL image, or a list of these, of any sizes. A tensor [b, 3, h, w] with values 0..1 goes through
    the model as it is, and gives predictions [b, n, nc + 5] and raw maps.

    The settings are attributes: ``conf`` and ``iou`` thresholds, ``classes`` (None or a list), ``agnostic``,
    ``multi_label``, ``max_det``, ``amp`` (mixed precision on a GPU); ``names`` {index: name} and ``stride`` are the model's.
    ``model`` is a DetectMultiBackend, and ``model.model`` what it holds.
    """

    conf = 0.25
    iou = 0.45
    agnostic = False
    multi_label = False
    classes: list[int] | None = None
    max_det = 1000
    amp = False

    def __init__(self, model: Detector | DetectMultiBackend, verbose: bool = True):
        super().__init__()
        self.model = model if isinstance(model, DetectMultiBackend) else DetectMultiBackend.around(model)
        self.dmb = True
        self.names, self.stride = self.model.names, self.model.stride
        self.pt, self.fp16 = self.model.pt, self.model.fp16

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @torch.no_grad()  # not inference_mode, whose tensors refuse to be changed by the caller
    def forward(
        self, ims: Any, size: int | tuple[int, int] = 640, augment: bool = False, profile: bool = False
    ) -> "Detections | Any":
        """Detect in one or several pictures; ``size`` is that of the longer side, in pixels, or (height, width).

        The times are always taken, whether or not ``profile`` asks for them.
        """
        precision = next((p.dtype for p in self.parameters()), torch.float32)
        mixed = torch.autocast(self.device.type, enabled=self.amp and self.device.type == "cuda")
        if isinstance(ims, torch.Tensor):
            with mixed:
                return self.model(ims.to(self.device, precision), augment=augment)
        for setting in ("conf", "iou"):
            if not 0 <= getattr(self, setting) <= 1:
                raise UserError(f"model.{setting} = {getattr(self, setting)}: must lie between 0 and 1")
        thresholds = Thresholds(self.conf, self.iou, self.max_det, self.classes, self.agnostic, self.multi_label)
        detector = self.model.model
        pipeline = Pipeline(detector, self.device, thresholds, augment, precision)
        with pipeline.clock.stage(PRE_PROCESS):
            images, files = read_images(ims)
        shape = common_shape(images, size, pipeline.stride)
        batch = pipeline.prepare(images, detector.fixed_size or shape)
        with mixed:
            found, _ = pipeline.detect(batch)
        times = tuple(pipeline.clock.seconds * 1e3)
        return Detections(images, found, files, self.names, times, tuple(batch.images.shape))


# what slicing and tracking clients ask for
AutoShape.__module__ = "models.common"
