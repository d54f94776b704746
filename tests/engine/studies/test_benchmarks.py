"""benchmarks.py: every format measured by the same images, what can't be had skipped with the reason."""

import csv
import sys
import time

import cv2
import pytest
import torch

import benchmarks
from engine.studies.benchmark import WARM_UP, latency
from tests.helpers.models import make_weights
from tests.helpers.project import assert_user_error, command
from utils.errors import UserError


@pytest.fixture
def weights(tmp_path):
    return make_weights(tmp_path / "tiny.pt", seed=0)


def test_formats_are_measured_or_skipped_with_the_reason(weights, tiny_set, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openvino", None)
    formats = ["pytorch", "torchscript", "openvino"]
    rows = benchmarks.run(
        weights=str(weights), data=str(tiny_set), imgsz=90, include=formats, runs=2, project=str(tmp_path / "runs")
    )
    assert [r.format for r in rows] == formats
    pytorch, torchscript, openvino = rows
    assert pytorch.megabytes == pytest.approx(weights.stat().st_size / 1e6)
    assert torchscript.map50_95 == pytest.approx(pytorch.map50_95, abs=1e-3)
    assert min(pytorch.milliseconds, torchscript.milliseconds) > 0
    assert "pip install" in openvino.why
    folder = tmp_path / "runs" / "exp"
    assert (folder / "tiny.torchscript").is_file()
    lines = list(csv.reader((folder / "benchmarks.csv").open(encoding="utf-8")))
    assert [line[0] for line in lines] == ["format", *formats]
    assert float(lines[1][3]) == pytest.approx(pytorch.milliseconds, abs=1e-3)
    assert lines[3][1:4] == ["", "", ""] and "pip install" in lines[3][4]
    assert cv2.imread(str(folder / "benchmarks.png")).shape[0] > 300
    printed = capsys.readouterr().out
    assert "at 96×96, batches of 1" in printed
    assert "openvino        skipped: " in printed


def test_latency_is_the_median_of_warm_calls_per_image():
    calls = []

    def detector(images):
        calls.append(len(images))
        cold = len(calls) <= WARM_UP or len(calls) == WARM_UP + 2  # … and one that something else disturbs
        time.sleep(0.3 if cold else 0.02)

    milliseconds = latency(detector, torch.zeros(2, 3, 4, 4), 5)
    assert len(calls) == WARM_UP + 5
    assert 10 <= milliseconds < 100


def test_mistakes_are_named(weights, tiny_set, tmp_path):
    assert_user_error(command("benchmarks.py", "--weights", tmp_path / "none.pt"), "none.pt")
    with pytest.raises(UserError, match="--include paper: no such format; there are pytorch"):
        benchmarks.run(weights=str(weights), include=["paper"])
    with pytest.raises(UserError, match="--runs 0: must be 1 or more"):
        benchmarks.run(weights=str(weights), runs=0)
    other = make_weights(tmp_path / "five.pt", seed=0, nc=5)
    with pytest.raises(UserError, match="knows 5 classes, .* has 2"):
        benchmarks.run(weights=str(other), data=str(tiny_set))


def test_every_format_is_measured_in_all_its_ways():
    names = "pytorch torchscript onnx onnx-dnn openvino openvino-int8 engine coreml tflite ncnn"
    assert benchmarks.build_parser().parse_args([]).include == names.split()
