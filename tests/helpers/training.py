"""Trainings of a minute fraction of the usual size, and what they leave."""

import csv
from pathlib import Path

import pytest
import yaml

from engine.comparison.runs.trainings import Job
from engine.recipe.hyp import read_hyp
from engine.training.options import TrainOptions
from engine.training.setup import set_up
from engine.training.trainer import Trainer

TINY = {"cfg": "yolov5n.yaml", "imgsz": 64, "batch_size": 4, "epochs": 1, "workers": 0, "device": "cpu"}
# drawing takes longer than learning here
UNDRAWN = {"noplots": True}


def options(data, tmp_path, **changes) -> dict:
    return TINY | UNDRAWN | {"data": str(data), "project": str(tmp_path / "runs")} | changes


def rows(folder) -> list[dict]:
    with open(folder / "results.csv", newline="") as f:
        return list(csv.DictReader(f))


def hyp_file(tmp_path, **changes):
    """A hyper-parameter file of our own."""
    path = tmp_path / "hyp.yaml"
    path.write_text(yaml.safe_dump(read_hyp("hyp.scratch-tiny.yaml") | changes))
    return str(path)


def trainer_of(data, tmp_path, **changes) -> Trainer:
    return Trainer(set_up(TrainOptions.of(options(data, tmp_path, **changes))))


class Stop(BaseException):
    """Stands for SIGKILL: nothing of the run's own catches it."""


def stopped_at(trainer: Trainer, epoch: int, batches: int) -> Path:
    """The last.pt of a run that ends after so many batches of an epoch, or, after none, between two epochs."""

    def stop() -> None:
        if (trainer.state.epoch, trainer.state.batches_done) == (epoch, batches):
            trainer.save()
            raise Stop

    trainer.leave_if_asked = stop
    with pytest.raises(Stop):
        trainer.fit()
    return trainer.weights / "last.pt"


def jobs_of(tmp_path: Path, count: int, **changes) -> list[Job]:
    """Runs of a study, seed by seed."""
    return [
        Job(
            "a",
            seed,
            TrainOptions.of({"project": str(tmp_path / "a"), "name": f"seed{seed}", "seed": seed} | changes),
            tmp_path / "logs" / f"a-seed{seed}.log",
        )
        for seed in range(count)
    ]


def calls(job: Job) -> list[str]:
    """The command lines by which the stand-in of tests/engine/comparison/runs/conftest.py was called."""
    return (job.folder / "calls.txt").read_text().splitlines()
