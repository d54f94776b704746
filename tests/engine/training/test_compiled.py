"""The layers that --compile trains on a CPU, beside those they stand for; compiled they are in test_compilation.py."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from engine.training.compiled import MaxPool2d, NormalisedSiLU, Upsample, suit_compiler
from models.common import Conv
from models.yolo import DetectionModel
from tests.helpers.descriptions import small


def step(model: nn.Module, images: torch.Tensor) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """The maps of a step in training, and the gradients by their names."""
    maps = model.train()(images)
    sum((m * m).sum() for m in maps).backward()
    return maps, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("frozen", [(), ("model.0.", "model.1.")])
def test_they_compute_the_same_in_training_and_after(frozen):
    torch.manual_seed(0)
    plain = DetectionModel(small())
    for name, parameter in plain.named_parameters():
        parameter.requires_grad = not name.startswith(frozen or "nothing")
    suited = deepcopy(plain)
    suit_compiler(suited)
    kinds = [type(m) for m in suited.modules()]
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in plain.modules())
    assert kinds.count(NormalisedSiLU) == norms > 10 and kinds.count(MaxPool2d) == kinds.count(Upsample) == 1
    assert list(suited.state_dict()) == list(plain.state_dict())
    images = torch.rand(4, 3, 64, 96)
    (maps, gradients), (found, found_gradients) = step(plain, images), step(suited, images)
    torch.testing.assert_close(found, maps, rtol=1e-4, atol=1e-4)
    assert set(gradients) == set(found_gradients)
    for name, gradient in gradients.items():
        apart = (found_gradients[name] - gradient).norm() / gradient.norm()
        assert apart < 1e-3, name
    for (name, buffer), after in zip(plain.named_buffers(), suited.buffers(), strict=True):
        torch.testing.assert_close(after, buffer, rtol=1e-4, atol=1e-5, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(suited.eval()(images)[0], plain.eval()(images)[0], rtol=1e-4, atol=1e-3)


def test_a_step_in_bfloat16_is_as_near_to_float32_as_it_was():
    apart = []
    for seed in range(6):
        torch.manual_seed(seed)
        exact, images = DetectionModel(small()), torch.rand(4, 3, 64, 96)
        plain, suited = deepcopy(exact), deepcopy(exact)
        suit_compiler(suited)
        _, expected = step(exact, images)
        with torch.autocast("cpu", torch.bfloat16):
            found = [step(model, images)[1] for model in (plain, suited)]
        apart.append([[(side[name] - g).norm() / g.norm() for name, g in expected.items()] for side in found])
    before, after = torch.tensor(apart).mean((0, 2))
    assert 0 < after < 1.15 * before < 0.3


def test_the_variance_of_large_numbers_is_kept():
    bn, silu = nn.BatchNorm2d(2, momentum=0.1), nn.SiLU()
    suited = nn.Sequential(deepcopy(bn), silu)
    suit_compiler(suited)
    torch.manual_seed(0)
    x = torch.randn(4, 2, 32, 32) + torch.tensor([3000.0, -3000.0]).view(2, 1, 1)
    # from where the running mean has come near
    for norm in (bn, suited[0]):
        norm.running_mean.copy_(torch.tensor([2900.0, -3010.0]))
    torch.testing.assert_close(suited(x), silu(bn(x)), rtol=1e-2, atol=2e-3)
    torch.testing.assert_close(suited[0].running_var, bn.running_var, rtol=1e-3, atol=0)


def test_other_layers_stay_as_they_are():
    class Own(Conv):
        def forward(self, x):
            return self.act(self.conv(x)) + self.bn(x)

    kept = [
        nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.BatchNorm2d(4, momentum=None), nn.SiLU()),
        nn.Sequential(nn.BatchNorm2d(4, affine=False), nn.SiLU()),
        nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False), nn.SiLU()),
        Own(4, 4),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(3, dilation=2),
        nn.MaxPool2d((2, 1)),
        nn.Upsample(scale_factor=1.5),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Upsample(size=(8, 8)),
    ]
    model = nn.ModuleList(deepcopy(kept))
    suit_compiler(model)
    for before, after in zip(kept, model, strict=True):
        assert [type(m) for m in before.modules()] == [type(m) for m in after.modules()]


@pytest.mark.parametrize("window", [(5, 1, 2), (2, 2, 0), (3, 2, 1)])
def test_pools_and_upsampling_have_the_same_gradients(window):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.MaxPool2d(*window), nn.Upsample(None, 2.0))
    suited = deepcopy(plain)
    suit_compiler(suited)
    x = torch.randn(2, 3, 12, 10)
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    found, expected = suited(leaves[0]), plain(leaves[1])
    weights = torch.randn_like(expected)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert torch.equal(found, expected)
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)
