"""Compare detectors fairly: same data, epochs and seeds; accuracy and speed.

python compare.py --cfg yolov5n.yaml yolov5s.yaml --imgsz 192 --epochs 30
python compare.py --backbone efficientnet_b0 resnet18 --size n --epochs 0
python compare.py --weights runs/train/exp runs/train/exp2 best.onnx

The same command again goes on where it was stopped. Differences have 95 %
intervals over images and seeds; inside the noise no winner is named.
"""

import argparse
from typing import TYPE_CHECKING

from engine.comparison.options import CompareOptions
from utils.console.guard import keep_freed_memory, stop_second_start
from utils.errors import exit_on_user_error

if TYPE_CHECKING:
    from engine.comparison.record import Comparison


def build_parser() -> argparse.ArgumentParser:
    return CompareOptions.parser(__doc__)


def run(**given) -> "Comparison":
    """Compare with the flags given as keywords, the others at their defaults; returns what comparison.json holds.

    In a script it stands below ``if __name__ == "__main__":``, since the processes that load images may import it.
    """
    stop_second_start()
    keep_freed_memory()
    from engine.comparison.study import compare

    return compare(CompareOptions.of(given))


def main() -> None:
    """Ends with status 1 where a run has failed."""
    if run(**vars(build_parser().parse_args())).failed:
        raise SystemExit(1)


if __name__ == "__main__":
    exit_on_user_error(main)
