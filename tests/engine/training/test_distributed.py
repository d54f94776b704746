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

from tests.helpers.descriptions import small
from tests.helpers.models import own_checkpoint
from tests.helpers.processes import ended, in_background, wait_for_saves
from tests.helpers.project import ROOT
from tests.helpers.sets import make_set
from tests.helpers.training import hyp_file, options, rows
from utils.checkpoint import read_checkpoint
from utils.device import select_device
from utils.errors import UserError
from utils.yaml_file import write_yaml

WORKER = str(Path(__file__).with_name("distributed_worker.py"))
pytestmark = pytest.mark.slow


def torchrun(processes: int, *flags: str) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [*launcher, *flags]


def results(task: str, settings: list[dict], folder: Path, processes: int) -> list[dict]:
    """What distributed_worker.py finds in so many processes, run by run."""
    out = folder / f"{task}{processes}.pt"
    start = [sys.executable] if processes == 1 else torchrun(processes)
    line = [*start, WORKER, task, str(out), *map(json.dumps, settings)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out, weights_only=True)


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


def plain_steps(folder: Path) -> dict:
    data = make_set(folder / "set", train=64, val=2)
    return options(data, folder, batch_size=16, hyp=hyp_file(folder, nominal_batch=16, mixup=0.5, **STEPS))


def idle_steps(folder: Path) -> dict:
    data = make_set(folder / "set", train=32, val=2)
    (folder / "idle.yaml").write_text(IDLE_LAYER)
    # in a stage of --progressive, too, whose batches have 8 images at 64 px for 4 at full size
    hyp = hyp_file(folder, nominal_batch=8, progressive_batch=8, **STEPS)
    size = {"imgsz": 128, "batch_size": 4, "epochs": 2, "progressive": 2}
    return options(data, folder, cfg=str(folder / "idle.yaml"), hyp=hyp, **size)


def taught_steps(folder: Path) -> dict:
    data = make_set(folder / "set", train=32, val=2)
    for name, width in (("t", 0.5), ("small", 0.25)):
        description = {k: v for k, v in small(width_multiple=width).items() if k != "yaml_file"}
        write_yaml(folder / f"{name}.yaml", description)
    own_checkpoint(folder / "t.pt", cfg=str(folder / "t.yaml"), names={0: "disc", 1: "rectangle"})
    taught = {"distill_box": 20.0, "distill_obj": 20.0, "distill_cls": 20.0, "distill_cwd": 20.0}
    files = {"cfg": str(folder / "small.yaml"), "teacher": [str(folder / "t.pt")]}
    return options(
        data, folder, imgsz=32, batch_size=8, hyp=hyp_file(folder, nominal_batch=8, **STEPS, **taught), **files
    )


STEPS = {"warmup_epochs": 0.0, "lr0": 0.01}
KINDS = {"plain": plain_steps, "idle": idle_steps, "taught": taught_steps}


@pytest.fixture(scope="module")
def steps(tmp_path_factory) -> dict[str, tuple[dict, dict]]:
    """{kind: the steps of one process, and those of two}."""
    folder = tmp_path_factory.mktemp("steps")
    settings = []
    for kind, make in KINDS.items():
        (folder / kind).mkdir()
        settings.append(make(folder / kind))
    return dict(zip(KINDS, zip(*(results("steps", settings, folder, n) for n in (1, 2)), strict=True), strict=True))


def assert_the_same(one: dict, two: dict, layer: str) -> None:
    assert len(one["losses"]) == 4
    torch.testing.assert_close(torch.tensor(one["losses"]), torch.tensor(two["losses"]), rtol=1e-6, atol=0)
    # far more than the tolerance
    assert (one["weights"][layer] - one["start"]).abs().max() > 0.001
    for part in ("weights", "adapters"):
        for key, value in one[part].items():
            torch.testing.assert_close(value, two[part][key], rtol=1e-6, atol=1e-6)


def test_two_processes_take_the_steps_of_one(steps):
    assert_the_same(*steps["plain"], "model.24.m.0.weight")


def test_layers_that_nothing_uses_do_not_keep_processes_from_learning(steps):
    assert_the_same(*steps["idle"], "model.4.m.0.weight")


def test_two_processes_go_from_stage_to_stage_as_one(tmp_path):
    settings = idle_steps(tmp_path)
    one, two = (results("stages", [settings], tmp_path, n)[0] for n in (1, 2))
    assert len(one["weights"]) == 2
    for before, after in zip(one["weights"], two["weights"], strict=True):
        for key, value in before.items():
            torch.testing.assert_close(value, after[key], rtol=1e-6, atol=1e-6)
    first, last = (weights["model.4.m.0.weight"] for weights in one["weights"])
    assert (last - first).abs().max() > 0.001


def test_two_processes_are_taught_as_one(steps):
    """The layers beside the model get the gradients of all images, too; what is said of boxes is by the weights of all."""
    one, _ = steps["taught"]
    assert len(one["adapters"]) == 2 and min(losses[3] for losses in one["losses"]) > 0.001
    assert_the_same(*steps["taught"], "model.8.m.0.weight")


def test_sharded_validation_gives_the_figures_of_one_process(learnt, tmp_path):
    data, _, weights = learnt
    settings = options(data, tmp_path, weights=str(weights), cfg="", batch_size=6, exist_ok=True)
    one, two, three = (results("validate", [settings], tmp_path, n)[0] for n in (1, 2, 3))
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
