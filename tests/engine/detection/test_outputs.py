"""Names of what detect.py writes: nothing overwrites anything, and nothing lands outside the run's folder."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine.detection import results
from engine.detection.options import DetectOptions
from engine.detection.results import Detections
from engine.detection.writer import OutputNames, Writer
from utils.data.images import read_image
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


def files_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_crops_of_torch_hub_lie_within_their_folder(tmp_path):
    detections = Detections([GREY], [FOUND], ["a.jpg"], {0: "..", 1: "../../x"})
    detections.crop(save_dir=tmp_path / "out")
    assert files_below(tmp_path) == ["out/crops/.._.._x/a.jpg", "out/crops/_/a.jpg"]


def test_crops_of_torch_hub_come_and_are_numbered_as_those_of_yolov5(tmp_path, monkeypatch):
    # each column has a grey value of its own, so that a crop tells where it was cut
    ramp = np.broadcast_to(np.arange(60, dtype=np.uint8)[None, :, None] * 4, (40, 60, 3))
    found = torch.tensor(
        [[5.0, 5, 20, 30, 0.9, 0], [10, 10, 40, 35, 0.8, 1], [30, 5, 50, 30, 0.7, 0], [50, 0, 60, 9, 0.6, 0]]
    )
    detections = Detections(
        [ramp, ramp, ramp], [found, found[:0], found[:1]], ["a.jpg", "b.jpg", "a.jpg"], {0: "cat", 1: "dog"}
    )
    monkeypatch.setattr(results, "DETECT_RUNS", tmp_path / "detect")
    crops = detections.crop()
    # picture by picture, in each the least confident first
    assert [crop["label"] for crop in crops] == ["cat 0.60", "cat 0.70", "dog 0.80", "cat 0.90", "cat 0.90"]
    assert list(crops[0]) == ["box", "conf", "cls", "label", "im"]
    assert [float(v) for v in crops[1]["box"]] == [30, 5, 50, 30] and float(crops[1]["cls"]) == 0
    # 20 × 25 with a fiftieth and ten pixels more, from 24.8 to 55.2 and from -0.25 to 35.25
    assert crops[1]["im"].shape == (35, 31, 3) and (crops[1]["im"][0, :, 0] == np.arange(24, 55) * 4).all()
    folder = tmp_path / "detect" / "exp" / "crops"
    assert files_below(folder) == ["cat/a.jpg", "cat/a2.jpg", "cat/a3.jpg", "cat/a4.jpg", "dog/a.jpg"]
    for name, crop in zip(["cat/a", "cat/a2", "dog/a", "cat/a3", "cat/a4"], crops, strict=True):
        written = read_image(folder / f"{name}.jpg")
        assert written.shape == crop["im"].shape and abs(written - crop["im"][..., ::-1].astype(int)).max() < 9
    # the next goes to a folder of its own, or beside what is there
    assert detections.save().name == "exp2"
    before = {file: (folder / file).read_bytes() for file in files_below(folder)}
    detections.crop(save_dir=folder.parent, exist_ok=True)
    assert len(files_below(folder)) == 2 * len(before)
    assert all((folder / file).read_bytes() == data for file, data in before.items())


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
