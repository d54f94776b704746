"""What can not be exported or run, and what is said of it."""

import pytest
import torch

import export
from engine.detection.detector import load_detector
from engine.export.runtime import Runtime
from tests.helpers.export import PACKAGES, export_quietly, images, validate
from tests.helpers.project import assert_user_error, command
from utils.errors import UserError

CPU = torch.device("cpu")


def test_one_failing_format_does_not_stop_the_others(own, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    flags = ("--weights", own, "--include", "engine", "torchscript", "--imgsz", 50, "--dynamic")
    result = command("export.py", *flags)
    assert_user_error(result, "not exported: engine; the table says why")
    assert "--imgsz 50 50 becomes 64 64, multiples of the stride 32" in result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["engine", "failed", "-"] in [line[:3] for line in lines]
    done = next(line for line in lines if line[:1] == ["torchscript"] and line[1] != str(tmp_path))
    assert float(done[1]) > 6
    assert (tmp_path / "best.torchscript").is_file()
    assert f"next: python detect.py --weights {tmp_path}/best.torchscript --imgsz 64" in result.stdout.splitlines()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": ["onnx", "flatbuffer"]}, "--include flatbuffer: no such format; there are torchscript onnx"),
        ({"imgsz": [1, 2, 3]}, "--imgsz 1 2 3: give one size, or height and width"),
        ({"batch_size": 0}, "--batch-size 0: must be 1 or more"),
        ({"conf_thres": 2.0}, "--conf-thres 2.0: must lie between 0 and 1"),
        ({"include": ["onnx"], "multi_label": True}, "--multi-label says what --nms keeps"),
        ({"include": ["torchscript"], "simplify": True}, "--simplify: is for onnx, openvino, engine"),
        ({"device": "7"}, "--device 7: this machine has"),
    ],
)
def test_flags_that_can_not_be(options, message, own):
    with pytest.raises(UserError, match=message):
        export.run(weights=str(own), **options)


@pytest.mark.parametrize(
    ("name", "flags", "why"),
    [
        ("torchscript", {"nms": True}, "torchscript is not made with --nms"),
        ("onnx", {"int8": True}, "onnx is not made with --int8"),
        ("ncnn", {"dynamic": True}, "ncnn is not made with --dynamic"),
        ("ncnn", {"batch_size": 2}, "--batch-size 2: ncnn takes one image at a time"),
        ("onnx", {"opset": 7}, "--opset 7: give 10 to 20"),
        ("onnx", {"opset": 10, "nms": True}, "--opset 10: --dynamic and --nms need 11 or more"),
        ("onnx", {"opset": 10, "dynamic": True}, "--opset 10: --dynamic and --nms need 11 or more"),
        ("openvino", {"int8": True}, "name a set with --data"),
    ],
)
def test_formats_say_what_they_can_not_do(name, flags, why, own):
    for package in PACKAGES[name]:
        pytest.importorskip(package)
    (result,) = export.run(weights=str(own), include=[name], imgsz=[64], **flags)
    assert not result.ok
    assert why in result.why


def test_a_folder_that_can_not_be_written_is_named(own, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "/somewhere/best.torchscript")

    monkeypatch.setattr("os.replace", refuse)
    (result,) = export.run(weights=str(own), include=["torchscript"], imgsz=[64])
    assert result.why == "/somewhere/best.torchscript: could not be written (Permission denied)"
    assert [p.name for p in own.parent.iterdir()] == ["best.pt"]


def test_mistakes_with_exported_files(own, data, tmp_path):
    pytest.importorskip("onnx")
    (result, torchscript) = export_quietly(own, "onnx", "torchscript")
    with pytest.raises(UserError, match="takes 128×128 images only; leave --imgsz out, or export with --imgsz 192"):
        validate(result.file, data, tmp_path, imgsz=192)
    with pytest.raises(UserError, match="for a study, export with --dynamic"):
        validate(result.file, data, tmp_path, task="study", imgsz=256)
    with pytest.raises(UserError, match="only checkpoints .* take several scales"):
        validate(result.file, data, tmp_path, augment=True)
    with pytest.raises(UserError, match="an ensemble is made of checkpoints"):
        load_detector([own, result.file], CPU)
    with pytest.raises(UserError, match="leave --half out"):
        load_detector(result.file, CPU, half=True)
    for path in (own, torchscript.file):
        with pytest.raises(UserError, match="--dnn: runs ONNX files"):
            load_detector(path, CPU, dnn=True)
    with pytest.raises(UserError, match="no such model file"):
        Runtime(tmp_path / "missing.onnx")
    with pytest.raises(UserError, match="takes 128×128 images only, not 64×64"):
        Runtime(result.file)(images(1, 64, 64))
    for name in ("a.onnx", "a.torchscript"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(UserError, match="can't be read as"):
            Runtime(tmp_path / name, trust=True)
    result = export_quietly(own, "onnx", nms=True)[0]
    with pytest.raises(UserError, match="OpenCV can't run; export without --nms"):
        Runtime(result.file, dnn=True)


def test_missing_packages_are_named_with_their_pip_line(own, monkeypatch):
    for module in ("openvino", "coremltools", "litert_torch", "pnnx", "onnx"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    results = export.run(weights=str(own), imgsz=[64], include=["onnx", "openvino", "coreml", "tflite", "ncnn"])
    lines = [r.why.split("pip install ")[1] for r in results]
    assert lines == ["onnx", "openvino", "coremltools", "litert-torch", "pnnx"]
