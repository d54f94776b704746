"""The optimiser of the stock recipe and its schedules."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

OPTIMIZERS = ("SGD", "Adam", "AdamW")


def build_optimizer(
    model: nn.Module,
    hyp: dict,
    batch_size: int,
    accumulate: int,
    name: str = "SGD",
    slow: nn.Module | None = None,
    factor: float = 1.0,
) -> torch.optim.Optimizer:
    """The optimiser over three groups, in stock's order: biases; weights, which decay; weights of norms.

    SGD has Nesterov momentum; Adam and AdamW take the momentum as beta1.

    The decay is that of ``hyp`` for the nominal batch (64), scaled to the images really seen per step.
    The parameters of ``slow``, a part of the model, learn at ``factor`` times the rate: they make a second three groups.
    """
    apart = {id(p) for p in slow.parameters()} if slow is not None and factor != 1 else set()
    groups = _split_parameters(model, lambda p: id(p) not in apart)
    if name == "SGD":
        optimizer = torch.optim.SGD(groups[0], lr=hyp["lr0"], momentum=hyp["momentum"], nesterov=True)
    else:
        kind = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[name]
        optimizer = kind(groups[0], lr=hyp["lr0"], betas=(hyp["momentum"], 0.999), weight_decay=0.0)
    decay = hyp["weight_decay"] * batch_size * accumulate / hyp["nominal_batch"]
    for parameters, weight_decay in zip(groups[1:], (decay, 0.0), strict=True):
        optimizer.add_param_group({"params": parameters, "weight_decay": weight_decay})
    if apart:
        slow_groups = _split_parameters(model, lambda p: id(p) in apart)
        for parameters, weight_decay in zip(slow_groups, (0.0, decay, 0.0), strict=True):
            optimizer.add_param_group({"params": parameters, "weight_decay": weight_decay, "factor": factor})
    return optimizer


def _split_parameters(model: nn.Module, chosen: Callable[[nn.Parameter], bool]) -> tuple[list, list, list]:
    """Those that learn and are ``chosen``: biases, weights, weights of norms."""
    norms = tuple(m for key, m in vars(nn).items() if isinstance(m, type) and "Norm" in key)
    biases, weights, norm_weights = [], [], []
    for module in model.modules():
        for key, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or not chosen(parameter):
                continue
            if key == "bias" or key.endswith("_bias"):
                biases.append(parameter)
            elif isinstance(module, norms):
                norm_weights.append(parameter)
            else:
                weights.append(parameter)
    return biases, weights, norm_weights


def linear_schedule(hyp: dict, epochs: int) -> Callable[[float], float]:
    """Epoch → factor on lr0, falling in a straight line from 1 to lrf."""
    return lambda epoch: (1 - epoch / epochs) * (1 - hyp["lrf"]) + hyp["lrf"]


def cosine_schedule(hyp: dict, epochs: int) -> Callable[[float], float]:
    """Epoch → factor on lr0, falling along half a cosine from 1 to lrf."""
    return lambda epoch: (1 + math.cos(math.pi * epoch / epochs)) / 2 * (1 - hyp["lrf"]) + hyp["lrf"]


class Schedule:
    """Learning rates, momentum and accumulation at every step of a run, warm-up included.

    Gradients are accumulated over batches until about ``nominal_batch`` images (64) have been seen.
    Warm-up lasts warmup_epochs, at least 100 steps: the biases' rate falls from warmup_bias_lr, all others rise from 0,
    the momentum rises from warmup_momentum, and the accumulation from 1.
    """

    def __init__(self, hyp: dict, epochs: int, steps_per_epoch: int, batch_size: int, cosine: bool = False):
        self.hyp = hyp
        self.steps_per_epoch = steps_per_epoch
        self.batch_size = batch_size
        self.factor = (cosine_schedule if cosine else linear_schedule)(hyp, epochs)
        self.warmup = max(round(hyp["warmup_epochs"] * steps_per_epoch), 100) if hyp["warmup_epochs"] > 0 else 0

    @property
    def accumulate(self) -> int:
        """Batches per optimiser step after the warm-up."""
        return max(round(self.hyp["nominal_batch"] / self.batch_size), 1)

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> int:
        """Set rates and momentum for a step (counted over the run); returns the batches to accumulate."""
        rate = self.hyp["lr0"] * self.factor(step // self.steps_per_epoch)
        if step > self.warmup or not self.warmup:
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("factor", 1.0)
                _set_momentum(group, self.hyp["momentum"])
            return self.accumulate
        progress = step / self.warmup
        for i, group in enumerate(optimizer.param_groups):
            start = self.hyp["warmup_bias_lr"] if i % 3 == 0 else 0.0  # of each three groups the first are biases
            group["lr"] = (start + (rate - start) * progress) * group.get("factor", 1.0)
            momentum = self.hyp["warmup_momentum"] + (self.hyp["momentum"] - self.hyp["warmup_momentum"]) * progress
            _set_momentum(group, momentum)
        return max(1, round(float(np.interp(step, [0, self.warmup], [1, self.hyp["nominal_batch"] / self.batch_size]))))


def _set_momentum(group: dict, momentum: float) -> None:
    """Stock warms up the momentum of SGD, and leaves Adam's beta1 as it is."""
    if "momentum" in group:
        group["momentum"] = momentum
