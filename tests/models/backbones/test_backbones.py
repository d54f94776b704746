"""Networks by name: which name means which network, what is read from it, and how it stands in a detector."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from torch import nn

import train
from engine.export.formats.onnx import export_onnx
from models.backbones.backbone import Backbone, create_backbone
from models.description.find import find_model_yaml
from models.flops import count_gflops, count_parameters
from models.fuse import fuse_conv_bn
from models.load import detector_from, transfer_weights
from models.profiling import profile_layers
from models.yolo import DetectionModel
from tests.helpers.project import ROOT, SHARED, assert_user_error, command_here
from utils.checkpoint import read_checkpoint, save_checkpoint
from utils.errors import UserError
from utils.yaml_file import read_yaml

SMALL = "shufflenet_v2_x0_5"  # quick to build
REPRESENTATIVE = [
    "efficientnet_b0",
    "efficientnetv2_s",
    "resnet18",
    "convnext_tiny",
    "swin_t",
    "timm/swin_tiny_patch4_window7_224",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "timm/mobilenetv4_conv_small",
    "timm/ghostnet_100",
    "regnet_y_400mf",
    "shufflenet_v2_x1_0",
    "densenet121",
    "timm/tf_efficientnet_lite0",
    "cspdarknet53",
]


# What is read from a network --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "eps", "momentum"),
    [("mnasnet1_0", 1e-5, 0.03), ("mobilenet_v3_small", 1e-3, 0.03), ("resnet18", 1e-5, 0.1)],
)
def test_a_network_validates_with_what_it_has_learnt_lately(name, eps, momentum):
    """MnasNet's own momentum of 0.0003 takes thousands of batches: trained for fewer it found nothing."""
    backbone = DetectionModel("yolov5n.yaml", backbone=name).model[0]
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and {(norm.eps, round(norm.momentum, 6)) for norm in norms} == {(eps, momentum)}


def test_maps_come_by_level_at_any_multiple_of_the_stride():
    backbone = create_backbone(SMALL)
    assert backbone.channels == {"P2": 24, "P3": 48, "P4": 96, "P5": 192}
    maps = backbone.eval()(torch.rand(2, 3, 96, 160))
    assert {k: tuple(x.shape) for k, x in maps.items()} == {
        "P2": (2, 24, 24, 40),
        "P3": (2, 48, 12, 20),
        "P4": (2, 96, 6, 10),
        "P5": (2, 192, 3, 5),
    }
    with pytest.raises(UserError, match="no level P6; torchvision/shufflenet_v2_x0_5 has .*P5 \\(192 channels\\)"):
        create_backbone(SMALL, levels=["P5", "P6"])


@pytest.mark.parametrize("name", ["resnet18", "timm/tf_efficientnet_lite0", "timm/mobilenetv4_conv_small_050"])
@pytest.mark.parametrize("levels", [["P3", "P4"], ["P2", "P5"]])
def test_nothing_is_built_that_no_level_needs(name, levels):
    backbone = create_backbone(name, levels=levels).train()
    sum(x.square().mean() for x in backbone(torch.rand(2, 3, 64, 64)).values()).backward()
    assert [k for k, p in backbone.named_parameters() if p.grad is None] == []


def test_what_no_level_depends_on_does_not_learn():
    backbone = create_backbone("timm/hrnet_w18_small", levels=["P3", "P4", "P5"]).train()
    sum(x.square().mean() for x in backbone(torch.rand(2, 3, 64, 64)).values()).backward()
    learning = [k for k, p in backbone.named_parameters() if p.requires_grad]
    assert [k for k in learning if backbone.get_parameter(k).grad is None] == []
    assert 0 < len(list(backbone.parameters())) - len(learning) < 30


def test_the_image_is_normalised_as_the_weights_expect():
    backbone = create_backbone("timm/tf_efficientnet_lite0", levels=["P3"]).eval()
    assert backbone.normalization == {"mean": [0.5] * 3, "std": [0.5] * 3}
    backbone.normalize([0.1, 0.2, 0.3], [1, 2, 4])
    image = torch.rand(1, 3, 64, 64)
    shifted = (image - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(backbone(image)["P3"], backbone.net(shifted)[0])
    assert create_backbone("resnet18").normalization["mean"] == [0.485, 0.456, 0.406]


def test_channels_last_maps_are_turned():
    backbone = create_backbone("timm/swin_tiny_patch4_window7_224", levels=["P3"]).eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        (raw,) = backbone.net((image - backbone.mean) / backbone.std)
        turned = backbone(image)["P3"]
    assert raw.shape == (1, 8, 12, 192)
    assert turned.shape == (1, 192, 8, 12)
    assert torch.equal(turned[0, 7], raw[0, :, :, 7])


def test_tokens_are_laid_out_as_a_map():
    from models.backbones.backbone import to_nchw
    from models.backbones.networks import read_map

    x = torch.arange(2 * 40 * 5).view(2, 40, 5)
    turned = to_nchw(x, "tokens", 5, 8)
    assert turned.shape == (2, 5, 5, 8)
    assert turned[1, 3, 2, 6] == x[1, 2 * 8 + 6, 3]
    assert read_map(torch.zeros(1, 32 * 40, 48)) == (48, 8, "tokens")
    assert read_map(torch.zeros(1, 33 * 40, 48)) is None


# In a detector ----------------------------------------------------------------------------------------------------------


def test_the_flag_makes_of_the_stock_yaml_the_one_that_is_shipped():
    shipped, swapped = (
        DetectionModel("yolov5s_EfficientNet.yaml"),
        DetectionModel("yolov5s.yaml", backbone="efficientnet"),
    )
    assert swapped.yaml["head"] == [
        [[f"{s}" if isinstance(s, str) else s for s in r[0]] if isinstance(r[0], list) else r[0], *r[1:]]
        for r in shipped.yaml["head"]
    ]
    assert list(swapped.state_dict()) == list(shipped.state_dict())
    assert (
        swapped.rows[1].block == "SPPF"
        and swapped.rows[4].source == [-1, "P4"]
        and swapped.rows[8].source == [-1, "P3"]
    )
    assert all(k.startswith("model.0.") for k in list(swapped.state_dict())[:100])
    assert count_parameters(swapped)[0] == 6_991_417
    assert swapped.stride.tolist() == [8, 16, 32]
    assert swapped.name == "yolov5s_efficientnet"


def test_yolov7_with_efficientnet():
    model = DetectionModel("yolov7_EfficientNet.yaml")
    assert model.yaml["head"] == DetectionModel("yolov7.yaml", backbone="efficientnet_b0").yaml["head"]
    assert model.rows[1].block == "SPPCSPC" and model.rows[4].source == "P4"
    assert count_parameters(model)[0] == 26_828_921
    assert model.stride.tolist() == [8, 16, 32]


@pytest.mark.parametrize(
    ("cfg", "strides", "kept"),
    [
        ("yolov5n6.yaml", [8, 16, 32, 64], ["Conv", "C3", "SPPF"]),  # the stock rows behind the network's last level
        ("yolov5-p34.yaml", [8, 16], ["SPPF", "Conv"]),
        ("yolov5s_C3CBAM.yaml", [8, 16, 32], ["SPPF", "Conv"]),
        ("yolov7-tiny.yaml", [8, 16, 32], ["Conv", "Conv", "SP"]),
        ("yolov5l_ShuffleNetV2.yaml", [8, 16, 32], ["SPPF", "Conv"]),
        ("yolov3.yaml", [8, 16, 32], ["Bottleneck", "Conv"]),
    ],
)
def test_stock_necks_take_a_named_backbone(cfg, strides, kept):
    description = read_yaml(next(ROOT.glob(f"models/**/{cfg}"))) | {"width_multiple": 0.25, "depth_multiple": 0.33}
    model = DetectionModel(description, backbone=SMALL).eval()
    assert model.stride.tolist() == strides
    assert [row.block for row in model.rows[1 : 1 + len(kept)]] == kept
    with torch.no_grad():
        side = strides[-1] * 2
        assert model(torch.rand(1, 3, side, side))[0].shape[1] == sum(3 * (side // s) ** 2 for s in strides)


def test_p2_is_taken_from_its_level():
    description = read_yaml(ROOT / "models" / "hub" / "yolov5-p2.yaml") | {
        "width_multiple": 0.25,
        "depth_multiple": 0.33,
    }
    model = DetectionModel(description, backbone=SMALL)
    assert model.stride.tolist() == [4, 8, 16, 32]
    assert list(model.model[0].levels) == ["P2", "P3", "P4", "P5"]
    assert [r.source for r in model.rows if r.block == "Concat"][:3] == [[-1, "P4"], [-1, "P3"], [-1, "P2"]]


def test_a_named_backbone_is_swapped_for_another():
    model = DetectionModel("yolov5s_EfficientNet.yaml", backbone="resnet18", nc=2)
    assert model.yaml["backbone"] == "torchvision/resnet18"
    assert model.rows[4].source == [-1, "P4"] and model.model[5].cv1.conv.in_channels == 256 + 256


def named(**changes) -> dict:
    """The description of a small detector with a backbone by name."""
    head = [[-1, 1, "SPPF", [256, 5]], [["P3", 1], 1, "Detect", ["nc", "anchors"]]]
    description = {"nc": 2, "anchors": [[10, 13, 16, 30], [33, 23, 30, 61]], "backbone": SMALL, "head": head}
    return description | {"yaml_file": "small.yaml"} | changes


def test_the_nested_form():
    flat = DetectionModel(named())
    nested = {k: v for k, v in named().items() if k != "backbone"}
    nested = DetectionModel(nested | {"model": {"name": "custom_yolov5s", "backbone": SMALL}})
    assert nested.yaml == flat.yaml
    # without a head it is that of the model that the name tells of
    model = DetectionModel({"model": {"name": "custom_yolov5n", "backbone": "efficientnet"}, "nc": 3})
    assert model.yaml["backbone"] == "torchvision/efficientnet_b0" and model.nc == 3
    assert model.yaml["width_multiple"] == 0.25 and len(model.rows) == 17


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"head": [[["P3", "P6"], 1, "Detect", ["nc", "anchors"]]]},
            ["layer 1", "has P1", "P5 (192 channels)", "no P6"],
        ),
        ({"backbone": [[-1, 1, "Conv", [8, 3, 2]]]}, ["layer 2", "P3 is a level of a backbone by name"]),
        ({"ch": 1}, ["small.yaml", "ch is 1", "3 channels"]),
        ({"normalize": {"mean": [0.5]}}, ["normalize is", "three numbers"]),
        ({"head": [[["P3", "x"], 1, "Detect", ["nc", "anchors"]]]}, ["layer 1", "holds 'x'", "levels such as P4"]),
        ({"backbone": "resnet51"}, ["resnet51", "did you mean", "resnet50"]),
        (
            {"head": [[["P3", "P4"], 1, "Concat", [1]], [["P3", 1], 1, "Detect", ["nc", "anchors"]]]},
            ["layer 1", "inputs differ in size at 640: P3 is 80×80, P4 is 40×40"],
        ),
    ],
)
def test_mistakes(changes, words):
    with pytest.raises(UserError) as error:
        DetectionModel(named(**changes))
    for word in words:
        assert word in str(error.value)


def test_a_head_that_takes_what_the_network_lacks():
    stock = read_yaml(ROOT / "models" / "yolov5n.yaml")
    finer = stock | {"head": [*stock["head"][:-1], [[0, 17, 20], 1, "Detect", ["nc", "anchors"]]]}
    with pytest.raises(UserError, match="layer 24 .*takes layer 0, at stride 2: timm/convnext_atto has P2.* and no P1"):
        DetectionModel(finer, backbone="timm/convnext_atto")


def test_networks_keep_their_own_batchnorm():
    model = DetectionModel(named(backbone="resnet18"))
    assert {m.eps for m in model.model[0].modules() if isinstance(m, nn.BatchNorm2d)} == {1e-5}
    assert {m.eps for m in model.model[1].modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}


def test_gflops_count_what_is_computed_by_functions():
    # published: 4.5 G multiply-adds for Swin-T, 1.81 for ResNet-18, each with its classifier
    for name, published in (("swin_t", 4.5), ("resnet18", 1.81)):
        assert count_gflops(nn.Sequential(create_backbone(name)), 224) == pytest.approx(2 * published, rel=0.03)


@pytest.mark.parametrize("name", ["efficientnet_b0", "timm/mobilenetv4_conv_small", "timm/tf_efficientnet_lite0"])
def test_networks_fuse_to_the_same_function(name):
    backbone = create_backbone(name).eval()
    generator = torch.Generator().manual_seed(0)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1, generator=generator)
            module.running_var.uniform_(0.9, 1.1, generator=generator)
    fused = fuse_conv_bn(deepcopy(backbone))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    image = torch.rand(1, 3, 64, 64, generator=generator)
    with torch.no_grad():
        for a, b in zip(backbone(image).values(), fused(image).values(), strict=True):
            assert (a - b).abs().max() < 1e-4 * max(1, a.abs().max())


def test_a_checkpoint_rebuilds_from_what_it_holds(tmp_path, monkeypatch):
    def no_network(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", no_network)
    model = DetectionModel("yolov5n.yaml", nc=2, backbone="timm/mobilenetv4_conv_small_050").eval()
    model.model[0].normalize([0.1, 0.2, 0.3], [0.9, 0.8, 0.7])
    model.yaml |= model.model[0].description()
    plain = json.loads(json.dumps(model.yaml))  # nothing but plain data
    assert plain["backbone"] == "timm/mobilenetv4_conv_small_050" and plain["normalize"]["mean"] == [0.1, 0.2, 0.3]
    data = {"model": model.state_dict(), "yaml": plain, "names": {0: "a", 1: "b"}}
    save_checkpoint(tmp_path / "a.pt", data)
    again = detector_from(read_checkpoint(tmp_path / "a.pt"))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(image)[0], model(image)[0])


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/weights")
def test_the_stock_checkpoint_gives_its_backbone_to_another_neck(yolov5n):
    neck = read_yaml(ROOT / "models" / "hub" / "yolov5-fpn.yaml") | {"width_multiple": 0.25, "depth_multiple": 0.33}
    model = DetectionModel(neck)
    checkpoint = read_checkpoint(yolov5n)
    said = transfer_weights(model, checkpoint)
    own = model.state_dict()
    backbone = [k for k in own if int(k.split(".")[1]) < 10]
    fitting = [k for k in own if k in checkpoint.model and own[k].shape == checkpoint.model[k].shape]
    head = [k for k in fitting if k not in backbone]
    assert f"(backbone: {len(backbone)} of {len(backbone)}, head: {len(head)} of {len(own) - len(backbone)})" in said
    assert (len(backbone), len(head)) == (198, 0)
    assert all(torch.equal(own[k], checkpoint.model[k].float()) for k in backbone)


def test_a_copy_is_in_the_mode_of_the_original():
    for name in (SMALL, "timm/mobilenetv4_conv_small_050"):
        backbone = create_backbone(name, levels=["P3"]).eval()
        assert not any(m.training for m in deepcopy(backbone).modules())
        assert all(m.training for m in deepcopy(backbone.train()).modules())


def test_layers_of_a_named_backbone_are_timed():
    text = profile_layers(DetectionModel(named()), torch.rand(1, 3, 64, 64), torch.device("cpu"))
    shares = [float(line.split()[-1][:-1]) for line in text.splitlines() if line.endswith("%")]
    assert len(shares) == 3 and sum(shares) == pytest.approx(100, abs=0.5)


def test_the_command_shows_a_model_with_another_backbone():
    result = command_here("models/yolo.py", "--backbone", SMALL, "--imgsz", 64)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert f"torchvision/{SMALL}" in lines[1] and "P3 48" in lines[1] and "192×2×2" in lines[1]
    assert "[-1, P4]" in lines[5]
    assert any(line.startswith(f"yolov5s_{SMALL} summary") for line in lines)
    assert_user_error(command_here("models/yolo.py", "--backbone", "resnet51"), "resnet51", "did you mean", "resnet50")


def test_the_table_of_the_pages_is_what_was_measured():
    spec = importlib.util.spec_from_file_location("backbone_table", ROOT / "bench" / "backbone_table.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    record = bench.read()
    assert len(bench.NETWORKS) >= 30 and set(record["networks"]) == {bench.STOCK, *bench.NETWORKS}
    for page, pending in zip(bench.PAGES, ("pending", "待测"), strict=True):
        assert f"\n{bench.table(record, pending)}\n<!-- /rows -->" in page.read_text(encoding="utf-8")
    for name in (bench.STOCK, SMALL):
        model = bench.build(name)
        assert record["networks"][name]["parameters"] == count_parameters(model)[0]
        assert record["networks"][name]["gflops"] == pytest.approx(count_gflops(model), abs=0.006)


def test_both_pages_show_the_same_commands_and_they_exist():
    pages = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("backbones.md", "backbones.zh-CN.md")]
    blocks = [re.findall(r"```\w+\n(.*?)```", text, re.S) for text in pages]
    assert blocks[0] == blocks[1] and len(blocks[0]) == 5
    for line in re.findall(r"^python train.py (.*)$", pages[0], re.M):
        train.build_parser().parse_args(shlex.split(line))
    for name in re.findall(r"`(models/[\w./-]+|yolov\w+\.yaml)`", pages[0]):
        assert (ROOT / name).exists() or find_model_yaml(name)


def test_the_python_of_the_page_runs():
    text = (ROOT / "docs" / "backbones.md").read_text(encoding="utf-8")
    source = re.search(r"```python\n(.*?)```", text, re.S).group(1)
    script = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=ROOT)
    assert script.stdout.strip() == source.strip().splitlines()[-1].partition("# ")[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_networks_learn_and_export_to_the_same_function(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model = DetectionModel("yolov5n.yaml", nc=2, backbone=name).train()
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    sum(x.square().mean() for x in model(torch.rand(2, 3, 64, 96))).backward()
    assert [k for k, p in model.named_parameters() if p.grad is None] == []
    optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())
    moved = [k for k, p in model.named_parameters() if k.startswith("model.0.") and not torch.equal(p, before[k])]
    assert len(moved) > 0.5 * len(list(model.model[0].parameters()))
    model.eval()
    file = export_onnx(model, tmp_path / "model.onnx", (64, 96))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        boxes, _ = model(image)
    exported = torch.from_numpy(session.run(None, {"images": image.numpy()})[0])
    assert (boxes - exported).abs().max() < 1e-4 * max(1, boxes.abs().max())
    assert isinstance(model.model[0], Backbone)
