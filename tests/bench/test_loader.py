"""bench/loader.py measures what two loaders give, in turn."""

import cv2
import pytest

from bench import loader
from bench.all import loader_rows
from bench.loader import ROOT, Case, Side, images_per_second, median_ratio
from tests.helpers.sets import make_set
from utils.errors import UserError


@pytest.fixture
def case(tmp_path):
    folder = make_set(tmp_path / "set", train=8, val=1).parent / "images"
    for file in folder.rglob("*.png"):
        cv2.imwrite(str(file.with_suffix(".jpg")), cv2.imread(str(file)))
    return Case("tiny", folder, 64, 0)


def test_each_side_is_measured_once_a_round_and_leaves_the_set_alone(case):
    before = sorted(case.images.parent.rglob("*"))
    (figures,) = images_per_second([Side(ROOT, 0)], case, rounds=3, batch=4)
    assert len(figures) == 3 and min(figures) > 0
    assert sorted(case.images.parent.rglob("*")) == before


def test_the_ratio_is_that_of_the_rounds():
    assert median_ratio([2, 30, 8], [1, 10, 8]) == 2


def test_one_process_is_told_beside_another_checkout(case, monkeypatch):
    monkeypatch.setattr(loader, "CASES", (case,))
    process, workers, processes = loader_rows(1, ROOT)
    assert [r.floor_is for r in (process, workers, processes)] == ["the other checkout", "one worker", "one process"]
    assert processes.value > 0
    assert process.ratio == pytest.approx(process.value / process.floor)


def test_what_cannot_be_measured_is_told(case, tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}, 0 workers: has failed"):
        images_per_second([Side(tmp_path, 0)], case, rounds=1)
    with pytest.raises(UserError, match="no such folder"):
        images_per_second([Side(ROOT, 0)], Case("none", tmp_path / "none", 64, 0), rounds=1)
