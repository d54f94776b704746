"""Hyper-parameter files as users break them."""

import pytest

from engine.recipe.hyp import read_hyp
from tests.helpers.training import hyp_file
from utils.errors import UserError


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 0.1}, "unknown hyper-parameters lr"),
        ({"mosaic": 1.5}, "mosaic is 1.5"),
        ({"lr0": "fast"}, "lr0 is 'fast'"),
    ],
)
def test_mistakes_in_hyper_parameters(changes, words, tmp_path):
    with pytest.raises(UserError, match=words):
        read_hyp(hyp_file(tmp_path, **changes))


def test_missing_hyper_parameters_are_named(tmp_path):
    (tmp_path / "hyp.yaml").write_text("lr0: 0.01\n")
    with pytest.raises(UserError, match="lrf, momentum"):
        read_hyp(tmp_path / "hyp.yaml")
