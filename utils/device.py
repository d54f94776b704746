"""The device that computes."""

import gc
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from utils.errors import UserError, shown

# torch.OutOfMemoryError of later releases is the same class, and is missing in 2.4
OutOfMemory = torch.cuda.OutOfMemoryError


def select_device(name: str = "") -> torch.device:
    """``""``: CUDA where there is one, else MPS, else the CPU; ``"cpu"``, ``"mps"``, ``"0"``, ``"cuda:1"``.

    Of several processes started by torchrun each takes its own: of ``""`` the GPU of its local rank, of a list such as
    ``"0,1,2,3"`` the one at its place. A GPU becomes the current one of the process: else what names none, such as the
    pinning of batches, would take memory of the first. Raises UserError for a device this machine doesn't have.
    """
    name = str(name).strip().lower()
    rank = told_number("LOCAL_RANK", 0)
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
    if not all(i.isdecimal() and len(i) < 5 for i in indices):
        raise UserError(f"--device {name}: give cpu, mps or a CUDA index such as 0")
    processes = told_number("LOCAL_WORLD_SIZE", 1)
    if len(indices) != processes:
        raise UserError(
            f"--device {name}: {len(indices)} devices for {processes} processes; every device takes a process of its own: "
            f"torchrun --nproc_per_node {len(indices)} train.py …"
        )
    return indices[rank]


def told_number(variable: str, default: int | None = None) -> int:
    """What torchrun tells each process by ``variable`` of the environment. Raises UserError for what is no whole number, and
    where nothing is told and there is no default."""
    told = os.environ.get(variable)
    if told is None and default is not None:
        return default
    if told is None or not re.fullmatch("[0-9]{1,9}", told.strip()):
        raise UserError(
            f"{variable} in the environment: {'missing' if told is None else shown(told)}, where torchrun sets a whole number; "
            "start several processes by torchrun, and unset WORLD_SIZE to train in one"
        )
    return int(told)


def available_memory() -> int | None:
    """Bytes of memory available without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


@contextmanager
def normalising() -> Iterator[None]:
    """Raise UserError where BatchNorm is to learn from a map of one pixel of one image, of which there is no variance."""
    try:
        yield
    except ValueError as e:
        if "more than 1 value per channel" not in str(e):
            raise
        raise UserError(
            "the smallest map of the model has one pixel here, and a batch of one image is not enough to normalise it; "
            "choose a larger --imgsz, or another --batch-size"
        ) from None


def processor_name() -> str:
    """The name of the processor, or of its kind where the system does not say more."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def computes_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has instructions for bfloat16; False where the system does not say."""
    try:
        return bool(re.search(r"\b(avx512_|amx_)?bf16\b", cpuinfo.read_text()))
    except OSError:
        return False


def half_precision(device: torch.device) -> torch.dtype | None:
    """What --half computes in: float16; on a CPU bfloat16 where the processor computes it, else None, for nothing is gained."""
    if device.type != "cpu":
        return torch.float16
    return torch.bfloat16 if computes_bf16() else None


def free_memory(device: torch.device) -> int | None:
    """Bytes of a CUDA device that this process has or can have; None for other devices, which do not say."""
    if device.type != "cuda":
        return None
    return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)


def peak_memory(call: Callable[[], object], device: torch.device) -> int:
    """Bytes of a CUDA device that this process holds at most during ``call``."""
    # what earlier calls have left in circles would count
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    call()
    return torch.cuda.max_memory_reserved(device)


@contextmanager
def keeping_random_state(device: torch.device) -> Iterator[None]:
    """What is drawn of PyTorch's global generators within it does not change what is drawn after it."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


@contextmanager
def full_precision() -> Iterator[None]:
    """Within it CUDA multiplies float32 as such. Else its convolutions may use TF32, which keeps 10 bits of 23."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def describe_device(device: torch.device) -> str:
    """A few words for the log: «CUDA:0 (NVIDIA H100, 80 GiB)» or «CPU (8 threads)»."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"CUDA:{device.index or 0} ({properties.name}, {properties.total_memory / 2**30:.0f} GiB)"
    if device.type == "mps":
        return "MPS"
    threads = torch.get_num_threads()
    return f"CPU ({threads} thread{'s' if threads > 1 else ''})"


def be_deterministic() -> None:
    """Let PyTorch take, from here on in this process, kernels that give the same bits in every run, where it has them.

    Of an operation that has none it warns, once. To be called before anything was multiplied on a CUDA device: cuBLAS reads
    its setting when it starts.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on ``device``, without waiting for what that still has to do. Leave the original unchanged."""
    # from memory that may be paged out even a copy that need not wait would
    source = tensor.pin_memory() if device.type == "cuda" else tensor
    return source.to(device, non_blocking=True)


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


def times_ms(call: Callable[[], object], device: torch.device, repeats: int = 10, warm_up: int = 2) -> list[float]:
    """Milliseconds of each of ``repeats`` calls, after ``warm_up`` that don't count: they plan, compile and fill caches."""
    times = []
    for _ in range(warm_up + repeats):
        started = now(device)
        call()
        times.append((now(device) - started) * 1e3)
    return times[warm_up:]


def median_ms(call: Callable[[], object], device: torch.device, repeats: int = 10, warm_up: int = 2) -> float:
    """The median of ``times_ms``."""
    return statistics.median(times_ms(call, device, repeats, warm_up))
