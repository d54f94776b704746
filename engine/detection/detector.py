"""Detectors, ready for inference: a checkpoint, several together, or an exported file, all of one protocol.

load_detector    files → a Detector
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from engine.export.cached import TORCH, choose_runtime, run_by
from engine.export.formats.table import is_exported
from engine.export.runtime import Runtime
from models.fuse import settle
from models.load import detector_from, use_half
from models.yolo import DetectionModel
from utils.boxes import non_max_suppression
from utils.checkpoint import read_checkpoint
from utils.device import half_precision
from utils.errors import UserError


class Detector(Protocol):
    """What DetectionModel, Ensemble and Runtime have in common, and all that inference needs of them.

    It answers in two steps, since the maps of the first are what a loss needs, and since each is timed by itself.
    Pipeline (engine/detection/pipeline.py) joins them.
    """

    names: dict[int, str]
    nc: int
    stride: torch.Tensor  # [levels], in pixels
    trained_size: int | None  # the longer side in pixels that it learnt at, where that is known
    fixed_size: tuple[int, int] | None  # the only (height, width) it takes; None: any multiples of its largest stride

    def __call__(self, images: torch.Tensor, augment: bool = False) -> tuple[torch.Tensor, list[torch.Tensor] | None]:
        """Images [b, ch, h, w], 0..1 → predictions for ``suppress``, and the raw maps of its levels where it has them.

        ``augment`` merges three scales and a flip; raises UserError where that can't be.
        """

    def suppress(self, predictions: torch.Tensor, **thresholds) -> list[torch.Tensor]:
        """Predictions → per image [m, 6]: x1 y1 x2 y2 in the pixels of ``images``, confidence, class, by falling confidence.

        ``thresholds`` are those of non_max_suppression, whether the suppression is done here or was within the file.
        """


class Ensemble(nn.Module):
    """Several detectors of the same classes: their boxes side by side, for the suppression to merge."""

    fixed_size = None
    suppress = staticmethod(non_max_suppression)

    def __init__(self, models: Sequence[DetectionModel]):
        super().__init__()
        self.members = nn.ModuleList(models)
        self.names = models[0].names
        self.nc = models[0].nc
        self.trained_size = models[0].trained_size
        self.stride = max((m.stride for m in models), key=lambda stride: stride.max())

    def forward(self, x: torch.Tensor, augment: bool = False):
        return torch.cat([member(x, augment=augment)[0] for member in self.members], 1), None


def note_other_size(model: Detector, weights: str | Path, size: int) -> None:
    """Say so where a detector is about to be used at another ``size`` of the longer side than it was trained at."""
    trained = model.trained_size
    if trained and trained != size:
        print(f"note: {weights} was trained at {trained} px; --imgsz {trained} may find more")


def load_detector(
    weights: str | Path | Sequence[str | Path],
    device: torch.device,
    half: bool = False,
    dnn: bool = False,
    trust: bool = False,
    runtime: str = TORCH,
    settled: bool = True,
) -> Detector:
    """One detector from a checkpoint or an exported file, or an ensemble of checkpoints, ready for inference.

    ``half``: see half_precision and use_half; ``dnn`` runs an ONNX file by OpenCV; ``trust`` runs files of others that are
    programs (TorchScript, TensorRT), and all exported files without a trial; ``runtime`` runs a checkpoint by another one,
    see engine/export/cached.py; ``settled``: the weights stay as they are, see models/fuse.py. Raises UserError for files that
    are no detectors.
    """
    paths = [weights] if isinstance(weights, str | Path) else list(weights)
    exported = [path for path in paths if is_exported(path)]
    if exported:
        if len(paths) > 1:
            raise UserError(f"{exported[0]}: an ensemble is made of checkpoints (.pt); give an exported file alone")
        if half:
            raise UserError(
                f"--half: the precision of {exported[0]} was settled when it was exported; leave --half out"
            )
        if runtime != TORCH:
            raise UserError(
                f"--runtime: runs checkpoints (.pt), and {exported[0]} has a runtime of its own; leave it out"
            )
        return Runtime(exported[0], device, dnn, trust)
    if dnn:
        raise UserError(f"--dnn: runs ONNX files, and {paths[0]} is not one; make it: export.py --include onnx")
    dtype = half_precision(device) if half else None
    if half and dtype is None:
        print("note: --half: this processor does not compute in bfloat16; it stays float32")
    if (runtime := choose_runtime(runtime, device, plain=len(paths) == 1 and not half)) != TORCH:
        if len(paths) > 1 or half:
            other = "--half: it computes in float32" if half else "several --weights: an ensemble is run by PyTorch"
            raise UserError(f"--runtime {runtime} and {other}; leave one of the two out")
        return run_by(runtime, Path(paths[0]), device)
    models = []
    for path in paths:
        model = detector_from(read_checkpoint(path)).fuse()
        models.append(model.to(device, memory_format=torch.channels_last))
        if dtype:
            use_half(models[-1], dtype)
        if settled:
            settle(models[-1])
    if len({tuple(m.names.values()) for m in models}) > 1:
        raise UserError(f"--weights {' '.join(map(str, paths))}: the models of an ensemble must have the same classes")
    return models[0] if len(models) == 1 else Ensemble(models)
