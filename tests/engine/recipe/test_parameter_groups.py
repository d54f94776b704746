"""The groups of the optimiser say what they hold, after a checkpoint of an older version, too."""

from copy import deepcopy

import pytest
import torch

from engine.recipe.hyp import read_hyp
from engine.recipe.optimizer import KINDS, Schedule, build_optimizer, learning_rates, load_optimizer
from models.yolo import DetectionModel

HYP = read_hyp("hyp.scratch-low.yaml")


@pytest.fixture
def model() -> DetectionModel:
    return DetectionModel("yolov5n.yaml", nc=2)


def optimizer_of(model: DetectionModel, name: str = "SGD", factor: float = 1.0) -> torch.optim.Optimizer:
    return build_optimizer(model, HYP, batch_size=16, accumulate=4, name=name, slow=model.backbone, factor=factor)


def as_before(optimizer: torch.optim.Optimizer) -> dict:
    """The state that an optimiser whose groups were told apart by their order has left in a checkpoint."""
    state = deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        del group["kind"]
    return state


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_groups_say_their_kind(name, model):
    groups = optimizer_of(model, name).param_groups
    assert [group["kind"] for group in groups] == list(KINDS)
    assert [group["weight_decay"] for group in groups] == [0.0, 0.0005, 0.0]
    assert all("factor" not in group for group in groups)
    groups = optimizer_of(model, name, factor=0.1).param_groups
    assert [group["kind"] for group in groups] == [*KINDS, *KINDS]
    assert [group.get("factor") for group in groups] == [None, None, None, 0.1, 0.1, 0.1]


def test_only_biases_start_at_their_own_rate_whatever_the_order(model):
    optimizer = optimizer_of(model)
    optimizer.param_groups.reverse()
    Schedule(HYP, epochs=100, steps_per_epoch=50, batch_size=16).apply(optimizer, 0)
    assert {group["kind"]: group["lr"] for group in optimizer.param_groups} == {"norm": 0.0, "weight": 0.0, "bias": 0.1}


def test_rates_are_told_once_for_each_kind(model):
    optimizer = optimizer_of(model, factor=0.1)
    Schedule(HYP, epochs=100, steps_per_epoch=50, batch_size=16).apply(optimizer, 75)
    rates = learning_rates(optimizer)
    assert rates == [group["lr"] for group in optimizer.param_groups[:3]]
    assert rates[0] > rates[1] == rates[2] > 0


@pytest.mark.parametrize("factor", [1.0, 0.1])
@pytest.mark.parametrize("saved", [as_before, torch.optim.Optimizer.state_dict], ids=["older", "own"])
def test_a_loaded_optimizer_goes_on_as_before(saved, factor, model):
    first = optimizer_of(model, factor=factor)
    sum(p.sum() for p in model.parameters()).backward()
    schedule = Schedule(HYP, epochs=100, steps_per_epoch=50, batch_size=16)
    schedule.apply(first, 20)
    first.step()
    second = optimizer_of(model, factor=factor)
    load_optimizer(second, saved(first))
    for optimizer in (first, second):
        schedule.apply(optimizer, 21)
    plain = [[{k: v for k, v in g.items() if k != "params"} for g in o.param_groups] for o in (first, second)]
    assert plain[0] == plain[1]
    buffers = [[o.state[p]["momentum_buffer"] for g in o.param_groups for p in g["params"]] for o in (first, second)]
    assert all(torch.equal(a, b) for a, b in zip(*buffers, strict=True))
