"""The shapes set: deterministic, complete or absent, and labelled as drawn."""

import hashlib
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from tests.helpers.project import ROOT
from utils.data import shapes
from utils.errors import UserError


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A tenth of the training images, all for validation, and the CPU seconds that they took."""
    start = time.process_time()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "IMAGES", {"train": 160, "val": 60})
        root = shapes.make_shapes(tmp_path_factory.mktemp("datasets") / "shapes", progress=False)
        yield root, time.process_time() - start


@pytest.fixture
def few(monkeypatch):
    """Sets of 6 + 3 images, so that a test may draw one of its own."""
    monkeypatch.setattr(shapes, "IMAGES", {"train": 6, "val": 3})


def read_labels(root: Path, split: str) -> list[np.ndarray]:
    files = sorted((root / "labels" / split).iterdir())
    return [np.array([line.split() for line in f.read_text().splitlines()], float).reshape(-1, 5) for f in files]


def relative_files(root: Path) -> list[Path]:
    return sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file())


@pytest.mark.parametrize(("split", "count"), [("train", 160), ("val", 60)])
def test_each_image_has_a_label_file(built, split, count):
    root, _ = built
    images = sorted((root / "images" / split).iterdir())
    assert len(images) == count
    assert [p.stem for p in images] == sorted(p.stem for p in (root / "labels" / split).iterdir())
    assert {cv2.imread(str(p)).shape for p in images} == {(192, 192, 3)}


@pytest.mark.parametrize("split", ["train", "val"])
def test_labels_are_boxes_inside_the_image(built, split):
    root, _ = built
    for file in (root / "labels" / split).iterdir():
        assert re.fullmatch(r"([0-4]( [01]\.\d{6}){4}\n)*", file.read_text())
    for labels in read_labels(root, split):
        assert len(labels) <= shapes.SHAPES[1]
        assert (labels[:, 1:3] - labels[:, 3:] / 2 >= -2e-6).all()
        assert (labels[:, 1:3] + labels[:, 3:] / 2 <= 1 + 2e-6).all()
        sides = labels[:, 3:].max(1, initial=0) * 192
        assert ((sides >= 10) & (sides <= 113)).all()  # 14 to 110 px, part of it beyond the border, edges antialiased


@pytest.mark.parametrize(("split", "least"), [("train", 70), ("val", 20)])
def test_every_class_is_there_and_some_images_are_empty(built, split, least):
    root, _ = built
    labels = read_labels(root, split)
    counts = np.bincount(np.concatenate(labels)[:, 0].astype(int), minlength=5)
    assert counts.min() >= least
    assert 0.05 <= np.mean([len(x) == 0 for x in labels]) <= 0.10


def test_most_shapes_are_of_a_learnable_size(built):
    root, _ = built
    sides = np.concatenate(read_labels(root, "train") + read_labels(root, "val"))[:, 3:].max(1) * 192
    assert (sides >= 28).mean() > 0.75
    assert (sides < 36).mean() > 0.05  # … and the hard ones are not missing


def test_the_set_is_frozen(built):
    """Figures of different days compare only on the same pictures: labels to the byte, and colours as far as JPEG and
    libraries of other versions leave them."""
    root, _ = built
    digest = hashlib.sha256()
    for split in ("train", "val"):
        for file in sorted((root / "labels" / split).iterdir()):
            digest.update(f"{file.name} {file.read_text()}".encode())
    assert digest.hexdigest() == "b79aeac3ea0dee8c51873d815392b42636b4019117404b3fa9688a9920dc3fb5"
    means = [cv2.imread(str(root / "images" / "val" / f"val_{i:03d}.jpg")).mean() for i in range(8)]
    np.testing.assert_allclose(means, [107.05, 59.28, 101.64, 156.91, 116.99, 119.19, 174.73, 58.87], atol=0.5)


def test_drawing_takes_seconds(built):
    _, seconds = built
    assert seconds < 10


def test_same_bytes_on_every_run(built, few, tmp_path):
    root, _ = built
    np.random.seed(1)  # global state must not matter
    again = shapes.make_shapes(tmp_path / "again", progress=False)
    files = [p for p in relative_files(again) if p.suffix in {".jpg", ".txt"} and p.name != "README.txt"]
    assert len(files) == 18
    assert all((again / p).read_bytes() == (root / p).read_bytes() for p in files)
    assert len({(root / p).read_bytes() for p in files if p.suffix == ".jpg"}) == 9  # no two images are the same


def test_boxes_are_the_extent_of_the_whole_shape(built):
    root, _ = built
    on_file = read_labels(root, "val")
    shapes_seen = 0
    for index in range(12):
        scene = shapes.draw_scene("val", index)
        np.testing.assert_allclose(on_file[index], scene.labels, atol=1e-6)
        for mask, (_, x, y, w, h) in zip(scene.masks, scene.labels, strict=True):
            rows, columns = np.nonzero(mask)
            box = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * 192
            extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(box, extent, atol=1e-3)
            shapes_seen += 1
    assert shapes_seen > 20


@pytest.mark.parametrize("name", shapes.CLASSES)
def test_an_outline_fills_a_box_of_the_asked_size(name):
    rng = np.random.default_rng(0)
    for size in (14, 40, 110):
        contours = [c + (150, 150) - shapes.IMAGE_SIZE / 2 for c in shapes._pose(rng, shapes.OUTLINES[name](rng), size)]
        _, _, w, h = cv2.boundingRect((shapes._fill(contours, 300) > 127).astype(np.uint8))
        assert abs(max(w, h) - size) <= 2  # cv2's antialiased edge adds about half a pixel on each side


def test_enough_of_every_labelled_shape_is_seen():
    visible = np.concatenate([shapes.draw_scene("train", index).visible for index in range(30)])
    assert visible.min() >= shapes.MIN_VISIBLE
    assert visible.max() == 1
    assert (visible < 0.9).any()  # there is occlusion at all


def test_the_visible_share_is_what_later_shapes_leave(monkeypatch):
    monkeypatch.setattr(shapes, "LOOK_ALIKES", (0, 0))  # then the masks say it all
    covered = 0
    for index in range(15):
        scene = shapes.draw_scene("train", index)
        for i, mask in enumerate(scene.masks):
            is_cut = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
            if not is_cut:
                seen = mask & ~scene.masks[i + 1 :].any(0)
                assert scene.visible[i] == pytest.approx(seen.sum() / mask.sum())
                covered += scene.visible[i] < 1
    assert covered > 5


def test_paint_does_not_move_the_shapes(monkeypatch):
    before = shapes.draw_scene("train", 3)
    monkeypatch.setattr(shapes, "CLUTTER", (9, 9))
    after = shapes.draw_scene("train", 3)
    assert (after.labels == before.labels).all()
    assert (after.image != before.image).any()


def test_a_scene_without_labels_is_well_formed():
    scene = shapes.draw_scene("train", shapes.EMPTY_EVERY - 1)
    assert scene.image.shape == (192, 192, 3) and scene.image.dtype == np.uint8
    assert scene.labels.shape == (0, 5) and scene.masks.shape == (0, 192, 192) and scene.visible.shape == (0,)


def test_a_second_call_leaves_the_files_alone(built):
    root, _ = built
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    start = time.perf_counter()
    assert shapes.make_shapes(root, progress=False) == root
    assert time.perf_counter() - start < 0.5
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before


def test_a_foreign_folder_is_refused(tmp_path):
    root = tmp_path / "shapes"
    root.mkdir()
    (root / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match=r"shapes: exists, but is not the shapes set"):
        shapes.make_shapes(root, progress=False)
    assert relative_files(tmp_path) == [Path("shapes/mine.txt")]
    assert (root / "mine.txt").read_text() == "keep me"


def test_a_set_of_another_version_is_refused(few, tmp_path, monkeypatch):
    root = shapes.make_shapes(tmp_path / "shapes", progress=False)
    monkeypatch.setattr(shapes, "VERSION", shapes.VERSION + 1)
    with pytest.raises(UserError, match=r"README\.txt: says 'Shapes, version \d+'"):
        shapes.make_shapes(root, progress=False)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "datasets").write_text("a file, not a folder")
    with pytest.raises(UserError, match="cannot be created"):
        shapes.make_shapes(tmp_path / "datasets" / "shapes", progress=False)


def test_a_failing_build_leaves_nothing(few, tmp_path, monkeypatch):
    def interrupt(split, index):
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "draw_scene", interrupt)
    with pytest.raises(KeyboardInterrupt):
        shapes.make_shapes(tmp_path / "shapes", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_build_leaves_no_half_set(few, tmp_path):
    root = tmp_path / "shapes"
    code = (
        f"from pathlib import Path; from utils.data.shapes import make_shapes; make_shapes(Path({str(root)!r}), False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".shapes-*/shapes/labels/train/train_003.txt")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not root.exists()
    assert list(tmp_path.iterdir()) != []  # what the killed run left beside it …
    shapes.make_shapes(root, progress=False)  # … is in nobody's way
    assert len(relative_files(root)) == 19


def test_processes_that_start_together_share_one_set(few, tmp_path):
    root = tmp_path / "shapes"
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda _: shapes.make_shapes(root, progress=False), range(3))) == [root] * 3
    assert list(tmp_path.iterdir()) == [root]
    assert len(relative_files(root)) == 19


def test_the_data_file_names_the_classes_as_drawn():
    data = yaml.safe_load((ROOT / "data" / "shapes.yaml").read_text(encoding="utf-8"))
    assert tuple(data["names"][i] for i in range(5)) == shapes.CLASSES == tuple(shapes.CLASS_OUTLINES)
    assert data["generate"] == "shapes"
    assert (data["path"], data["train"], data["val"]) == ("datasets/shapes", "images/train", "images/val")
