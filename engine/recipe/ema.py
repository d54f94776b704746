"""Exponential moving average of a model's weights."""

import math
from copy import deepcopy

import torch
from torch import nn


def fitting_tau(updates: float) -> float:
    """The ``tau`` by which the average remembers a tenth of a run of so many updates at its end.

    It remembers about 1 / (1 - decay) = exp(updates / tau) updates then: by 2000 less than 2 in a run of 1000, and in a run
    of 20 000 more than it has.
    """
    return updates / math.log(max(updates / 10, 2))


class ModelEMA:
    """A running mean of ``model``'s weights and buffers, whose decay rises from 0 to ``decay`` over about ``tau`` updates."""

    def __init__(self, model: nn.Module, decay: float = 0.9999, tau: float = 2000):
        self.model = deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.tau = tau
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the present weights of ``model``."""
        self.updates += 1
        decay = self.decay * (1 - math.exp(-self.updates / self.tau))
        current = model.state_dict()
        pairs = [(mean, current[name]) for name, mean in self.model.state_dict().items()]
        weights = [pair for pair in pairs if pair[0].is_floating_point()]
        counters = [pair for pair in pairs if not pair[0].is_floating_point()]
        # each of them for all tensors together: on a GPU a few calls instead of hundreds
        torch._foreach_lerp_(*map(list, zip(*weights, strict=True)), 1 - decay)
        if counters:
            torch._foreach_copy_(*map(list, zip(*counters, strict=True)))
