"""Runs that are stopped, killed or starved go on as if nothing had happened."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

import train
from engine.training import records
from engine.training.options import TrainOptions
from engine.training.setup import set_up
from engine.training.trainer import Trainer
from tests.helpers.processes import ended, in_background, wait_for_saves
from tests.helpers.project import ROOT, assert_user_error, command, command_here
from tests.helpers.sets import make_set
from tests.helpers.training import hyp_file, options, rows, stopped_at
from utils.checkpoint import read_checkpoint, save_checkpoint
from utils.errors import UserError
from utils.results import write_cells


def start(data, tmp_path, *flags, name="run") -> subprocess.Popen:
    """Start train.py in the background, with stochastic depth, mixup and gradients that accumulate."""
    hyp = hyp_file(tmp_path, mixup=0.5, nominal_batch=6, warmup_epochs=1.0)
    line = [
        sys.executable,
        str(ROOT / "train.py"),
        "--data",
        str(data),
        "--cfg",
        "yolov5s_EfficientNetV2.yaml",
        "--hyp",
        hyp,
    ]
    line += "--imgsz 64 --batch-size 2 --epochs 4 --workers 0 --device cpu --save-minutes 0.00001".split()
    line += ["--project", str(tmp_path / "runs"), "--name", name, *flags]
    return in_background(line, tmp_path)


def wait_for_epochs(process: subprocess.Popen, table, epochs: int) -> None:
    """Return when results.csv has this many rows, or the run has ended."""
    deadline = time.time() + 120
    while process.poll() is None and time.time() < deadline:
        if table.exists() and len(table.read_text().splitlines()) > epochs:
            return
        time.sleep(0.005)


def assert_same_state(a, b, where: str = "") -> None:
    """Equal to the bit, through containers; the clock and the arguments of the command aside."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert set(a) == set(b), where
        for key in set(a) - {"date", "args"}:
            assert_same_state(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same_state(x, y, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b or a != a, where


@pytest.mark.slow
def test_a_run_killed_three_times_ends_in_the_very_same_state(tmp_path):
    data = make_set(tmp_path / "set", train=10, val=4)
    assert start(data, tmp_path, name="whole").wait(300) == 0
    process = start(data, tmp_path, name="killed")
    folder = tmp_path / "runs" / "killed"
    last = folder / "weights" / "last.pt"
    for saves, workers in ((3, 0), (4, 2), (6, 1)):
        wait_for_saves(process, last, saves)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
        line = [
            sys.executable,
            str(ROOT / "train.py"),
            "--resume",
            str(last),
            "--workers",
            str(workers),
            "--device",
            "cpu",
        ]
        process = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said[-2000:]
    assert "resuming" in said
    whole = tmp_path / "runs" / "whole"
    assert (whole / "results.csv").read_bytes() == (folder / "results.csv").read_bytes()
    for name in ("last.pt", "best.pt"):
        states = [read_checkpoint(f / "weights" / name).training for f in (whole, folder)]
        assert_same_state(*states)


def trainer_of(data, tmp_path, **changes):
    hyp = hyp_file(tmp_path, nominal_batch=6, warmup_epochs=0.0)
    return Trainer(set_up(TrainOptions.of(options(data, tmp_path, batch_size=2, epochs=2, hyp=hyp, **changes))))


def test_a_checkpoint_within_an_epoch_restores_everything(tmp_path):
    """Optimizer, averages and gradients not yet applied: equal to the bit right after the resume, and after the epoch."""
    data = make_set(tmp_path / "set", train=10, val=2)
    first = trainer_of(data, tmp_path, cfg="yolov5s_EfficientNetV2.yaml")
    original = first.save_if_due

    class Enough(Exception):
        pass

    def stop_after_four():
        original()
        if first.state.batches_done == 4:
            raise Enough

    first.save_if_due = stop_after_four
    with pytest.raises(Enough):
        first.train_epoch()
    first.save()
    saved = read_checkpoint(first.weights / "last.pt").training
    assert saved["gradients"] and (saved["epoch"], saved["batches_done"]) == (0, 4)
    second = Trainer(set_up(TrainOptions.of({"resume": str(first.weights / "last.pt"), "device": "cpu"})))
    second.save()
    assert_same_state(saved, read_checkpoint(first.weights / "last.pt").training)
    first.save_if_due = original
    first.state.batches_done = 4
    for trainer in (first, second):
        trainer.train_epoch()
    assert_same_state(dict(first.learner.model.state_dict()), dict(second.learner.model.state_dict()))
    assert_same_state(dict(first.learner.ema.model.state_dict()), dict(second.learner.ema.model.state_dict()))
    assert torch.equal(first.state.mean_losses, second.state.mean_losses)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_a_checkpoint_and_say_how_to_go_on(number, tmp_path):
    data = make_set(tmp_path / "set", train=10, val=2)
    process = start(data, tmp_path, "--epochs", "500")
    last = tmp_path / "runs" / "run" / "weights" / "last.pt"
    wait_for_saves(process, last, 2)
    process.send_signal(number)
    said = ended(process, tmp_path)
    assert process.returncode == 128 + number
    assert f"go on with: python train.py --resume {last}" in said
    assert "Traceback" not in said
    assert "optimizer" in read_checkpoint(last).training


def test_a_finished_run_cannot_be_resumed(tiny_set, tmp_path):
    folder = train.run(**options(tiny_set, tmp_path))
    result = command("train.py", "--resume", folder / "weights" / "last.pt")
    assert_user_error(result, "last.pt", "its training is finished; to train on, add --epochs N, more than were done")


def test_a_run_stopped_before_its_mosaics_close_ends_like_one_that_was_not(tmp_path):
    data = make_set(tmp_path / "set", train=4, val=2)
    hyp = hyp_file(tmp_path, nominal_batch=4, warmup_epochs=0.0, mixup=0.5, close_mosaic=1)
    flags = options(data, tmp_path, batch_size=2, epochs=3, hyp=hyp)
    whole = train.run(**flags, name="whole")
    last = stopped_at(Trainer(set_up(TrainOptions.of(flags | {"name": "stopped"}))), epoch=1, batches=1)
    stopped = train.run(resume=str(last), workers=2, device="cpu")
    assert (stopped / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    assert_same_state(*(read_checkpoint(folder / "weights" / "last.pt").model for folder in (whole, stopped)))


def test_a_damaged_checkpoint_is_named_and_a_sound_one_offered(tiny_set, tmp_path):
    trainer = trainer_of(tiny_set, tmp_path)
    trainer.train_epoch()
    trainer.save(is_best=True)
    last = trainer.weights / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    result = command_here("train.py", "--resume", last)
    assert_user_error(result, "last.pt", "damaged", f"--resume {trainer.weights / 'best.pt'}")


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_vanished_data_set_is_one_line_and_loses_nothing(workers, tmp_path):
    data = make_set(tmp_path / "set", train=10, val=2)
    process = start(data, tmp_path, "--epochs", "500", "--workers", workers)
    last = tmp_path / "runs" / "run" / "weights" / "last.pt"
    wait_for_saves(process, last, 2)
    shutil.move(tmp_path / "set" / "images", tmp_path / "elsewhere")
    said = ended(process, tmp_path)
    assert process.returncode == 2
    errors = [line for line in said.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and ".png: no such file" in errors[0] and "--resume" in errors[0]
    assert "optimizer" in read_checkpoint(last).training


def test_a_killed_worker_is_one_line_and_leaves_the_last_checkpoint(tmp_path):
    data = make_set(tmp_path / "set", train=10, val=2)
    process = start(data, tmp_path, "--epochs", "500", "--workers", "2")
    last = tmp_path / "runs" / "run" / "weights" / "last.pt"
    wait_for_saves(process, last, 2)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    said = ended(process, tmp_path)
    assert children
    errors = [line for line in said.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert process.returncode == 2 and len(errors) == 1, said[-3000:]
    assert "fewer --workers" in errors[0]
    assert "optimizer" in read_checkpoint(last).training


def test_resume_without_any_run(monkeypatch, tmp_path):
    import engine.training.resume

    monkeypatch.setattr(engine.training.resume, "ROOT", tmp_path)
    with pytest.raises(UserError, match="holds no"):
        train.run(resume=True)


def test_results_are_not_doubled_by_exist_ok(tiny_set, tmp_path):
    for _ in range(2):
        folder = train.run(**options(tiny_set, tmp_path, name="same", exist_ok=True))
    assert [row["epoch"] for row in rows(folder)] == ["0"]


def small_disk(folder, megabytes: int):
    """Mount a file system of its own at ``folder``; the test is skipped where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    line = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(line, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_a_disk_that_cannot_be_written_is_one_line_and_leaves_the_last_checkpoint(trouble, tmp_path):
    data = make_set(tmp_path / "set", train=10, val=2)
    disk = tmp_path / "runs"
    small_disk(disk, 400)
    try:
        process = start(data, tmp_path, "--epochs", "500", "--noplots")
        last = disk / "run" / "weights" / "last.pt"
        wait_for_epochs(process, disk / "run" / "results.csv", 2)
        if trouble == "full":
            with open(disk / "filler", "wb") as f, contextlib.suppress(OSError):
                while True:
                    f.write(bytes(2**20))
                    f.flush()
        else:
            remount = ["mount", "-o", "remount,ro", str(disk)]
            while subprocess.run(remount, capture_output=True).returncode:  # refused while a file is being written
                assert process.poll() is None
        said = ended(process, tmp_path)
        errors = [line for line in said.replace("\r", "\n").splitlines() if line.startswith("error: ")]
        reason = "No space left on device" if trouble == "full" else "Read-only file system"
        assert process.returncode == 2 and len(errors) == 1 and reason in errors[0], said[-3000:]
        assert "Traceback" not in said
        assert "optimizer" in read_checkpoint(last).training
        assert rows(disk / "run")[-1]["x/lr2"]  # results.csv is as it was before, not cut short
        Trainer(set_up(TrainOptions.of({"resume": str(last), "device": "cpu"})))  # all that is needed is there
    finally:
        subprocess.run(["umount", "-l", str(disk)], capture_output=True)


def test_a_checkpoint_of_an_earlier_release_goes_on_to_the_same_end(tmp_path):
    """Then rows of results were texts, parameter groups did not say their kind, and other options were saved; no run had
    another before it, and no mosaics closed."""
    data = make_set(tmp_path / "set", train=10, val=2)
    first = trainer_of(data, tmp_path)
    first.train_epoch()
    first.log(first.validate())
    first.state.epoch_done()
    first.save()
    saved = dict(read_checkpoint(first.weights / "last.pt").training)
    old = tmp_path / "old" / "weights" / "last.pt"
    old.parent.mkdir(parents=True)
    groups = [{k: v for k, v in g.items() if k != "kind"} for g in saved["optimizer"]["param_groups"]]
    changes = {
        "results": [write_cells(row) for row in saved["results"]],
        "optimizer": saved["optimizer"] | {"param_groups": groups},
        "args": saved["args"] | {"an_option_of_then": 1},
        "hyp": {k: v for k, v in saved["hyp"].items() if k != "close_mosaic"},
    }
    save_checkpoint(old, {k: v for k, v in (saved | changes).items() if k != "earlier_epochs"})
    Trainer(set_up(TrainOptions.of({"resume": str(old), "device": "cpu"}))).run()
    first.run()
    assert (old.parents[1] / "results.csv").read_bytes() == (first.folder / "results.csv").read_bytes()
    weights, expected = (read_checkpoint(p).model for p in (old, first.weights / "last.pt"))
    assert all(torch.equal(weights[k], expected[k]) for k in expected)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the run's own catches it."""


@pytest.mark.parametrize("moment", ["a drawing", "a save", "the last reduction"])
def test_a_run_killed_at_the_end_ends_like_one_that_was_not(moment, tmp_path, monkeypatch):
    data = make_set(tmp_path / "set", train=6, val=2)
    flags = options(data, tmp_path, epochs=2, save_period=1, noplots=False)
    save, plot, saved = records.save_checkpoint, records.plot_evaluation, []

    def note(path, data, kill_at=None):
        saved.append(path.name)
        if len(saved) == kill_at:
            raise Killed
        save(path, data)

    def kill(*_):
        raise Killed

    monkeypatch.setattr(records, "save_checkpoint", note)
    whole = train.run(**flags, name="whole")
    # last.pt of both epochs, and reduced; best.pt before it each time
    assert saved.count("last.pt") == 3 and saved[-2:] == ["best.pt", "last.pt"]
    lasts = [i for i, name in enumerate(saved, 1) if name == "last.pt"]
    kill_at = {"a drawing": None, "a save": lasts[1], "the last reduction": lasts[2]}[moment]

    saved.clear()
    monkeypatch.setattr(records, "save_checkpoint", partial(note, kill_at=kill_at))
    monkeypatch.setattr(records, "plot_evaluation", kill if moment == "a drawing" else plot)
    with pytest.raises(Killed):
        train.run(**flags, name="killed")
    monkeypatch.setattr(records, "save_checkpoint", save)
    monkeypatch.setattr(records, "plot_evaluation", plot)
    killed = train.run(resume=str(tmp_path / "runs" / "killed" / "weights" / "last.pt"), device="cpu", workers=0)

    files, expected = ({p.relative_to(f) for p in f.rglob("*.*") if "tfevents" not in p.name} for f in (killed, whole))
    assert files == expected and Path("confusion_matrix.png") in files
    assert (killed / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    for name in ("last.pt", "best.pt", "epoch0.pt", "epoch1.pt"):
        found, expected = (read_checkpoint(f / "weights" / name) for f in (killed, whole))
        assert ("optimizer" in found.training) == ("optimizer" in expected.training) == name.startswith("epoch")
        assert all(torch.equal(found.model[k], expected.model[k]) for k in expected.model)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_the_end_says_how_to_go_on(number, tmp_path, monkeypatch, capsys):
    data = make_set(tmp_path / "set", train=4, val=2)
    plot = records.plot_results
    monkeypatch.setattr(records, "plot_results", lambda *_: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as end:
        train.run(**options(data, tmp_path, name="stopped", noplots=False))
    last = tmp_path / "runs" / "stopped" / "weights" / "last.pt"
    assert end.value.code == 128 + number
    assert f"stopped; go on with: python train.py --resume {last}" in capsys.readouterr().out
    monkeypatch.setattr(records, "plot_results", plot)
    folder = train.run(resume=str(last), device="cpu", workers=0)
    assert (folder / "results.png").exists() and "optimizer" not in read_checkpoint(last).training


def test_a_clock_that_is_set_back_delays_no_save(tmp_path, monkeypatch):
    data = make_set(tmp_path / "set", train=4, val=2)
    trainer = trainer_of(data, tmp_path, save_minutes=1e-9)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    trainer.train_epoch()
    assert read_checkpoint(trainer.weights / "last.pt").training["batches_done"] == 2
