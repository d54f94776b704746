"""detect.py: every kind of source, every flag by what it writes."""

import csv
import json
import re
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import detect
from engine.detection.pipeline import Thresholds
from engine.detection.predictor import Predictor
from engine.detection.results import describe
from engine.detection.writer import Writer
from tests.helpers.models import detect_options as options
from tests.helpers.models import make_weights
from tests.helpers.project import assert_user_error, command, command_here, shared
from utils.boxes import xywh2xyxy
from utils.data.coco import COCO_NAMES, coco_results
from utils.data.images import read_image
from utils.errors import UserError
from utils.paths import newest_weights
from utils.plots.display import why_no_display
from utils.sources.frame import Frame


@pytest.fixture
def weights(tmp_path):
    return make_weights(tmp_path / "tiny.pt", seed=0)


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


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_frames_of_a_video_looked_at_at_once_have_the_boxes_of_each_alone(
    weights, video, tmp_path, two_threads, monkeypatch
):
    threads = set()
    look = Predictor.look

    def noted(self, image):
        threads.add((threading.current_thread().name[:6], torch.get_num_threads()))
        return look(self, image)

    monkeypatch.setattr(Predictor, "look", noted)
    folder = detect.run(**options(weights, video, tmp_path, save_csv=True, conf_thres=0.1))
    # the threads of the CPU are shared out, and given back
    assert threads == {("MainTh", 2), ("looker", 1)} and torch.get_num_threads() == 2
    with open(folder / "predictions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    capture = cv2.VideoCapture(str(video))
    predictor = Predictor(str(weights), (96, 96), "cpu", Thresholds(conf_thres=0.1))
    for number in range(1, 11):
        found = predictor(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB))
        own = [row for row in rows if int(row["Frame"]) == number]
        assert len(own) == len(found) > 0
        corners = [[float(row[k]) for k in ("x1", "y1", "x2", "y2")] for row in own]
        # the table has one decimal
        np.testing.assert_allclose(corners, found[:, :4], atol=0.051)


def test_layers_that_keep_something_get_one_frame_at_a_time(weights, two_threads):
    predictor = Predictor(str(weights), (96, 96), "cpu")
    assert predictor.at_once() == 2
    predictor.model.model[0].register_forward_hook(lambda layer, given, maps: setattr(layer, "maps", maps))
    assert predictor.at_once() == 1


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
    assert "3 images" in said and "2 files or frames skipped" in said
    assert pictures(folder) == ["a.jpg", "grey.bmp", "猫 ö.png"]


def test_nothing_readable_is_an_error(weights, tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="x.jpg: nothing could be read .*x.jpg: empty file"):
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
    predictor = Predictor(str(weights), (96, 96), "cpu", Thresholds(**{"conf_thres": 0.2, **changes}))
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


def test_image_size_may_be_height_and_width(weights, images, tmp_path, capsys, monkeypatch):
    warmed = []
    monkeypatch.setattr("engine.detection.predictor.warm_up", lambda *said: warmed.append(said[1:]))
    detect.run(**options(weights, images / "a.jpg", tmp_path, imgsz=[64, 128]))
    assert " 64x96 " in capsys.readouterr().out
    assert warmed == [(torch.device("cpu"), (1, 3, 64, 128))]
    with pytest.raises(UserError, match="one size, or height and width"):
        detect.run(**options(weights, images, tmp_path, imgsz=[1, 2, 3]))


def test_a_note_where_the_size_is_not_that_of_training(weights, images, tmp_path, capsys):
    detect.run(**options(weights, images / "a.jpg", tmp_path, imgsz=[160]))
    assert "was trained at 96 px" in capsys.readouterr().out
    detect.run(**options(weights, images / "a.jpg", tmp_path, imgsz=[96]))
    assert "was trained at" not in capsys.readouterr().out


def test_a_note_where_nothing_is_found(weights, images, tmp_path, capsys):
    for confidence, noted in ((0.99, True), (0.2, False)):
        detect.run(**options(weights, images / "a.jpg", tmp_path, conf_thres=confidence))
        note = "note: no box has the confidence of --conf-thres 0.99; a lower one shows weaker boxes\n"
        assert (note in capsys.readouterr().out) == noted


def test_an_ensemble_detects(weights, images, tmp_path):
    second = make_weights(tmp_path / "second.pt", seed=1)
    keep_all = {"conf_thres": 0.2, "max_det": 10**6, "iou_thres": 1.0}
    together = Predictor([str(weights), str(second)], (96, 96), "cpu", Thresholds(**keep_all))
    alone = [count(w, images, **keep_all) for w in (weights, second)]
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


def test_vid_stride_takes_every_third_frame(weights, video, tmp_path):
    folder = detect.run(**options(weights, video, tmp_path, save_txt=True, vid_stride=3))
    assert sorted(p.stem for p in (folder / "labels").iterdir()) == ["clip_1", "clip_10", "clip_4", "clip_7"]
    out = cv2.VideoCapture(str(folder / "clip.mp4"))
    assert out.get(cv2.CAP_PROP_FPS) == pytest.approx(4)  # as long as before
    assert out.get(cv2.CAP_PROP_FRAME_COUNT) == 4
    with pytest.raises(UserError, match="--vid-stride 0"):
        detect.run(**options(weights, video, tmp_path, vid_stride=0))


def test_a_damaged_frame_is_named_and_the_others_are_looked_at(weights, tmp_path, capsys):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (96, 64))
    for i in range(8):
        writer.write(np.full((64, 96, 3), 30 * i, np.uint8))
    writer.release()
    data = bytearray(path.read_bytes())
    starts = [m.start() for m in re.finditer(b"\xff\xd8\xff", data)]
    assert len(starts) == 8
    data[starts[4] : starts[5] - 8] = bytes(starts[5] - 8 - starts[4])
    path.write_bytes(data)
    detect.run(**options(weights, path, tmp_path))
    said = capsys.readouterr().out
    assert f"warning: {path} frame 5: damaged; skipped" in said
    assert "video 1/1 (8/8)" in said and "(5/8)" not in said
    assert "7 images" in said and "1 files or frames skipped" in said


def test_a_camera_that_comes_back_with_another_size_goes_into_the_same_video(tmp_path):
    flags = detect.build_parser().parse_args([])
    with Writer(tmp_path, {}, flags) as writer:
        for number, (height, width) in enumerate(((64, 96), (128, 192)), 1):
            image = np.zeros((height, width, 3), np.uint8)
            writer.write(Frame(Path("cam"), image, number, 10, live=True, lasts=number), torch.zeros(0, 6))
    video = cv2.VideoCapture(str(tmp_path / "cam.mp4"))
    assert [video.read()[1].shape for _ in range(3)] == [(64, 96, 3)] * 3 and not video.read()[0]


def test_nosave_writes_what_was_asked_for_and_no_picture(weights, images, video, tmp_path):
    video.rename(images / "clip.mp4")
    folder = detect.run(**options(weights, images, tmp_path, nosave=True, save_txt=True))
    assert [p.name for p in folder.iterdir()] == ["labels"]


def test_coco_results(weights, images, tmp_path):
    (images / "a.jpg").rename(images / "000042.jpg")
    folder = detect.run(**options(weights, images, tmp_path, save_json=True, save_txt=True, save_conf=True, max_det=4))
    results = json.loads((folder / "predictions.json").read_text())
    assert {r["image_id"] for r in results} == {42, "grey", "猫 ö"} and len(results) == 12
    lines = np.loadtxt(folder / "labels" / "000042.txt", ndmin=2)
    own = [r for r in results if r["image_id"] == 42]
    assert [r["category_id"] for r in own] == lines[:, 0].astype(int).tolist()  # not COCO's classes: as they are
    corners = xywh2xyxy(lines[:, 1:5]) * [96, 64, 96, 64]
    boxes = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), 1)
    np.testing.assert_allclose([r["bbox"] for r in own], boxes, atol=0.01)
    np.testing.assert_allclose([r["score"] for r in own], lines[:, 5], atol=1e-4)
    assert coco_results(7, [[0, 0, 1, 1, 0.5, 79]], dict(enumerate(COCO_NAMES)))[0]["category_id"] == 90


def drawing(weights, images, tmp_path, **changes):
    folder = detect.run(**options(weights, images / "a.jpg", tmp_path, max_det=1, **changes))
    return read_image(folder / "a.jpg").astype(int)


def test_labels_and_lines_of_the_drawing(weights, images, tmp_path):
    def changed(one, other):
        return (np.abs(one - other).max(2) > 60).sum()

    (images / "a.jpg").write_bytes(cv2.imencode(".jpg", np.full((480, 640, 3), 90, np.uint8))[1].tobytes())
    plain = read_image(images / "a.jpg").astype(int)
    usual = changed(drawing(weights, images, tmp_path), plain)
    no_conf = changed(drawing(weights, images, tmp_path, hide_conf=True), plain)
    no_label = changed(drawing(weights, images, tmp_path, hide_labels=True), plain)
    assert usual > no_conf > no_label > 0
    thick = changed(drawing(weights, images, tmp_path, hide_labels=True, line_thickness=9), plain)
    thin = changed(drawing(weights, images, tmp_path, hide_labels=True, line_thickness=1), plain)
    assert 5 * thin < thick


def test_test_time_augmentation(weights, images):
    image = read_image(images / "a.jpg")
    keep_all = Thresholds(conf_thres=0.0, iou_thres=1.0, max_det=10**6)
    once = Predictor(str(weights), (96, 96), "cpu", keep_all)(image)
    merged = Predictor(str(weights), (96, 96), "cpu", keep_all, augment=True)(image)
    assert len(merged) > 1.5 * len(once)


def test_the_flag_of_augmentation_changes_what_is_found(weights, images, tmp_path):
    plain, augmented = (
        detect.run(**options(weights, images / "a.jpg", tmp_path, save_txt=True, augment=flag))
        for flag in (False, True)
    )
    assert (plain / "labels/a.txt").read_text() != (augmented / "labels/a.txt").read_text()


def test_feature_maps_of_every_layer(weights, images, tmp_path):
    folder = detect.run(**options(weights, images / "a.jpg", tmp_path, visualize=True))
    found = {p.name for p in (folder / "a").iterdir()}
    assert len(found) == 24  # every layer but the head
    assert {"stage0_Conv_features.png", "stage9_SPPF_features.png", "stage23_C3_features.png"} <= found
    first = read_image(folder / "a" / "stage0_Conv_features.png")  # 16 channels of 32 × 48
    assert first.shape == (2 * 32 * 3 + 2, 8 * 48 * 3 + 7 * 2, 3)
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 100
    with pytest.raises(UserError, match="--visualize: shows the layers of one .pt model"):
        detect.run(**options(weights, images, tmp_path, visualize=True) | {"weights": [str(weights)] * 2})


def test_view_img_without_a_display_says_so_and_goes_on(weights, images, tmp_path, capsys, monkeypatch):
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    why_no_display.cache_clear()
    if why_no_display() is None:
        pytest.skip("this machine has a window system that needs no DISPLAY")
    folder = detect.run(**options(weights, images / "a.jpg", tmp_path, view_img=True))
    said = capsys.readouterr().out
    assert "note: --view-img: " in said and "look at the files" in said
    assert pictures(folder) == ["a.jpg"]


def test_view_img_shows_each_picture_and_stops_at_q(weights, images, tmp_path, monkeypatch, capsys):
    shown, keys = [], [ord("x"), ord("q")]  # the window system is not ours to test: it is played
    monkeypatch.setattr("engine.detection.predictor.why_no_display", lambda: None)
    monkeypatch.setattr(cv2, "imshow", lambda title, image: shown.append((title, image)))
    monkeypatch.setattr(cv2, "waitKey", lambda wait: keys.pop(0))
    folder = detect.run(**options(weights, images, tmp_path, view_img=True, nosave=True))
    assert [title for title, _ in shown] == [str(images / "a.jpg"), str(images / "grey.bmp")]
    assert (shown[0][1] != cv2.imread(str(images / "a.jpg"))).any()
    assert pictures(folder) == [] and "2 images" in capsys.readouterr().out


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
    result = command_here("detect.py", "--weights", weights, "--source", images, "--project", tmp_path / "runs", *flags)
    assert_user_error(result, *words)
