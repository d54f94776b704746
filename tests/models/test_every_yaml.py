"""Every model YAML of the project builds, learns, fuses, is saved and read, and runs as ONNX, each to a figure.

Models of more than 30 million parameters are marked slow. They are built and run at their full size; what follows the
training step (fusing, checkpoint, ONNX) is done with the same rows at a third of the depth and a quarter of the width, or the
files would be gigabytes.
"""

import re
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from engine.export.formats.onnx import export_onnx
from engine.export.graph import JoinedZeros
from engine.recipe.hyp import read_hyp
from models.description.find import model_yamls
from models.description.rows import is_level
from models.flops import count_gflops, count_parameters
from models.load import detector_from
from models.yolo import DetectionModel
from tests.helpers.models import lively
from tests.helpers.project import ROOT
from utils.checkpoint import read_checkpoint, save_checkpoint
from utils.loss.detection import DetectionLoss
from utils.yaml_file import read_yaml

GIANT = 30_000_000  # parameters
FIGURES = re.compile(r"([\d,]+) parameters,?\s+([\d.]+) GFLOPs(?: at 640)?,?\s+strides\s+(\d+(?:,\s+\d+)*)")


def stated(path: Path) -> tuple[int, float, list[int]]:
    """(parameters, GFLOPs, strides) of the comment at the head of a model YAML."""
    comment = path.read_text().partition("\nnc:")[0]
    found = FIGURES.search(comment)
    assert found, f"{path.name} says nothing of its parameters, GFLOPs and strides"
    parameters, gflops, strides = found.groups()
    return int(parameters.replace(",", "")), float(gflops), [int(s) for s in strides.split(",")]


def cases() -> list:
    """Every YAML; the giants are told by their comment, whose truth the test itself finds out."""
    found = [(path, FIGURES.search(path.read_text())) for path in model_yamls()]
    giants = {path for path, figures in found if figures and int(figures[1].replace(",", "")) > GIANT}
    return [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path in giants)) for path, _ in found]


def targets_of_every_size(model: DetectionModel, side: int) -> torch.Tensor:
    """One box per image and anchor, as large as the anchor where the image allows, [n, 6]: image, class, x, y, w, h."""
    sizes = (model.detect.anchors * model.detect.stride.view(-1, 1, 1)).flatten(0, 1) / side
    rows = []
    for image in (0, 1):
        for i, (w, h) in enumerate(sizes.clamp(max=0.9).tolist()):
            rows.append([image, i % model.nc, 0.3 + 0.05 * i % 0.4, 0.5, w, h])
    return torch.tensor(rows)


def used_layers(model: DetectionModel) -> set[int]:
    """The layers whose output reaches Detect."""
    used = {len(model.rows) - 1}
    for row in reversed(model.rows):
        if row.index in used:
            used |= {0 if is_level(source) else source for source in row.source_indices()}
    return used


def without_effect(model: nn.Module) -> set[str]:
    """Biases of convolutions just before a BatchNorm, which takes them away again: their gradient is zero."""
    return {
        f"{name}.{i}.bias"
        for name, module in model.named_modules()
        if isinstance(module, nn.Sequential)
        for i, (first, second) in enumerate(pairwise(module))
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d)
    }


def assert_learns(model: DetectionModel, images: torch.Tensor) -> None:
    """One training step: every parameter that Detect's output depends on gets a gradient, and moves."""
    for module in model.modules():
        if hasattr(module, "drop_path"):
            module.drop_path.p = 0.0  # a dropped branch rightly learns nothing
        if isinstance(module, StochasticDepth):
            module.p = 0.0
    loss, items = DetectionLoss(model.detect.anchors, model.nc, read_hyp("hyp.scratch-low.yaml"))(
        model.train()(images), targets_of_every_size(model, images.shape[2])
    )
    assert (items > 0).all() and items.isfinite().all()
    loss.backward()
    layers, ignored = used_layers(model), without_effect(model)
    for name, parameter in model.named_parameters():
        if int(name.split(".")[1]) in layers and name not in ignored:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all() and parameter.grad.any(), name
    before = model.detect.m[0].weight.clone()
    nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    assert not torch.equal(before, model.detect.m[0].weight)
    model.zero_grad()


def assert_close(found, expected, atol: float) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert (torch.as_tensor(a) - b).abs().max() < atol


@pytest.mark.parametrize("path", cases())
def test_yaml(path, tmp_path):
    torch.manual_seed(0)
    parameters, gflops, strides = stated(path)
    model = DetectionModel(path)
    assert count_parameters(model)[0] == parameters
    assert count_gflops(model) == pytest.approx(gflops, abs=0.051)
    assert model.stride.tolist() == strides

    # on a 2×2 map MobileMQA has one key only, and so nothing to ask for
    side = max(strides) * (4 if "MobileMQA" in path.stem else 2)
    images = torch.rand(2, 3, side, side)
    assert_learns(model, images)
    if parameters > GIANT:
        model = DetectionModel(read_yaml(path) | {"width_multiple": 0.25, "depth_multiple": 0.33})
    lively(model, images)
    with torch.no_grad():
        boxes, maps = model(images)
        fused = deepcopy(model).fuse()
        assert_close(fused(images)[1], maps, 1e-4)
    assert boxes.shape == (2, sum(m[0, ..., 0].numel() for m in maps), model.nc + 5)

    checkpoint = {"model": model.state_dict(), "yaml": model.yaml, "names": model.names}
    save_checkpoint(tmp_path / "model.pt", checkpoint)
    with torch.no_grad():
        again = detector_from(read_checkpoint(tmp_path / "model.pt"))(images)
    assert torch.equal(again[0], boxes)

    export_onnx(model, tmp_path / "model.onnx", (side, side), batch=2, maps=True)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    decoded, *raw = session.run(None, {"images": images.numpy()})
    assert_close(raw, maps, 1e-4)
    assert_close([decoded[..., :4]], [boxes[..., :4]], 0.01)
    assert_close([decoded[..., 4:]], [boxes[..., 4:]], 1e-4)


@pytest.mark.parametrize("document", ["models.md", "models.zh-CN.md"])
def test_the_table_of_models_is_that_of_the_yamls(document):
    rows = re.findall(r"\| `(.*?)` \| ([\d,]+) \| ([\d.]+) \| ([\d, ]+) \|", (ROOT / "docs" / document).read_text())
    assert sorted(name for name, *_ in rows) == sorted(path.name for path in model_yamls())
    written = {
        name: (int(p.replace(",", "")), float(g), [int(s) for s in strides.split(",")]) for name, p, g, strides in rows
    }
    for path in model_yamls():
        parameters, gflops, strides = stated(path)
        assert written[path.name] == (parameters, pytest.approx(gflops, abs=0.051), strides), path.name


@pytest.mark.parametrize("padding", [(0, 1, 0, 1), (2, 0, 1, 3)])
def test_zeros_are_joined_as_they_are_padded(padding):
    # yolov3-tiny's ONNX needs it: ONNX Runtime turns the zeros before a max-pool into −∞ otherwise
    x = torch.randn(1, 2, 4, 5) - 5
    torch.testing.assert_close(JoinedZeros(padding)(x), nn.ZeroPad2d(padding)(x), rtol=0, atol=0)
