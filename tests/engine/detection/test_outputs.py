"""Names of what detect.py writes: nothing overwrites anything, and nothing lands outside the run's folder."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine.detection.options import DetectOptions
from engine.detection.results import Detections
from engine.detection.writer import OutputNames, Writer
from utils.plots.crops import crop_folders, save_crop
from utils.sources.frame import Frame

GREY = np.full((40, 60, 3), 90, np.uint8)
FOUND = torch.tensor([[5.0, 5, 30, 30, 0.9, 0], [10, 10, 50, 35, 0.8, 1]])


def frame(path: str, number: int = 0, image: np.ndarray = GREY) -> Frame:
    return Frame(Path(path), image, number, 25.0, "here")


def written(tmp_path: Path, *frames: Frame, names=None, **flags) -> list[str]:
    """Write what was found in frames; the files that are there then."""
    options = DetectOptions.of({"weights": ["a.pt"], "source": "in", **flags})
    with Writer(tmp_path, names or {0: "cat", 1: "dog"}, options) as writer:
        for one in frames:
            writer.write(one, FOUND)
    return sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())


@pytest.mark.parametrize("first", ["clip.avi", "clip_2.jpg"])
def test_a_frame_and_a_picture_of_its_name_are_two(tmp_path, first):
    frames = [frame("clip.avi", 1), frame("clip.avi", 2)], [frame("clip_2.jpg")]
    order = frames if first == "clip.avi" else frames[::-1]
    files = written(tmp_path, *order[0], *order[1], nosave=True, save_txt=True, save_crop=True)
    other = ["clip_1", "clip_2", "clip_2-2"] if first == "clip.avi" else ["clip-2_1", "clip-2_2", "clip_2"]
    assert [f for f in files if f.startswith("labels")] == sorted(f"labels/{name}.txt" for name in other)
    assert len(files) == 3 + 3 * 2


def test_names_stay_where_nothing_would_be_lost():
    names = OutputNames()
    for _ in range(2):
        assert [names.stem(frame("clip.mp4", number)) for number in (1, 2, 3)] == ["clip"] * 3
    for stem in ("clip_4", "clip_02", "clip_0", "clip_x", "clip_", "_1", "7"):
        assert names.stem(frame(f"{stem}.jpg")) == stem
    assert names.stem(frame("clip_3.jpg")) == "clip_3-2"
    assert names.stem(frame("a/7.jpg")) == "7-2" and names.stem(frame("b/7.png")) == "7-3"
    assert names.stem(frame("a/7.jpg")) == "7-2"
    long = names.stem(frame("图" * 84 + ".jpg"))
    assert len(long.encode()) <= 200 and long == "图" * 66


def test_numbers_of_images_in_a_json_differ(tmp_path):
    written(tmp_path, frame("7.jpg"), frame("007.jpg"), frame("a/7.jpg"), nosave=True, save_json=True)
    rows = json.loads((tmp_path / "predictions.json").read_text())
    assert [row["image_id"] for row in rows] == [7, 7, "007", "007", "7-2", "7-2"]


def test_folders_of_crops_lie_within_the_run_one_for_each_class(tmp_path):
    names = ["..", ".", "", "a/b", "a_b", "a\\b", "x" * 400, "CON", "a\0b", "\udcff", "cat", "cat", " dog. ", "猫"]
    folders = crop_folders(dict(enumerate(names)))
    assert folders[10] == folders[11] == "cat" and folders[4] == "a_b" and folders[13] == "猫"
    assert len(set(folders.values())) == len(names) - 1
    for folder in folders.values():
        path = save_crop(tmp_path / "crops" / folder, "1", GREY)
        assert path.parent.parent == tmp_path / "crops" and path.resolve().is_relative_to(tmp_path / "crops")
    (tmp_path / "run").mkdir()
    files = written(tmp_path / "run", frame("1.jpg"), names={0: "..", 1: "a/b"}, save_crop=True)
    assert files == ["1.jpg", "crops/_/1_1.jpg", "crops/a_b/1_2.jpg"]


def test_crops_of_torch_hub_lie_within_their_folder(tmp_path):
    detections = Detections([GREY], [FOUND], ["a.jpg"], {0: "..", 1: "../../x"})
    detections.crop(save_dir=tmp_path / "out")
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.jpg")) == [
        "out/crops/.._.._x/a_2.jpg",
        "out/crops/_/a_1.jpg",
    ]


def test_a_huge_frame_goes_into_a_smaller_video(tmp_path):
    wide = np.zeros((20, 9000, 3), np.uint8)
    assert written(tmp_path, frame("stream", 1, wide), frame("stream", 2, wide)) == ["stream.mp4"]
    video = cv2.VideoCapture(str(tmp_path / "stream.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 2 and video.get(cv2.CAP_PROP_FRAME_WIDTH) == 8190


def test_frames_that_no_video_takes_are_written_as_pictures(tmp_path, capsys):
    odd = Frame(Path("stream"), GREY, 1, 1e-9, "here")
    assert written(tmp_path, odd) == ["stream_1.jpg"]
    assert "its frames are written as pictures" in capsys.readouterr().out


def test_pictures_too_large_for_their_format_are_written_as_png(tmp_path):
    wide = np.zeros((12, 65_600, 3), np.uint8)
    assert written(tmp_path, frame("a.pgm", 0, wide)) == ["a.png"]
    assert save_crop(tmp_path, "crop", wide).name == "crop.png"
