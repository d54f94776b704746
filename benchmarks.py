"""Measure one checkpoint in every format: size, accuracy, latency here.

python benchmarks.py --data data/shapes.yaml --imgsz 192 # the newest best.pt
python benchmarks.py --weights yolov5n.pt --data coco128.yaml --include onnx

Formats whose package is missing are listed with the line that installs it.
Latency is the model's alone, without reading images and suppression: the
median of warm calls. Let nothing else run meanwhile.
"""

import argparse
from typing import TYPE_CHECKING

from engine.studies.options import BenchmarkOptions
from utils.console.guard import keep_freed_memory, stop_second_start
from utils.errors import exit_on_user_error

if TYPE_CHECKING:
    from engine.studies.benchmark import Row


def build_parser() -> argparse.ArgumentParser:
    return BenchmarkOptions.parser(__doc__)


def run(**given) -> "list[Row]":
    """Measure with the flags given as keywords, the others at their defaults; returns the rows of the table.

    In a script it stands below ``if __name__ == "__main__":``, since the processes that load images may import it.
    """
    stop_second_start()
    keep_freed_memory()
    from engine.studies.benchmark import benchmark

    return benchmark(BenchmarkOptions.of(given))


if __name__ == "__main__":
    exit_on_user_error(lambda: run(**vars(build_parser().parse_args())))
