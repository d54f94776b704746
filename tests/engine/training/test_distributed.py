"""Several processes compute what one would, end together, and start again by themselves."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.helpers.processes import ended, in_background, wait_for_saves
from tests.helpers.project import ROOT
from tests.helpers.sets import make_set
from tests.helpers.training import hyp_file, options, rows
from utils.checkpoint import read_checkpoint
from utils.device import select_device
from utils.errors import UserError

WORKER = str(Path(__file__).with_name("distributed_worker.py"))
pytestmark = pytest.mark.slow


def torchrun(processes: int, *flags: str) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [*launcher, *flags]


def results(task: str, settings: dict, tmp_path, processes: int) -> dict:
    """What distributed_worker.py finds in so many processes."""
    out = tmp_path / f"{task}{processes}.pt"
    start = [sys.executable] if processes == 1 else torchrun(processes)
    line = [*start, WORKER, task, str(out), json.dumps(settings)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out, weights_only=True)


def test_two_processes_take_the_steps_of_one(tmp_path):
    data = make_set(tmp_path / "set", train=64, val=2)
    hyp = hyp_file(tmp_path, nominal_batch=16, warmup_epochs=0.0, mixup=0.5, lr0=0.01)
    settings = options(data, tmp_path, batch_size=16, hyp=hyp)
    one, two = (results("steps", settings, tmp_path, n) for n in (1, 2))
    assert len(one["losses"]) == 4
    torch.testing.assert_close(torch.tensor(one["losses"]), torch.tensor(two["losses"]), rtol=1e-6, atol=0)
    moved = (one["weights"]["model.24.m.0.weight"] - one["start"]).abs().max()
    assert moved > 0.001  # far more than the tolerance
    for key, value in one["weights"].items():
        torch.testing.assert_close(value, two["weights"][key], rtol=1e-6, atol=1e-6)


IDLE_LAYER = """
nc: 3
anchors: [[10, 13, 16, 30, 33, 23]]
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, Conv, [16, 1, 1]]  # nothing uses it
head:
  - [[2], 1, Detect, [nc, anchors]]
"""


def test_layers_that_nothing_uses_do_not_keep_processes_from_learning(tmp_path):
    data = make_set(tmp_path / "set", train=32, val=2)
    cfg = tmp_path / "idle.yaml"
    cfg.write_text(IDLE_LAYER)
    # in a stage of --progressive, too, whose batches have 8 images at 64 px for 4 at full size
    hyp = hyp_file(tmp_path, nominal_batch=8, warmup_epochs=0.0, lr0=0.01, progressive_batch=8)
    settings = options(data, tmp_path, cfg=str(cfg), imgsz=128, batch_size=4, epochs=2, progressive=2, hyp=hyp)
    one, two = (results("steps", settings, tmp_path, n) for n in (1, 2))
    assert len(one["losses"]) == len(two["losses"]) == 4
    torch.testing.assert_close(torch.tensor(one["losses"]), torch.tensor(two["losses"]), rtol=1e-6, atol=0)
    assert (one["weights"]["model.4.m.0.weight"] - one["start"]).abs().max() > 0.001
    for key, value in one["weights"].items():
        torch.testing.assert_close(value, two["weights"][key], rtol=1e-6, atol=1e-6)


def test_sharded_validation_gives_the_figures_of_one_process(learnt, tmp_path):
    data, _, weights = learnt
    settings = options(data, tmp_path, weights=str(weights), cfg="", batch_size=6, exist_ok=True)
    one, two, three = (results("validate", settings, tmp_path, n) for n in (1, 2, 3))
    assert one["ap"][:, 0].max() > 0.3  # there is something to be measured
    for other in (two, three):
        assert other["images"] == 12
        for key in ("ap", "p", "r", "confusion"):
            torch.testing.assert_close(one[key], other[key], rtol=0, atol=1e-6)


def start_run(data, tmp_path, name: str, *launcher_flags: str) -> subprocess.Popen:
    hyp = hyp_file(tmp_path, nominal_batch=6, warmup_epochs=1.0)
    flags = f"--cfg yolov5n.yaml --imgsz 64 --batch-size 4 --epochs 6 --workers 0 --device cpu --hyp {hyp} --noplots "
    flags += f"--save-minutes 0.00001 --project {tmp_path / 'runs'} --name {name} --data {data}"
    line = torchrun(2, *launcher_flags, str(ROOT / "train.py"), *flags.split())
    os.environ["OMP_NUM_THREADS"] = "1"
    return in_background(line, tmp_path)


def workers_of(process: subprocess.Popen) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process.pid), "-f", "train.py"], capture_output=True, text=True)
    return sorted(int(pid) for pid in found.stdout.split())


def test_a_dead_process_ends_all_and_torchrun_starts_them_again_where_they_were(tmp_path):
    data = make_set(tmp_path / "set", train=20, val=4)
    whole = start_run(data, tmp_path, "whole")
    assert "results are in" in ended(whole, tmp_path) and whole.returncode == 0
    process = start_run(data, tmp_path, "killed", "--max-restarts", "1")
    last = tmp_path / "runs" / "killed" / "weights" / "last.pt"
    wait_for_saves(process, last, 4)
    first = workers_of(process)
    assert len(first) == 2
    os.kill(first[1], signal.SIGKILL)
    said = ended(process, tmp_path)
    assert process.returncode == 0, said[-3000:]
    assert f"resuming {last}" in said
    runs = tmp_path / "runs"
    assert sorted(p.name for p in runs.iterdir()) == ["killed", "whole"]
    assert len(rows(runs / "killed")) == 6
    assert (runs / "killed" / "results.csv").read_bytes() == (runs / "whole" / "results.csv").read_bytes()


def test_machines_resume_together_after_a_restart(tmp_path):
    """Two launchers on one machine stand for two machines: each has a process id and a count of deaths of its own."""
    data = make_set(tmp_path / "set", train=8, val=2)
    settings = options(data, tmp_path, epochs=4, batch_size=4, noval=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{free.getsockname()[1]}"
    line = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nnodes",
        "2",
        "--nproc_per_node",
        "1",
        "--max-restarts",
        "2",
    ]
    line += ["--rdzv-backend", "c10d", "--rdzv-endpoint", meeting, "--local-addr", "127.0.0.1", "--rdzv-id", "test"]
    line += [WORKER, "restart", str(tmp_path / "out.pt"), json.dumps(settings)]
    machines = []
    for place in ("first", "second"):
        (tmp_path / place).mkdir()
        machines.append(in_background(line, tmp_path / place))
    try:
        said = [ended(machine, tmp_path / place) for machine, place in zip(machines, ("first", "second"), strict=True)]
    finally:
        for machine in machines:
            # a launcher that is asked to stop ends its processes
            machine.terminate()
            machine.wait(60)
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(s[-3000:] for s in said)
    begun = (tmp_path / "runs" / "exp.begun").read_text().splitlines()
    assert sorted(begun[:2]) == ["0 0", "1 0"]
    again = [int(line.split()[1]) for line in begun[2:]]
    assert len(again) == 2 and again[0] == again[1] >= 2
    assert [p.name for p in (tmp_path / "runs").iterdir() if p.is_dir()] == ["exp"]
    assert len(rows(tmp_path / "runs" / "exp")) == 4


def test_a_dead_process_is_one_line_and_leaves_the_last_checkpoint(tmp_path):
    data = make_set(tmp_path / "set", train=20, val=4)
    process = start_run(data, tmp_path, "run")
    last = tmp_path / "runs" / "run" / "weights" / "last.pt"
    wait_for_saves(process, last, 3)
    os.kill(workers_of(process)[1], signal.SIGKILL)
    said = ended(process, tmp_path)
    errors = [line for line in said.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert process.returncode != 0
    assert len(errors) == 1 and "another one has ended" in errors[0] and f"--resume {last}" in errors[0], said[-3000:]
    assert "optimizer" in read_checkpoint(last).training


def test_the_signal_to_stop_reaches_all_and_leaves_a_checkpoint(tmp_path):
    data = make_set(tmp_path / "set", train=20, val=4)
    process = start_run(data, tmp_path, "run")
    last = tmp_path / "runs" / "run" / "weights" / "last.pt"
    wait_for_saves(process, last, 2)
    process.send_signal(signal.SIGTERM)
    deadline = time.time() + 120
    said = ended(process, tmp_path)
    assert time.time() < deadline
    assert f"go on with: torchrun --nproc_per_node 2 train.py --resume {last} --workers 0 --device cpu" in said
    assert "optimizer" in read_checkpoint(last).training


def test_the_batch_must_divide_among_the_processes(tmp_path, tiny_set):
    line = torchrun(2, str(ROOT / "train.py"), "--data", str(tiny_set), "--batch-size", "5", "--device", "cpu")
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "error: --batch-size 5: 2 processes need a multiple of 2" in done.stderr


def test_a_list_of_devices_takes_a_process_each(monkeypatch):
    """A stand-in for the driver: this machine has no GPU to count or to choose."""
    current = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    with pytest.raises(UserError, match="torchrun --nproc_per_node 2 train.py"):
        select_device("0,1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert select_device("2,3") == torch.device("cuda", 3)
    assert select_device("") == torch.device("cuda", 1)
    # each the current one, where libraries go that are told of none: pinned batches, TensorRT, cuDNN
    assert current == [3, 1]
