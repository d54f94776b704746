"""docs/deploy.md: its programs run as they stand, and both languages name the same ones; tests/test_readme.py compares them."""

import re
import runpy

import cv2
import numpy as np
import pytest
import torch

from engine.detection.detector import load_detector
from tests.helpers.export import export_quietly, images
from tests.helpers.project import ROOT

FORMATS = {
    "onnxruntime": "onnx",
    "cv2": "onnx",
    "openvino": "openvino",
    "torch": "torchscript",
    "ncnn": "ncnn",
    "ai_edge_litert": "tflite",
}
DOC = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    """The Python block under ``<!-- name -->``."""
    return re.search(rf"<!-- {name} -->\n```python\n(.*?)```", DOC, re.DOTALL)[1]


@pytest.fixture
def folder(weights, tmp_path, monkeypatch):  # noqa: F811
    """Where a reader of the document works: best.pt and picture.jpg."""
    (tmp_path / "best.pt").write_bytes(weights.read_bytes())
    picture = (images(1, 96, 160)[0].permute(1, 2, 0) * 255).byte().numpy()
    cv2.imwrite(str(tmp_path / "picture.jpg"), picture)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder, *names: str) -> dict:
    """Run the named blocks as one program, at the size that the test exports."""
    program = "\n".join(block(name) for name in names)
    assert "height, width = 640, 640" in program
    file = folder / "program.py"
    file.write_text(program.replace("640, 640", "128, 128"), encoding="utf-8")
    return runpy.run_path(str(file))


@pytest.mark.parametrize("name", FORMATS)
def test_programs_find_what_pytorch_finds(name, folder, capsys):
    export_quietly(folder / "best.pt", FORMATS[name])
    capsys.readouterr()
    result = run(folder, "first", name, "third")
    with torch.inference_mode():
        expected = load_detector(folder / "best.pt", torch.device("cpu"))(torch.from_numpy(result["pixels"]))[0][0]
    np.testing.assert_allclose(result["rows"], expected.numpy(), rtol=0, atol=0.01)
    assert len(capsys.readouterr().out.splitlines()) > 3


def test_program_for_files_with_suppression_inside(folder, capsys):
    export_quietly(folder / "best.pt", "onnx", nms=True)
    capsys.readouterr()
    result = run(folder, "first", "onnxruntime", "nms")
    assert result["rows"].shape == (300, 6)
    assert len(capsys.readouterr().out.splitlines()) == (result["rows"][:, 4] > 0).sum() > 3


def test_both_languages_show_the_same_programs_and_figures():
    chinese = (ROOT / "docs" / "deploy.zh-CN.md").read_text(encoding="utf-8")
    for pattern in (r"\d+\.\d+(?:e-\d+)?", r"<!-- \w+ -->"):
        assert re.findall(pattern, chinese, re.DOTALL) == re.findall(pattern, DOC, re.DOTALL)
