"""--drop-path: rates that grow with depth."""

import pytest
from torch import nn

from engine.recipe.parameters import set_drop_path
from models.common import DropPath


@pytest.mark.parametrize(
    ("blocks", "rates"),
    [(1, [0.3]), (2, [0.0, 0.3]), (4, [0.0, 0.1, 0.2, 0.3])],
)
def test_the_deepest_block_gets_the_whole_rate(blocks, rates):
    model = nn.Sequential(*(DropPath(0.5) for _ in range(blocks)))
    set_drop_path(model, 0.3)
    assert [drop.p for drop in model] == pytest.approx(rates)
