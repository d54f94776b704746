"""Exponential moving average of a model's weights."""

import math
from copy import deepcopy

import torch
from torch import nn


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
        for name, mean in self.model.state_dict().items():
            if mean.dtype.is_floating_point:
                mean.lerp_(current[name].detach(), 1 - decay)
            else:
                mean.copy_(current[name])
