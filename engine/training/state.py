"""Where a training run stands: all that changes between two batches beside what learns (learner.py)."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from utils.results import read_cells

NUMBERS = ("epoch", "batches_done", "last_update", "best_fitness", "best_epoch")


@dataclass
class State:
    """Progress of a run; a new one stands before its first batch. Saved with every checkpoint.

    There is no random state in it: all that is drawn depends on (seed, step), see seed_step.
    """

    # mAP50-95 of each class [nc] at the last validation
    class_maps: np.ndarray
    # box, obj, cls [3]: means over the batches of this epoch
    mean_losses: torch.Tensor
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
    def at_start(cls, nc: int) -> "State":
        """Of a run over ``nc`` classes that has not begun."""
        return cls(np.zeros(nc), torch.zeros(3))

    def begin_epoch(self) -> None:
        """Forget the losses of the epoch before, unless a resumed run stands within this one."""
        if not self.batches_done:
            self.mean_losses.zero_()

    def batch_done(self, losses: torch.Tensor) -> None:
        """Take the losses [3] of a batch into the means."""
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
        numbers = {name: getattr(self, name) for name in NUMBERS}
        arrays = {"class_maps": torch.from_numpy(self.class_maps), "mean_losses": self.mean_losses.cpu()}
        return numbers | arrays | {"results": self.results}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Stand where ``state_dict`` found another; keys of other things are left alone."""
        for name in NUMBERS:
            setattr(self, name, saved[name])
        self.class_maps = saved["class_maps"].numpy()
        self.mean_losses = saved["mean_losses"].to(self.mean_losses.device)
        # checkpoints of earlier releases hold the rows as they stand in results.csv
        self.results = [row if isinstance(row, dict) else read_cells(row) for row in saved["results"]]
