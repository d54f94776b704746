"""Measure one checkpoint in every format: size, mAP50-95 and latency on this machine.

python benchmarks.py --weights runs/train/exp/weights/best.pt --data data/shapes.yaml --imgsz 192
python benchmarks.py --weights yolov5n.pt --data data/coco128.yaml --include pytorch onnx openvino

Formats whose package is missing are listed with the line that installs it. Latency is the model's alone, without
reading images and suppression: the median of warm calls. Let nothing else run meanwhile.
"""

import argparse
from typing import TYPE_CHECKING

from utils.cli import merge_options
from utils.errors import exit_on_user_error
from utils.paths import ROOT

if TYPE_CHECKING:
    from engine.studies.benchmark import Row

# fmt: off
FORMATS = ["pytorch", "torchscript", "onnx", "onnx-dnn", "openvino", "openvino-int8", "engine", "coreml", "tflite",
           "ncnn"]
# fmt: on


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--weights", default=None, help="checkpoint to measure; default: the newest best.pt")
    add("--plugins", nargs="+", default=[], help="Python files with blocks of your own (docs/add-a-block.md)")
    add("--data", default="data/shapes.yaml", help="data YAML whose val split is used (default: %(default)s)")
    add("--imgsz", "--img", "--img-size", type=int, default=640, help="image size, square (default: %(default)s)")
    add("--batch-size", type=int, default=1, help="images per call (default: %(default)s)")
    add("--include", nargs="+", choices=FORMATS, default=FORMATS, help="formats (default: all)")
    add("--half", action="store_true", help="float16, where the format has it")
    add("--runs", type=int, default=50, help="timed calls per format (default: %(default)s)")
    add("--device", default="cpu", help="cpu, or a CUDA index such as 0 (default: %(default)s)")
    add("--project", default=str(ROOT / "runs" / "benchmarks"), help="folder of the runs (default: runs/benchmarks)")
    add("--name", default="exp", help="name of the run in --project (default: %(default)s)")
    add("--exist-ok", action="store_true", help="write into an existing run's folder instead of numbering a new one")
    return parser


def run(**options) -> "list[Row]":
    """Measure with the flags given as keywords, the others at their defaults; returns the rows of the table."""
    from engine.studies.benchmark import benchmark

    return benchmark(merge_options(build_parser(), options))


if __name__ == "__main__":
    exit_on_user_error(lambda: run(**vars(build_parser().parse_args())))
