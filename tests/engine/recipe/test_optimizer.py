"""Learning rates, the optimizer and the average of the weights."""

import math
from copy import deepcopy

import pytest
import torch

from engine.recipe.ema import ModelEMA
from engine.recipe.hyp import read_hyp
from engine.recipe.optimizer import Schedule, build_optimizer, load_optimizer
from models.yolo import DetectionModel
from tests.helpers.descriptions import TINY
from tests.helpers.training import trainer_of


def test_schedule_of_the_stock_recipe():
    hyp = read_hyp("hyp.scratch-low.yaml")
    schedule = Schedule(hyp, epochs=100, steps_per_epoch=50, batch_size=16)
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "kind": kind} for kind in ("bias", "weight")]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
    bias, weight = optimizer.param_groups
    assert schedule.warmup == 150
    assert schedule.apply(optimizer, 0) == 1
    assert (bias["lr"], weight["lr"], bias["momentum"]) == (0.1, 0.0, 0.8)
    assert schedule.apply(optimizer, 75) == 2  # half-way from 1 to 4, rounded to even
    assert bias["momentum"] == pytest.approx((0.8 + 0.937) / 2)
    rate = 0.01 * (0.99 * 0.99 + 0.01)  # lr0 × the linear factor of epoch 1
    assert (bias["lr"], weight["lr"]) == (pytest.approx((0.1 + rate) / 2), pytest.approx(rate / 2))
    assert schedule.apply(optimizer, 50 * 60) == 4
    assert bias["lr"] == weight["lr"] == pytest.approx(0.01 * (0.4 * 0.99 + 0.01))
    assert Schedule(hyp, 100, 10, 16).warmup == 100  # at least 100 steps


def test_cosine_schedule_lies_above_the_line_at_first_and_below_it_at_last():
    hyp = read_hyp("hyp.scratch-low.yaml")
    line, cosine = (Schedule(hyp, 100, 10, 16, cosine=c).factor for c in (False, True))
    assert line(0) == cosine(0) == pytest.approx(1)
    assert line(100) == pytest.approx(0.01) and cosine(100) == pytest.approx(0.01)
    assert cosine(50) == pytest.approx(line(50))
    assert cosine(25) == pytest.approx(0.99 * (1 + math.cos(math.pi / 4)) / 2 + 0.01)
    assert cosine(25) > line(25) and cosine(75) < line(75)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_the_optimizer_is_the_one_asked_for(name, tiny_set, tmp_path):
    trainer = trainer_of(tiny_set, tmp_path, optimizer=name)
    assert type(trainer.learner.optimizer).__name__ == name
    group = trainer.learner.optimizer.param_groups[1]
    if name == "SGD":
        assert group["nesterov"] and group["momentum"] == 0.937
    else:
        assert group["betas"] == (0.937, 0.999)
    before = trainer.learner.model.model[0].conv.weight.clone()
    trainer.train_epoch()
    assert not torch.equal(trainer.learner.model.model[0].conv.weight, before)


def test_weight_decay_is_for_convolution_weights_only():
    hyp = read_hyp("hyp.scratch-low.yaml")
    model = DetectionModel("yolov5n.yaml", nc=2)
    biases, kernels, norms = build_optimizer(model, hyp, batch_size=24, accumulate=3).param_groups
    assert kernels["weight_decay"] == pytest.approx(0.0005 * 72 / 64)
    assert biases["weight_decay"] == norms["weight_decay"] == 0
    assert all(p.ndim == 4 for p in kernels["params"])
    assert all(p.ndim == 1 for p in biases["params"] + norms["params"])
    assert len(biases["params"]) == len(norms["params"]) + 3  # every BatchNorm has both, Detect has three biases
    count = sum(p.numel() for g in (biases, kernels, norms) for p in g["params"])
    assert count == sum(p.numel() for p in model.parameters())


def step_on(optimizer: torch.optim.Optimizer, seed: int) -> None:
    """A step by gradients drawn by ``seed``, as they come: in the layout of their parameters."""
    torch.manual_seed(seed)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape))
    optimizer.step()


def twins() -> list[DetectionModel]:
    """Two models of the same weights, as training has them in memory."""
    model = DetectionModel(TINY).to(memory_format=torch.channels_last)
    return [model, deepcopy(model)]


def same_weights(models: list[DetectionModel]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in models), strict=True))


def test_sgd_in_one_call_is_that_of_one_call_a_tensor_to_the_bit():
    hyp, models = read_hyp("hyp.scratch-low.yaml"), twins()
    optimizers = [build_optimizer(model, hyp, 16, 4) for model in models]
    assert all(group["fused"] for group in optimizers[0].param_groups)
    for group in optimizers[1].param_groups:
        group["fused"] = None
    for seed in range(5):
        for optimizer in optimizers:
            step_on(optimizer, seed)
    assert same_weights(models)


def test_sgd_begins_where_some_weights_have_no_gradient_yet():
    hyp, models = read_hyp("hyp.scratch-low.yaml"), twins()
    optimizers = [build_optimizer(model, hyp, 16, 4) for model in models]
    for group in optimizers[1].param_groups:
        group["fused"] = None
    for optimizer in optimizers:
        # of a layer that stochastic depth skips in the first step
        skipped = optimizer.param_groups[1]["params"].pop()
        step_on(optimizer, 0)
        optimizer.param_groups[1]["params"].append(skipped)
        step_on(optimizer, 1)
    assert same_weights(models)


def test_a_first_step_that_the_scaler_leaves_out_leaves_nothing_behind():
    hyp, models = read_hyp("hyp.scratch-low.yaml"), twins()
    for model, losses in zip(models, ([torch.inf, 1.0], [1.0]), strict=True):
        optimizer, scaler = build_optimizer(model, hyp, 16, 4), torch.amp.GradScaler("cpu")
        for loss in losses:
            optimizer.zero_grad()
            scaler.scale(sum(p.square().sum() for p in model.parameters()) * loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert same_weights(models)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_moments_of_another_layout_are_brought_into_that_of_the_weights(name):
    # a program that has written a checkpoint anew may have changed it; in one call all are taken as they lie in memory
    hyp, models = read_hyp("hyp.scratch-low.yaml"), twins()
    first, second = (build_optimizer(model, hyp, 16, 4, name) for model in models)
    step_on(first, 0)
    saved = deepcopy(first.state_dict())
    for moments in saved["state"].values():
        moments.update({key: value.contiguous() for key, value in moments.items()})
    models[1].load_state_dict(models[0].state_dict())
    load_optimizer(second, saved)
    for optimizer in (first, second):
        step_on(optimizer, 1)
    assert same_weights(models)


def test_average_follows_the_weights_at_its_rate():
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    ema = ModelEMA(model)
    model.weight.data.fill_(1.0)
    expected = 0.0
    for update in (1, 2, 3):
        ema.update(model)
        decay = 0.9999 * (1 - math.exp(-update / 2000))
        expected = decay * expected + (1 - decay)
    assert ema.model.weight.item() == pytest.approx(expected, rel=1e-6)
