"""What test_distributed.py runs in one process or in several: ``distributed_worker.py TASK OUT options-as-JSON …``, one run
after the other."""

import contextlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import numpy as np
import torch

from engine.training.options import TrainOptions
from engine.training.setup import set_up
from engine.training.trainer import Trainer


class Enough(Exception):
    pass


def freeze_norms(trainer: Trainer) -> None:
    """Let a model in float64 keep the statistics that its BatchNorms have of some noise.

    In float32 the rounding of the first step, which differs between processors and batch sizes, grows to 1e-4 by the
    fourth. Of batches the statistics would be each process's own.
    """
    for module in (trainer.learner.model, trainer.learner.parallel):
        module.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    norms = [m for m in trainer.learner.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        trainer.learner.model.train()(torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    for norm in norms:
        norm.eval()
        norm.train = lambda mode=True, norm=norm: norm


def stages(trainer: Trainer) -> dict:
    """The weights of a model in float64 after each epoch."""
    freeze_norms(trainer)
    weights = []
    while not trainer.done():
        trainer.train_epoch()
        trainer.state.epoch_done()
        weights.append({k: v.clone() for k, v in trainer.learner.model.state_dict().items()})
    return {"weights": weights, "losses": trainer.state.mean_losses.tolist()}


def steps(trainer: Trainer, count: int = 4) -> dict:
    """Losses and weights of the first steps of a model in float64."""
    freeze_norms(trainer)
    # it brings a loss of its own
    trainer.enter_stage()
    losses, loss = [], trainer.learner.loss

    def noted(maps, targets):
        total, items = loss(maps, targets)
        losses.append(items.tolist())
        return total, items

    def stop_in_time():
        if trainer.state.batches_done == count:
            raise Enough

    trainer.learner.loss, trainer.save_if_due = noted, stop_in_time
    start = trainer.learner.model.detect.m[0].weight.detach().clone()
    with contextlib.suppress(Enough):
        trainer.train_epoch()
    weights = {k: v.clone() for k, v in trainer.learner.model.state_dict().items()}
    pupil = trainer.learner.pupil
    adapters = {k: v.clone() for k, v in pupil.adapters.state_dict().items()} if pupil else {}
    return {"losses": losses, "weights": weights, "start": start, "adapters": adapters}


def validate(trainer: Trainer) -> dict:
    """The figures of a validation of the starting weights."""
    found = trainer.validate()
    arrays = {"ap": found.ap.ap, "p": found.ap.p, "r": found.ap.r, "confusion": found.confusion, "loss": found.loss}
    return {"images": found.images} | {k: torch.from_numpy(np.asarray(v, float)) for k, v in arrays.items()}


def restart(trainer: Trainer) -> None:
    """Train to the end, each process noting where it began; in its first life the last one dies after two epochs."""
    world, done = trainer.world, trainer.state.epoch_done
    with open(f"{trainer.folder}.begun", "a") as f:
        f.write(f"{world.rank} {trainer.state.epoch}\n")

    def die_once():
        done()
        if not world.restarted and trainer.state.epoch == 3 and world.rank == world.size - 1:
            os._exit(1)

    trainer.state.epoch_done = die_once
    trainer.run()


def begun(task: str, options: dict) -> Trainer:
    torch.set_default_dtype(torch.float64 if task in ("steps", "stages") else torch.float32)
    trainer = Trainer(set_up(TrainOptions.of(options)))
    torch.set_default_dtype(torch.float32)
    return trainer


if __name__ == "__main__":
    task, out, *runs = sys.argv[1:]
    found = []
    for options in map(json.loads, runs):
        trainer = begun(task, options)
        found.append({"steps": steps, "stages": stages, "validate": validate, "restart": restart}[task](trainer))
    if trainer.world.is_first:
        torch.save(found, out)
    trainer.world.leave()
