"""Trainings of a minute fraction of the usual size, and what they leave."""

import csv

import yaml

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
