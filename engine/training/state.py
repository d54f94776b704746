"""Where a training run stands: all that changes between two batches beside what learns (learner.py)."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from utils.errors import shown
from utils.results import NAMES, TAUGHT, read_cells
from utils.saved.schema import Entries, Unfit

PROGRESS = ("earlier_epochs", "epoch", "batches_done", "last_update", "best_fitness", "best_epoch")


@dataclass
class State:
    """Progress of a run; a new one stands before its first batch. Saved with every checkpoint.

    There is no random state in it: all that is drawn depends on (seed, step), see seed_step.
    """

    # mAP50-95 of each class [nc] at the last validation
    class_maps: np.ndarray
    # box, obj, cls [3], with a teacher what it adds, too [4]: means over the batches of this epoch
    mean_losses: torch.Tensor
    # of the finished runs that this one goes on from
    earlier_epochs: int = 0
    # of this run alone
    epoch: int = 0
    # of this epoch
    batches_done: int = 0
    # the step, counted over the run, after which the weights last changed
    last_update: int = -1
    best_fitness: float = -1.0
    best_epoch: int = 0
    # the rows of results.csv
    results: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def at_start(cls, nc: int, earlier_epochs: int = 0, terms: int = 3) -> "State":
        """Of a run over ``nc`` classes that has not begun, whose loss has so many ``terms``."""
        return cls(np.zeros(nc), torch.zeros(terms), earlier_epochs)

    def begin_epoch(self) -> None:
        """Forget the losses of the epoch before, unless a resumed run stands within this one."""
        if not self.batches_done:
            self.mean_losses.zero_()

    def batch_done(self, losses: torch.Tensor) -> None:
        """Take the losses of a batch into the means."""
        self.mean_losses = (self.mean_losses * self.batches_done + losses) / (self.batches_done + 1)
        self.batches_done += 1

    def epoch_done(self) -> None:
        self.epoch, self.batches_done = self.epoch + 1, 0

    def judge(self, fitness: float, class_maps: np.ndarray) -> bool:
        """Note the figures of this epoch's validation; whether it is the best so far."""
        self.class_maps = class_maps
        is_best = fitness > self.best_fitness
        if is_best:
            self.best_fitness, self.best_epoch = fitness, self.epoch
        return is_best

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors on the CPU."""
        numbers = {name: getattr(self, name) for name in PROGRESS}
        arrays = {"class_maps": torch.from_numpy(self.class_maps), "mean_losses": self.mean_losses.cpu()}
        return numbers | arrays | {"results": self.results}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Stand where ``state_dict`` found another; keys of other things are left alone. Raises UserError for other values."""
        entries = Entries(saved)
        self.earlier_epochs = saved_earlier_epochs(entries)
        self.epoch, self.batches_done = entries.whole("epoch"), entries.whole("batches_done")
        self.last_update, self.best_epoch = entries.whole("last_update", least=-1), entries.whole("best_epoch")
        self.best_fitness = entries.number("best_fitness", least=-1)
        self.class_maps = entries.tensor("class_maps", self.class_maps.shape).double().numpy()
        self.mean_losses = entries.tensor("mean_losses", self.mean_losses.shape).float().to(self.mean_losses.device)
        self.results = [_row(found, f"results[{i}]") for i, found in enumerate(entries.rows("results"))]


def saved_earlier_epochs(entries: Entries) -> int:
    """The ``earlier_epochs`` of a checkpoint; those of earlier releases don't say, and had none. Raises Unfit."""
    return entries.whole("earlier_epochs") if "earlier_epochs" in entries.saved else 0


def _row(found: Any, place: str) -> dict[str, float]:
    """A row of results; checkpoints of earlier releases hold its cells as they stand in results.csv."""
    if isinstance(found, list) and len(found) == len(NAMES) and all(isinstance(cell, str) for cell in found):
        try:
            return read_cells(found)
        except ValueError:
            raise Unfit(f"{place} is {shown(found, 60)}, not a row of numbers") from None
    row = Entries(found, place)
    epoch = row.whole(NAMES[0])
    names = (*NAMES[1:], TAUGHT.name) if TAUGHT.name in row.saved else NAMES[1:]
    # a loss of validation may have been infinite
    return {NAMES[0]: epoch} | {name: row.number(name, finite=False) for name in names}
