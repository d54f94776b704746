"""Hyper-parameters: the files of data/hyps, checked by name and kind."""

from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError
from utils.paths import ROOT
from utils.yaml_file import read_yaml

REQUIRED = (
    "lr0 lrf momentum weight_decay warmup_epochs warmup_momentum warmup_bias_lr box cls cls_pw obj obj_pw anchor_t fl_gamma "
    "hsv_h hsv_s hsv_v degrees translate scale shear perspective flipud fliplr mosaic mixup copy_paste"
).split()
OPTIONAL = {"iou_t": 0.2, "anchors": 0, "label_smoothing": 0.0, "nominal_batch": 64, "mosaic9": 0.0}
PROBABILITIES = ("flipud", "fliplr", "mosaic", "mosaic9", "mixup", "copy_paste")


def read_hyp(path: str | Path) -> dict[str, float]:
    """Read a hyper-parameter file, by path or by name in data/hyps/.

    Raises UserError that names what is missing, unknown, no number, or no probability.
    """
    path = Path(path)
    if not path.exists() and (ROOT / "data" / "hyps" / path.name).is_file():
        path = ROOT / "data" / "hyps" / path.name
    hyp = read_yaml(path, "hyper-parameter file")
    missing = [k for k in REQUIRED if k not in hyp]
    if missing:
        raise UserError(f"{path}: {', '.join(missing)} missing; data/hyps/hyp.scratch-low.yaml has them all")
    unknown = [k for k in hyp if k not in REQUIRED and k not in OPTIONAL]
    if unknown:
        raise UserError(f"{path}: unknown hyper-parameters {', '.join(map(str, unknown))}; check the spelling")
    for key, value in hyp.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{path}: {key} is {value!r}, a number was expected")
        if value < 0 or (key in PROBABILITIES and value > 1):
            raise UserError(
                f"{path}: {key} is {value}, it must be 0 or more{' and at most 1' if key in PROBABILITIES else ''}"
            )
    return OPTIONAL | hyp


class Range(NamedTuple):
    """How a hyper-parameter may change: ``gain`` on the spread of its factor, and its limits."""

    gain: float
    low: float
    high: float


RANGES = {
    "lr0": Range(1, 1e-5, 0.1),
    "lrf": Range(1, 0.01, 1.0),
    "momentum": Range(0.3, 0.6, 0.98),
    "weight_decay": Range(1, 0.0, 0.001),
    "warmup_epochs": Range(1, 0.0, 5.0),
    "warmup_momentum": Range(1, 0.0, 0.95),
    "warmup_bias_lr": Range(1, 0.0, 0.2),
    "box": Range(1, 0.02, 0.2),
    "cls": Range(1, 0.2, 4.0),
    "cls_pw": Range(1, 0.5, 2.0),
    "obj": Range(1, 0.2, 4.0),
    "obj_pw": Range(1, 0.5, 2.0),
    "anchor_t": Range(1, 2.0, 8.0),
    "fl_gamma": Range(1, 0.0, 2.0),
    "hsv_h": Range(1, 0.0, 0.1),
    "hsv_s": Range(1, 0.0, 0.9),
    "hsv_v": Range(1, 0.0, 0.9),
    "degrees": Range(1, 0.0, 45.0),
    "translate": Range(1, 0.0, 0.9),
    "scale": Range(1, 0.0, 0.9),
    "shear": Range(1, 0.0, 10.0),
    "perspective": Range(1, 0.0, 0.001),
    "flipud": Range(1, 0.0, 1.0),
    "fliplr": Range(1, 0.0, 1.0),
    "mosaic": Range(1, 0.0, 1.0),
    "mixup": Range(1, 0.0, 1.0),
    "copy_paste": Range(1, 0.0, 1.0),
}
