"""YOLOv7's blocks. Its models' figures are held in tests/models/test_models.py, with those of all others."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from models.blocks.yolov7 import MP, SP, SPPCSPC, RepConv
from models.common import Conv
from models.fuse import fuse_conv_bn
from tests.helpers.models import lively


@pytest.mark.parametrize(
    "args",
    [(16, 32, 3, 1), (16, 16, 3, 1), (16, 16, 3, 2), (16, 16, 5, 1, 4), (16, 32, 3, 2, 8)],
    ids=["wider", "identity", "stride", "groups of 4, 5×5", "wider, stride, groups"],
)
def test_repconv_folds_into_one_convolution(args):
    torch.manual_seed(0)
    x = torch.randn(2, 16, 9, 7)
    block = lively(RepConv(*args), x)
    assert (block.rbr_identity is not None) == (args[0] == args[1] and args[3] == 1)
    with torch.no_grad():
        expected = block(x)
        folded = fuse_conv_bn(deepcopy(block))
        torch.testing.assert_close(folded(x), expected, rtol=0, atol=1e-5)
    assert [type(m) for m in folded.children()] == [nn.SiLU, nn.Conv2d]
    weight = args[1] * args[0] // (args[4] if len(args) > 4 else 1) * args[2] ** 2
    assert sum(p.numel() for p in folded.parameters()) == weight + args[1]
    assert list(block.state_dict())[0].startswith("rbr_")  # the block that was copied is as it was


def test_repconv_trains_all_branches_under_the_names_of_its_checkpoints():
    block = RepConv(8, 8).train()
    block(torch.randn(2, 8, 5, 5)).square().mean().backward()
    names = {name.split(".")[0] for name, p in block.named_parameters() if p.grad.any()}
    assert names == {"rbr_identity", "rbr_dense", "rbr_1x1"}
    with pytest.raises(ValueError, match="must be odd, not 2"):
        RepConv(8, 8, 2)


def test_pools():
    x = torch.arange(36.0).view(1, 1, 6, 6)
    assert MP()(x)[0, 0].tolist() == [[7, 9, 11], [19, 21, 23], [31, 33, 35]]
    assert SP(5)(x).shape == x.shape
    assert SP(3)(x)[0, 0, 0].tolist() == [7, 8, 9, 10, 11, 11]


def test_sppcspc_pools_one_half_only():
    torch.manual_seed(0)
    x = torch.randn(1, 8, 20, 20)
    block = lively(SPPCSPC(8, 16, k=(3, 5)), x)
    assert block(x).shape == (1, 16, 20, 20)
    # a change in one corner reaches as far as 3×3, the largest pool, and 3×3 again: 1 + 2 + 1 positions
    changed = x.clone()
    changed[..., 0, 0] += 5
    with torch.no_grad():
        reached = (block(changed) - block(x)).abs().amax((0, 1)) > 0
    assert reached[:5, :5].any() and not reached[5:].any() and not reached[:, 5:].any()


def test_rows_of_yolov7_name_the_activation_where_others_have_the_dilation():
    block = Conv(8, 8, 3, 1, None, 1, nn.LeakyReLU(0.1))
    assert isinstance(block.act, nn.LeakyReLU)
    assert block.conv.dilation == (1, 1)
