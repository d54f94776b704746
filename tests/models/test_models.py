"""Models from YAML: figures, structure, what a row means, and what mistakes in it say."""

import json

import pytest
import torch
from torch import nn

from models import common
from models.common import Conv
from models.description.find import find_model_yaml, model_yamls
from models.flops import count_gflops, count_parameters, layer_shapes
from models.fuse import fuse_conv_bn
from models.yolo import DetectionModel
from tests.helpers.descriptions import small
from tests.helpers.models import random_statistics
from tests.helpers.project import ROOT, SHARED, assert_user_error, command, command_here
from utils.errors import UserError

FACTS = json.loads((SHARED / "reference" / "model_facts.json").read_text()) if SHARED.exists() else {}
ROWS = json.loads((SHARED / "reference" / "model_rows.json").read_text()) if SHARED.exists() else {}
OWN_CONVOLUTIONS = {"yolov5s_EfficientNetV2", "yolov5l_ShuffleNetV2", "yolov5n_C3_UIB"}


@pytest.mark.skipif(not FACTS, reason="needs ../shared/reference")
@pytest.mark.parametrize("name", FACTS)
def test_figures_of_the_reference(name):
    facts = FACTS[name]
    model = DetectionModel(f"{name}.yaml")
    layers = [[r.index, r.source, r.block.removeprefix("nn."), r.parameters] for r in model.rows]
    assert layers == facts["layers"]
    assert count_parameters(model) == (facts["params"], facts["params"])
    assert model.stride.tolist() == facts["strides"]
    assert count_gflops(model) == pytest.approx(facts["gflops_640"], rel=0.01)
    fused = count_parameters(model.fuse())[0]
    if name in OWN_CONVOLUTIONS:
        assert fused < facts["params_fused"]
    else:
        assert fused == facts["params_fused"]


@pytest.mark.skipif(not FACTS, reason="needs ../shared/reference")
@pytest.mark.parametrize("name", FACTS)
def test_rows_are_those_of_the_reference(name):
    assert find_model_yaml(f"{name}.yaml")[0] == ROWS[name]


def test_the_recommended_efficientnetv2():
    model = DetectionModel("yolov5s_EfficientNetV2-P3.yaml")
    assert count_parameters(model)[0] == 5_796_277
    assert count_gflops(model) == pytest.approx(11.27, rel=0.01)
    assert model.stride.tolist() == [8, 16, 32]


def test_both_efficientnetv2_files_state_both_costs():
    for name in ("yolov5s_EfficientNetV2.yaml", "yolov5s_EfficientNetV2-P3.yaml"):
        text = (ROOT / "models" / name).read_text()
        for figure in ("5,800,373", "5,796,277", "5.55 GFLOPs", "11.27 GFLOPs"):
            assert figure in text


def test_fusing_leaves_a_batchnorm_that_follows_no_convolution():
    block = nn.ModuleDict(
        {"a": common.BottleneckCSP(8, 8), "b": nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.BatchNorm2d(8))}
    )
    random_statistics(block).eval()
    x = torch.rand(1, 8, 4, 4)
    before = block["a"](x), block["b"](x)
    fuse_conv_bn(block)
    assert isinstance(block["a"].bn, nn.BatchNorm2d)
    assert isinstance(block["b"][2], nn.BatchNorm2d)
    for old, module in zip(before, block.values(), strict=True):
        torch.testing.assert_close(module(x), old, rtol=0, atol=1e-5)


def test_activation_of_the_yaml_reaches_every_conv_and_nothing_else():
    model = DetectionModel(small(activation="nn.LeakyReLU(0.1)"))
    acts = {type(m.act) for m in model.modules() if isinstance(m, Conv)}
    assert acts == {nn.LeakyReLU}
    assert isinstance(Conv(1, 1).act, nn.SiLU)
    with pytest.raises(UserError, match=r"small.yaml: activation 'nn.Nope\(\)'"):
        DetectionModel(small(activation="nn.Nope()"))
    assert isinstance(Conv(1, 1).act, nn.SiLU)


def test_the_command_prints_layers_and_both_summaries():
    result = command("models/yolo.py")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "[3, 16, 3, 2]" in lines[1] and "16×320×320" in lines[1] and lines[1].endswith(" 2")
    assert (
        "yolov5s_EfficientNetV2 summary: 393 layers, 5,800,373 parameters, 5,800,373 gradients, 5.5 GFLOPs at 640"
        in lines
    )
    assert (
        "yolov5s_EfficientNetV2 fused summary: 318 layers, 5,782,705 parameters, 0 gradients, 5.4 GFLOPs at 640"
        in lines
    )


@pytest.mark.parametrize("flag", ["--imgsz", "--img", "--img-size"])
def test_the_command_tells_shapes_and_cost_at_the_size_that_is_asked_for(flag):
    result = command_here("models/yolo.py", "--cfg", "yolov5n.yaml", flag, "320")
    assert result.returncode == 0, result.stderr
    heading, first, *rest = result.stdout.splitlines()
    assert heading.split()[-4:] == ["output", "at", "320", "stride"]
    # 3 × 16 × 6² weights, and the scale and shift of 16 channels
    assert first.split()[:4] == ["0", "-1", "1", "1760"] and first.split()[-2:] == ["16×160×160", "2"]
    assert rest[22].split()[-2:] == ["256×10×10", "32"] and rest[23].split()[-2:] == ["boxes", "8,16,32"]
    # a quarter of the 4.6 at 640
    assert "yolov5n summary: 214 layers, 1,872,157 parameters, 1,872,157 gradients, 1.1 GFLOPs at 320" in rest


@pytest.mark.parametrize(("size", "used"), [("200", 224), ("1", 32), ("33", 64)])
def test_the_command_rounds_a_size_up_to_the_stride_and_says_so(size, used):
    result = command_here("models/yolo.py", "--cfg", "yolov5n.yaml", "--img", size)
    warning, heading, first, *rest = result.stdout.splitlines()
    assert warning == f"warning: --imgsz {size} is no multiple of the largest stride 32; {used} is used"
    assert f"output at {used} " in heading and f" 16×{used // 2}×{used // 2} " in first
    assert any(line.endswith(f"GFLOPs at {used}") for line in rest)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("0", "--imgsz 0: must be 1 or more"),
        ("-64", "--imgsz -64: must be 1 or more"),
        ("99999", "--imgsz 99999: must be 16384 or less"),
    ],
)
def test_the_command_refuses_sizes_that_no_image_has(size, words):
    assert_user_error(command_here("models/yolo.py", "--img", size), words)


def test_the_command_refuses_a_size_that_is_no_number():
    for size in ("big", "64.5", "64x64", ""):
        result = command_here("models/yolo.py", "--img", size)
        assert result.returncode == 2 and "invalid int value" in result.stderr


@pytest.mark.parametrize("backbone", [None, "mobilenet_v3_small"])
def test_shapes_at_a_size_are_those_of_an_image(backbone):
    model = DetectionModel("yolov5n.yaml", backbone=backbone)
    traced, built = layer_shapes(model, (96, 160)), layer_shapes(model, 640)
    found = []
    for layer in model.model[:-1]:
        layer.register_forward_hook(lambda layer, _, y: found.append(y[layer.default] if isinstance(y, dict) else y))
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 96, 160))
    assert traced == [*(tuple(y.shape[1:]) for y in found), None]
    assert built == [row.shape for row in model.rows]


def test_the_command_profiles():
    result = command_here(
        "models/yolo.py", "--cfg", "yolov5n.yaml", "--imgsz", 64, "--batch-size", 2, "--profile", "--line-profile"
    )
    assert result.returncode == 0, result.stderr
    assert "batch 2 of 64×64" in result.stdout and "forward + backward" in result.stdout
    shares = [float(line.split()[-1][:-1]) for line in result.stdout.splitlines() if line.endswith("%")]
    assert len(shares) == 25 and sum(shares) == pytest.approx(100, abs=1.5)


def test_the_command_tests_every_yaml():
    result = command_here("models/yolo.py", "--test")
    assert result.returncode == 0, result.stderr
    assert f"{len(model_yamls())} of {len(model_yamls())} models built and ran" in result.stdout


def test_the_command_names_a_missing_yaml():
    assert_user_error(
        command_here("models/yolo.py", "--cfg", "yolov5z.yaml"), "yolov5z.yaml", "no such model YAML", "did you mean"
    )


def test_every_yaml_has_a_name_of_its_own_and_is_found_by_it_and_by_its_former_path():
    paths = {path.name: path for path in model_yamls()}
    assert len(paths) == len(model_yamls()) == len(list((ROOT / "models").rglob("*.yaml"))) == 63
    for name, path in paths.items():
        for spelling in (name, f"models/{name}"):
            assert (ROOT / find_model_yaml(spelling)[1]).samefile(path)
