"""detect.py: every kind of source, every flag by what it writes."""

import csv

import cv2
import numpy as np
import pytest
import torch

import detect
from engine.predictor import Predictor, describe
from tests.conftest import assert_user_error, command, shared
from tests.test_val import make_weights
from utils.boxes import xywh2xyxy
from utils.errors import UserError
from utils.images import read_image
from utils.paths import newest_weights


@pytest.fixture
def weights(tmp_path):
    return make_weights(tmp_path / "tiny.pt", seed=0)


def options(weights, source, tmp_path, **changes):
    base = {"weights": [str(weights)], "source": str(source), "imgsz": [96], "device": "cpu", "conf_thres": 0.2}
    return base | {"project": str(tmp_path / "runs")} | changes


def pictures(folder):
    return sorted(p.name for p in folder.iterdir() if p.is_file())


@pytest.fixture
def images(tmp_path):
    """Three pictures of different sizes and kinds, with names that are not plain."""
    folder = tmp_path / "bilder"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, shape in (("a.jpg", (64, 96, 3)), ("猫 ö.png", (120, 80, 3)), ("grey.bmp", (50, 50))):
        data = cv2.imencode(name[-4:], rng.integers(0, 255, shape, dtype=np.uint8))[1]
        (folder / name).write_bytes(data.tobytes())
    (folder / "notes.md").write_text("no picture")
    return folder


@pytest.fixture
def video(tmp_path):
    """Ten frames of 96 × 64 px at 12 per second."""
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 12, (96, 64))
    assert writer.isOpened()
    for i in range(10):
        frame = np.full((64, 96, 3), 20 * i, np.uint8)
        cv2.rectangle(frame, (5 * i, 10), (5 * i + 30, 50), (200, 180, 250), -1)
        writer.write(frame)
    writer.release()
    return path


def test_real_photographs(yolov5n, tmp_path):
    source = shared("datasets", "coco-val128", "images", "000000000285.jpg")
    flags = ["--weights", yolov5n, "--source", source, "--imgsz", 320, "--project", tmp_path]
    flags += ["--save-txt", "--save-conf"]
    result = command("detect.py", *flags)
    assert result.returncode == 0, result.stderr
    assert "320x320 1 bear" in result.stdout
    ((cls, *box, conf),) = np.loadtxt(tmp_path / "exp" / "labels" / "000000000285.txt", ndmin=2)
    labels = np.loadtxt(shared("datasets", "coco-val128", "labels", "000000000285.txt"), ndmin=2)
    assert cls == 21 and conf == pytest.approx(0.9136, abs=1e-3)  # the stock figure at this size
    np.testing.assert_allclose(box, labels[0, 1:], atol=0.03)
    assert read_image(tmp_path / "exp" / "000000000285.jpg").shape == read_image(source).shape


def test_folder_glob_list_and_file(weights, images, tmp_path):
    (tmp_path / "list.txt").write_text(f"{images / 'a.jpg'}\n{images / 'grey.bmp'}\n")
    for source, names in (
        (images, ["a.jpg", "grey.bmp", "猫 ö.png"]),
        (images / "*.jpg", ["a.jpg"]),
        (tmp_path / "list.txt", ["a.jpg", "grey.bmp"]),
        (images / "猫 ö.png", ["猫 ö.png"]),
    ):
        folder = detect.run(**options(weights, source, tmp_path))
        assert pictures(folder) == names
    drawn = read_image(folder / "猫 ö.png")
    assert drawn.shape == (120, 80, 3)
    assert (drawn != read_image(images / "猫 ö.png")).any()


def test_video_keeps_frame_rate_length_and_size(weights, video, tmp_path):
    folder = detect.run(**options(weights, video, tmp_path, save_txt=True))
    out = cv2.VideoCapture(str(folder / "clip.mp4"))
    assert out.get(cv2.CAP_PROP_FPS) == pytest.approx(12)
    frames = []
    while True:
        read, frame = out.read()
        if not read:
            break
        frames.append(frame)
    assert len(frames) == 10 and frames[0].shape == (64, 96, 3)
    assert sorted(p.name for p in (folder / "labels").iterdir()) == sorted(f"clip_{i}.txt" for i in range(1, 11))


def test_a_folder_may_hold_pictures_and_videos(weights, images, video, tmp_path):
    video.rename(images / "clip.mp4")
    folder = detect.run(**options(weights, images, tmp_path))
    assert pictures(folder) == ["a.jpg", "clip.mp4", "grey.bmp", "猫 ö.png"]


def test_results_of_files_of_one_name_do_not_overwrite_each_other(weights, images, tmp_path):
    (images / "a.png").write_bytes((images / "猫 ö.png").read_bytes())
    folder = detect.run(**options(weights, images, tmp_path, save_txt=True))
    assert pictures(folder) == ["a-2.png", "a.jpg", "grey.bmp", "猫 ö.png"]
    assert len(list((folder / "labels").iterdir())) == 4


def test_bad_files_are_named_and_skipped(weights, images, tmp_path, capsys):
    (images / "b.jpg").write_bytes((images / "a.jpg").read_bytes()[:200])
    (images / "c.mp4").write_bytes(b"no video")
    folder = detect.run(**options(weights, images, tmp_path))
    said = capsys.readouterr().out
    assert "warning: " in said and "b.jpg: truncated JPEG; skipped" in said and "c.mp4: not a video" in said
    assert "3 images" in said and "2 files skipped" in said
    assert pictures(folder) == ["a.jpg", "grey.bmp", "猫 ö.png"]


def test_nothing_readable_is_an_error(weights, tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="none of its 1 files could be read"):
        detect.run(**options(weights, tmp_path / "x.jpg", tmp_path))


def test_text_crops_and_table_agree(weights, images, tmp_path):
    folder = detect.run(
        **options(
            weights, images / "a.jpg", tmp_path, save_txt=True, save_conf=True, save_crop=True, save_csv=True, max_det=5
        )
    )
    lines = np.loadtxt(folder / "labels" / "a.txt", ndmin=2)
    assert lines.shape == (5, 6) and (np.diff(lines[:, 5]) <= 0).all()
    with open(folder / "predictions.csv", newline="", encoding="utf-8") as f:
        table = list(csv.DictReader(f))
    assert [row["Image Name"] for row in table] == ["a.jpg"] * 5
    assert [row["Prediction"] for row in table] == [{0: "rectangle", 1: "disc"}[int(c)] for c in lines[:, 0]]
    corners = np.array([[float(row[k]) for k in ("x1", "y1", "x2", "y2")] for row in table])
    np.testing.assert_allclose(corners, xywh2xyxy(lines[:, 1:5]) * [96, 64, 96, 64], atol=0.1)
    crops = list((folder / "crops").rglob("*.jpg"))
    assert len(crops) == 5 and {c.parent.name for c in crops} <= {"rectangle", "disc"}
    for crop in crops:
        i = int(crop.stem.split("_")[-1]) - 1
        x1, y1, x2, y2 = corners[i]
        height, width = read_image(crop).shape[:2]
        assert x2 - x1 <= width <= (x2 - x1) * 1.02 + 12 and y2 - y1 <= height <= (y2 - y1) * 1.02 + 12


def test_without_flags_only_the_picture_is_written(weights, images, tmp_path):
    folder = detect.run(**options(weights, images / "a.jpg", tmp_path))
    assert [p.name for p in folder.iterdir()] == ["a.jpg"]


def count(weights, images, **changes):
    predictor = Predictor(str(weights), (96, 96), "cpu", **{"conf_thres": 0.2, **changes})
    return predictor(read_image(images / "a.jpg"))


def test_thresholds_classes_and_agnostic(weights, images):
    base = count(weights, images)
    assert len(count(weights, images, conf_thres=0.3)) < len(base)
    assert len(count(weights, images, iou_thres=0.1)) < len(base)
    assert len(count(weights, images, max_det=2)) == 2
    assert set(count(weights, images, classes=[1])[:, 5].tolist()) == {1}
    assert {0, 1} == set(base[:, 5].tolist())
    assert len(count(weights, images, agnostic=True)) < len(base)


def test_flags_reach_the_predictor(weights, images, tmp_path):
    def boxes(**changes):
        folder = detect.run(**options(weights, images / "a.jpg", tmp_path, save_txt=True) | changes)
        return (folder / "labels" / "a.txt").read_text().splitlines()

    base = boxes()
    assert {line[0] for line in boxes(classes=[0])} == {"0"}
    assert len(boxes(agnostic_nms=True)) < len(base)
    assert len(boxes(max_det=1)) == 1
    assert len(boxes(conf_thres=0.3)) < len(base) and len(boxes(iou_thres=0.05)) < len(base)


def test_image_size_may_be_height_and_width(weights, images, tmp_path, capsys):
    detect.run(**options(weights, images / "a.jpg", tmp_path, imgsz=[64, 128]))
    assert " 64x96 " in capsys.readouterr().out
    with pytest.raises(UserError, match="one size, or height and width"):
        detect.run(**options(weights, images, tmp_path, imgsz=[1, 2, 3]))


def test_a_note_where_the_size_is_not_that_of_training(weights, images, tmp_path, capsys):
    detect.run(**options(weights, images / "a.jpg", tmp_path, imgsz=[160]))
    assert "was trained at 96 px" in capsys.readouterr().out
    detect.run(**options(weights, images / "a.jpg", tmp_path, imgsz=[96]))
    assert "was trained at" not in capsys.readouterr().out


def test_an_ensemble_detects(weights, images, tmp_path):
    second = make_weights(tmp_path / "second.pt", seed=1)
    together = Predictor([str(weights), str(second)], (96, 96), "cpu", conf_thres=0.2, max_det=10**6, iou_thres=1.0)
    alone = [count(w, images, max_det=10**6, iou_thres=1.0) for w in (weights, second)]
    assert len(together(read_image(images / "a.jpg"))) == sum(map(len, alone))


def test_description():
    rows = torch.tensor([[0, 0, 1, 1, 0.9, 0], [0, 0, 1, 1, 0.9, 0], [0, 0, 1, 1, 0.9, 1.0]])
    assert describe(rows, {0: "cat", 1: "dog"}) == "2 cats, 1 dog"
    assert describe(rows[:0], {}) == "(no detections)"


def test_the_newest_weights_are_the_default(tmp_path):
    with pytest.raises(UserError, match="train first"):
        newest_weights(tmp_path)
    for i, name in enumerate(("exp2", "exp")):
        folder = tmp_path / "runs" / "train" / name / "weights"
        folder.mkdir(parents=True)
        (folder / "best.pt").touch()
        import os

        os.utime(folder / "best.pt", (i, i))
    assert newest_weights(tmp_path).parts[-3] == "exp"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--source", "nowhere.jpg"], ["nowhere.jpg", "no such file or folder"]),
        (["--weights", "nowhere.pt"], ["nowhere.pt", "no such checkpoint"]),
        (["--classes", "9"], ["--classes 9", "0 to 1"]),
        (["--conf-thres", "-1"], ["--conf-thres -1"]),
        (["--device", "cuda:99"], ["--device cuda:99"]),
    ],
)
def test_mistakes_are_one_line(flags, words, weights, images, tmp_path):
    result = command("detect.py", "--weights", weights, "--source", images, "--project", tmp_path / "runs", *flags)
    assert_user_error(result, *words)
