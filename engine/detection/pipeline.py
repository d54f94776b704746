"""From images to boxes, the only way: validation, detect.py and torch.hub's AutoShape go it.

Pipeline(detector, device, thresholds)
    prepare    images uint8 [h, w, 3] → letterboxed, one batch uint8 [b, 3, h, w]
    detect     batch → device, 0..1 → detector → suppression → boxes in the pixels of the images as they were
    clock      what the three stages took
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from engine.detection.detector import Detector
from utils.boxes import scale_boxes
from utils.data.images import letterbox, stack_images, to_float
from utils.data.loader import Batch
from utils.device import now, synchronize

PRE_PROCESS, INFERENCE, NMS = range(3)  # the stages of a clock
WARM_UP = 2  # calls before the clock starts


@dataclass(frozen=True)
class Thresholds:
    """Which boxes stay; see non_max_suppression in utils/boxes.py."""

    conf_thres: float = 0.25
    iou_thres: float = 0.45
    max_det: int = 1000
    classes: Sequence[int] | None = None
    agnostic: bool = False
    multi_label: bool = False


EVERYDAY = Thresholds()
VALIDATION = Thresholds(0.001, 0.6, 300, multi_label=True)  # all that could count for the average precision


class Letterboxed(NamedTuple):
    """A batch for inference. ``natives`` (h, w) are the images' own sizes; ratios and pads (x, y) lead from them here."""

    images: torch.Tensor  # uint8 [b, 3, h, w]
    natives: list[tuple[int, int]]
    ratios: list[tuple[float, float]]
    pads: list[tuple[float, float]]


class Clock:
    """The seconds spent so far in each stage, which ends when the device is done with it."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds = np.zeros(3)

    @contextmanager
    def stage(self, number: int) -> Iterator[None]:
        """Count what is done within the context as PRE_PROCESS, INFERENCE or NMS."""
        started = now(self.device)
        yield
        self.seconds[number] += now(self.device) - started


class Pipeline:
    """A detector on ``device`` with its thresholds. ``dtype`` is that of the detector's input.

    Gradients are the caller's choice: call it in inference mode, or under no_grad.
    """

    def __init__(
        self,
        detector: Detector,
        device: torch.device,
        thresholds: Thresholds,
        augment: bool = False,
        dtype: torch.dtype = torch.float32,
    ):
        self.detector = detector
        self.device = device
        self.thresholds = thresholds
        self.augment = augment
        self.dtype = dtype
        self.stride = int(detector.stride.max())
        self.clock = Clock(device)

    def with_own_clock(self) -> "Pipeline":
        """The same with a clock that stands at zero, for a thread of its own."""
        other = copy(self)
        other.clock = Clock(self.device)
        return other

    def prepare(self, images: list[np.ndarray], shape: tuple[int, int], auto: bool = False) -> Letterboxed:
        """Letterbox images uint8 [h, w, 3] to ``shape`` (h, w); ``auto``, for one image: to the least that it needs."""
        with self.clock.stage(PRE_PROCESS):
            letterboxed = [letterbox(image, shape, auto, stride=self.stride) for image in images]
            boxed, ratios, pads = map(list, zip(*letterboxed, strict=True))
            return Letterboxed(stack_images(boxed), [image.shape[:2] for image in images], ratios, pads)

    def detect(self, batch: Letterboxed | Batch) -> tuple[Sequence[torch.Tensor], list[torch.Tensor] | None]:
        """The detections [m, 6] of each image, x1 y1 x2 y2 in its own pixels, confidence, class, by falling confidence,
        on the CPU; and the raw maps of the detector where it gives them, for a loss, on the device."""
        with self.clock.stage(PRE_PROCESS):
            pixels = to_float(batch.images, self.device, self.dtype)
        with self.clock.stage(INFERENCE):
            predictions, maps = self.detector(pixels, augment=self.augment)
        with self.clock.stage(NMS):
            found = self.detector.suppress(predictions.float(), **vars(self.thresholds))
        # to the CPU, all together: every transfer waits for the device
        found = torch.cat(found).cpu().split([len(boxes) for boxes in found])
        for boxes, *where in zip(found, batch.ratios, batch.pads, batch.natives, strict=True):
            boxes[:, :4] = scale_boxes(boxes[:, :4], *where)
        return found, maps


def warm_up(detector: Detector, device: torch.device, shape: tuple[int, ...]) -> None:
    """Run ``detector`` on blank images of ``shape`` [b, 3, h, w], where what follows is to be timed.

    The first calls on a GPU load its programs. On a CPU that is a small part of what they take.
    """
    if device.type == "cpu":
        return
    with torch.inference_mode():
        for _ in range(WARM_UP):
            predictions, _ = detector(torch.zeros(shape, device=device))
            detector.suppress(predictions.float(), **vars(VALIDATION))
    synchronize(device)


def speed_line(milliseconds: Sequence[float]) -> str:
    """What the three stages took, in milliseconds per image, in words."""
    before, inference, nms = milliseconds
    return f"speed: {before:.1f} ms pre-process, {inference:.1f} ms inference, {nms:.1f} ms NMS per image"
