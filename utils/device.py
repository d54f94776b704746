"""The device that computes."""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from utils.errors import UserError


def select_device(name: str = "") -> torch.device:
    """``""``: CUDA where there is one, else MPS, else the CPU; ``"cpu"``, ``"mps"``, ``"0"``, ``"cuda:1"``.

    Of several processes started by torchrun each takes its own: of ``""`` the GPU of its local rank, of a list such as
    ``"0,1,2,3"`` the one at its place. A GPU becomes the current one of the process: else what names none, such as the
    pinning of batches, would take memory of the first. Raises UserError for a device this machine doesn't have.
    """
    name = str(name).strip().lower()
    rank = int(os.environ.get("LOCAL_RANK", 0))
    if name == "cpu":
        return torch.device("cpu")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise UserError("--device mps: this machine or this build of PyTorch has no MPS; use --device cpu")
        return torch.device("mps")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "":
        if count:
            index = str(rank)
        else:
            return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    else:
        index = _listed(name, rank)
    if int(index) >= count:
        raise UserError(
            f"--device {name or index}: this machine has {count} CUDA devices; "
            f"{'start fewer processes' if not name else 'use --device cpu or leave it out'}"
        )
    torch.cuda.set_device(int(index))
    return torch.device("cuda", int(index))


def _listed(name: str, rank: int) -> str:
    """The CUDA index for a process, of ``"0"``, ``"cuda:1"`` or a list."""
    indices = (
        [i.strip() for i in name.removeprefix("cuda:").removeprefix("cuda").split(",")] if name != "cuda" else ["0"]
    )
    if not all(i.isdigit() for i in indices):
        raise UserError(f"--device {name}: give cpu, mps or a CUDA index such as 0")
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if len(indices) != processes:
        raise UserError(
            f"--device {name}: {len(indices)} devices for {processes} processes; every device takes a process of its own: "
            f"torchrun --nproc_per_node {len(indices)} train.py …"
        )
    return indices[rank]


def available_memory() -> int | None:
    """Bytes of memory available without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def describe_device(device: torch.device) -> str:
    """A few words for the log: «CUDA:0 (NVIDIA H100, 80 GiB)» or «CPU (8 threads)»."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"CUDA:{device.index or 0} ({properties.name}, {properties.total_memory / 2**30:.0f} GiB)"
    if device.type == "mps":
        return "MPS"
    return f"CPU ({torch.get_num_threads()} threads)"


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was asked, so that a clock read next includes it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def now(device: torch.device) -> float:
    """Seconds on a clock of its own, once the device has done what it was asked."""
    synchronize(device)
    return time.perf_counter()


def median_ms(call: Callable[[], object], device: torch.device, repeats: int = 10, warm_up: int = 2) -> float:
    """Median milliseconds of ``repeats`` calls, after ``warm_up`` that don't count: they plan, compile and fill caches."""
    times = []
    for _ in range(warm_up + repeats):
        started = now(device)
        call()
        times.append((now(device) - started) * 1e3)
    return statistics.median(times[warm_up:])
