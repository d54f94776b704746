"""Train a detector.

python train.py --data data/shapes.yaml --imgsz 192
python train.py --weights yolov5n.pt --data bccd.yaml --imgsz 320 --epochs 30

On two GPUs; --batch-size is for both together:
torchrun --nproc_per_node 2 train.py --data cats.yaml --batch-size 32
"""

import argparse
from pathlib import Path

from engine.training.options import TrainOptions
from utils.console.guard import keep_freed_memory, stop_second_start
from utils.errors import exit_on_user_error


def build_parser() -> argparse.ArgumentParser:
    return TrainOptions.parser(__doc__)


def run(**given) -> Path:
    """Train with the flags given as keywords, the others at their defaults; returns the folder of the run.

    ``run(data="data/bccd.yaml", imgsz=320, epochs=30)``, in a script below ``if __name__ == "__main__":``, since the
    processes that load images may import it. Raises UserError for mistakes that can be mended.
    """
    stop_second_start()
    keep_freed_memory()
    options = TrainOptions.of(given)
    if options.evolve or options.resume_evolve:
        from engine.studies.evolve import evolve

        return evolve(options)
    from engine.training.setup import set_up
    from engine.training.trainer import Trainer

    return Trainer(set_up(options)).run()


if __name__ == "__main__":
    exit_on_user_error(lambda: run(**build_parser().given()))
