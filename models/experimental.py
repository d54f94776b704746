"""A door: models by stock's older name, for programs written for YOLOv5."""

from collections.abc import Sequence
from pathlib import Path

import torch

from engine.detection.detector import Detector, Ensemble, load_detector

__all__ = ["Ensemble", "attempt_load"]


def attempt_load(
    weights: str | Path | Sequence[str | Path],
    device: torch.device | str | None = None,
    inplace: bool = True,
    fuse: bool = True,
    map_location: torch.device | str | None = None,
) -> Detector:
    """The detector of a checkpoint, or an ensemble of several, fused and in eval mode; ``model(im)[0]`` are predictions.

    ``map_location`` is the older name of ``device``. Raises UserError for files that are no detectors.
    """
    return load_detector(weights, torch.device(device or map_location or "cpu"))
