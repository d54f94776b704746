"""The blocks of models/common.py, alone, as rows, and one more pasted behind them."""

import shutil

import pytest
import torch
from torch import nn

from models import common, yolo
from models.common import FusedMBConv, MBConv, ShuffleNetV2_InvertedResidual, UniversalInvertedBottleneckBlock
from models.description.rules import rule_by_names
from models.yolo import DetectionModel
from tests.helpers.descriptions import small
from tests.helpers.project import ROOT, assert_user_error, command


def test_paper_blocks():
    rows = [[-1, 1, "stem", [32, 3, 2]], [-1, 1, "FusedMBConv", [64, 3, 2, 4, 0, "paper=True"]]]
    rows += [
        [-1, 6, "MBConv", [64, 3, 1, 4, 0.25, "paper=True"]],
        [-1, 1, "Conv", [128, 3, 2]],
        [-1, 1, "SPPF", [128, 5]],
    ]
    model = DetectionModel(small(backbone=rows))
    fused, first, second = model.model[1], *model.model[2]
    assert isinstance(fused.project_conv.act, nn.Identity)
    assert isinstance(first.project_conv.act, nn.Identity)
    assert isinstance(first.se.act, nn.SiLU)
    # a quarter of the 32 that come in, not of the 128 expanded
    assert first.se.conv_reduce.weight.shape == (8, 128, 1, 1)
    assert [b.drop_path.p for b in (fused, first, second)] == [0, pytest.approx(0.2 / 3), pytest.approx(0.4 / 3)]


def test_drop_path_keeps_the_mean_and_drops_whole_samples():
    torch.manual_seed(0)
    drop = common.DropPath(0.2)
    out = drop(torch.ones(4000, 2, 3, 3))
    assert set(out.unique().tolist()) == {0.0, 1.25}
    assert out.mean().item() == pytest.approx(1, abs=0.03)
    assert (out.flatten(1).std(1) == 0).all()
    torch.testing.assert_close(drop.eval()(torch.ones(2, 2, 3, 3)), torch.ones(2, 2, 3, 3))


def test_sppf_equals_spp():
    spp, sppf = common.SPP(8, 8).eval(), common.SPPF(8, 8).eval()
    sppf.load_state_dict(spp.state_dict())
    x = torch.rand(1, 8, 20, 20)
    torch.testing.assert_close(sppf(x), spp(x))


def test_expand_undoes_contract():
    x = torch.rand(2, 4, 6, 8)
    contracted = common.Contract()(x)
    assert contracted.shape == (2, 16, 3, 4)
    torch.testing.assert_close(common.Expand()(contracted), x)


def test_every_block_of_the_table_has_a_class_and_a_rule_that_fits_its_constructor():
    for name, rule in yolo.BLOCKS.items():
        block = yolo.find_class(name)
        if rule != "plain" and name != "C3SPP":
            assert rule_by_names(block) == rule, name


@pytest.mark.parametrize(
    ("block", "args"),
    [
        ("DWConv", [64, 3, 1]),
        ("DWConvTranspose2d", [64, 3, 1, 1]),
        ("CrossConv", [64, 3, 1]),
        ("MixConv2d", [64, [1, 3]]),
        ("MixConv2d", [64, [1, 3, 5], 1, False]),
        ("Focus", [64, 3]),
        ("Bottleneck", [64]),
        ("BottleneckCSP", [64]),
        ("C3x", [64]),
        ("C3SPP", [64]),
        ("C3TR", [64]),
        ("GhostBottleneck", [64, 3, 2]),
        ("Contract", [2]),
        ("Expand", [2]),
        ("UniversalInvertedBottleneckBlock", [64, 0, 3, 1, 2, 4]),
        ("nn.Conv2d", [64, 1]),
        ("nn.BatchNorm2d", []),
        ("nn.Identity", []),
    ],
)
def test_blocks_as_rows_learn(block, args):
    description = small(
        backbone=[[-1, 1, "Conv", [64, 3, 2]], [-1, 1, block, args], [-1, 1, "Conv", [64, 3, 2]]],
        head=[[[1, 2], 1, "Detect", ["nc", "anchors"]]],
    )
    model = DetectionModel(description).train()
    sum(m.square().mean() for m in model(torch.rand(2, 3, 64, 64))).backward()
    parameters = dict(model.model[1].named_parameters())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters.values())
    assert len(parameters) == len(list(model.model[1].parameters()))


VGG = '''

class VGGStage(nn.Module):
    """n 3×3 convolutions with ReLU, then a 2×2 max-pool (1409.1556)."""

    def __init__(self, in_channels, out_channels, convolutions=2):
        super().__init__()
        layers = []
        for _ in range(convolutions):
            layers += [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU()]
            in_channels = out_channels
        self.layers = nn.Sequential(*layers, nn.MaxPool2d(2))

    def forward(self, x):
        return self.layers(x)
'''


def test_a_pasted_block_works_after_adding_its_name(tmp_path):
    copy = tmp_path / "project"
    for folder in ("models", "utils"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    with open(copy / "models" / "common.py", "a") as f:
        f.write(VGG)
    yaml = (
        (ROOT / "models" / "yolov5n.yaml")
        .read_text()
        .replace("[-1, 1, Conv, [128, 3, 2]]   ", "[-1, 1, VGGStage, [128, 3]]")
    )
    assert "VGGStage" in yaml
    (copy / "models" / "vgg.yaml").write_text(yaml)
    assert_user_error(
        command(copy / "models" / "yolo.py", "--cfg", "vgg.yaml"), "layer 1", "VGGStage", "add its name to BLOCKS"
    )
    table = copy / "models" / "yolo.py"
    table.write_text(table.read_text().replace('    # "YourBlock": None,', '    "VGGStage": None,'))
    result = command(table, "--cfg", "vgg.yaml")
    assert result.returncode == 0, result.stderr
    row = next(line for line in result.stdout.splitlines() if "VGGStage" in line)
    weights = (16 * 32 + 2 * 32 * 32) * 9 + 3 * 32
    assert str(weights) in row and "32×160×160" in row and row.endswith("4")


def test_blocks_refuse_what_they_cannot_be():
    with pytest.raises(ValueError, match="stride must be 1 or 2"):
        ShuffleNetV2_InvertedResidual(8, 8, 3)
    with pytest.raises(ValueError, match="even"):
        ShuffleNetV2_InvertedResidual(8, 9, 2)
    with pytest.raises(ValueError, match="no place"):
        UniversalInvertedBottleneckBlock(8, 8, 3, 0, 1, 2)


@pytest.mark.parametrize("form", [(3, 3), (0, 3), (3, 0), (0, 0)])
def test_the_four_forms_of_the_universal_bottleneck(form):
    block = UniversalInvertedBottleneckBlock(8, 16, *form, expand_ratio=4)
    depthwise = [m for m in block.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert [m.groups for m in depthwise] == [c for c, k in zip((8, 32), form, strict=True) if k]
    assert block(torch.rand(1, 8, 6, 6)).shape == (1, 16, 6, 6)


def test_stride_of_the_universal_bottleneck_sits_where_it_is_told():
    for downsample in (1, 0):
        block = UniversalInvertedBottleneckBlock(8, 8, 3, 3, downsample, 2)
        assert block._middle_dw.conv.stride == ((2, 2) if downsample else (1, 1))
        assert block._start_dw_.conv.stride == ((1, 1) if downsample else (2, 2))


def test_residual_only_where_the_shape_stays():
    assert MBConv(8, 8, 3, 1).add and FusedMBConv(8, 8, 3, 1).add
    assert not MBConv(8, 8, 3, 2).add and not FusedMBConv(8, 16, 3, 1).add
