"""Several processes that train one model together. All that knows of them is in this file.

    torchrun --nproc_per_node 2 train.py …     starts them and tells each its rank by environment variables
    World.join(device)                         this process among them; of one alone, every method is trivial

Every process holds the whole model and an equal share of each batch. Only the first one (rank 0) writes files and prints.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from utils.errors import UserError

T = TypeVar("T")


class PeerLost(UserError):
    """Another process of the run has ended, so this one cannot go on."""


@dataclass(frozen=True)
class World:
    """This process's ``rank`` among ``size`` processes, ``local_size`` of them on this machine."""

    rank: int = 0
    size: int = 1
    local_size: int = 1
    device: torch.device = torch.device("cpu")

    @classmethod
    def join(cls, device: torch.device) -> "World":
        """Meet the processes that torchrun has started; alone where it hasn't. All but the first become silent."""
        size = int(os.environ.get("WORLD_SIZE", 1))
        if size == 1:
            return cls(device=device)
        if not dist.is_initialized():
            # a name of its own for every restart: else processes may meet the addresses of those that have died
            store, rank, size = next(iter(dist.rendezvous("env://")))
            store = dist.PrefixStore(f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
            backend = "nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        world = cls(dist.get_rank(), size, int(os.environ.get("LOCAL_WORLD_SIZE", size)), device)
        if not world.is_first:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  open as long as the process lives
        return world

    def leave(self) -> None:
        """Leave the group of processes."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def launch(self) -> str:
        """What names this start of torchrun, the same after it has restarted its processes; empty without torchrun."""
        run = os.environ.get("TORCHELASTIC_RUN_ID")
        return f"{run}:{os.getppid()}" if run else ""

    @property
    def restarted(self) -> bool:
        """Whether torchrun has started the processes anew after one of them died (``--max-restarts``)."""
        return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0

    def wrap(self, model: nn.Module, idle: bool = False) -> nn.Module:
        """The model whose backward averages gradients over the processes. ``idle``: some parameters get none."""
        if self.size == 1:
            return model
        devices = [self.device.index] if self.device.type == "cuda" else None
        with self._together():
            return nn.parallel.DistributedDataParallel(model, device_ids=devices, find_unused_parameters=idle)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over the processes."""
        if self.size == 1:
            return values
        values = values.clone()
        with self._together():
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in any of the processes."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(float(flag), device=self.device)))

    def gather(self, item: T) -> list[T]:
        """Every process's item, by rank."""
        if self.size == 1:
            return [item]
        items: list[Any] = [None] * self.size
        with self._together():
            dist.all_gather_object(items, item)
        return items

    def from_first(self, make: Callable[[], T]) -> T:
        """What ``make`` gives in the first process, the only one that calls it."""
        box = [make() if self.is_first else None]
        if self.size > 1:
            with self._together():
                dist.broadcast_object_list(box, src=0, device=self.device)
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
        """PeerLost where ``error`` tells of a broken connection between processes, else the error itself."""
        words = (
            "connection closed",
            "connection reset",
            "connection was",
            "broken pipe",
            "remote process exited",
            "nccl",
        )
        if self.size > 1 and any(word in str(error).lower() for word in words):
            return PeerLost(f"process {self.rank} of {self.size} lost its connection: another one has ended")
        return error
