"""bench/same_run.py tells equal runs from different ones."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from bench.difference import first_difference
from bench.same_run import lines, weights
from utils.checkpoint import save_checkpoint
from utils.paths import ROOT

SCRIPT = ROOT / "bench" / "same_run.py"


def run_script(*args: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, *map(str, args)], capture_output=True, text=True)


def test_help_names_the_parts():
    result = run_script("--help")
    assert result.returncode == 0 and "REF_CHECKOUT" in result.stdout
    assert all(part in result.stdout for part in ("training", "val", "export", "resume"))


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    result = run_script(tmp_path)
    assert result.returncode == 2 and "no train.py" in result.stderr


def figures() -> dict:
    return {
        "table": [["all", "0.5"], ["disc", "0.25"]],
        "boxes": [{"bbox": [1.0, 2.0], "score": 0.5}],
        "weights": {"bias": torch.tensor([0.0, float("nan")]), "count": torch.tensor(3)},
        "output": (np.zeros((2, 3), np.float32),),
    }


def test_equal_values_have_no_difference():
    assert first_difference(figures(), figures()) == ""


def changed_row(values):
    values["table"][1][1] = "0.26"


def changed_score(values):
    values["boxes"][0]["score"] = np.nextafter(0.5, 1).item()


def negative_zero(values):
    values["weights"]["bias"][0] = -0.0


def other_type(values):
    values["weights"]["count"] = torch.tensor(3.0)


def other_shape(values):
    values["output"] = (np.zeros((3, 2), np.float32),)


def lowest_bit(values):
    values["output"][0][1, 2] = np.nextafter(np.float32(0), np.float32(1))


def missing_box(values):
    values["boxes"].pop()


def missing_weight(values):
    del values["weights"]["count"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed_row, "run table[1][1]: '0.25' is '0.26' here"),
        (changed_score, "run boxes[0] score: 0.5 is 0.5000000000000001 here"),
        (negative_zero, "run weights bias: value 0 is 0.0, -0.0 here; 1 of 2 differ"),
        (other_type, "run weights count: int64 () is float32 () here"),
        (other_shape, "run output[0]: float32 (2, 3) is float32 (3, 2) here"),
        (lowest_bit, "run output[0]: value 5 is 0.0, 1"),
        (missing_box, "run boxes: 1 items, 0 here"),
        (missing_weight, "run weights keys: 2 items, 1 here"),
    ],
)
def test_the_first_difference_is_named(change, said):
    values = figures()
    change(values)
    assert first_difference(figures(), values, "run").startswith(said)


def test_files_are_read_as_they_are(tmp_path):
    (tmp_path / "results.csv").write_bytes(b"epoch,loss\r\n0,1\n")
    assert lines(tmp_path / "results.csv") == ["epoch,loss\r\n", "0,1\n"]
    tensors = {"model.0.bias": torch.ones(2)}
    state = {"yaml": {}, "names": {0: "a"}, "model": tensors, "ema": tensors, "epoch": 1}
    save_checkpoint(tmp_path / "last.pt", state)
    assert first_difference({"model": tensors, "ema": tensors}, weights(tmp_path / "last.pt")) == ""
