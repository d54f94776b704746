"""Hyper-parameters: the one table of them, and the files of data/hyps, checked against it."""

import math
import os
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError, shown
from utils.paths import ROOT
from utils.yaml_file import read_yaml


class Range(NamedTuple):
    """How --evolve may change a value: ``gain`` on the spread of its factor, and its limits."""

    gain: float
    low: float
    high: float


class HyperParameter(NamedTuple):
    """A line of a hyper-parameter file, which has ``comment`` behind it.

    ``evolve``: None where a search leaves it as it is. ``default``: None where every file must say it. ``least``, ``most``:
    what it may be; anything else is a slip.
    """

    name: str
    comment: str
    evolve: Range | None = None
    default: float | None = None
    most: float = 1e6
    least: float = 0


HYPER_PARAMETERS = (
    HyperParameter("lr0", "initial learning rate", evolve=Range(1, 1e-5, 0.1)),
    HyperParameter("lrf", "final learning rate = lr0 * lrf", evolve=Range(1, 0.01, 1.0)),
    HyperParameter("momentum", "SGD momentum, Adam beta1", evolve=Range(0.3, 0.6, 0.98), most=0.9999),
    HyperParameter("weight_decay", "on convolution weights, for a batch of 64", evolve=Range(1, 0.0, 0.001)),
    HyperParameter("warmup_epochs", "fractions allowed", evolve=Range(1, 0.0, 5.0), most=1e5),
    HyperParameter("warmup_momentum", "momentum at the first step", evolve=Range(1, 0.0, 0.95), most=0.9999),
    HyperParameter("warmup_bias_lr", "learning rate of the biases at the first step", evolve=Range(1, 0.0, 0.2)),
    HyperParameter("box", "box loss gain", evolve=Range(1, 0.02, 0.2)),
    HyperParameter("cls", "class loss gain, for 80 classes", evolve=Range(1, 0.2, 4.0)),
    HyperParameter("cls_pw", "class loss weight of positives", evolve=Range(1, 0.5, 2.0)),
    HyperParameter("obj", "objectness loss gain, for 640 px", evolve=Range(1, 0.2, 4.0)),
    HyperParameter("obj_pw", "objectness loss weight of positives", evolve=Range(1, 0.5, 2.0)),
    HyperParameter("iou_t", "IoU threshold in training (kept for the format)", default=0.2),
    HyperParameter("anchor_t", "largest side ratio of a target to its anchor", evolve=Range(1, 2.0, 8.0), least=1),
    HyperParameter("anchors", "anchors per output (0: those of the model)", default=0, most=100),
    HyperParameter("fl_gamma", "focal loss gamma (0: plain cross-entropy)", evolve=Range(1, 0.0, 2.0)),
    HyperParameter("label_smoothing", "share of a class target that goes to both answers alike", default=0.0, most=1),
    HyperParameter("distill_box", "weight of a --teacher's boxes (1: that of the labels')", default=1.0),
    HyperParameter("distill_obj", "weight of its objectness (1: that of the labels')", default=1.0),
    HyperParameter("distill_cls", "weight of its classes (1: that of the labels')", default=1.0),
    HyperParameter("distill_cwd", "weight of channel-wise distillation of its maps (0: none)", default=0.0),
    HyperParameter("distill_mgd", "weight of masked generative distillation (0: none)", default=0.0),
    HyperParameter("nominal_batch", "images per optimiser step (64 unless given)", default=64, least=1),
    HyperParameter("ema_tau", "updates over which the average of the weights sets in (0: fits the run)", default=2000),
    HyperParameter("hsv_h", "hue, fraction of the circle", evolve=Range(1, 0.0, 0.1)),
    HyperParameter("hsv_s", "saturation, fraction", evolve=Range(1, 0.0, 0.9)),
    HyperParameter("hsv_v", "value, fraction", evolve=Range(1, 0.0, 0.9)),
    HyperParameter("degrees", "rotation, +/- degrees", evolve=Range(1, 0.0, 45.0), most=360),
    HyperParameter("translate", "shift, +/- fraction", evolve=Range(1, 0.0, 0.9), most=1),
    HyperParameter("scale", "zoom, +/- gain", evolve=Range(1, 0.0, 0.9), most=1),
    HyperParameter("shear", "shear, +/- degrees", evolve=Range(1, 0.0, 10.0), most=89),
    HyperParameter("perspective", "perspective, 0 to 0.001", evolve=Range(1, 0.0, 0.001), most=0.1),
    HyperParameter("flipud", "probability of an up-down flip", evolve=Range(1, 0.0, 1.0), most=1),
    HyperParameter("fliplr", "probability of a left-right flip", evolve=Range(1, 0.0, 1.0), most=1),
    HyperParameter("mosaic", "probability of a mosaic", evolve=Range(1, 0.0, 1.0), most=1),
    HyperParameter("mosaic9", "probability that a mosaic has nine images instead of four", default=0.0, most=1),
    HyperParameter("close_mosaic", "last epochs without mosaic, mixup and copy-paste (0: none)", default=0),
    HyperParameter("mixup", "probability of mixup", evolve=Range(1, 0.0, 1.0), most=1),
    HyperParameter("copy_paste", "probability of copy-paste (polygon labels)", evolve=Range(1, 0.0, 1.0), most=1),
    HyperParameter(
        "progressive_start", "first image size of --progressive, share of --imgsz", default=0.5, most=1, least=0.1
    ),
    HyperParameter(
        "progressive_weak", "augmentation and dropout of its first stage, share of the given", default=0.33, most=1
    ),
    HyperParameter("progressive_last", "share of the epochs of its last stage (0: all alike)", default=0, most=1),
    HyperParameter("progressive_batch", "most images of its batches (0: nominal_batch on CUDA)", default=0, most=2**16),
)
REQUIRED = [h.name for h in HYPER_PARAMETERS if h.default is None]
OPTIONAL = {h.name: h.default for h in HYPER_PARAMETERS if h.default is not None}
RANGES = {h.name: h.evolve for h in HYPER_PARAMETERS if h.evolve}


def read_hyp(path: str | Path) -> dict[str, float]:
    """Read a hyper-parameter file, by path or by name in data/hyps/, as check_hyp does."""
    return OPTIONAL | read_said_hyp(path)


def read_said_hyp(path: str | Path) -> dict[str, float]:
    """The same, without the defaults of what the file doesn't say."""
    path = Path(path)
    if not os.path.exists(path) and os.path.isfile(ROOT / "data" / "hyps" / path.name):
        path = ROOT / "data" / "hyps" / path.name
    said = read_yaml(path, "hyper-parameter file")
    check_hyp(said, path)
    return said


def check_hyp(hyp: dict, file: str | Path) -> dict[str, float]:
    """The hyper-parameters that ``file`` holds, with the defaults of those it need not say.

    Raises UserError that names what is missing, unknown, not a finite number, or out of its range.
    """
    known = {h.name: h for h in HYPER_PARAMETERS}
    missing = [k for k in REQUIRED if k not in hyp]
    if missing:
        raise UserError(f"{file}: {', '.join(missing)} missing; data/hyps/hyp.scratch-low.yaml has them all")
    unknown = [str(k) for k in hyp if k not in known]
    if unknown:
        raise UserError(f"{file}: unknown hyper-parameters {shown(', '.join(unknown))}; check the spelling")
    for key, value in hyp.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            # of YAML 1.1, which wants a point and a sign: 1.0e-3
            hint = f"; write {float(value):g}" if _is_number(value) else ""
            raise UserError(f"{file}: {key} is {shown(repr(value))}, a number was expected{hint}")
        least, most = known[key].least, known[key].most
        if not least <= value <= most:
            raise UserError(f"{file}: {key} is {shown(value)}, it must be {least:g} or more and at most {most:g}")
    return OPTIONAL | hyp


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False
