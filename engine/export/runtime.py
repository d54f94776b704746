"""One call for a detector in any format: ``Runtime("best.onnx")(images)``.

Runtime              an exported file, with the protocol of every detector (engine/detection/detector.py)
    is_own           whether this user's export.py wrote it (engine/export/trust.py)
    try_out          else: a trial in a process of its own (engine/export/trial.py)
    open_reader      the library that runs it (engine/export/formats/table.py)
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from engine.export.formats.table import open_reader, require_exported
from engine.export.onnx_file import read_onnx
from engine.export.trial import limit_memory, try_out
from engine.export.trust import files_of, is_own
from utils.boxes import nms_by_class, non_max_suppression
from utils.data.images import fit_size
from utils.errors import UserError, shown
from utils.extras import library_errors


class Runtime:
    """A detector in a file that export.py has written, on ``device``.

    Attributes: ``names`` {index: name}, ``nc``, ``stride`` [1], ``fixed_size`` the only (height, width) it takes, or None
    for any multiple of the stride, ``batch`` the only batch size of the file, or None, ``nms`` whether it gives detections.
    Raises UserError where the file or the package that runs it is missing, where the file is damaged, and for a program
    (TorchScript, TensorRT) that this user's export.py has not written, unless ``trust`` is given.
    """

    trained_size: int | None = None

    def __init__(self, weights: str | Path, device: torch.device | None = None, dnn: bool = False, trust: bool = False):
        self.file = Path(weights)
        kind = require_exported(self.file, dnn)
        if not (trust or is_own(self.file)):
            if kind.program:
                raise UserError(
                    f"{self.file}: is a program ({kind.name}) and was not written here by your export.py: running it could "
                    "do anything; add --trust (in Python: trust=True) if you trust where it comes from"
                )
            # short at the size of a trial, it may be without end at that of an image
            if self.file.suffix == ".onnx" and (loop := read_onnx(self.file).loop):
                raise UserError(f"{self.file}: has a {loop}, which may go on without end; --trust runs it")
            size = sum(file.stat().st_size for file in files_of(self.file))
            try_out(self.file, size, lambda: _run_once(self.file, size, dnn))
        self.reader = open_reader(self.file, device or torch.device("cpu"), dnn)
        if self.reader.on_cpu and self.reader.device.type != "cpu":
            print(f"note: {self.file} runs on the CPU, not on {self.reader.device}: {self.reader.on_cpu}")
        values = self.reader.metadata
        self.names: dict[int, str] = values["names"]
        self.nc = len(self.names)
        self.stride = torch.tensor([float(values["stride"])])
        self.nms: bool = values["nms"]
        self.fixed_size: tuple[int, int] | None = None if values["dynamic"] else tuple(values["imgsz"])
        self.batch: int | None = None if values["dynamic"] else values["batch"]
        self._compare_shapes()

    def _compare_shapes(self) -> None:
        """Raises UserError where the input that the graph declares is not that of the metadata."""
        declared = self.reader.shape
        expected = (self.batch, None, *(self.fixed_size or (None, None)))
        differs = any(None not in pair and pair[0] != pair[1] for pair in zip(declared, expected, strict=False))
        if declared and (len(declared) != 4 or differs):
            raise UserError(
                f"{self.file}: its graph takes {shown(declared)}, its metadata say batches of {self.batch or 'any size'} in "
                f"{self.fixed_size or 'any size'}; export the model anew"
            )

    @property
    def channels(self) -> int | None:
        """Of the images; None where the file does not say."""
        return self.reader.shape[1] if self.reader.shape else None

    def __call__(self, images: torch.Tensor, augment: bool = False) -> tuple[torch.Tensor, None]:
        """Images [b, ch, h, w], float32, 0..1 → (boxes [b, n, nc + 5], or with ``nms`` detections [b, m, 6]; None).

        Any number of images: a file of one batch size gets them in portions, the last one filled up with zeros.
        """
        if augment:
            raise UserError(f"--augment: {self.file} is an exported file; only checkpoints (.pt) take several scales")
        if self.fixed_size and tuple(images.shape[2:]) != self.fixed_size:
            raise UserError(f"{self.file}: takes {_size(self.fixed_size)} images only, not {_size(images.shape[2:])}")
        if self.channels and images.shape[1] != self.channels:
            raise UserError(f"{self.file}: takes images of {self.channels} channels, not {images.shape[1]}")
        if self.batch is None:
            return self._run(images), None
        results = []
        for portion in images.split(self.batch):
            filled = F.pad(portion, (0, 0, 0, 0, 0, 0, 0, self.batch - len(portion)))
            results.append(self._run(filled)[: len(portion)])
        return torch.cat(results), None

    def _run(self, images: torch.Tensor) -> torch.Tensor:
        """What the library gives. Raises UserError where it fails, or gives what a detector of these classes can't."""
        with library_errors(f"{self.file}: can't be run"):
            found = self.reader.run(images)
        columns = 6 if self.nms else self.nc + 5
        fits = isinstance(found, torch.Tensor) and found.is_floating_point() and found.ndim == 3
        if not fits or (len(found), found.shape[2]) != (len(images), columns):
            given = f"{found.dtype} {list(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
            raise UserError(
                f"{self.file}: gives {given}; a detector of {self.nc} classes gives floats "
                f"[{len(images)}, n, {columns}]; export the model anew"
            )
        return found

    def suppress(self, predictions: torch.Tensor, **thresholds) -> list[torch.Tensor]:
        """What non_max_suppression gives at these thresholds, whether the file leaves it to us or has done it itself."""
        if self.nms:
            found = [narrow(detections, **thresholds) for detections in predictions]
        else:
            found = non_max_suppression(predictions, **thresholds)
        for detections in found:
            classes = detections[:, 5]
            if not (detections.isfinite().all() and ((classes >= 0) & (classes < self.nc)).all()):
                raise UserError(f"{self.file}: gives boxes that are no numbers or of no class; export the model anew")
        return found


def _run_once(file: Path, size: int, dnn: bool) -> None:
    """Load a file of ``size`` bytes and run it, with no more memory than such a file can need."""
    limit_memory((1 << 30) + 8 * size)
    runtime = Runtime(file, dnn=dnn, trust=True)
    height, width = runtime.fixed_size or [fit_size(64, int(runtime.stride))] * 2
    images = torch.zeros(runtime.batch or 1, runtime.channels or 3, height, width)
    limit_memory((1 << 30) + 64 * images.nbytes)
    runtime(images)


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
