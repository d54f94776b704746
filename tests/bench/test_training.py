"""bench/training.py has checkouts train in turns."""

import pytest

from bench.loader import answers
from bench.training import epochs_options, start_side
from tests.helpers.sets import make_set
from utils.errors import UserError
from utils.paths import ROOT


def test_a_checkout_trains_so_many_epochs_a_round(tmp_path):
    data = make_set(tmp_path / "set", train=8, val=1)
    options = epochs_options("yolov5n.yaml", str(data), 64, tmp_path, 2, "") | {"workers": 0}
    (took,) = answers([("ours", start_side(ROOT, options))], 2)
    assert len(took) == 2 and min(took) > 0
    # what only trains leaves no checkpoint
    assert not list((tmp_path / "runs").rglob("*.pt"))


def test_one_that_fails_is_named(tmp_path):
    with pytest.raises(UserError, match="^the other checkout: has failed"):
        answers([("the other checkout", start_side(tmp_path, {}))], 1)
