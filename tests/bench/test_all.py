"""bench/all.py measures in turns, and writes what it found to two pages."""

import subprocess
import sys
from dataclasses import asdict

import cv2
import numpy as np
import pytest

from bench.all import PAGES, number, page
from bench.loader import median_ratio
from bench.speed import Row, core_seconds, in_turns, run_command
from utils.paths import ROOT


def test_sides_take_turns_and_the_first_round_does_not_count():
    order = []

    def side(name, values):
        return lambda: order.append(name) or values.pop(0)

    found = in_turns({"ours": side("ours", [9.0, 1.0, 2.0]), "floor": side("floor", [9.0, 2.0, 1.0])}, rounds=2)
    assert order == ["ours", "floor"] * 3
    assert found == {"ours": [1.0, 2.0], "floor": [2.0, 1.0]}
    assert median_ratio(found["ours"], found["floor"]) == 1.25


def test_a_command_is_measured_with_what_it_held(tmp_path):
    took, cores, megabytes = run_command(["-c", "bytearray(b'x') * 200_000_000; sum(range(10**6))"], tmp_path)
    # 200 million bytes and Python; this process, with PyTorch in it, holds more
    assert took > 0 and cores > 0 and 190 < megabytes < 300
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run_command(["-c", "raise SystemExit('no such thing')"], tmp_path)
    assert b"no such thing" in failed.value.output


def test_both_pages_have_the_same_figures():
    machine = {"machine": "a CPU", "cores": 2, "torch": "2.14.1", "date": "2026-01-01"}
    rows = [
        Row("training", "yolov5n, 320 px", "ms an image", 31.04, 28.0, 0.9021, "bare steps"),
        Row("training", "alone", "images/s", 599.4),
    ]
    record = {"training": {"machine": machine, "rows": [asdict(row) for row in rows]}}
    english, chinese = (page(record, language) for language in ("en", "zh"))
    for text in (english, chinese):
        assert "| yolov5n, 320 px | 31.0 ms an image | 28.0 | 0.90 | bare steps |" in text
        assert "| alone | 599 images/s |  |  |  |" in text
    assert "## Training" in english and "## 训练" in chinese and "## Validation" not in english
    assert set(PAGES) == {"en", "zh"} and number(123.4) == "123"


def test_another_checkout_must_be_one(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / "all.py", "--stock", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr.startswith(f"error: --stock {tmp_path}: no train.py there")


def test_the_parts_of_a_video_are_done_one_after_the_other(tmp_path):
    clip, copy = tmp_path / "clip.mp4", tmp_path / "copy.mp4"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"mp4v"), 25, (640, 480))
    for shade in range(5):
        writer.write(np.full((480, 640, 3), 40 * shade, np.uint8))
    writer.release()
    used = core_seconds(clip, copy, lambda: sum(i * i for i in range(10**6)))
    assert used > 0.02
    video = cv2.VideoCapture(str(copy))
    shades = []
    while (picture := video.read()[1]) is not None:
        shades.append(int(picture.mean()))
    assert len(shades) == 5 and all(abs(shade - 40 * i) < 8 for i, shade in enumerate(shades))
