"""Another head than the stock one is a class and a line of a table: it is checked, built, trained, run and exported."""

import csv
import inspect

import pytest
import torch
import yaml

import export
import train
import val
from engine.detection.detector import load_detector
from engine.recipe.anchors import fit_anchors
from models.heads.protocol import Head
from models.heads.table import HEADS
from models.yolo import DetectionModel, read_model_yaml
from tests.helpers.heads import Points
from tests.helpers.project import ROOT
from tests.helpers.training import hyp_file, options
from utils.errors import UserError


@pytest.fixture
def points(monkeypatch) -> dict:
    """The description of a small model that ends in such a head, and has no anchors."""
    monkeypatch.setitem(HEADS, "Points", Points)
    description = read_model_yaml("yolov5n.yaml")[0]
    del description["anchors"]
    description["head"][-1] = [[17, 20, 23], 1, "Points", ["nc"]]
    return description


def test_it_is_built_and_described(points):
    model = DetectionModel(points, nc=2)
    assert isinstance(model.detect, Points)
    assert (model.nc, model.stride.tolist(), model.warnings) == (2, [8, 16, 32], [])
    assert model.table().splitlines()[-1].split()[-2:] == ["boxes", "8,16,32"]
    assert "Points" in model.table() and "[2, [64, 128, 256]]" in model.table()


def test_it_decodes_in_eval_and_is_augmented_as_others_are(points):
    model = DetectionModel(points, nc=2)
    image = torch.rand(2, 3, 64, 96)
    assert [list(raw.shape) for raw in model(image)] == [[2, 8, 12, 6], [2, 4, 6, 6], [2, 2, 3, 6]]
    with torch.no_grad():
        boxes, maps = model.eval()(image)
        assert boxes.shape == (2, 96 + 24 + 6, 7) and len(maps) == 3
        assert (boxes[..., 0] >= 0).all() and (boxes[..., 0] <= 96).all() and (boxes[..., 4] == 1).all()
        assert model(image, augment=True)[0].shape[2] == 7


def changed(description: dict, row: list) -> dict:
    return description | {"head": [*description["head"][:-1], row]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([[17, 20, 23], 1, "Points", ["nc", 3]], r"layer 24 .*: Points takes \[nc\]"),
        ([23, 1, "Points", ["nc"]], "`from` of Points is a list of layers"),
        ([[17, 20, 23], 1, "Point", ["nc"]], "the last row of the head must be Detect or Points"),
    ],
)
def test_its_row_is_checked(row, message, points):
    with pytest.raises(UserError, match=message):
        DetectionModel(changed(points, row) | {"anchors": 3})


def test_a_model_has_one_head_and_it_is_last(points):
    with pytest.raises(UserError, match="Points stands again in layer 25"):
        DetectionModel(points | {"head": [*points["head"], points["head"][-1]]})
    with pytest.raises(UserError, match="must be Points, but layer 25 .* follows it"):
        DetectionModel(points | {"head": [*points["head"], [-1, 1, "nn.Identity", []]]})


def test_its_doubts_are_told(points):
    model = DetectionModel(changed(points, [[23], 1, "Points", ["nc"]]))
    assert model.warnings[-1].endswith("a single level")


def test_a_head_that_needs_anchors_says_so(points):
    with pytest.raises(UserError, match="`anchors` is missing; a model YAML has nc, anchors, backbone, head"):
        DetectionModel(changed(points, [[17, 20, 23], 1, "Detect", ["nc", "anchors"]]))


def test_it_has_no_anchors_to_fit(points, capsys):
    fit_anchors(DetectionModel(points).detect, [], 64, 4.0, seed=0)
    assert capsys.readouterr().out == ""


def test_it_is_trained_by_its_own_loss_validated_and_exported(points, tiny_set, tmp_path):
    cfg = tmp_path / "points.yaml"
    cfg.write_text(yaml.safe_dump(points))
    hyp = hyp_file(tmp_path, nominal_batch=4, warmup_epochs=0.0)
    given = options(tiny_set, tmp_path, cfg=str(cfg), hyp=hyp, imgsz=64, epochs=1, batch_size=4, workers=0)
    folder = train.run(**given)
    with open(folder / "results.csv", newline="") as f:
        (row,) = csv.DictReader(f)
    assert float(row["train/box_loss"]) > 0 and float(row["val/cls_loss"]) > 0
    assert float(row["train/obj_loss"]) == float(row["val/obj_loss"]) == 0
    best = folder / "weights" / "best.pt"
    assert isinstance(load_detector(best, torch.device("cpu")).detect, Points)
    val.run(weights=[str(best)], data=str(tiny_set), imgsz=64, device="cpu", project=str(tmp_path / "val"))
    (result,) = export.run(weights=str(best), include=["torchscript"], imgsz=[64])
    assert result.ok and result.difference[0] < 0.01


@pytest.mark.parametrize("name", HEADS)
def test_every_head_answers_what_the_protocol_asks(name):
    kind = HEADS[name]
    assert issubclass(kind, Head) and kind.arguments.startswith("[nc")
    for method in ("from_row", "set_strides", "forward", "loss"):
        assert getattr(kind, method) is not getattr(Head, method)
        asked, answered = (list(inspect.signature(getattr(c, method)).parameters) for c in (Head, kind))
        assert asked == answered


def test_a_head_is_named_in_its_own_file_and_the_table_only():
    """So that those who check, train and export ask the head, whichever it is."""
    files = [p for room in ("models", "engine", "utils") for p in (ROOT / room).rglob("*.py")]
    naming = {str(p.relative_to(ROOT)) for p in files if '"Detect"' in p.read_text(encoding="utf-8")}
    assert naming == {"models/heads/detect.py", "models/heads/table.py"}
