"""Several processes that train one model together. All that knows of them is in this file.

    torchrun --nproc_per_node 2 train.py …     starts them and tells each its rank by environment variables
    World.join(device)                         this process among them; of one alone, every method is trivial

Every process holds the whole model and an equal share of each batch. Only the first one (rank 0) writes files and prints.

Gradients and counts travel from device to device, by NCCL where there are GPUs. What the processes tell each other besides
travels from CPU to CPU, by gloo: so a GPU waits for nothing while the first process checks images or fits anchors. How
long one waits for another is set by YOLO_TIMEOUT_MINUTES in the environment.
"""

import atexit
import math
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from utils.device import told_number
from utils.errors import UserError, shown

T = TypeVar("T")


# environment: minutes that a process waits for the others
TIMEOUT_VARIABLE = "YOLO_TIMEOUT_MINUTES"
# the first process may have a large data set to check and to decode, while the others wait for it
TIMEOUT_MINUTES = 120.0
# how long a process that ends by an error waits for its connections to close
LEAVE_SECONDS = 5

# What gloo and NCCL say, in small letters, where the other end of a connection is gone …
BROKEN = (
    "connection closed by",
    "connection reset by",
    "connection refused",
    "broken pipe",
    "forcibly closed",
    "remote process exit",
    "communicator was aborted",
    "failed to recv, got 0 bytes",
)
# … and where it is silent.
SILENT = ("timed out waiting", "application timeout", "collective operation timeout", "wait timeout", "socket timeout")


class PeerLost(UserError):
    """Another process of the run has ended, or has been silent for too long, so this one cannot go on."""


@dataclass(frozen=True)
class World:
    """This process's ``rank`` among ``size`` processes, ``local_size`` of them on this machine.

    ``restarted``: torchrun has started them anew after one of them died (``--max-restarts``), on whichever machine.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    device: torch.device = torch.device("cpu")
    restarted: bool = False

    @classmethod
    def join(cls, device: torch.device) -> "World":
        """Meet the processes that torchrun has started; alone where it hasn't. All but the first become silent.

        Raises UserError where YOLO_TIMEOUT_MINUTES is no number above 0, and where what torchrun tells is none.
        """
        size = told_number("WORLD_SIZE", 1)
        # each torchrun counts the deaths among its own processes
        restarted = told_number("TORCHELASTIC_RESTART_COUNT", 0) > 0
        if size <= 1:
            return cls(device=device, restarted=restarted)
        rank, local_size = told_number("RANK"), told_number("LOCAL_WORLD_SIZE", size)
        world = cls(rank, size, local_size, device)
        if sys.platform == "win32":
            # PyTorch's builds for Windows lack libuv, by which its store is served unless told otherwise
            os.environ.setdefault("USE_LIBUV", "0")
        if not dist.is_initialized():
            wait = timedelta(minutes=timeout_minutes())
            with world._together():
                store, _, _ = next(iter(dist.rendezvous("env://")))
                store = dist.PrefixStore(agreed_name(store, rank, size), store)
                dist.init_process_group(backend_for(device), store=store, rank=rank, world_size=size, timeout=wait)
            atexit.register(world._leave_at_exit)
        if not world.is_first:
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  open as long as the process lives
        return replace(world, restarted=world.any(restarted))

    def leave(self) -> None:
        """Leave the group of processes."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def _leave_at_exit(self) -> None:
        """Leave where an error ends the process, or gloo's threads meet an interpreter that is gone, and abort it.

        Not for long: NCCL may wait for processes that have died.
        """
        leaving = threading.Thread(target=self.leave, daemon=True)
        try:
            leaving.start()
        # Python 3.12.0 and .1 start no thread any more here
        except RuntimeError:
            self.leave()
        else:
            leaving.join(LEAVE_SECONDS)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def launch(self) -> str:
        """What names this start of torchrun, the same after it has restarted its processes; empty without torchrun."""
        run = os.environ.get("TORCHELASTIC_RUN_ID")
        return f"{run}:{os.getppid()}" if run else ""

    def wrap(self, model: nn.Module, idle: bool = False) -> nn.Module:
        """The model whose backward averages gradients over the processes. ``idle``: some parameters get none."""
        if self.size == 1:
            return model
        devices = [self.device.index] if self.device.type == "cuda" else None
        with self._together():
            return nn.parallel.DistributedDataParallel(model, device_ids=devices, find_unused_parameters=idle)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over the processes, on its device."""
        if self.size == 1:
            return values
        values = values.clone()
        with self._together():
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in any of the processes."""
        return bool(self.sum(torch.tensor(float(flag))))

    def gather(self, item: T) -> list[T]:
        """Every process's item, by rank."""
        if self.size == 1:
            return [item]
        items: list[Any] = [None] * self.size
        with self._together():
            dist.all_gather_object(items, item)
        return items

    def from_first(self, make: Callable[[], T]) -> T:
        """What ``make`` gives in the first process, the only one that calls it. Its UserError is raised in all."""
        if self.size == 1:
            return make()
        box: list[Any] = [None, None]
        if self.is_first:
            try:
                box[0] = make()
            except UserError as e:
                box[1] = e
        with self._together():
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        if box[1] is not None:
            raise box[1]
        return box[0]

    def copy_first(self, model: nn.Module) -> nn.Module:
        """Give every process the weights and buffers that ``model`` has in the first."""
        if self.size > 1:
            with self._together():
                for tensor in model.state_dict().values():
                    dist.broadcast(tensor, src=0)
        return model

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """The first process does what follows, then all others: they find the caches that it has made."""
        if not self.is_first:
            self.any(False)
        yield
        if self.is_first:
            self.any(False)

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Raise PeerLost for what the library raises when a connection breaks."""
        try:
            yield
        except RuntimeError as e:
            raise self.lost(e) from None

    def lost(self, error: RuntimeError) -> RuntimeError:
        """PeerLost where ``error`` tells of a broken or silent connection between processes, else the error itself."""
        said = str(error).lower()
        if self.size > 1 and any(words in said for words in BROKEN):
            return PeerLost(f"process {self.rank} of {self.size} lost its connection: another one has ended")
        if self.size > 1 and any(words in said for words in SILENT):
            return PeerLost(
                f"process {self.rank} of {self.size} has waited {timeout_minutes():g} minutes for another one; "
                f"where that is only slow, set {TIMEOUT_VARIABLE} to more"
            )
        return error


def agreed_name(store: dist.Store, rank: int, size: int) -> str:
    """A name that these processes have agreed on by ``store``, and that none before them had.

    The store outlives processes that torchrun replaces: under the same names they would meet the addresses of those that
    have died. How often that happened is no name, since every machine counts for itself. So each says a word of its own, the
    first answers with that word and the name, and goes on once it has been heard.
    Raises RuntimeError where a process has not come in time.
    """
    own = uuid.uuid4().hex
    deadline = time.monotonic() + timeout_minutes() * 60

    def read(key: str) -> str:
        if time.monotonic() > deadline:
            raise RuntimeError(f"timed out waiting for {key!r}")
        time.sleep(0.01)
        return store.get(key).decode() if store.check([key]) else ""

    if rank > 0:
        store.set(f"word {rank}", own)
        while not (answer := read(f"answer {rank}")).startswith(own):
            pass
        name = answer.removeprefix(own)
        store.set(f"heard {rank}", name)
        return name
    for other in range(1, size):
        while read(f"heard {other}") != own:
            store.set(f"answer {other}", read(f"word {other}") + own)
    return own


def backend_for(device: torch.device) -> str:
    """What carries the tensors of each kind of device. Windows has no NCCL: there gloo carries those of GPUs, too."""
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" and dist.is_nccl_available() else "gloo"


def timeout_minutes() -> float:
    """How long a process waits for the others: YOLO_TIMEOUT_MINUTES, or 120. Raises UserError for no number above 0."""
    said = os.environ.get(TIMEOUT_VARIABLE) or str(TIMEOUT_MINUTES)
    try:
        minutes = float(said)
    except ValueError:
        minutes = math.nan
    # a year: more than that, timedelta and the libraries below can't count
    if not 0 < minutes <= 525600:
        raise UserError(f"{TIMEOUT_VARIABLE}={shown(said)}: give minutes, a number above 0")
    return minutes
