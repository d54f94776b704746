"""export.py and the runtimes: every format that can be had here computes what the checkpoint computes."""

import argparse
import contextlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

import detect
import export
from engine.detection.detector import load_detector
from engine.detection.pipeline import Thresholds
from engine.detection.predictor import Predictor
from engine.evaluation.evaluator import evaluate
from engine.export.calibration import calibration_images
from engine.export.formats.table import FORMATS, is_exported, open_reader
from engine.export.formats.tensorrt import engine_shapes
from engine.export.metadata import read_values
from engine.export.onnx_file import read_onnx
from engine.export.runtime import Runtime
from engine.export.settings import Settings
from tests.helpers.export import export_quietly, images, lively, validate
from tests.helpers.project import ROOT, assert_user_error, command, command_here
from utils.boxes import non_max_suppression
from utils.data.config import index_split, read_data_yaml
from utils.data.dataset import EvalSet
from utils.data.loader import eval_loader
from utils.errors import UserError

CPU = torch.device("cpu")


def square_map(weights, data, side=128, **options) -> float:
    """mAP50-95 of a checkpoint with every image padded to a square, as files of one shape get them."""
    config = read_data_yaml(data)
    dataset = EvalSet(index_split(config, "val").annotations, side, 4, shape=(side, side))
    model = load_detector(weights, CPU, **options)
    return evaluate(model, eval_loader(dataset, 4, 0, False), CPU, config.names, progress=None).map50_95


@pytest.mark.parametrize("name", ["torchscript", "onnx", "openvino", "ncnn", "tflite"])
def test_every_format_gives_the_boxes_and_the_accuracy_of_the_checkpoint(name, own, data, tmp_path):
    (result,) = export_quietly(own, name)
    assert result.file == tmp_path / f"best{FORMATS[name].suffix}"
    assert result.difference[0] < 0.01
    assert result.difference[1] < 1e-4
    assert result.megabytes > 6
    runtime = Runtime(result.file)
    assert (runtime.names, runtime.nc) == ({0: "猫", 1: "it's", 2: 'a "b"'}, 3)
    assert (runtime.fixed_size, runtime.batch, runtime.nms, runtime.stride.max()) == ((128, 128), 1, False, 32)
    pixels = images(3, 128, 128)
    with torch.inference_mode():
        expected = load_detector(own, CPU)(pixels)[0]
    found = runtime(pixels)[0]  # three images through a file that takes one
    assert (found - expected)[..., :4].abs().max() < 0.01
    assert (found - expected)[..., 4:].abs().max() < 1e-4
    expected = square_map(own, data)
    assert 0.1 < expected < 0.9
    assert validate(result.file, data, tmp_path).map50_95 == pytest.approx(expected, abs=1e-3)


def test_dynamic_files_validate_in_the_shapes_of_checkpoints(own, data, tmp_path):
    expected = validate(own, data, tmp_path, imgsz=160)
    for result in export_quietly(own, "torchscript", "onnx", "openvino", dynamic=True):
        evaluation = validate(result.file, data, tmp_path, imgsz=160)
        assert evaluation.map50_95 == pytest.approx(expected.map50_95, abs=1e-3)
    study = validate(result.file, data, tmp_path, task="study", imgsz=256)
    assert len(study) == 1


def test_opencv_runs_onnx_without_any_extra(own, data, tmp_path):
    (result,) = export_quietly(own, "onnx")
    runtime = Runtime(result.file, dnn=True)
    pixels = images(2, 128, 128)
    with torch.inference_mode():
        expected = load_detector(own, CPU)(pixels)[0]
    assert (runtime(pixels)[0] - expected)[..., :4].abs().max() < 0.01
    assert runtime.names[0] == "猫"  # read from the file without the package onnx
    assert validate(result.file, data, tmp_path, dnn=True).map50_95 == pytest.approx(square_map(own, data), abs=1e-3)
    found = Predictor([result.file], (640, 640), "cpu", dnn=True)
    assert found.imgsz == (128, 128)


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_files_with_suppression_inside(name, own, data, tmp_path):
    expected = Predictor([own], (128, 128), "cpu", Thresholds(conf_thres=0.5, iou_thres=0.4))
    expected.fixed = (128, 128)  # the same square
    (result,) = export_quietly(own, name, nms=True, conf_thres=0.5, iou_thres=0.4)
    inside = Predictor([result.file], (128, 128), "cpu", Thresholds(conf_thres=0.5))
    picture = cv2.imread(str(data.parent / "images" / "0.png"))[..., ::-1]
    ours, theirs = expected(picture), inside(picture)
    assert 3 < len(ours) < 300
    torch.testing.assert_close(theirs, ours, rtol=0, atol=0.01)
    only = Predictor([result.file], (128, 128), "cpu", Thresholds(conf_thres=0.5, classes=[1], max_det=2))(picture)
    torch.testing.assert_close(only, theirs[theirs[:, 5] == 1][:2])
    model = load_detector(own, CPU)
    pixels = images(1, 128, 128)
    with torch.inference_mode():
        boxes, detections = model(pixels)[0], inside.model(pixels)[0]
    stricter = non_max_suppression(boxes, 0.6, 0.4)[0]
    torch.testing.assert_close(inside.model.suppress(detections, conf_thres=0.6)[0], stricter, rtol=0, atol=0.01)
    agnostic = non_max_suppression(boxes, 0.5, 0.4, agnostic=True)[0]
    found = inside.model.suppress(detections, conf_thres=0.5, iou_thres=0.4, agnostic=True)[0]
    torch.testing.assert_close(found, agnostic, rtol=0, atol=0.01)
    assert len(agnostic) < len(inside.model.suppress(detections, conf_thres=0.5)[0])
    evaluation = validate(result.file, data, tmp_path)
    assert 0.1 < evaluation.map50_95 < 0.9


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_suppression_with_every_class_of_a_box_has_the_accuracy_of_the_checkpoint(name, own, data, tmp_path):
    (result,) = export_quietly(own, name, nms=True, multi_label=True, conf_thres=0.001, iou_thres=0.6)
    assert validate(result.file, data, tmp_path).map50_95 == pytest.approx(square_map(own, data), abs=1e-3)
    runtime = Runtime(result.file, CPU)
    detections = runtime(images(1, 128, 128))[0]
    every, best = (runtime.suppress(detections, multi_label=several)[0] for several in (True, False))
    assert 3 < len(best) < len(every)
    assert len(best[:, :4].unique(dim=0)) == len(best)  # pictures show the best class of each box only
    for row in best:
        assert row[4] == every[(every[:, :4] == row[:4]).all(1), 4].max()


def test_detect_takes_an_exported_file(own, data, tmp_path, capsys):
    (result,) = export_quietly(own, "torchscript")
    common = {"source": str(data.parent / "images"), "device": "cpu", "save_txt": True, "conf_thres": 0.3}
    common["project"] = str(tmp_path / "runs")
    folder = detect.run(weights=[str(result.file)], **common)
    assert "takes 128×128 images only; --imgsz is not used" in capsys.readouterr().out
    assert len(list(folder.glob("*.png"))) == 6
    line = (folder / "labels" / "0.txt").read_text().splitlines()[0]
    assert len(line.split()) == 5


def test_half_computes_in_bfloat16_on_a_cpu_and_decodes_in_float32(weights, data, monkeypatch, capsys):
    monkeypatch.setattr("utils.device.computes_bf16", lambda: True)
    half = load_detector(weights, CPU, half=True)
    assert {p.dtype for p in half.model[:-1].parameters()} == {torch.bfloat16}
    assert {p.dtype for p in half.detect.parameters()} == {torch.float32}
    pixels = images(1, 128, 128)
    with torch.inference_mode():
        found, full = half(pixels)[0], load_detector(weights, CPU)(pixels)[0]
        assert half(pixels, augment=True)[0].dtype == torch.float32
    assert found.dtype == torch.float32
    assert 0 < (found - full)[..., 4:].abs().max() < 0.1
    assert square_map(weights, data, half=True) == pytest.approx(square_map(weights, data), abs=0.05)
    # where the processor has none, it would only be slower
    monkeypatch.setattr("utils.device.computes_bf16", lambda: False)
    assert {p.dtype for p in load_detector(weights, CPU, half=True).parameters()} == {torch.float32}
    assert "--half: this processor does not compute in bfloat16; it stays float32" in capsys.readouterr().out


def test_a_batch_file_is_filled_up_and_fed_in_portions(own):
    (result,) = export_quietly(own, "torchscript", batch_size=2)
    runtime = Runtime(result.file)
    assert runtime.batch == 2
    pixels = images(3, 128, 128)
    with torch.inference_mode():
        expected = load_detector(own, CPU)(pixels)[0]
    torch.testing.assert_close(runtime(pixels)[0], expected, rtol=0, atol=0.01)


def test_precision_of_storage(own, tmp_path):
    full = export_quietly(own, "torchscript", "onnx", "openvino")
    half = export_quietly(own, "torchscript", "onnx", "openvino", half=True)
    for wide, narrow in zip(full, half, strict=True):
        assert narrow.megabytes < 0.6 * wide.megabytes
        assert 1e-4 < narrow.difference[1] < 0.2


@pytest.mark.slow
def test_int8_openvino_of_calibration_images(own, data, tmp_path):
    pytest.importorskip("nncf")
    (result,) = export_quietly(own, "openvino", int8=True, data=str(data))
    assert result.file == tmp_path / "best_int8_openvino_model"
    assert result.megabytes < 3.5
    text = next(result.file.glob("*.xml")).read_text()
    assert "FakeQuantize" in text
    lost = square_map(own, data) - validate(result.file, data, tmp_path).map50_95
    assert abs(lost) < 0.15


def test_calibration_images_are_training_images_in_whole_batches(data):
    batches = calibration_images(str(data), (64, 96), 4)
    assert [b.shape for b in batches] == [(4, 3, 64, 96)] * 2
    assert batches[0].dtype == np.float32
    assert 0.2 < batches[0].mean() < 0.8
    np.testing.assert_array_equal(batches[1][2], batches[0][0])  # six images, filled up by the first
    with pytest.raises(UserError, match="name a set with --data"):
        calibration_images(None, (64, 96), 4)


def test_coreml_package_is_written_and_described(own):
    coremltools = pytest.importorskip("coremltools")
    (result,) = export.run(weights=str(own), include=["coreml"], imgsz=[64, 96])
    assert result.ok, result.why
    spec = coremltools.utils.load_spec(str(result.file))
    assert list(spec.description.input[0].type.multiArrayType.shape) == [1, 3, 64, 96]
    assert list(spec.description.output[0].type.multiArrayType.shape) == [1, 3 * (8 * 12 + 4 * 6 + 2 * 3), 8]
    values = read_values(result.file, dict(spec.description.metadata.userDefined))
    assert values["names"][0] == "猫"
    assert values["imgsz"] == [64, 96]


class FakeTensorRT:
    """Stands for TensorRT, which needs a GPU: notes what it is asked."""

    class Logger:
        WARNING = 2

        def __init__(self, _):
            pass

    class NetworkDefinitionCreationFlag:
        STRONGLY_TYPED = 1

    def __init__(self):
        self.asked = {}

    def Builder(self, _):
        return self

    def create_network(self, flags):
        self.asked["flags"] = flags
        return self

    def OnnxParser(self, _network, _logger):
        return self

    def parse_from_file(self, file):
        self.asked["onnx"] = Path(file).read_bytes()
        return True

    def create_builder_config(self):
        return self

    def create_optimization_profile(self):
        return self

    def set_shape(self, *shapes):
        self.asked["shapes"] = shapes

    def add_optimization_profile(self, _):
        pass

    def build_serialized_network(self, _network, _config):
        return b"plan"


def test_tensorrt_gets_our_onnx_and_the_shapes(weights, tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    model = lively("yolov5n.yaml")
    trt = FakeTensorRT()
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", trt)
    make = FORMATS["engine"].write
    with pytest.raises(UserError, match="choose it with --device 0"):
        make(model, tmp_path / "best.engine", Settings())
    settings = Settings((64, 96), batch=4, dynamic=True, device=torch.device("cuda"))
    assert engine_shapes(model, settings) == ((1, 3, 32, 32), (4, 3, 64, 96), (4, 3, 128, 192))
    graph = Settings.graph
    monkeypatch.setattr(Settings, "graph", lambda self, model: graph(Settings(), model))  # there is no GPU to trace on
    monkeypatch.setattr(Settings, "images", lambda self, model: images(4, 64, 96))
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    (tmp_path / "best.onnx").write_text("the user's own")
    make(model, tmp_path / "best.engine", settings)
    assert (tmp_path / "best.engine").read_bytes() == b"plan"
    assert trt.asked["flags"] == 2  # 1 << STRONGLY_TYPED: the precisions are those of the ONNX
    assert trt.asked["shapes"] == ("images", *engine_shapes(model, settings))
    assert (tmp_path / "best.onnx").read_text() == "the user's own"
    properties = onnx.load_from_string(trt.asked["onnx"]).metadata_props
    assert {p.key for p in properties} >= {"names", "stride", "task"}
    assert yaml.safe_load((tmp_path / "best.engine.yaml").read_text())["names"] == model.names


def test_metadata_is_read_from_onnx_without_its_package(tmp_path):
    onnx = pytest.importorskip("onnx")
    from engine.export.formats.onnx import export_onnx

    model = lively("yolov5n.yaml")
    file = export_onnx(model, tmp_path / "m.onnx", (64, 64))
    theirs = {p.key: p.value for p in onnx.load(str(file)).metadata_props}
    assert read_onnx(file).properties == theirs
    (tmp_path / "noise.onnx").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(UserError, match="can't be read as ONNX"):
        open_reader(tmp_path / "noise.onnx", CPU, dnn=True)


def test_files_of_stock_yolov5_are_read(own, tmp_path):
    """They say names and stride only: as texts in ONNX, as JSON in TorchScript."""
    onnx = pytest.importorskip("onnx")
    (result,) = export_quietly(own, "onnx")
    graph = onnx.load(str(result.file))
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, {"stride": "32", "names": "{0: 'a', 1: 'b', 2: 'c'}"})
    onnx.save(graph, str(tmp_path / "stock.onnx"))
    runtime = Runtime(tmp_path / "stock.onnx")
    assert (runtime.names, runtime.fixed_size, runtime.batch) == ({0: "a", 1: "b", 2: "c"}, (128, 128), 1)
    values = read_values("x", json.loads('{"shape": [1, 3, 64, 64], "stride": 32, "names": {"0": "a", "1": "b"}}'))
    assert (values["names"], values["stride"], values["nms"]) == ({0: "a", 1: "b"}, 32, False)


def test_the_lists_of_formats_agree():
    assert all(is_exported(f"best{kind.suffix}") != kind.checkpoint for kind in FORMATS.values())
    assert not is_exported("best.pt")
    parser = export.build_parser()
    assert isinstance(parser, argparse.ArgumentParser)
    assert parser.parse_args(["--include", *FORMATS]).include == list(FORMATS)
    for name, kind in FORMATS.items():
        row = next(line.split() for line in parser.description.splitlines() if line.startswith(f"{name} "))
        assert set(kind.flags) - {"simplify", "int8"} == set(row) & {"dynamic", "nms", "half"}


def test_a_model_that_is_not_trained_yet_can_be_exported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for options, name in (
        ({"cfg": "yolov5n.yaml"}, "yolov5n.torchscript"),
        ({"backbone": "torchvision/mobilenet_v3_small"}, "yolov5s_mobilenet_v3_small.torchscript"),
    ):
        result = export.run(**options, include=["torchscript"], imgsz=[64])[0]
        assert result.ok and Path(result.file).name == name and (tmp_path / name).is_file()
    boxes = load_detector(tmp_path / name, CPU)(images(1, 64, 64))[0]
    assert boxes.shape == (1, 3 * (64 + 16 + 4), 85)
    with pytest.raises(UserError, match="leave one of the two out"):
        export.run(weights="a.pt", cfg="yolov5n.yaml")


def test_plugins_are_loaded_before_the_checkpoint(tmp_path):
    plugin = tmp_path / "blocks.py"
    plugin.write_text(
        "from models.common import Conv\nfrom models.plugins import register_block\n\n\n"
        "@register_block\nclass OurConv(Conv):\n    pass\n"
    )
    text = (ROOT / "models" / "yolov5n.yaml").read_text().replace("Conv, [64, 6, 2, 2]", "OurConv, [64, 6, 2, 2]")
    (tmp_path / "own.yaml").write_text(text)
    line = ["--cfg", tmp_path / "own.yaml", "--include", "torchscript", "--imgsz", 64]
    assert_user_error(command_here("export.py", *line, cwd=tmp_path), "OurConv")
    done = command("export.py", *line, "--plugins", plugin, cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "own.torchscript").is_file(), done.stderr
