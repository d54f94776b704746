"""The device that computes."""

import os

import torch

from utils.errors import UserError


def select_device(name: str = "") -> torch.device:
    """``""``: CUDA where there is one, else MPS, else the CPU; ``"cpu"``, ``"mps"``, ``"0"``, ``"cuda:1"``.

    Raises UserError for a device this machine doesn't have.
    """
    name = str(name).strip().lower()
    if name == "cpu":
        return torch.device("cpu")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise UserError("--device mps: this machine or this build of PyTorch has no MPS; use --device cpu")
        return torch.device("mps")
    if name == "":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    index = name.removeprefix("cuda:").removeprefix("cuda") or "0"
    if not index.isdigit():
        raise UserError(f"--device {name}: give cpu, mps or one CUDA index such as 0")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index) >= count:
        raise UserError(f"--device {name}: this machine has {count} CUDA devices; use --device cpu or leave it out")
    return torch.device("cuda", int(index))


def describe_device(device: torch.device) -> str:
    """A few words for the log: «CUDA:0 (NVIDIA H100, 80 GiB)» or «CPU (8 threads)»."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"CUDA:{device.index or 0} ({properties.name}, {properties.total_memory / 2**30:.0f} GiB)"
    if device.type == "mps":
        return "MPS"
    return f"CPU ({torch.get_num_threads()} threads)"


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was asked, so that a clock read next is honest."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
