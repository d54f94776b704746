"""Checkpoints as stock writes them: the same classes, attributes and tensors; read back, the same boxes."""

import io
import pickletools
import zipfile

import pytest
import torch

import export
from engine.detection.detector import load_detector
from engine.export.formats.stock import write
from engine.export.settings import Settings
from models.load import detector_from
from models.yolo import DetectionModel
from tests.helpers.models import lively, make_weights
from tests.helpers.project import shared
from utils.checkpoint import read_checkpoint
from utils.errors import UserError
from utils.saved.container import open_saved
from utils.saved.pickled import PickledObject


def globals_of(path):
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        return {a for op, a, _ in pickletools.genops(io.BytesIO(archive.read(name))) if op.name == "GLOBAL"}


def modules_of(path):
    """{dotted place: record} of the modules in a checkpoint that stock has pickled, their tensors with them."""
    found, saved = {}, open_saved(path)

    def visit(record, place):
        found[place] = record
        for name, child in record.get("_modules").items():
            if isinstance(child, PickledObject):
                visit(child, f"{place}.{name}")
        record.state |= {kind: saved.plain(record.state[kind]) for kind in ("_parameters", "_buffers")}

    visit(saved.tree["model"], "model")
    return found


def test_the_official_checkpoint_is_written_as_it_is(tmp_path):
    official = shared("weights", "yolov5n.pt")
    model = detector_from(read_checkpoint(official))
    written = write(model, tmp_path / "yolov5n.pt", Settings())
    assert globals_of(written) == globals_of(official)
    assert set(open_saved(written).tree) == set(open_saved(official).tree)
    ours, theirs = modules_of(written), modules_of(official)
    assert list(ours) == list(theirs) and len(ours) > 150
    for place, record in theirs.items():
        other = ours[place]
        assert other.pickled_name == record.pickled_name and set(other.state) == set(record.state), place
        for kind in ("_parameters", "_buffers"):
            assert list(other.state[kind]) == list(record.state[kind]), place
            for name, tensor in record.state[kind].items():
                same = other.state[kind][name]
                assert (same is tensor is None) or (same.dtype == tensor.dtype and torch.equal(same, tensor)), place
    for name in ("i", "f", "type", "np"):
        assert [ours[f"model.model.{i}"].state[name] for i in range(25)] == [
            theirs[f"model.model.{i}"].state[name] for i in range(25)
        ]
    assert ours["model"].state["yaml"] == theirs["model"].state["yaml"]
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(detector_from(read_checkpoint(written))(image)[0], model(image)[0])


@pytest.mark.parametrize(
    ("cfg", "classes"),
    [
        ("yolov5s_EfficientNetV2.yaml", {"stem", "FusedMBConv", "MBConv", "SqueezeExcite_efficientv2", "DropPath"}),
        ("yolov5l_ShuffleNetV2.yaml", {"Conv_maxpool", "ShuffleNetV2_InvertedResidual"}),
        ("yolov5n_C3_UIB.yaml", {"C3_UIB", "UniversalInvertedBottleneckBlock"}),
        ("yolov5n.yaml", {"Conv", "C3", "Bottleneck", "SPPF", "Concat"}),
    ],
)
def test_write_ups_models_stand_under_the_names_that_forks_have(cfg, classes, tmp_path):
    torch.manual_seed(0)
    image = torch.rand(1, 3, 64, 64)
    model = lively(DetectionModel(cfg, nc=2, size="n"), image).half().float()
    model.names = {0: "a", 1: "b"}
    written = write(model, tmp_path / "m.pt", Settings())
    assert {f"models.common {name}" for name in classes} <= globals_of(written)
    read = detector_from(read_checkpoint(written))
    assert read.names == model.names
    with torch.no_grad():
        assert torch.equal(read(image)[0], model(image)[0])


def test_a_forks_forward_finds_its_attributes(tmp_path):
    written = write(DetectionModel("yolov5s_EfficientNetV2.yaml", size="n"), tmp_path / "m.pt", Settings())
    modules = modules_of(written).values()
    fused = [m for m in modules if m.pickled_name == "models.common.FusedMBConv"]
    assert {(m.get("has_shortcut"), m.get("has_expansion")) for m in fused} >= {(True, False), (False, True)}
    assert all("dropout" in m.get("_modules") for m in fused)
    assert {m.get("drop_prob") for m in modules if m.pickled_name == "models.common.DropPath"} == {0.0, 0.2}


@pytest.mark.parametrize(
    ("model", "word"),
    [
        (lambda: DetectionModel("yolov5s_SE.yaml", size="n"), "SE"),
        (lambda: DetectionModel("yolov5s.yaml", size="n", backbone="mobilenet_v3_small"), "a backbone by name"),
        (lambda: DetectionModel("yolov5s_EfficientNetV2-S.yaml", size="n"), "paper=True"),
    ],
)
def test_what_others_do_not_know_is_refused(model, word, tmp_path):
    with pytest.raises(UserError, match=word):
        write(model(), tmp_path / "m.pt", Settings())
    assert not list(tmp_path.iterdir())


def test_the_command_writes_one_beside_the_checkpoint_and_compares_it(tmp_path):
    weights = make_weights(tmp_path / "best.pt", seed=0)
    (result,) = export.run(weights=str(weights), include=["stock"], imgsz=[64])
    assert result.ok and result.file == tmp_path / "best_stock.pt"
    # the weights of the one are rounded to half precision
    assert 0 < result.difference[0] < 1 and result.difference[1] < 0.02
    detector = load_detector(result.file, torch.device("cpu"))
    assert detector.names == {0: "rectangle", 1: "disc"}
