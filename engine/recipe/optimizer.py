"""The optimiser of the stock recipe and its schedules."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from utils.saved.schema import Entries

KINDS = ("bias", "weight", "norm")  # of parameters; norm: weights of normalising layers
FUSED = ("cpu", "cuda")  # devices on which PyTorch has Adam in one call, in all versions we support


def build_optimizer(
    model: nn.Module,
    hyp: dict,
    batch_size: int,
    accumulate: int,
    name: str = "SGD",
    slow: nn.Module | None = None,
    factor: float = 1.0,
    beside: nn.Module | None = None,
) -> torch.optim.Optimizer:
    """The optimiser over three groups, each of which says its ``kind``, in the order of KINDS. Only weights decay.

    SGD has Nesterov momentum; Adam and AdamW take the momentum as beta1. They change all weights of a group in one call
    where the device has one, SGD on a CPU alone (less than half the time of one call a tensor there).

    The decay is that of ``hyp`` for the nominal batch (64), scaled to the images really seen per step.
    The parameters of ``slow``, a part of the model, learn at ``factor`` times the rate: they make a second three groups,
    which say their ``factor``, too. So do those of ``beside``, which learns with the model and is no part of it.
    """
    decay = hyp["weight_decay"] * batch_size * accumulate / hyp["nominal_batch"]
    apart = {id(p) for p in slow.parameters()} if slow is not None and factor != 1 else set()
    groups = _parameter_groups(model, decay, lambda p: id(p) not in apart)
    if apart:
        groups += [group | {"factor": factor} for group in _parameter_groups(model, decay, lambda p: id(p) in apart)]
    if beside is not None:
        groups += [group | {"factor": 1.0} for group in _parameter_groups(beside, decay, lambda p: True)]
    devices = {p.device.type for group in groups for p in group["params"]}
    if name == "SGD":
        optimizer = torch.optim.SGD(
            groups, lr=hyp["lr0"], momentum=hyp["momentum"], nesterov=hyp["momentum"] > 0, fused=devices == {"cpu"}
        )
        optimizer.register_step_pre_hook(_begin_momentum)
        return optimizer
    adam = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[name]
    fused = devices <= set(FUSED)
    return adam(groups, lr=hyp["lr0"], betas=(hyp["momentum"], 0.999), fused=fused)


def _begin_momentum(optimizer: torch.optim.SGD, *_: Any) -> None:
    """Let momentum begin at 0, which PyTorch leaves to the first step: in one call it takes it for the first of all weights
    or of none, and has memory as it was where the scaler leaves that step out."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            begins = parameter.grad is not None and group["momentum"] != 0
            if begins and optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def load_optimizer(optimizer: torch.optim.Optimizer, saved: Any) -> None:
    """Put back the ``state_dict()`` of an optimiser that build_optimizer made of the same model and options.

    Rates and momentum of the groups are taken, all else of them stays as it was built: older ones do not say their kinds.
    Raises UserError for a state that is not of this optimiser.
    """
    own, entries = optimizer.state_dict(), Entries(saved, "optimizer")
    groups = entries.rows("param_groups")
    if len(groups) != len(own["param_groups"]):
        raise entries.unfit("param_groups", f"a list of {len(own['param_groups'])} groups")
    for group, found in zip(own["param_groups"], groups, strict=True):
        before = Entries(found, "optimizer.param_groups")
        numbers = before.rows("params")
        if not all(type(number) is int for number in numbers) or numbers != group["params"]:
            raise before.unfit("params", "the parameters of this model")
        group |= {key: before.number(key, least=0) for key in ("lr", "momentum") if key in group}
    optimizer.load_state_dict({"state": _moments(optimizer, entries), "param_groups": own["param_groups"]})


def _moments(optimizer: torch.optim.Optimizer, entries: Entries) -> dict[int, dict[str, Any]]:
    """What an optimiser remembers of every parameter, by the number of that."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = entries.found("state")
    if not isinstance(state, dict) or not set(state) <= set(range(len(parameters))):
        raise entries.unfit("state", f"entries of {len(parameters)} parameters")
    names = ("momentum_buffer",) if isinstance(optimizer, torch.optim.SGD) else ("exp_avg", "exp_avg_sq")
    moments = {}
    for number, found in state.items():
        before = Entries(found, f"optimizer.state[{number}]")
        # of a parameter without a gradient so far
        known = [name for name in names if len(names) > 1 or before.found(name) is not None]
        moments[number] = dict.fromkeys(names) | {
            k: laid_out_as(parameters[number], before.tensor(k, parameters[number].shape)) for k in known
        }
        if len(names) > 1:
            moments[number]["step"] = before.tensor("step", ())
    return moments


def laid_out_as(parameter: nn.Parameter, saved: torch.Tensor) -> torch.Tensor:
    """A copy of ``saved`` on the device, of the type and in the layout of ``parameter``: what changes all weights in one call
    goes through both as they lie in memory."""
    return torch.empty_like(parameter, requires_grad=False).copy_(saved)


def learning_rates(optimizer: torch.optim.Optimizer) -> list[float]:
    """The present rates of KINDS, in their order; those of other groups are ``factor`` times these."""
    return [group["lr"] for group in optimizer.param_groups if "factor" not in group]


def _parameter_groups(model: nn.Module, decay: float, chosen: Callable[[nn.Parameter], bool]) -> list[dict]:
    """A group of each kind over the parameters that learn and are ``chosen``."""
    split = _split_parameters(model, chosen)
    decays = {"bias": 0.0, "weight": decay, "norm": 0.0}
    return [{"params": split[kind], "kind": kind, "weight_decay": decays[kind]} for kind in KINDS]


def _split_parameters(model: nn.Module, chosen: Callable[[nn.Parameter], bool]) -> dict[str, list[nn.Parameter]]:
    """Those that learn and are ``chosen``, by their kind."""
    norms = tuple(m for key, m in vars(nn).items() if isinstance(m, type) and "Norm" in key)
    split = {kind: [] for kind in KINDS}
    for module in model.modules():
        for key, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or not chosen(parameter):
                continue
            if key == "bias" or key.endswith("_bias"):
                split["bias"].append(parameter)
            elif isinstance(module, norms):
                split["norm"].append(parameter)
            else:
                split["weight"].append(parameter)
    return split


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
        for group in optimizer.param_groups:
            start = self.hyp["warmup_bias_lr"] if group["kind"] == "bias" else 0.0
            group["lr"] = (start + (rate - start) * progress) * group.get("factor", 1.0)
            momentum = self.hyp["warmup_momentum"] + (self.hyp["momentum"] - self.hyp["warmup_momentum"]) * progress
            _set_momentum(group, momentum)
        return max(1, round(float(np.interp(step, [0, self.warmup], [1, self.hyp["nominal_batch"] / self.batch_size]))))


def _set_momentum(group: dict, momentum: float) -> None:
    """Stock warms up the momentum of SGD, and leaves Adam's beta1 as it is."""
    if "momentum" in group:
        group["momentum"] = momentum
