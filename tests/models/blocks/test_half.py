"""Blocks in half precision: what float16 cannot hold, its greatest number is 65504, is computed in float32."""

from copy import deepcopy

import pytest
import torch

from models.yolo import BLOCKS
from tests.helpers.models import WIDTH, block


def close_on_average(found: torch.Tensor, expected: torch.Tensor, share: float) -> bool:
    """Single values may differ more, where a gate or a softmax turns over."""
    return (found.float() - expected).abs().mean() < share * expected.abs().mean()


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize(("spread", "middle"), [(300, 0), (2000, 4000)])
def test_large_activations_stay_finite_and_close(name, spread, middle):
    torch.manual_seed(0)
    half = block(name).eval().half()
    # of the same weights and images, so that the computation is all that differs
    full = deepcopy(half).float()
    x = (torch.randn(2, WIDTH, 16, 16) * spread + middle).half()
    inputs = [x, x] if name == "Concat" else x
    floats = [x.float(), x.float()] if name == "Concat" else x.float()
    with torch.no_grad():
        expected = full(floats)
        assert expected.abs().max() < 6e4
        found = half(inputs)
        assert found.dtype == torch.float16 and found.isfinite().all()
        assert close_on_average(found, expected, 0.003)
        for dtype, share in ((torch.float16, 0.003), (torch.bfloat16, 0.03)):
            with torch.autocast("cpu", dtype=dtype):
                found = full(floats)
            assert found.isfinite().all()
            assert close_on_average(found, expected, share)
