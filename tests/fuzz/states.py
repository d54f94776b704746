"""Runs whose last.pt was tampered with, resumed: unfinished ones, and a finished one that is given another leg."""

import functools
import random
import shutil
from pathlib import Path
from typing import Any

import torch

from tests.fuzz.arena import Case
from tests.fuzz.checkpoints import TINY, saved
from tests.fuzz.parts.tampering import damaged, tampered
from tests.helpers.sets import make_set

# where a change is likely to matter; the empty way is anywhere
PARTS = [
    *((), (), ("args",), ("args",), ("hyp",), ("optimizer",), ("optimizer", "state"), ("optimizer", "param_groups")),
    *(("results",), ("names",), ("yaml",), ("model",), ("ema",), ("gradients",), ("scaler",)),
    *(("adapters",), ("teachers",), ("args", "teacher")),
]


PLAIN = "hyp.no-augmentation.yaml"


def prepare(sound: Path) -> None:
    """Runs of three epochs over four images: two that were stopped within the last one, one of them with a teacher, and one
    that was not."""
    import train
    from engine.recipe.hyp import read_hyp
    from engine.training import trainer
    from tests.helpers.models import own_checkpoint
    from utils.yaml_file import write_yaml

    data = make_set(sound / "set", train=4, val=2, size=(32, 32))
    write_yaml(sound / "tiny.yaml", TINY)
    own_checkpoint(sound / "teacher.pt", cfg=str(sound / "tiny.yaml"), names={0: "disc", 1: "rectangle"})
    write_yaml(sound / "taught.yaml", read_hyp(PLAIN) | {"distill_cwd": 1.0, "distill_mgd": 1.0})
    taught = {"teacher": [str(sound / "teacher.pt")], "hyp": str(sound / "taught.yaml")}
    done = trainer.Trainer.leave_if_asked

    def stop(self) -> None:
        if (self.state.epoch, self.state.batches_done) == (2, 1):
            self.save()
            raise KeyboardInterrupt
        done(self)

    trainer.Trainer.leave_if_asked = stop
    for name, hyp in (("SGD", taught), ("AdamW", {"hyp": PLAIN})):
        size = {"imgsz": 32, "batch_size": 2, "epochs": 3, "workers": 0, "device": "cpu", "noplots": True}
        places = {"data": str(data), "cfg": str(sound / "tiny.yaml"), "project": str(sound / "runs"), "name": name}
        try:
            train.run(**size, **places, **hyp, optimizer=name)
        except KeyboardInterrupt:
            continue
        raise AssertionError("the run was not stopped")
    trainer.Trainer.leave_if_asked = done
    train.run(**size, **places | {"name": "finished"}, hyp=PLAIN)


@functools.cache
def state(file: Path) -> dict:
    """What a sound last.pt holds."""
    return torch.load(file, weights_only=True)


def moved(value: Any, before: str, after: str) -> Any:
    """The same data with another folder in its texts."""
    if isinstance(value, dict):
        return {key: moved(part, before, after) for key, part in value.items()}
    if isinstance(value, list):
        return [moved(part, before, after) for part in value]
    return value.replace(before, after) if isinstance(value, str) else value


def make(rng: random.Random, folder: Path, sound: Path) -> Case:
    """A run's folder, and its resumption."""
    run = sound / "runs" / rng.choice(["SGD", "SGD", "AdamW", "finished"])
    shutil.copytree(sound / "set", folder / "set")
    shutil.copy(sound / "teacher.pt", folder)
    text = (folder / "set" / "data.yaml").read_text().replace(str(sound), str(folder))
    (folder / "set" / "data.yaml").write_text(text)
    weights = folder / "run" / "weights"
    shutil.copytree(run / "weights", weights)
    data = dict(state(run / "weights" / "last.pt"))
    data["args"] = moved(data["args"], str(sound), str(folder))
    kind = rng.random()
    if kind < 0.9:
        # a finished run holds less
        data = tampered(rng, data, rng.choice([part for part in PARTS if not part or part[0] in data]))
        _shorten(data)
    content = saved(data)
    if 0.9 <= kind < 0.95:
        content = damaged(rng, content)
    last = weights / "last.pt"
    last.write_bytes(content)
    if rng.random() < 0.1:
        other = [b"", content, saved(tampered(rng, data)) if kind >= 0.9 else b"x"]
        (weights / "best.pt").write_bytes(rng.choice(other))
    if rng.random() < 0.05:
        last = _elsewhere(rng, folder, last)
    # of an unfinished run only 3 fit
    epochs = ["--epochs", rng.choice("3455")] if run.name == "finished" or rng.random() < 0.1 else []
    return Case(["train.py", "--resume", str(last), "--workers", "0", "--device", "cpu", *epochs])


def _shorten(data: Any) -> None:
    """Take out what would make a sound run, but one that lasts."""
    args = data.get("args") if isinstance(data, dict) else None
    for name, most in (("epochs", 3), ("imgsz", 64), ("save_minutes", 0)):
        if isinstance(args, dict) and type(args.get(name)) is int and args[name] > most:
            args[name] = most


def _elsewhere(rng: random.Random, folder: Path, last: Path) -> Path:
    """The checkpoint where no run is, or a run with a link that leads out of it."""
    if rng.random() < 0.5:
        (folder / "run" / rng.choice(["results.csv", "weights/best.pt", "F1_curve.png"])).unlink(missing_ok=True)
        (folder / "run" / "results.png").symlink_to(folder / "elsewhere.png")
        return last
    shutil.move(last, folder / "last.pt")
    return folder / "last.pt"
