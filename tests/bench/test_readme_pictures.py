"""bench/readme_pictures.py draws what checkpoints find, a row for each of them."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from bench.readme_pictures import CROWD, GAP, WIDTH, drawn_row, spread, tags
from tests.helpers.models import make_weights
from utils.errors import UserError
from utils.paths import ROOT


@pytest.fixture
def folder(tmp_path):
    """Nine pictures of 96 × 64 px."""
    (tmp_path / "pictures").mkdir()
    for i in range(9):
        picture = np.random.default_rng(i).integers(0, 255, (64, 96, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "pictures" / f"{i}.png"), picture)
    return tmp_path / "pictures"


def test_pictures_are_spread_over_the_folder(folder, tmp_path):
    assert [path.stem for path in spread(folder, 3)] == ["0", "4", "8"]
    assert len(spread(folder, 20)) == 9
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no pictures"):
        spread(tmp_path / "empty", 3)


def test_a_row_fills_the_width_and_has_boxes(folder, tmp_path):
    weights = make_weights(tmp_path / "best.pt", seed=0)
    found, blank = (drawn_row(str(weights), 96, spread(folder, 3), least) for least in (0.0, 1.0))
    assert found.shape == blank.shape == (round((WIDTH - 2 * GAP) / 3 * 64 / 96), WIDTH, 3)
    assert (found != blank).any()


def test_in_a_crowd_only_the_surest_box_of_a_class_has_a_tag():
    few = np.array([[0, 0, 1, 1, 0.9, 1], [0, 0, 1, 1, 0.8, 0], [0, 0, 1, 1, 0.7, 1]])
    names = {0: "ring", 1: "star"}
    assert tags(few, names) == ["star 0.90", "ring 0.80", "star 0.70"]
    many = np.concatenate([few, few[2:].repeat(CROWD, 0)])
    assert tags(many, names) == ["star 0.90", "ring 0.80"] + [""] * (CROWD + 1)


def test_the_script_writes_its_rows_into_one_picture(folder, tmp_path):
    weights = make_weights(tmp_path / "best.pt", seed=0)
    row = ["--row", weights, 96, folder]
    line = [ROOT / "bench" / "readme_pictures.py", *row, *row, "--pictures", 4, 8, "--out", tmp_path / "out.jpg"]
    said = subprocess.run([sys.executable, *map(str, line)], capture_output=True, text=True)
    assert said.returncode == 0 and "out.jpg" in said.stdout, said.stderr
    heights = [round((WIDTH - (n - 1) * GAP) / n * 64 / 96) for n in (4, 8)]
    assert cv2.imread(str(tmp_path / "out.jpg")).shape == (sum(heights) + GAP, WIDTH, 3)
