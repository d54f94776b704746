"""models/fuse.py: convolutions that take the activation after them along."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from models.common import Conv
from models.flops import count_gflops, count_layers
from models.fuse import ONEDNN, SettledConv2d, settle
from models.yolo import DetectionModel

pytestmark = pytest.mark.skipif(not ONEDNN, reason="needs an x86 processor and PyTorch with oneDNN")
IMAGE = torch.rand(2, 8, 20, 24)


def settled(*layers: nn.Module) -> tuple[nn.Sequential, nn.Sequential]:
    """The layers as they are, and settled."""
    plain = nn.Sequential(*layers).eval().requires_grad_(False)
    other = deepcopy(plain)
    settle(other)
    return plain, other


@pytest.mark.parametrize("act", [nn.SiLU(), nn.ReLU(), nn.ReLU6(), nn.Hardswish(), nn.GELU(), nn.LeakyReLU(0.1)])
@pytest.mark.parametrize("kind", [{}, {"groups": 8}, {"stride": 2, "padding": 1}, {"dilation": 2, "bias": False}])
def test_in_one_pass_it_is_the_same(act, kind):
    plain, other = settled(nn.Conv2d(8, 16, 3, **kind), act)
    with torch.inference_mode():
        # 8 makes ReLU6 cut off
        wanted, got = plain(IMAGE * 8), other(IMAGE * 8)
    assert isinstance(other[0], SettledConv2d) and list(other[0].laid_out) == [torch.float32]
    joined = isinstance(act, nn.SiLU | nn.ReLU | nn.ReLU6 | nn.Hardswish)
    assert isinstance(other[1], nn.Identity if joined else type(act))
    assert got.shape == wanted.shape and torch.allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_a_model_is_the_same_whatever_size_came_first():
    torch.manual_seed(0)
    plain = DetectionModel("yolov5n.yaml").fuse()
    one, two = deepcopy(plain), deepcopy(plain)
    settle(one)
    settle(two)
    small, large = torch.rand(1, 3, 64, 96), torch.rand(3, 3, 128, 64)
    with torch.inference_mode():
        found = [model(small)[0] for model in (plain, one)]
        two(large)
        assert torch.equal(two(small)[0], found[1])
    assert torch.allclose(*found, rtol=1e-4, atol=1e-3)
    # the first layer, one of a bottleneck, one of the head
    kinds = [type(m) for m in (one.model[0].conv, one.model[2].m[0].cv1.conv, one.detect.m[0])]
    assert kinds == [SettledConv2d] * 3
    assert list(one.state_dict()) == list(plain.state_dict())
    assert (count_gflops(one, 64), count_layers(one)) == (count_gflops(plain, 64), count_layers(plain))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning")
def test_with_gradients_traced_and_in_another_type_it_is_as_before():
    plain, other = settled(nn.Conv2d(8, 16, 3), nn.SiLU())
    grown = [IMAGE.clone().requires_grad_() for _ in range(2)]
    for model, image in zip((plain, other), grown, strict=True):
        model(image).sum().backward()
    assert torch.equal(grown[0].grad, grown[1].grad)
    with torch.no_grad():
        assert "mkldnn" not in str(torch.jit.trace(other, IMAGE, check_trace=False).inlined_graph)
        assert not other[0].laid_out
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(other(IMAGE), plain(IMAGE))
        other(IMAGE)
        copied = deepcopy(other)
        assert not copied[0].laid_out and torch.equal(copied(IMAGE), other(IMAGE))
        half = other.bfloat16()(IMAGE.bfloat16())
    assert half.dtype == torch.bfloat16 and torch.allclose(half.float(), plain(IMAGE), atol=0.02)


class Swapped(Conv):
    """A Conv that is called in another order."""

    def forward(self, x):
        return self.conv(self.act(x))


def test_a_block_called_in_another_way_keeps_its_order():
    block = Swapped(8, 8).eval().requires_grad_(False)
    block.bn = nn.Identity()
    wanted = block(IMAGE)
    settle(block)
    assert isinstance(block.act, nn.SiLU) and isinstance(block.conv, SettledConv2d)
    with torch.no_grad():
        assert torch.allclose(block(IMAGE), wanted, rtol=1e-4, atol=1e-5)


def test_a_block_that_was_folded_in_its_own_way_stays_as_it_is():
    """As ``fuse`` of many a fork does it: without a BatchNorm, called by another name."""
    block = Conv(8, 8).eval().requires_grad_(False)
    del block.bn
    block.forward = lambda x: block.act(block.conv(x) + 1)
    wanted = block(IMAGE)
    settle(block)
    assert isinstance(block.act, nn.SiLU)
    with torch.no_grad():
        assert torch.allclose(block(IMAGE), wanted, rtol=1e-4, atol=1e-5)


def test_what_is_more_than_a_convolution_stays():
    mirrored = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
    _, other = settled(mirrored, nn.SiLU(), nn.Conv2d(8, 8, 3, padding="same"))
    assert [type(m) for m in other] == [nn.Conv2d, nn.SiLU, nn.Conv2d]
