"""Models from YAML: figures, structure, what a row means, and what mistakes in it say."""

import json
import shutil

import pytest
import torch
from torch import nn

from models import common, yolo
from models.common import Conv, FusedMBConv, MBConv, ShuffleNetV2_InvertedResidual, UniversalInvertedBottleneckBlock
from models.description.find import find_model_yaml, model_yamls
from models.description.rows import infer_rule
from models.flops import count_gflops, count_parameters
from models.fuse import fuse_conv_bn
from models.yolo import DetectionModel
from tests.conftest import ROOT, SHARED, assert_user_error, command
from utils.errors import UserError

FACTS = json.loads((SHARED / "reference" / "model_facts.json").read_text()) if SHARED.exists() else {}
ROWS = json.loads((SHARED / "reference" / "model_rows.json").read_text()) if SHARED.exists() else {}
OWN_CONVOLUTIONS = {"yolov5s_EfficientNetV2", "yolov5l_ShuffleNetV2", "yolov5n_C3_UIB"}


def small(**changes) -> dict:
    """The description of a small two-level model, for tests to break."""
    description = {
        "nc": 3,
        "depth_multiple": 0.33,
        "width_multiple": 0.5,
        "anchors": [[10, 13, 16, 30], [33, 23, 30, 61]],
        "backbone": [
            [-1, 1, "Conv", [32, 3, 2]],
            [-1, 1, "Conv", [64, 3, 2]],
            [-1, 3, "C3", [64]],
            [-1, 1, "Conv", [128, 3, 2]],
            [-1, 1, "SPPF", [128, 5]],
        ],
        "head": [
            [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
            [[-1, 2], 1, "Concat", [1]],
            [-1, 1, "Conv", [64, 1, 1]],
            [[7, 4], 1, "Detect", ["nc", "anchors"]],
        ],
        "yaml_file": "small.yaml",
    }
    return description | changes


def with_row(index: int, row: list) -> dict:
    description = small()
    rows = description["backbone"] + description["head"]
    rows[index] = row
    return description | {"backbone": rows[:5], "head": rows[5:]}


def random_statistics(model: nn.Module) -> nn.Module:
    """Give every BatchNorm something to do."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 1.5),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                tensor.uniform_(low, high, generator=generator)
    return model


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


def test_row_one_keeps_24_channels_for_3_classes():
    # na·(nc+5) = 24 for three classes, and such a row is not scaled: checkpoints of forks have these shapes
    model = DetectionModel("yolov5s_EfficientNetV2.yaml", nc=3)
    assert count_parameters(model)[0] == 5_608_184
    assert model.model[0].conv.weight.shape == (24, 3, 3, 3)


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


def test_biases_start_from_the_expected_number_of_objects():
    model = DetectionModel(small())
    for conv, stride in zip(model.detect.m, (4, 8), strict=True):
        bias = conv.bias.view(2, -1)
        fan_in = conv.weight.shape[1]
        assert torch.allclose(bias[:, 4].exp(), torch.tensor(8 / (640 / stride) ** 2), rtol=2 * fan_in**-0.5)
    assert model.stride.tolist() == [4, 8]
    torch.testing.assert_close(model.detect.anchors[0] * 4, torch.tensor([[10.0, 13], [16, 30]]))


def test_anchors_are_turned_to_the_order_of_the_strides():
    model = DetectionModel(small(head=[*small()["head"][:-1], [[4, 7], 1, "Detect", ["nc", "anchors"]]]))
    assert model.stride.tolist() == [8, 4]
    assert model.detect.anchors[0, 0].tolist() == [33 / 8, 23 / 8]


def test_test_time_augmentation_merges_three_views():
    torch.manual_seed(0)
    model = random_statistics(DetectionModel(small())).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        plain, merged = model(image)[0], model(image, augment=True)[0]
        _, maps = model(image)
    first = maps[0][0, ..., 0].numel()
    # the first view without its coarsest level leads the result
    torch.testing.assert_close(merged[:, :first], plain[:, :first])
    sizes = [64, -(-64 * 0.83 // 8) * 8, -(-64 * 0.67 // 8) * 8]
    fine, coarse = [2 * (s / 4) ** 2 for s in sizes], [2 * (s / 8) ** 2 for s in sizes]
    assert merged.shape[1] == fine[0] + fine[1] + coarse[1] + coarse[2]


def test_the_flipped_view_is_flipped_back():
    class Constant(nn.Module):
        i, f = 0, -1
        stride = torch.tensor([32.0])

        def forward(self, x):
            box = torch.tensor([[[10.0, 20, 4, 6, 1, 1]]])
            return box.clone(), [torch.zeros(1, 1, 1, 1, 6)]

    model = DetectionModel(small()).eval()
    model.model = nn.Sequential(Constant())
    merged = model(torch.zeros(1, 3, 64, 64), augment=True)[0][0]
    expected = [
        [10, 20, 4, 6],
        [64 - 10 / 0.83, 20 / 0.83, 4 / 0.83, 6 / 0.83],
        [10 / 0.67, 20 / 0.67, 4 / 0.67, 6 / 0.67],
    ]
    torch.testing.assert_close(merged[:, :4], torch.tensor(expected))


def test_activation_of_the_yaml_reaches_every_conv_and_nothing_else():
    model = DetectionModel(small(activation="nn.LeakyReLU(0.1)"))
    acts = {type(m.act) for m in model.modules() if isinstance(m, Conv)}
    assert acts == {nn.LeakyReLU}
    assert isinstance(Conv(1, 1).act, nn.SiLU)
    with pytest.raises(UserError, match=r"small.yaml: activation 'nn.Nope\(\)'"):
        DetectionModel(small(activation="nn.Nope()"))
    assert isinstance(Conv(1, 1).act, nn.SiLU)


def test_nothing_in_a_yaml_is_evaluated(tmp_path):
    trap = f"__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch()"
    for description in (
        small(activation=trap),
        with_row(0, [-1, 1, "Conv", [32, 3, trap]]),
        with_row(0, [-1, 1, trap, [32]]),
        with_row(0, [-1, 1, "Conv", [32, f"k={trap}"]]),
    ):
        with pytest.raises(UserError):
            DetectionModel(description)
    assert not (tmp_path / "ran").exists()


def test_keyword_arguments_and_modules_in_rows():
    model = DetectionModel(with_row(1, [-1, 1, "Conv", [64, 3, 2, "act=nn.Mish()"]]))
    assert isinstance(model.model[1].act, nn.Mish)
    model = DetectionModel(with_row(1, [-1, 1, "Conv", [64, 3, 2, {"g": 2}]]))
    assert model.model[1].conv.groups == 2


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
    assert first.se.conv_reduce.weight.shape == (
        8,
        128,
        1,
        1,
    )  # a quarter of the 32 that come in, not of the 128 expanded
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
            assert infer_rule(block) == rule, name


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


def test_repeats_follow_the_depth_multiple():
    model = DetectionModel(with_row(1, [-1, 9, "Conv", [64, 3, 2]]))
    assert len(model.model[1]) == 3  # 9 × 0.33, rounded
    # only the first block changes the channels
    assert [block.conv.weight.shape[:2] for block in model.model[1]] == [(32, 16), (32, 32), (32, 32)]
    assert [row.built_number for row in model.rows[:3]] == [1, 3, 1]


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


@pytest.mark.parametrize(
    ("index", "row", "words"),
    [
        (0, [-1, 1, "Convv", [32]], ["layer 0", "[-1, 1, Convv, [32]]", "unknown block Convv", "did you mean Conv"]),
        (2, [-1, 3, "C3", ["wide"]], ["layer 2", "output channels", "positive whole number"]),
        (3, [9, 1, "Conv", [128, 3, 2]], ["layer 3", "9 is not an earlier layer", "0 to 2"]),
        (3, [-5, 1, "Conv", [128, 3, 2]], ["layer 3", "-5 reaches before the first layer"]),
        (
            6,
            [[-1, 1, 0], 1, "Concat", [1]],
            ["layer 6", "inputs differ in size", "layer 0 is 320×320", "Layers at 160×160: 2"],
        ),
        (2, [-1, 0, "C3", [64]], ["layer 2", "number is 0"]),
        (2, [-1, "C3", [64]], ["layer 2", "four parts"]),
        (1, [-1, 1, "Conv", [64, 3, 2, 1, 7]], ["layer 1", "Conv(16, 32, 3, 2, 1, 7)", "divisible by groups"]),
        (1, [-1, 1, "nn.Conv3d", [64, 1]], ["layer 1", "nn.Conv3d"]),
        (1, [-1, 1, "nn.Flatten", []], ["layer 1", "returns a tensor of 2 dimensions"]),
        (1, [-1, 1, "nn.Linear", [7, 7]], ["layer 1", "nn.Linear does not fit its input 16×320×320"]),
        (8, [[7, 4, 2], 1, "Detect", ["nc", "anchors"]], ["layer 8", "3 inputs", "anchors for 2 outputs"]),
        (3, [-1, 1, "ShuffleNetV2_InvertedResidual", [128, 1]], ["layer 3", "stride 1 keeps the channels", "32", "64"]),
    ],
)
def test_mistakes_in_a_row_name_the_row_and_the_remedy(index, row, words):
    with pytest.raises(UserError) as error:
        DetectionModel(with_row(index, row))
    for word in ["small.yaml", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nc": 0}, ["nc is 0"]),
        ({"anchors": []}, ["anchors is []"]),
        ({"backbone": 50}, ["backbone must be a list of rows", "or the name of a network"]),
        ({"head": small()["head"][:-1]}, ["last row of the head must be Detect"]),
        ({"anchors": [[10, 13, 16], [33, 23, 30]]}, ["width,height pairs"]),
    ],
)
def test_mistakes_in_a_description(changes, words):
    with pytest.raises(UserError) as error:
        DetectionModel(small(**changes))
    for word in ["small.yaml", *words]:
        assert word in str(error.value)


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


def test_the_command_prints_layers_and_both_summaries():
    result = command("models/yolo.py")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "[3, 16, 3, 2]" in lines[1] and "16×320×320" in lines[1] and lines[1].endswith(" 2")
    assert "yolov5s_EfficientNetV2 summary: 393 layers, 5,800,373 parameters, 5,800,373 gradients, 5.5 GFLOPs" in lines
    assert "yolov5s_EfficientNetV2 fused summary: 318 layers, 5,782,705 parameters, 0 gradients, 5.4 GFLOPs" in lines


def test_the_command_profiles():
    result = command(
        "models/yolo.py", "--cfg", "yolov5n.yaml", "--imgsz", 64, "--batch-size", 2, "--profile", "--line-profile"
    )
    assert result.returncode == 0, result.stderr
    assert "batch 2 of 64×64" in result.stdout and "forward + backward" in result.stdout
    shares = [float(line.split()[-1][:-1]) for line in result.stdout.splitlines() if line.endswith("%")]
    assert len(shares) == 25 and sum(shares) == pytest.approx(100, abs=1.5)


def test_the_command_tests_every_yaml():
    result = command("models/yolo.py", "--test")
    assert result.returncode == 0, result.stderr
    assert f"{len(model_yamls())} of {len(model_yamls())} models built and ran" in result.stdout


def test_the_command_names_a_missing_yaml():
    assert_user_error(
        command("models/yolo.py", "--cfg", "yolov5z.yaml"), "yolov5z.yaml", "no such model YAML", "did you mean"
    )


def test_every_yaml_has_a_name_of_its_own_and_is_found_by_it_and_by_its_former_path():
    paths = {path.name: path for path in model_yamls()}
    assert len(paths) == len(model_yamls()) == len(list((ROOT / "models").rglob("*.yaml"))) == 63
    for name, path in paths.items():
        for spelling in (name, f"models/{name}"):
            assert (ROOT / find_model_yaml(spelling)[1]).samefile(path)
