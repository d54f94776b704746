"""The optimiser of the stock recipe and its schedules."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

NOMINAL_BATCH = 64  # gradients are accumulated until about this many images have been seen


def build_optimizer(model: nn.Module, hyp: dict, batch_size: int, accumulate: int) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum over three groups, in stock's order: biases; weights, which decay; weights of norms.

    The decay is that of ``hyp`` for a batch of 64, scaled to the images seen per step.
    """
    norms = tuple(m for name, m in vars(nn).items() if isinstance(m, type) and "Norm" in name)
    biases, weights, norm_weights = [], [], []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            if name == "bias" or name.endswith("_bias"):
                biases.append(parameter)
            elif isinstance(module, norms):
                norm_weights.append(parameter)
            else:
                weights.append(parameter)
    optimizer = torch.optim.SGD(biases, lr=hyp["lr0"], momentum=hyp["momentum"], nesterov=True)
    decay = hyp["weight_decay"] * batch_size * accumulate / NOMINAL_BATCH
    optimizer.add_param_group({"params": weights, "weight_decay": decay})
    optimizer.add_param_group({"params": norm_weights, "weight_decay": 0.0})
    return optimizer


def linear_schedule(hyp: dict, epochs: int) -> Callable[[float], float]:
    """Epoch → factor on lr0, falling in a straight line from 1 to lrf."""
    return lambda epoch: (1 - epoch / epochs) * (1 - hyp["lrf"]) + hyp["lrf"]


class Schedule:
    """Learning rates, momentum and accumulation at every step of a run, warm-up included.

    Warm-up lasts warmup_epochs, at least 100 steps: the biases' rate falls from warmup_bias_lr, all others rise from 0,
    the momentum rises from warmup_momentum, and the accumulation from 1.
    """

    def __init__(self, hyp: dict, epochs: int, steps_per_epoch: int, batch_size: int):
        self.hyp = hyp
        self.steps_per_epoch = steps_per_epoch
        self.batch_size = batch_size
        self.factor = linear_schedule(hyp, epochs)
        self.warmup = max(round(hyp["warmup_epochs"] * steps_per_epoch), 100) if hyp["warmup_epochs"] > 0 else 0

    @property
    def accumulate(self) -> int:
        """Batches per optimiser step after the warm-up."""
        return max(round(NOMINAL_BATCH / self.batch_size), 1)

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> int:
        """Set rates and momentum for a step (counted over the run); returns the batches to accumulate."""
        rate = self.hyp["lr0"] * self.factor(step // self.steps_per_epoch)
        if step > self.warmup or not self.warmup:
            for group in optimizer.param_groups:
                group["lr"], group["momentum"] = rate, self.hyp["momentum"]
            return self.accumulate
        progress = step / self.warmup
        for i, group in enumerate(optimizer.param_groups):
            start = self.hyp["warmup_bias_lr"] if i == 0 else 0.0
            group["lr"] = start + (rate - start) * progress
            group["momentum"] = (
                self.hyp["warmup_momentum"] + (self.hyp["momentum"] - self.hyp["warmup_momentum"]) * progress
            )
        return max(1, round(float(np.interp(step, [0, self.warmup], [1, NOMINAL_BATCH / self.batch_size]))))


def finite(loss: torch.Tensor) -> bool:
    """Whether a loss is a number at all."""
    return math.isfinite(loss.item())
