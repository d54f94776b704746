"""What bench/all.py measures of training: epochs and steps beside bare PyTorch and beside another checkout, memory, two at
once."""

import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config

from bench.loader import answers, median_ratio
from bench.speed import CPU, Row, in_turns, run_command, seconds
from engine.training.options import TrainOptions
from engine.training.setup import Run, set_up
from engine.training.trainer import Trainer
from utils.data.images import to_float
from utils.paths import ROOT

# of a training in a row: the first batches of each but the first are loaded at the end of the one before
EPOCHS = 3
# what --cache does, by its values
CACHES = {"ram": "images kept in memory", "": "images read anew"}

# What trains in a checkout: it answers each line of its input by the seconds of so many epochs. What a training says goes to
# standard error. Checkouts before the rooms had a Trainer of flags.
SIDE = """
import json, os, sys, time
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
settings = json.loads(sys.argv[1])
sys.path[0] = settings["checkout"]
try:
    from engine.training.options import TrainOptions
    from engine.training.setup import set_up
    from engine.training.trainer import Trainer
    from utils.console.guard import keep_freed_memory
    # as its train.py does
    keep_freed_memory()
    trainer = Trainer(set_up(TrainOptions.of(settings["options"])))
    epoch_done = trainer.state.epoch_done
except ModuleNotFoundError:
    from engine.trainer import Trainer
    from train import build_parser
    from utils.cli import merge_options
    trainer = Trainer(merge_options(build_parser(), settings["options"]))
    def epoch_done():
        trainer.epoch, trainer.batches_done = trainer.epoch + 1, 0
for _ in sys.stdin:
    # until the first batches are loaded
    time.sleep(2)
    start = time.perf_counter()
    for _ in range(settings["epochs"]):
        trainer.train_epoch()
        epoch_done()
    print(time.perf_counter() - start, file=answers, flush=True)
"""


def epochs_options(cfg: str, data: str, imgsz: int, folder: Path, rounds: int, cache: str) -> dict[str, Any]:
    """The options of a training of so many rounds of EPOCHS, and one before them, that only trains."""
    return {
        "cfg": cfg,
        "data": data,
        "imgsz": imgsz,
        "batch_size": 16,
        "epochs": (rounds + 1) * EPOCHS + 1,
        "cache": cache,
        "device": "cpu",
        "noval": True,
        "nosave": True,
        "noplots": True,
        "project": str(folder / "runs"),
    }


def training(cfg: str, data: str, imgsz: int, folder: Path, rounds: int, cache: str = "ram") -> list[Row]:
    """An image's share of some epochs in a row as train.py runs them, beside forward, loss, backward and update of the same
    batches."""
    options = TrainOptions.of(epochs_options(cfg, data, imgsz, folder, rounds, cache))
    trainer = Trainer(set_up(options))
    learner, count = trainer.learner, len(trainer.data.train)
    batches = []

    def epoch() -> None:
        trainer.train_epoch()
        trainer.state.epoch_done()

    def ours() -> float:
        return seconds(lambda: [epoch() for _ in range(EPOCHS)]) / count / EPOCHS

    def floor() -> float:
        # until the first batches of the next epoch are loaded
        time.sleep(2)
        if not batches:
            trainer.data.train_loader.batch_sampler.set_epoch(0)
            batches.extend((to_float(b.images, CPU), b.targets) for b in trainer.data.train_loader)
        learner.model.train()
        return (
            seconds(lambda: [bare_step(learner, *batch) for _ in range(EPOCHS) for batch in batches]) / count / EPOCHS
        )

    found = in_turns({"ours": ours, "floor": floor}, rounds)
    words = f"{Path(cfg).stem}, {imgsz} px, batch 16, {CACHES[cache]}"
    ours_ms, floor_ms = (statistics.median(found[side]) * 1e3 for side in ("ours", "floor"))
    ratio = median_ratio(found["floor"], found["ours"])
    trainer.world.leave()
    return [Row("training", words, "ms an image", ours_ms, floor_ms, ratio, "forward, loss, backward, update")]


def bare_step(learner, images: torch.Tensor, targets: torch.Tensor) -> None:
    loss, _ = learner.loss(learner.model(images), targets)
    loss.backward()
    learner.optimizer.step()
    learner.optimizer.zero_grad()


def steps_options(data: str, folder: Path) -> dict[str, Any]:
    """The options of a run of which single steps are measured."""
    given = {"cfg": "yolov5n.yaml", "data": data, "imgsz": 320, "batch_size": 16, "epochs": 1, "device": "cpu"}
    return given | {"noplots": True, "workers": 0, "project": str(folder / "runs")}


def compiled_training(data: str, folder: Path, rounds: int) -> list[Row]:
    """A step with --amp bf16 and --compile, beside the same without; what compiling takes is told apart."""
    given = steps_options(data, folder)
    faster = {"plain": {}, "bf16": {"amp": "bf16"}, "both": {"amp": "bf16", "compile": True}}
    runs = {name: set_up(TrainOptions.of(given | more), keep_records=False) for name, more in faster.items()}
    batch = next(iter(runs["plain"].data.train_loader))
    images = to_float(batch.images, CPU)

    def step(run: Run) -> float:
        run.state.last_update = -run.learner.schedule.accumulate
        return seconds(lambda: run.learner.step(images, batch.targets, 0, run.state)) / len(images)

    for run in runs.values():
        run.learner.parallel.train()
    # not found again from an earlier run
    with torch._inductor.config.patch(force_disable_caches=True):
        compiling = step(runs["both"]) * len(images)
    found = in_turns({name: lambda run=run: step(run) for name, run in runs.items()}, max(3 * rounds, 9))
    plain = statistics.median(found["plain"]) * 1e3
    rows = [
        Row(
            "training",
            f"yolov5n, 320 px, batch 16, {flags}",
            "ms an image",
            statistics.median(found[name]) * 1e3,
            plain,
            median_ratio(found["plain"], found[name]),
            "the same step without these flags",
        )
        for name, flags in (("bf16", "--amp bf16"), ("both", "--amp bf16 --compile"))
    ]
    return [*rows, Row("training", "the first step with --compile", "s", compiling)]


def beside_another(stock: Path, data: str, count: int, folder: Path, rounds: int) -> list[Row]:
    """An image's share of some epochs with --amp bf16 and --compile, beside those of another checkout of this project without
    flags; what is compiled is compiled before. ``count``: the images of ``data``."""
    rows = []
    for cache, kept in CACHES.items():
        plain = epochs_options("yolov5n.yaml", data, 320, folder, rounds, cache)
        sides = [(ROOT, plain | {"amp": "bf16", "compile": True}), (stock, plain)]
        running = [(str(checkout), start_side(checkout, options)) for checkout, options in sides]
        found = [[s / count / EPOCHS for s in side] for side in answers(running, rounds)]
        ours, other = (statistics.median(side) * 1e3 for side in found)
        what = f"train.py, yolov5n, 320 px, batch 16, {kept}, --amp bf16 --compile"
        ratio = median_ratio(found[1], found[0])
        rows.append(Row("training", what, "ms an image", ours, other, ratio, "the other checkout, without these flags"))
    return rows


def start_side(checkout: Path, options: dict[str, Any]) -> subprocess.Popen:
    """A process that trains with these options in that checkout, EPOCHS an answer."""
    settings = {"checkout": str(checkout), "options": options, "epochs": EPOCHS}
    line = [sys.executable, "-c", SIDE, json.dumps(settings)]
    return subprocess.Popen(line, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def two_at_once(data: str, folder: Path, rounds: int) -> list[Row]:
    """Two trainings at once, beside the two one after the other."""
    words = [
        ROOT / "train.py",
        "--cfg",
        "yolov5n.yaml",
        "--data",
        data,
        "--imgsz",
        192,
        "--epochs",
        1,
        "--device",
        "cpu",
    ]
    words += ["--project", folder / "runs", "--noplots", "--noval", "--cache"]

    def both() -> float:
        with ThreadPoolExecutor() as pool:
            return seconds(lambda: list(pool.map(lambda _: run_command(words, ROOT), range(2))))

    found = in_turns({"both": both, "one": lambda: 2 * run_command(words, ROOT)[0]}, min(rounds, 3))
    both_s, one_s = (statistics.median(found[side]) for side in ("both", "one"))
    ratio = median_ratio(found["both"], found["one"])
    return [Row("busy", "two trainings at once", "s", both_s, one_s, ratio, "the two, one after the other")]


def training_memory(data: str, folder: Path, rounds: int) -> list[Row]:
    """What train.py holds at most, beside bare steps with the same model, each in a process of its own."""
    words = [ROOT / "train.py", "--cfg", "yolov5n.yaml", "--data", data, "--imgsz", 320, "--batch-size", 16]
    words += ["--epochs", 1, "--device", "cpu", "--project", folder / "runs", "--noplots"]
    bare = f"from bench.training import bare_training; bare_training({data!r}, {str(folder)!r})"
    calls = {
        "ours": lambda: run_command(words, ROOT)[2],
        "floor": lambda: run_command(["-c", f"import sys; sys.path[0] = {str(ROOT)!r}; {bare}"], ROOT)[2],
    }
    found = in_turns(calls, min(rounds, 2))
    middle = {side: statistics.median(values) for side, values in found.items()}
    ratio = median_ratio(found["ours"], found["floor"])
    what = "train.py, yolov5n, 320 px, batch 16"
    return [Row("memory", what, "MB", middle["ours"], middle["floor"], ratio, "forward, loss, backward, update")]


def bare_training(data: str, folder: str) -> None:
    """Steps on one batch, with nothing around them; for training_memory."""
    run = set_up(TrainOptions.of(steps_options(data, Path(folder))))
    batch = next(iter(run.data.train_loader))
    run.learner.model.train()
    for _ in range(5):
        bare_step(run.learner, to_float(batch.images, CPU), batch.targets)
