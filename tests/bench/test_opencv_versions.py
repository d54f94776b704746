"""bench/opencv_versions.py: the example it writes is what the installed OpenCV reads, and what its cells say."""

import json
import subprocess
import sys

import pytest

from bench.opencv_versions import READER, cell, table, write_example

pytest.importorskip("onnx")


def test_the_installed_opencv_reads_the_examples(tmp_path):
    for name in ("yolov5n.yaml", "yolov5s_ShuffleNetV2.yaml"):
        write_example(name, tmp_path, 17)
    (tmp_path / "damaged.onnx").write_bytes(b"no graph")
    answer = subprocess.run([sys.executable, "-c", READER, tmp_path], capture_output=True, text=True, check=True)
    ((version, found),) = json.loads(answer.stdout).items()
    assert version.split(".")[0].isdigit()
    assert 0 < found["yolov5n.yaml"] < 0.01 and 0 < found["yolov5s_ShuffleNetV2.yaml"] < 0.01
    assert isinstance(found["damaged"], str) and cell(found["damaged"]) == "✗"


def test_a_table_has_a_row_for_each_model_and_a_column_for_each_release():
    error = "OpenCV(4.5.5) …\n> Node [Clip@ai.onnx]:(/model/Clip_output_0) parse error: …"
    columns = {"4.5.5": {"a.pt": 1.2e-4, "b.yaml": error}, "4.8.1": {"a.pt": 0.31, "b.yaml": "other rows"}}
    assert table(["a.pt", "b.yaml"], columns).splitlines() == [
        "| OpenCV | 4.5.5 | 4.8.1 |",
        "| --- | ---: | ---: |",
        "| `a.pt` | 0.0001 | ✗ 0.3 |",
        "| `b.yaml` | `Clip` | ✗ |",
    ]
