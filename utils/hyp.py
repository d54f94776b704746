"""Hyper-parameters: the files of data/hyps, checked by name and kind."""

from pathlib import Path

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
