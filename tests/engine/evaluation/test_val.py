"""val.py: the stock figures on real photographs, and every flag by what it changes."""

import csv
import json
import os
import sys

import numpy as np
import pytest
import torch
import yaml

import val
from tests.helpers.models import make_weights
from tests.helpers.project import assert_user_error, command, command_here, shared
from utils.boxes import non_max_suppression
from utils.data.coco import COCO_IDS, COCO_NAMES
from utils.data.config import read_data_yaml
from utils.data.images import read_image
from utils.errors import UserError


@pytest.fixture
def tiny_weights(tmp_path):
    """Random weights, biased so that many boxes are found, some of them overlapping the labels."""
    return make_weights(tmp_path / "tiny.pt", seed=0)


def options(weights, data, tmp_path, **changes):
    base = {"weights": [str(weights)], "data": str(data), "imgsz": 96, "batch_size": 2, "workers": 0, "device": "cpu"}
    return base | {"project": str(tmp_path / "runs")} | changes


@pytest.mark.slow
def test_stock_figures_on_coco(yolov5n, tmp_path):
    images = shared("datasets", "coco-val128")
    (tmp_path / "coco").mkdir()
    for name in ("images", "labels"):
        os.symlink(images / name, tmp_path / "coco" / name)
    data = tmp_path / "coco.yaml"
    data.write_text(
        yaml.safe_dump({"path": str(tmp_path / "coco"), "train": "images", "val": "images", "names": COCO_NAMES})
    )
    flags = [
        "--weights",
        yolov5n,
        "--data",
        data,
        "--imgsz",
        640,
        "--batch-size",
        16,
        "--project",
        tmp_path,
        "--save-json",
        # the figures are a CPU's: a GPU's convolutions round otherwise, by which precision was .568 at the same mAP
        "--device",
        "cpu",
    ]
    result = command("val.py", *flags, "--verbose")
    assert result.returncode == 0, result.stderr
    row = next(line.split() for line in result.stdout.splitlines() if line.split()[:1] == ["all"])
    assert row[1:3] == ["128", "898"]
    np.testing.assert_allclose([float(v) for v in row[3:]], [0.554, 0.480, 0.526, 0.343], atol=0.002)
    found = json.loads((tmp_path / "exp" / "predictions.json").read_text())
    assert {f["category_id"] for f in found} <= set(COCO_IDS) and max(f["category_id"] for f in found) == 90
    assert all(isinstance(f["image_id"], int) for f in found)


def test_the_row_the_speed_and_the_pictures(tiny_weights, tiny_set, tmp_path):
    flags = ["--weights", tiny_weights, "--data", tiny_set, "--imgsz", 96, "--project", tmp_path / "runs"]
    result = command("val.py", *flags)
    assert result.returncode == 0, result.stderr
    assert "Class" in result.stderr and "mAP50-95" in result.stderr  # the header stands before the progress bar
    (row,) = [line.split() for line in result.stdout.splitlines() if line.split()[:1] == ["all"]]
    assert row[1:3] == ["4", "8"] and len(row) == 7
    assert "ms pre-process" in result.stdout and "ms inference" in result.stdout and "ms NMS" in result.stdout
    names = {p.name for p in (tmp_path / "runs" / "exp").iterdir()}
    pictures = {
        "PR_curve.png",
        "F1_curve.png",
        "P_curve.png",
        "R_curve.png",
        "confusion_matrix.png",
        "confusion_matrix.csv",
    }
    assert names == pictures | {"val_batch0_labels.jpg", "val_batch0_pred.jpg"}
    assert read_image(tmp_path / "runs" / "exp" / "val_batch0_pred.jpg").std() > 10


def test_a_note_where_the_size_is_not_that_of_training(tiny_weights, tiny_set, tmp_path, capsys):
    for size, noted in ((64, True), (96, False)):
        val.run(**options(tiny_weights, tiny_set, tmp_path, imgsz=size))
        note = f"note: {tiny_weights} was trained at 96 px; --imgsz 96 may find more\n"
        assert (note in capsys.readouterr().out) == noted


def test_verbose_has_a_row_per_class(tiny_weights, tiny_set, tmp_path, capsys):
    val.run(**options(tiny_weights, tiny_set, tmp_path, verbose=True))
    rows = [
        line.split()[:3]
        for line in capsys.readouterr().out.splitlines()
        if line.split()[:1] in (["rectangle"], ["disc"])
    ]
    assert rows == [["rectangle", "4", "4"], ["disc", "4", "4"]]


def test_the_table_as_a_file_and_intervals_on_demand(tiny_weights, tiny_set, tmp_path, capsys):
    plain = val.run(**options(tiny_weights, tiny_set, tmp_path, save_csv=True, name="plain"))
    assert "95 % intervals" not in capsys.readouterr().out and plain.intervals is None
    evaluation = val.run(**options(tiny_weights, tiny_set, tmp_path, save_csv=True, bootstrap=50, name="bounds"))
    lines = capsys.readouterr().out.splitlines()
    place = next(i for i, line in enumerate(lines) if line.split()[:1] == ["all"])
    assert lines[place + 1].startswith("95 % intervals over 4 images, 50 resamples: mAP50 ")
    figures = ("mAP50", "mAP75", "mAP50-95")
    for name in ("plain", "bounds"):
        with open(tmp_path / "runs" / name / "metrics.csv", newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        assert header[:8] == ["class", "images", "instances", "P", "R", *figures]
        assert [row[:3] for row in rows] == [["all", "4", "8"], ["rectangle", "4", "4"], ["disc", "4", "4"]]
        expected = [plain.p, plain.r, plain.map50, plain.map75, plain.map50_95]
        np.testing.assert_allclose([float(cell) for cell in rows[0][3:8]], expected, rtol=1e-4)
        assert float(rows[2][7]) == pytest.approx(plain.ap.ap[1].mean(), rel=1e-4) and plain.map50_95 > 0
    assert header[8:] == [f"{figure}_{end}" for figure in figures for end in ("low", "high")]
    bounds = np.array([[float(cell) for cell in row[8:]] for row in rows]).reshape(3, 3, 2)
    assert (bounds[..., 0] <= bounds[..., 1]).all() and (bounds[:, :, 0] < bounds[:, :, 1]).any()
    overall = evaluation.intervals.overall
    (low, high), _, (low95, high95) = overall
    assert lines[place + 1].endswith(f": mAP50 {low:.3g} to {high:.3g}, mAP50-95 {low95:.3g} to {high95:.3g}")
    np.testing.assert_allclose(bounds[0], overall, rtol=1e-4)


def test_the_figures_of_coco_stand_behind_the_others(tiny_weights, tiny_set, tmp_path, capsys):
    pytest.importorskip("faster_coco_eval")
    plain = val.run(**options(tiny_weights, tiny_set, tmp_path))
    evaluation = val.run(**options(tiny_weights, tiny_set, tmp_path, areas=True, save_csv=True, name="areas"))
    assert evaluation.map50_95 == plain.map50_95 and plain.coco is None
    assert f"\n{evaluation.coco.line()}\n" in capsys.readouterr().out
    with open(tmp_path / "runs" / "areas" / "metrics.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header[8:] == ["AP", "AP50", "AP75", "APs", "APm", "APl"] and [len(row) for row in rows] == [14] * 3
    # no object of these images of 64×96 is large, and some are small; the rules differ, the figures hardly
    assert rows[0][-1] == "" and float(rows[0][11]) >= 0
    assert float(rows[0][9]) == pytest.approx(plain.map50, abs=0.05) and plain.map50 > 0.05


def test_without_its_library_areas_leaves_no_folder(tiny_weights, tiny_set, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(UserError, match="^--areas needs .*pip install faster-coco-eval$"):
        val.run(**options(tiny_weights, tiny_set, tmp_path, areas=True))
    assert not (tmp_path / "runs").exists()


def test_labels_given_back_as_predictions_score_one(tiny_set, tmp_path):
    """The whole path, with a model that answers what is labelled: letterboxing and matching lose nothing."""
    from engine.evaluation.evaluator import evaluate
    from utils.data.config import index_split
    from utils.data.dataset import EvalSet
    from utils.data.loader import eval_loader

    data = read_data_yaml(tiny_set)
    annotations = index_split(data, "val").annotations
    loader = eval_loader(EvalSet(annotations, 160, 2), 2, 0, False)
    batches = iter(loader)

    class Oracle(torch.nn.Module):
        stride = torch.tensor([32.0])
        suppress = staticmethod(non_max_suppression)

        def forward(self, images, augment=False):
            targets = next(batches).targets
            height, width = images.shape[2:]
            out = torch.zeros(len(images), 2, 7)
            for i in range(len(images)):
                mine = targets[targets[:, 0] == i]
                out[i, :, :4] = mine[:, 2:] * torch.tensor([width, height, width, height])
                out[i, :, 4] = 1.0
                out[i, torch.arange(2), 5 + mine[:, 1].long()] = 1.0
            return out, None

    evaluation = evaluate(Oracle(), loader, torch.device("cpu"), data.names, progress=None)
    assert evaluation.map50_95 > 0.99 and evaluation.p > 0.99 and evaluation.r > 0.99
    assert evaluation.confusion.tolist() == [[4, 0, 0], [0, 4, 0], [0, 0, 0]]


def test_text_files_hold_the_boxes(tiny_weights, tiny_set, tmp_path):
    for conf, columns in ((False, 5), (True, 6)):
        val.run(**options(tiny_weights, tiny_set, tmp_path, save_txt=True, save_conf=conf, name=f"conf{conf}"))
        files = sorted((tmp_path / "runs" / f"conf{conf}" / "labels").iterdir())
        assert [f.name for f in files] == ["0.txt", "1.txt", "2.txt", "3.txt"]
        table = np.loadtxt(files[0], ndmin=2)
        assert table.shape[1] == columns and len(table) > 0
        assert (table[:, 1:] >= 0).all() and (table[:, 1:] <= 1).all()


def test_hybrid_files_hold_the_labels_too_and_the_figures_stay(tiny_weights, tiny_set, tmp_path):
    """YOLOv5 measures its labels as if they had been found."""
    few = {"conf_thres": 0.2, "max_det": 20}
    plain = val.run(**options(tiny_weights, tiny_set, tmp_path, save_txt=True, name="plain", **few))
    hybrid = val.run(
        **options(tiny_weights, tiny_set, tmp_path, save_hybrid=True, save_conf=True, name="hybrid", **few)
    )
    assert (hybrid.map50, hybrid.map50_95, hybrid.p, hybrid.r) == (plain.map50, plain.map50_95, plain.p, plain.r)
    for i in range(4):
        labels = np.loadtxt(tiny_set.parent / "labels" / "val" / f"{i}.txt", ndmin=2)
        found = np.loadtxt(tmp_path / "runs/plain/labels" / f"{i}.txt", ndmin=2)
        both = np.loadtxt(tmp_path / "runs/hybrid/labels" / f"{i}.txt", ndmin=2)
        np.testing.assert_allclose(both[: len(labels), :5], labels, atol=2e-6)
        assert (both[: len(labels), 5] == 1).all() and (both[len(labels) :, 5] < 1).all()
        rest = {tuple(row) for row in both[len(labels) :, :5].tolist()}
        assert rest and rest <= {tuple(row) for row in found.tolist()}


def test_json_of_a_set_that_is_not_coco(tiny_weights, tiny_set, tmp_path):
    val.run(**options(tiny_weights, tiny_set, tmp_path, save_json=True))
    found = json.loads((tmp_path / "runs" / "exp" / "predictions.json").read_text())
    assert {f["image_id"] for f in found} == {0, 1, 2, 3}
    assert {f["category_id"] for f in found} <= {0, 1}
    assert all(len(f["bbox"]) == 4 and f["bbox"][0] + f["bbox"][2] <= 96.01 for f in found)


def test_thresholds_and_limits(tiny_weights, tiny_set, tmp_path):
    def boxes(**changes):
        val.run(**options(tiny_weights, tiny_set, tmp_path, save_txt=True, name="n", exist_ok=True) | changes)
        return sum(len(f.read_text().splitlines()) for f in (tmp_path / "runs" / "n" / "labels").iterdir())

    base = boxes()
    assert boxes(max_det=3) == 4 * 3
    assert boxes(conf_thres=0.3) < base
    assert boxes(iou_thres=0.1, max_det=1000) < boxes(iou_thres=0.9, max_det=1000)


def test_augment_and_ensemble_see_more(tiny_weights, tiny_set, tmp_path):
    plain = val.run(**options(tiny_weights, tiny_set, tmp_path))
    augmented = val.run(**options(tiny_weights, tiny_set, tmp_path, augment=True))
    second = make_weights(tmp_path / "second.pt", seed=1)
    ensemble = val.run(**options(tiny_weights, tiny_set, tmp_path) | {"weights": [str(tiny_weights), str(second)]})
    figures = [(e.p, e.r, e.map50, e.map50_95) for e in (plain, augmented, ensemble)]
    assert len(set(figures)) == 3


def test_single_class_ignores_what_is_what(tiny_weights, tiny_set, tmp_path):
    evaluation = val.run(**options(tiny_weights, tiny_set, tmp_path, single_cls=True))
    assert evaluation.ap.classes.tolist() == [0]
    assert evaluation.instances_per_class.tolist() == [8]


def test_tasks_choose_the_split(tiny_weights, tiny_set, tmp_path):
    tiny_set.write_text(tiny_set.read_text() + "test: images/val\n")
    counts = {
        task: val.run(**options(tiny_weights, tiny_set, tmp_path, task=task)).images
        for task in ("train", "val", "test")
    }
    assert counts == {"train": 8, "val": 4, "test": 4}


def test_a_split_that_the_data_lacks(tiny_weights, tiny_set, tmp_path):
    with pytest.raises(UserError, match="no `test:`"):
        val.run(**options(tiny_weights, tiny_set, tmp_path, task="test"))


def test_speed(tiny_weights, tiny_set, tmp_path, capsys, monkeypatch):
    warmed = []
    monkeypatch.setattr("engine.evaluation.validator.warm_up", lambda *said: warmed.append(said[1:]))
    (evaluation,) = val.run(**options(tiny_weights, tiny_set, tmp_path, task="speed"))
    assert warmed == [(torch.device("cpu"), (2, 3, 96, 96))]
    assert all(0 < ms < 10_000 for ms in evaluation.speed)
    assert "ms inference" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_study_measures_every_checkpoint_at_every_size(tiny_weights, tiny_set, tmp_path, capsys):
    second = make_weights(tmp_path / "second.pt", seed=1)
    weights = [str(tiny_weights), str(second)]
    changes = {"task": "study", "imgsz": 384, "bootstrap": 10}
    evaluations = val.run(**options(tiny_weights, tiny_set, tmp_path, **changes) | {"weights": weights})
    assert len(evaluations) == 4 and capsys.readouterr().out.count("95 % intervals over 4 images, 10 resamples: ") == 4
    for name in ("tiny", "second"):
        table = np.loadtxt(tmp_path / "runs" / "exp" / f"study_data_{name}.txt")
        assert table[:, 0].tolist() == [256, 384] and table.shape == (2, 8)
    assert read_image(tmp_path / "runs" / "exp" / "study.png").std() > 10


def test_a_checkpoint_of_another_class_count(tiny_set, tmp_path):
    weights = make_weights(tmp_path / "five.pt", seed=0, nc=5)
    result = command_here("val.py", "--weights", weights, "--data", tiny_set, "--project", tmp_path / "runs")
    assert_user_error(result, "five.pt", "5 classes", "has 2", "--single-cls")
    assert val.run(**options(weights, tiny_set, tmp_path, single_cls=True)).images == 4


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--conf-thres", "2"], ["--conf-thres 2"]),
        (["--batch-size", "0"], ["--batch-size 0"]),
        (["--data", "nowhere.yaml"], ["nowhere.yaml"]),
        (["--weights", "nowhere.pt"], ["nowhere.pt"]),
    ],
)
def test_mistakes_are_one_line(flags, words, tiny_weights, tiny_set, tmp_path):
    result = command_here("val.py", "--weights", tiny_weights, "--data", tiny_set, "--project", tmp_path, *flags)
    assert_user_error(result, *words)
