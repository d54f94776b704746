"""Hyper-parameter files as users break them."""

import pytest
import torch

from engine.recipe.hyp import read_hyp
from engine.recipe.optimizer import build_optimizer
from tests.helpers.training import hyp_file
from utils.errors import UserError


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 0.1}, "unknown hyper-parameters lr"),
        ({"mosaic": 1.5}, "mosaic is 1.5"),
        ({"lr0": "fast"}, "lr0 is 'fast', a number was expected$"),
        ({"lr0": "1e-3"}, "lr0 is '1e-3', a number was expected; write 0.001"),
        ({"lr0": float("nan")}, "lr0 is nan, it must be 0 or more and at most 1e\\+06"),
        ({"box": float("inf")}, "box is inf, it must be 0 or more"),
        ({"cls": 10**60}, "cls is 10000000"),
        ({"nominal_batch": 0}, "nominal_batch is 0, it must be 1 or more"),
        ({"momentum": 1.0}, "momentum is 1.0, it must be 0 or more and at most 0.9999"),
        ({"anchor_t": 0.0}, "anchor_t is 0.0, it must be 1 or more"),
        ({"anchors": 10**9}, "anchors is 1000000000, it must be 0 or more and at most 100"),
        ({"close_mosaic": -1}, "close_mosaic is -1, it must be 0 or more"),
        ({"scale": [0.5]}, "scale is \\[0.5\\], a number was expected"),
    ],
)
def test_mistakes_in_hyper_parameters(changes, words, tmp_path):
    with pytest.raises(UserError, match=words):
        read_hyp(hyp_file(tmp_path, **changes))


def test_missing_hyper_parameters_are_named(tmp_path):
    (tmp_path / "hyp.yaml").write_text("lr0: 0.01\n")
    with pytest.raises(UserError, match="lrf, momentum"):
        read_hyp(tmp_path / "hyp.yaml")


def test_without_momentum_there_is_nothing_for_nesterov_to_look_ahead_by(tmp_path):
    hyp = read_hyp(hyp_file(tmp_path, momentum=0.0))
    optimizer = build_optimizer(torch.nn.Conv2d(3, 8, 1), hyp, 64, 1)
    assert optimizer.defaults["nesterov"] is False


def test_a_path_that_can_be_none_is_told(tmp_path):
    with pytest.raises(UserError, match="can't be a hyper-parameter file: File name too long"):
        read_hyp("x" * 5000)
