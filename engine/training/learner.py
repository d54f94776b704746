"""What learns, and the step by which it does: Learner.step, the inner of every training."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.recipe.distillation import Pupil
from engine.recipe.ema import ModelEMA
from engine.recipe.optimizer import Schedule, laid_out_as, load_optimizer
from engine.training.precision import mixed, precision_as_saved
from engine.training.state import State
from models.heads.protocol import Loss
from models.yolo import DetectionModel
from utils.errors import UserError, shown
from utils.saved.schema import Entries, Unfit, misfits

GRADIENT_NORM = 10.0


class Diverged(UserError):
    """The loss or a gradient is not finite."""


@dataclass
class Learner:
    """A model with all that trains it.

    ``parallel`` is the model as several processes share it, or the model itself; with ``pupil``, that and its teachers
    around the model, likewise. ``amp``: the precision of the
    forward pass, off, fp16 or bf16; the scaler is for fp16. ``loss_factor``: of a batch that stands for several (--quad).
    """

    model: DetectionModel
    parallel: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    ema: ModelEMA
    device: torch.device
    amp: str = "off"
    loss_factor: float = 1.0
    pupil: Pupil | None = None

    def step(self, images: torch.Tensor, targets: torch.Tensor, number: int, state: State) -> torch.Tensor:
        """Learn from one batch: images [b, ch, h, w], 0..1, on the device, and targets [n, 6] on the CPU
        → losses box, obj, cls [3], there, too, and of a pupil what the teachers add to them, [4].

        ``number`` counts the steps of the run. The weights change once gradients of enough images have added up, which
        ``state.last_update`` notes. Raises Diverged before anything that is not finite reaches the weights.
        """
        # rates of this step, and how many batches make an update
        accumulate = self.schedule.apply(self.optimizer, number)

        # forward
        with mixed(self.device, self.amp):
            maps = self.parallel(images)
        loss, losses = self.loss(maps, targets)

        # backward: gradients add up
        self.scaler.scale(loss * self.loss_factor).backward()
        if number - state.last_update < accumulate:
            losses = losses.cpu()
            require_finite("loss", losses.sum())
            return losses

        # update: the weights follow the gradients, clipped, and the average follows the weights
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        # apart from the model's, which they would make smaller
        if self.pupil and (beside := [*self.pupil.adapters.parameters()]):
            norm = norm + nn.utils.clip_grad_norm_(beside, GRADIENT_NORM)
        # all that is needed of the device, in one wait for it
        losses, norm = torch.cat((losses, norm.to(losses.dtype).view(1))).cpu().split((len(losses), 1))
        require_finite("loss", losses.sum())
        # at a scale of 1 or more the scaler skips the step and tries a smaller scale
        if not norm.isfinite() and (not self.scaler.is_enabled() or self.scaler.get_scale() < 1):
            require_finite("gradient", norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.ema.update(self.model)
        state.last_update = number
        return losses

    def learning(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters of the model, and of a pupil's layers beside it, by their names."""
        yield from self.model.named_parameters()
        if self.pupil:
            yield from self.pupil.adapters.named_parameters("adapters")

    def state_dict(self) -> dict[str, Any]:
        """All that learning has changed, the gradients not yet applied among it, as they are without the scaler."""
        # a power of two, so that nothing is lost
        scale = self.scaler.get_scale()
        gradients = {k: p.grad for k, p in self.learning() if p.grad is not None}
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.model.state_dict(),
            "updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "precision": precision_as_saved(self.device, self.amp),
            "gradients": {k: g / scale for k, g in gradients.items()} if scale != 1 else gradients,
            **(self.pupil.saved() if self.pupil else {}),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` gave; keys of other things are left alone. Raises UserError for another model's."""
        entries = Entries(saved)
        for key, model in (("model", self.model), ("ema", self.ema.model)):
            tensors = entries.tensors(key)
            if wrong := misfits(tensors, model.state_dict()):
                raise Unfit(f"{key} has {len(wrong)} tensors that are not the model's (first: {shown(wrong[0])})")
            model.load_state_dict(tensors)
        if self.pupil:
            self.pupil.take_up(entries)
        self.ema.updates = entries.whole("updates")
        load_optimizer(self.optimizer, entries.found("optimizer"))
        # empty where the run had no mixed precision
        scaler = entries.mapping("scaler")
        if scaler:
            scaler = _checked_scaler(scaler)
            self.scaler.load_state_dict(scaler)
        # earlier releases did not note their precision, and saved gradients with the scale in them
        within = scaler.get("scale", 1.0) if "precision" not in saved else 1.0
        factor = self.scaler.get_scale() / within
        gradients = Entries(entries.mapping("gradients"), "gradients")
        for name, parameter in self.learning():
            if name in gradients.saved:
                # those of a scaler may have overflown: it will leave the step out
                gradient = gradients.tensor(name, parameter.shape, finite=not scaler)
                parameter.grad = laid_out_as(parameter, gradient)
                if factor != 1:
                    parameter.grad *= factor


def _checked_scaler(saved: dict[str, Any]) -> dict[str, Any]:
    """The state of a GradScaler."""
    entries = Entries(saved, "scaler")
    factors = {key: entries.number(key, least=2**-100) for key in ("scale", "growth_factor", "backoff_factor")}
    counts = {key: entries.whole(key, least=least) for key, least in (("growth_interval", 1), ("_growth_tracker", 0))}
    return factors | counts


def require_finite(what: str, value: torch.Tensor) -> None:
    """Raises Diverged where ``value`` is infinite or not a number."""
    if not value.isfinite():
        raise Diverged(f"the {what} is {value.item()}")


def seed_step(*key: int) -> np.random.Generator:
    """Seed what blocks draw from global state, such as stochastic depth; returns one more generator for ``key``.

    Done anew for every (seed, step, rank): so there is no random state that a checkpoint would have to carry.
    """
    torch_seed, python_seed = (int(n) for n in np.random.SeedSequence(key).generate_state(2))
    random.seed(python_seed)
    np.random.seed(python_seed)
    torch.manual_seed(torch_seed)
    return np.random.default_rng(key)
