"""Measure how well a detector finds what is labelled.

python val.py --data data/shapes.yaml --imgsz 192     # the newest best.pt
python val.py --weights a.pt b.pt --data coco128.yaml # an ensemble of two
python val.py --weights a.pt b.pt --task study        # over sizes, drawn
"""

import argparse
from typing import TYPE_CHECKING

from engine.evaluation.options import ValOptions
from utils.console.guard import keep_freed_memory, stop_second_start
from utils.errors import exit_on_user_error

if TYPE_CHECKING:
    from engine.evaluation.figures import Evaluation


def build_parser() -> argparse.ArgumentParser:
    return ValOptions.parser(__doc__)


def run(**given) -> "Evaluation | list[Evaluation]":
    """Validate with the flags given as keywords, the others at their defaults.

    Returns the figures; for the tasks speed and study, those of every run. In a script it stands below
    ``if __name__ == "__main__":``, since the processes that load images may import it.
    """
    stop_second_start()
    keep_freed_memory()
    from engine.evaluation.validator import validate

    return validate(ValOptions.of(given))


if __name__ == "__main__":
    exit_on_user_error(lambda: run(**vars(build_parser().parse_args())))
