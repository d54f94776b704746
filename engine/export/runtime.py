"""One call for a detector in any format: ``Runtime("best.onnx")(images)``.

Runtime              an exported file, with the protocol of every detector (engine/detection/detector.py)
    open_reader      the library that runs it (engine/export/formats/table.py)
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from engine.export.formats.table import open_reader
from utils.boxes import nms_by_class, non_max_suppression
from utils.errors import UserError


class Runtime:
    """A detector in a file that export.py has written, on ``device``.

    Attributes: ``names`` {index: name}, ``nc``, ``stride`` [1], ``fixed_size`` the only (height, width) it takes, or None
    for any multiple of the stride, ``batch`` the only batch size of the file, or None, ``nms`` whether it gives detections.
    Raises UserError where the file or the package that runs it is missing.
    """

    trained_size: int | None = None

    def __init__(self, weights: str | Path, device: torch.device | None = None, dnn: bool = False):
        self.file = Path(weights)
        self.reader = open_reader(self.file, device or torch.device("cpu"), dnn)
        if self.reader.on_cpu and self.reader.device.type != "cpu":
            print(f"note: {self.file} runs on the CPU, not on {self.reader.device}: {self.reader.on_cpu}")
        values = self.reader.metadata
        self.names: dict[int, str] = values["names"]
        self.nc = len(self.names)
        self.stride = torch.tensor([float(values["stride"])])
        self.nms: bool = values["nms"]
        self.fixed_size: tuple[int, int] | None = None if values["dynamic"] else tuple(values["imgsz"])
        self.batch: int | None = None if values["dynamic"] else values.get("batch", 1)

    def __call__(self, images: torch.Tensor, augment: bool = False) -> tuple[torch.Tensor, None]:
        """Images [b, ch, h, w], float32, 0..1 → (boxes [b, n, nc + 5], or with ``nms`` detections [b, m, 6]; None).

        Any number of images: a file of one batch size gets them in portions, the last one filled up with zeros.
        """
        if augment:
            raise UserError(f"--augment: {self.file} is an exported file; only checkpoints (.pt) take several scales")
        if self.fixed_size and tuple(images.shape[2:]) != self.fixed_size:
            raise UserError(f"{self.file}: takes {_size(self.fixed_size)} images only, not {_size(images.shape[2:])}")
        if self.batch is None:
            return self.reader.run(images), None
        results = []
        for portion in images.split(self.batch):
            filled = F.pad(portion, (0, 0, 0, 0, 0, 0, 0, self.batch - len(portion)))
            results.append(self.reader.run(filled)[: len(portion)])
        return torch.cat(results), None

    def suppress(self, predictions: torch.Tensor, **thresholds) -> list[torch.Tensor]:
        """What non_max_suppression gives at these thresholds, whether the file leaves it to us or has done it itself."""
        if self.nms:
            return [narrow(detections, **thresholds) for detections in predictions]
        return non_max_suppression(predictions, **thresholds)


def narrow(
    detections: torch.Tensor,
    conf_thres: float = 0.25,
    iou_thres: float = 0.45,
    classes: list[int] | None = None,
    agnostic: bool = False,
    multi_label: bool = False,
    max_det: int = 300,
) -> torch.Tensor:
    """Detections [m, 6] of a file with suppression inside, less those that stricter settings than its own remove.

    Without ``multi_label`` a box keeps its best class, as the file has it already unless exported with --multi-label.
    """
    keep = detections[:, 4] > conf_thres  # rows of zeros fill the array up
    if classes is not None:
        keep &= torch.isin(detections[:, 5].long(), torch.tensor(classes, device=keep.device))
    detections = detections[keep]
    if not multi_label:
        same_box = (detections[:, None, :4] == detections[None, :, :4]).all(2)
        detections = detections[~same_box.tril(-1).any(1)]  # sorted: the first of them is the best
    cls = detections[:, 5] * (not agnostic)
    return detections[nms_by_class(detections[:, :4], detections[:, 4], cls, iou_thres)[:max_det]]


def _size(shape) -> str:
    """«640×480»: height × width."""
    return "×".join(map(str, shape))
