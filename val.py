"""Measure how well a detector finds what is labelled.

python val.py --weights runs/train/exp/weights/best.pt --data data/shapes.yaml --imgsz 192
python val.py --weights a.pt b.pt --data data/coco128.yaml      an ensemble of two
python val.py --task study --weights a.pt b.pt                  accuracy and speed over image sizes, drawn
"""

import argparse
from typing import TYPE_CHECKING

from utils.cli import merge_options
from utils.errors import exit_on_user_error
from utils.paths import ROOT

if TYPE_CHECKING:
    from engine.evaluation.figures import Evaluation


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", default="data/shapes.yaml", help="data YAML (default: %(default)s)")
    add("--weights", nargs="+", default=None, help="checkpoint or exported file; several checkpoints: an ensemble")
    add("--plugins", nargs="+", default=[], help="Python files with blocks of your own (docs/add-a-block.md)")
    add("--batch-size", type=int, default=32, help="images per batch (default: %(default)s)")
    add("--imgsz", "--img", "--img-size", type=int, default=None, help="image size (default: 640; study: up to 1536)")
    add("--half", action="store_true", help="compute in float16 (checkpoints; an exported file has its own precision)")
    add("--dnn", action="store_true", help="run ONNX by OpenCV instead of ONNX Runtime")
    add("--conf-thres", type=float, default=0.001, help="least confidence of a box (default: %(default)s)")
    add("--iou-thres", type=float, default=0.6, help="overlap above which the weaker box goes (default: %(default)s)")
    add("--max-det", type=int, default=300, help="most boxes per image (default: %(default)s)")
    add(
        "--task",
        choices=["train", "val", "test", "speed", "study"],
        default="val",
        help="which split to measure on; speed: milliseconds at usual thresholds; study: sizes from 256 up (default: val)",
    )
    add("--device", default="", help="cpu, mps, or a CUDA index such as 0; default: the best there is")
    add(
        "--workers", type=int, default=8, help="processes that load images, at most one per core (default: %(default)s)"
    )
    add("--single-cls", action="store_true", help="treat all classes as one")
    add("--augment", action="store_true", help="test-time augmentation: three scales and a flip")
    add("--verbose", action="store_true", help="a row per class")
    add("--save-txt", action="store_true", help="write boxes to labels/*.txt")
    add("--save-conf", action="store_true", help="with --save-txt: the confidence, too")
    add("--save-json", action="store_true", help="write boxes to predictions.json, in COCO's results format")
    add("--project", default=str(ROOT / "runs" / "val"), help="folder of the runs (default: runs/val)")
    add("--name", default="exp", help="name of the run in --project (default: %(default)s)")
    add("--exist-ok", action="store_true", help="write into an existing run's folder instead of numbering a new one")
    return parser


def run(**options) -> "Evaluation | list[Evaluation]":
    """Validate with the flags given as keywords, the others at their defaults.

    Returns the figures; for the tasks speed and study, those of every run.
    """
    from engine.evaluation.validator import validate

    return validate(merge_options(build_parser(), options))


if __name__ == "__main__":
    exit_on_user_error(lambda: run(**vars(build_parser().parse_args())))
