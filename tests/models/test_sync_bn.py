"""--sync-bn changes what a norm counts over, and nothing else."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torchvision.ops import Conv2dNormActivation, FrozenBatchNorm2d

from models.blocks.yolov7 import RepConv
from models.common import Conv
from models.sync_bn import synchronize_batchnorm
from models.yolo import DetectionModel
from tests.helpers.models import random_statistics


class NormWithActivation(nn.BatchNorm2d):
    """A user's norm that does more than normalise."""

    def __init__(self, c):
        super().__init__(c)
        self.act = nn.SiLU()

    def forward(self, x):
        return self.act(super().forward(x)) * 2


class UsersBlock(nn.Module):
    """A user's block with a norm inside."""

    def __init__(self, c):
        super().__init__()
        self.bn = NormWithActivation(c)
        self.norm = nn.BatchNorm2d(c)

    def forward(self, x):
        return self.norm(self.bn(x)) + x


def timms(name: str) -> nn.Module:
    layers = pytest.importorskip("timm.layers")
    norm = getattr(layers, name)(8, act_layer=nn.ReLU)
    norm.drop = nn.Hardtanh()
    return norm


KINDS = {
    "BatchNorm2d": lambda: nn.BatchNorm2d(8),
    "Conv": lambda: Conv(8, 8),
    "RepConv": lambda: RepConv(8, 8),
    "timm BatchNormAct2d": lambda: timms("BatchNormAct2d"),
    "timm FrozenBatchNormAct2d": lambda: timms("FrozenBatchNormAct2d"),
    "torchvision FrozenBatchNorm2d": lambda: FrozenBatchNorm2d(8),
    "torchvision Conv2dNormActivation": lambda: Conv2dNormActivation(8, 8),
    "user's norm": lambda: NormWithActivation(8),
    "user's block": lambda: UsersBlock(8),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_what_is_converted_computes_the_same(kind, training):
    # without other processes the statistics in training are those of one
    torch.manual_seed(0)
    # a Sequential around it: what is converted may be the whole model or a part of it
    model = random_statistics(nn.Sequential(KINDS[kind]())).train(training)
    converted = deepcopy(model)
    synchronize_batchnorm(converted)
    x = torch.randn(4, 8, 6, 6)
    assert torch.equal(converted(x), model(x))
    assert list(converted.state_dict()) == list(model.state_dict())
    for name, value in converted.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "Frozen" not in kind])
def test_every_norm_that_counts_is_converted(kind):
    model = KINDS[kind]()
    before = dict(model.named_parameters())
    synchronize_batchnorm(model)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(m, nn.SyncBatchNorm) for m in norms)
    # what an optimiser already holds goes on learning
    assert all(parameter is before[name] for name, parameter in model.named_parameters())


def test_a_norm_of_ones_own_is_synchronised_where_it_calls_its_base(monkeypatch):
    called = []
    monkeypatch.setattr(nn.SyncBatchNorm, "forward", lambda self, x: called.append(self) or x)
    norm = NormWithActivation(8)
    synchronize_batchnorm(norm)
    norm(torch.randn(2, 8, 4, 4))
    assert called == [norm]


def test_a_network_of_timm_keeps_its_activations():
    pytest.importorskip("timm")
    torch.manual_seed(0)
    model = random_statistics(DetectionModel("yolov5n.yaml", backbone="timm/mobilenetv3_small_050")).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(image)[0]
        synchronize_batchnorm(model)
        assert torch.equal(model(image)[0], expected)
