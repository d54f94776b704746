"""A checkpoint run by another runtime: exported once, compared with PyTorch, and never a stale file."""

import os

import pytest
import torch

import detect
from engine.detection.detector import load_detector
from engine.export import cached
from engine.export.runtime import Runtime
from models.yolo import DetectionModel
from tests.helpers.export import PACKAGES, images, validate
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "yolov5-apart" / "runtimes"


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_checkpoint_is_exported_once_and_finds_what_pytorch_finds(runtime, own, data, cache, tmp_path, capsys):
    for package in PACKAGES[runtime]:
        pytest.importorskip(package)
    found = load_detector(own, CPU, runtime=runtime)
    said = capsys.readouterr().out
    assert isinstance(found, Runtime) and f"{own} is exported for it, once" in said and "px and scores within" in said
    pixels = images(2, 96, 160)
    with torch.inference_mode():
        expected = load_detector(own, CPU)(pixels)[0]
    torch.testing.assert_close(found(pixels)[0], expected, rtol=0, atol=0.02)
    (folder,) = cache.iterdir()
    assert [file.name for file in folder.iterdir()] == [found.file.name]
    before = found.file.stat().st_mtime_ns
    figures = [validate(own, data, tmp_path, runtime=name, imgsz=128).map50_95 for name in ("torch", runtime)]
    assert figures[1] == pytest.approx(figures[0], abs=1e-3) and 0.05 < figures[0] < 0.95
    assert "exported for it" not in capsys.readouterr().out and found.file.stat().st_mtime_ns == before


def test_a_file_is_made_anew_where_what_it_depends_on_has_changed(own, cache, tmp_path, monkeypatch, capsys):
    for package in PACKAGES["onnx"]:
        pytest.importorskip(package)
    first = load_detector(own, CPU, runtime="onnx").file
    # one that was damaged, or put there by another
    first.write_bytes(first.read_bytes()[:-50])
    capsys.readouterr()
    assert load_detector(own, CPU, runtime="onnx").file == first and "exported for it" in capsys.readouterr().out
    changed = torch.load(own, weights_only=True)
    changed["model"] = {
        name: tensor * 1.01 if tensor.is_floating_point() else tensor for name, tensor in changed["model"].items()
    }
    torch.save(changed, own)
    assert load_detector(own, CPU, runtime="onnx").file != first
    # code of the project, where users paste blocks of their own
    keys = [cached._key("onnx", own)]
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "common.py").write_text("")
    monkeypatch.setattr(cached, "ROOT", tmp_path)
    keys.append(cached._key("onnx", own))
    (tmp_path / "models" / "common.py").write_text("class stem: ...")
    keys.append(cached._key("onnx", own))
    assert len(set(keys)) == 3


def test_a_file_that_computes_something_else_is_not_kept(own, cache, monkeypatch):
    for package in PACKAGES["onnx"]:
        pytest.importorskip(package)
    monkeypatch.setattr(cached, "MOST_SCORE", 0.0)
    with pytest.raises(UserError, match="--runtime onnx: gives boxes of .* from those of PyTorch; leave --runtime out"):
        load_detector(own, CPU, runtime="onnx")
    assert not [file for folder in cache.iterdir() for file in folder.iterdir()]


def test_auto_takes_the_fastest_that_is_installed_and_pytorch_where_none_fits(own, monkeypatch):
    installed = {"onnx", "onnxruntime"}
    monkeypatch.setattr(cached, "find_spec", lambda name: name in installed)
    choose = cached.choose_runtime
    assert choose("auto", CPU, plain=True) == "onnx"
    installed.add("openvino")
    assert choose("auto", CPU, plain=True) == "openvino"
    assert choose("auto", torch.device("cuda", 0), plain=True) == choose("auto", CPU, plain=False) == "torch"
    installed.clear()
    assert isinstance(load_detector(own, CPU, runtime="auto"), DetectionModel)
    assert choose("onnx", torch.device("cuda", 0), plain=True) == "onnx"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"half": True}, "--runtime onnx and --half: it computes in float32; leave one of the two out"),
        ({"dnn": True}, "--dnn: runs ONNX files"),
        ({"weights": 2}, "--runtime onnx and several --weights: an ensemble is run by PyTorch"),
        ({"weights": "best.onnx"}, r"--runtime: runs checkpoints \(.pt\), and best.onnx has a runtime of its own"),
    ],
)
def test_what_does_not_go_with_a_runtime(given, message, own, monkeypatch):
    monkeypatch.setattr("engine.detection.detector.half_precision", lambda _: torch.bfloat16)
    weights = given.pop("weights", 1)
    weights = weights if isinstance(weights, str) else [own] * weights
    with pytest.raises(UserError, match=message):
        load_detector(weights, CPU, runtime="onnx", **given)


def test_a_cache_that_can_not_be_written_and_layers_that_are_not_there(own, data, tmp_path, monkeypatch):
    for package in PACKAGES["onnx"]:
        pytest.importorskip(package)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="--runtime onnx: .*file.* can't be written .*; leave --runtime out"):
        load_detector(own, CPU, runtime="onnx")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    flags = {"weights": [str(own)], "source": str(data.parent / "images"), "device": "cpu", "imgsz": [128]}
    with pytest.raises(UserError, match="--visualize"):
        detect.run(**flags, runtime="onnx", visualize=True, project=str(tmp_path / "runs"))
    folder = detect.run(**flags, runtime="onnx", project=str(tmp_path / "runs"), conf_thres=0.3)
    assert len([name for name in os.listdir(folder) if name.endswith(".png")]) == 6
