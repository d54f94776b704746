"""Blocks as write-ups have them, pasted into a copy of the project to the letter: they build, fuse and learn."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers.project import ROOT
from tests.helpers.sets import make_set

HERE = Path(__file__).parent
ROOMS = ("models", "utils", "engine", "data", "train.py")
START = [
    [-1, 1, "Conv", [64, 6, 2, 2]],
    [-1, 1, "Conv", [128, 3, 2]],
    [-1, 1, "Conv", [256, 3, 2]],
    [-1, 1, "Conv", [512, 3, 2]],
]
END = [[[-1], 1, "Detect", ["nc", "anchors"]]]
UP = [[-1, 1, "nn.Upsample", ["None", 2, "nearest"]], [-1, 1, "Conv", [256, 1, 1]]]
# name → rows that follow START (of 256 channels, at stride 16), how its own is read, channels that come out, one of its arguments
ROWS = {
    "GSConv": ([[-1, 1, "GSConv", [256, 1, 1]]], "channels", 128),
    "VoVGSCSP": ([[-1, 1, "VoVGSCSP", [256]]], "repeats", 128),
    "RepNCSPELAN4": ([[-1, 1, "RepNCSPELAN4", [256, 128, 64, 1]]], "channels", 128),
    "AIFI": ([[-1, 1, "AIFI", [1024, 8]]], "keep", 256),
    "SimSPPF": ([[-1, 1, "SimSPPF", [512, 5]]], "keep", 256),
    "SimSPPF2": ([[-1, 1, "SimSPPF2", [512, 512, 5]]], "channels", 256),
    "EVCBlock": ([[-1, 1, "EVCBlock", []]], "channels", 256),
    "CBAM": ([[-1, 1, "CBAM", [512]]], "channels", 256),
    "SE": ([[-1, 1, "SE", [512, 4]]], "keep", 256),
    "ECALayer": ([[-1, 1, "ECALayer", [512]]], "keep", 256),
    "CA": ([[-1, 1, "CA", [512, 32]]], "channels", 256),
    "Concat_bifpn": ([*UP, [[-1, 2], 1, "Concat_bifpn", [256, 256]]], "plain", 128),
    "Add": ([*UP, [[-1, 2], 1, "Add", []]], "plain", 128),
    "Zoom_cat": ([[-1, 1, "Conv", [512, 3, 2]], [[2, 3, -1], 1, "Zoom_cat", []]], "plain", 128 + 256 + 256),
    "ScalSeq": ([[-1, 1, "Conv", [512, 3, 2]], [[2, 3, -1], 1, "ScalSeq", [256]]], "channels", 128),
    "attention_model": ([*UP, [[-1, 2], 1, "attention_model", []]], "keep", 128),
    "CARAFE": ([[-1, 1, "CARAFE", []]], "keep", 256),
    "DCNv2": ([[-1, 1, "DCNv2", [256, 3, 2]]], "channels", 128),
    "C3_DCN": ([[-1, 3, "C3_DCN", [512]]], "repeats", 256),
    "CondConv": ([[-1, 1, "CondConv", [256, 3]]], "channels", 128),
    "C3_Res2Block": ([[-1, 3, "C3_Res2Block", [512]]], "repeats", 256),
    "space_to_depth": ([[-1, 1, "space_to_depth", [1]]], "plain", 1024),
    "ReOrg": ([[-1, 1, "ReOrg", []]], "plain", 1024),
    "HorBlock": ([[-1, 9, "HorBlock", [512]]], "keep", 256),
    "Shuffle_Block": ([[-1, 1, "Shuffle_Block", [512, 2]], [-1, 3, "Shuffle_Block", [512, 1]]], "channels", 256),
    "ES_Bottleneck": ([[-1, 1, "ES_Bottleneck", [256, 2]]], "channels", 128),
    "conv_bn_relu_maxpool": ([[-1, 1, "conv_bn_relu_maxpool", [256]]], "channels", 128),
    "CBH": ([[-1, 1, "CBH", [256, 3, 2]]], "channels", 128),
    "DWConvblock": ([[-1, 1, "DWConvblock", [256, 3, 2]]], "channels", 128),
    "SimConv": ([[-1, 1, "SimConv", [256, 3, 2]]], "channels", 128),
    "RepVGGBlock": ([[-1, 3, "RepVGGBlock", [256]]], "channels", 128),
    "SPPCSP": ([[-1, 1, "SPPCSP", [512]]], "repeats", 256),
    "BottleneckCSP2": ([[-1, 3, "BottleneckCSP2", [256]]], "repeats", 128),
    "Hidden_Block": ([[-1, 1, "Hidden_Block", [512, 96, 3, 1]]], "channels", 256),
    "Mixer": ([[-1, 1, "Mixer", [512, 256]]], "channels", 128),
    "Twice": ([[-1, 1, "Twice", [256]]], "channels", 256),
    "SumConv": ([*UP, [[-1, 2], 1, "SumConv", [512]]], "channels", 256),
}
BUILD = """
import json, sys, torch
from models.yolo import DetectionModel
found = {}
for file in sys.argv[1:]:
    model = DetectionModel(file)
    rows = [[r.block, r.rule, r.shape and r.shape[0], [str(a) for a in r.built_args], r.parameters] for r in model.rows]
    norms = sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    model.eval()
    with torch.no_grad():
        x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        before = model(x)[0]
        after = model.fuse()(x)[0]
    left = sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    far = ((before - after).abs() / before.abs().clamp(min=1)).max().item()
    total = sum(r.parameters for r in model.rows)
    found[file] = dict(rows=rows, norms=norms, left=left, far=far, warnings=model.warnings, parameters=total)
print(json.dumps(found))
"""


def paste(folder: Path, *sources: str, blocks: tuple[str, ...] = ()) -> Path:
    """A copy of the project with ``sources`` at the end of models/common.py and ``blocks`` in BLOCKS."""
    folder.mkdir()
    for room in ROOMS:
        if (ROOT / room).is_dir():
            shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__", "*.cache"))
        else:
            shutil.copy(ROOT / room, folder / room)
    with open(folder / "models" / "common.py", "a") as file:
        file.writelines(f"\n\n{source}" for source in sources)
    table = folder / "models" / "yolo.py"
    lines = "".join(f'    "{name}": None,\n' for name in blocks)
    text = table.read_text()
    assert '    # "YourBlock": None,\n' in text
    table.write_text(text.replace('    # "YourBlock": None,\n', lines))
    return folder


def run(project: Path, *words: str | Path) -> str:
    done = subprocess.run([sys.executable, *map(str, words)], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def description(rows: list, start: list = START) -> dict:
    anchors = [[30, 61, 62, 45, 59, 119]]
    return {
        "nc": 3,
        "depth_multiple": 0.33,
        "width_multiple": 0.5,
        "anchors": anchors,
        "backbone": [*start, *rows],
        "head": END,
    }


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """What became of every row of ROWS, by name, and of fasternet_t0."""
    folder = tmp_path_factory.mktemp("field")
    project = paste(folder / "project", (HERE / "pasted_blocks.txt").read_text(), blocks=(*ROWS, "fasternet_t0"))
    models = {name: description(rows) for name, (rows, *_) in ROWS.items()}
    models["fasternet_t0"] = description(
        [
            [-1, 1, "SPPF", [1024, 5]],
            [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
            [[-1, 3], 1, "Concat", [1]],
            [-1, 1, "C3", [512]],
            [[7, 2], 1, "Concat", [1]],
        ][:4],
        start=[[-1, 1, "fasternet_t0", []]],
    )
    for name, content in models.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    found = json.loads(run(project, "-c", BUILD, *(folder / f"{name}.yaml" for name in models)))
    return {Path(file).stem: result for file, result in found.items()}


@pytest.mark.parametrize("name", ROWS)
def test_a_pasted_block_is_read_as_its_authors_mean(field, name):
    rows, rule, channels = ROWS[name]
    block, found_rule, found_channels, args, _ = field[name]["rows"][len(START) + len(rows) - 1]
    assert (block, found_rule, found_channels) == (name, rule, channels)
    assert field[name]["far"] < 1e-3, "fused, it computes something else"


def test_numbers_of_rows_become_arguments(field):
    last = {name: result["rows"][-2][3] for name, result in field.items()}
    assert last["RepNCSPELAN4"] == ["256", "128", "64", "32", "1"]  # c3 and c4 times the width, c5 not
    assert last["Hidden_Block"] == ["256", "256", "96", "3", "1"]
    assert last["AIFI"] == ["256", "1024", "8"] and last["HorBlock"] == ["256"]
    assert last["SimSPPF"] == ["256", "5"] and last["SimSPPF2"] == ["256", "256", "5"]
    assert last["Concat_bifpn"] == ["128", "128"] and last["ScalSeq"] == ["[128, 256, 256]", "128"]
    assert last["attention_model"] == ["128"] and last["SumConv"] == ["256", "256"]
    assert last["SE"] == ["256", "4"] and last["CBAM"] == ["256", "256"] and last["EVCBlock"] == ["256", "256"]


def test_pasted_pairs_of_convolution_and_batchnorm_are_fused(field):
    for name in ("SimConv", "CBH", "DWConvblock", "Shuffle_Block", "conv_bn_relu_maxpool", "GSConv", "EVCBlock", "CA"):
        assert field[name]["norms"] > field[name]["left"] == 0, name
    # that of SPPCSP which is left stands behind a join
    assert field["RepVGGBlock"]["left"] == 0 and field["SPPCSP"]["left"] == 1


def test_what_was_taken_for_channels_is_told(field):
    (told,) = [w for w in field["SE"]["warnings"] if "SE keeps" in w]
    assert "layer 4: SE keeps its channels: 512 is taken for them, and [4] is enough" in told
    (told,) = [w for w in field["CBAM"]["warnings"] if "CBAM is" in w]
    assert "CBAM is that of models/common.py; the built-in one of models/blocks/attention.py is not used" in told


def test_the_maps_of_a_network_count_as_layers(field):
    """Its YAML counts the four maps as layers 1 to 4, and the rows behind them from 5 on."""
    rows = field["fasternet_t0"]["rows"]
    assert [row[2] for row in rows] == [320, 512, 512, 512 + 160, 256, None]


TUTORIALS = {
    "yolov5s_EfficientNetV2": (5_800_373, ["stem", "FusedMBConv", "MBConv"]),
    "yolov5l_ShuffleNetV2": (21_644_789, ["Conv_maxpool", "ShuffleNetV2_InvertedResidual"]),
    "yolov5n_C3_UIB": (1_434_685, ["C3_UIB"]),
}


@pytest.fixture(scope="module")
def replaced(tmp_path_factory):
    """A copy of the project in which the write-ups' own classes take the place of ours."""
    return paste(tmp_path_factory.mktemp("replaced") / "project", (HERE / "pasted_tutorials.txt").read_text())


@pytest.mark.slow
def test_classes_of_write_ups_pasted_under_their_own_names_take_the_place_of_ours(replaced):
    files = {name: next((ROOT / "models").rglob(f"{name}.yaml")) for name in TUTORIALS}
    found = json.loads(run(replaced, "-c", BUILD, *files.values()))
    ours = json.loads(run(ROOT, "-c", BUILD, *files.values()))
    for name, (parameters, blocks) in TUTORIALS.items():
        result, own = (results[str(files[name])] for results in (found, ours))
        assert result["parameters"] == own["parameters"] == parameters
        assert result["left"] == own["left"] and result["far"] < 1e-3
        told = [w for w in result["warnings"] if "has" in w and "in lines" in w]
        for block in blocks:
            assert any(f"models/common.py has {block} in lines" in w and "the last is used" in w for w in told), block
        assert not any("in lines" in w for w in own["warnings"])


@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
def test_pasted_classes_learn(name, replaced, tmp_path):
    data = make_set(tmp_path / "set")
    run(replaced, "train.py", "--cfg", f"{name}.yaml", "--size", "n", "--data", data, "--imgsz", 64, "--epochs", 1,
        "--batch-size", 2, "--workers", 0, "--device", "cpu", "--noplots", "--project", tmp_path / "runs")  # fmt: skip
    assert (tmp_path / "runs" / "exp" / "weights" / "last.pt").is_file()
