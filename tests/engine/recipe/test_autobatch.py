"""The batch size that fits a device's memory."""

import pytest
import torch

from engine.recipe.autobatch import largest_batch
from utils.errors import UserError


def test_the_largest_batch_that_fits():
    def measure(size):
        if size > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 100 + 30 * size

    assert largest_batch(measure, budget=1310) == 40
    assert largest_batch(measure, budget=200) == 3
    with pytest.raises(UserError, match="not even one image fits"):
        largest_batch(measure, budget=120)
