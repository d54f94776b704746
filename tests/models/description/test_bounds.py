"""Descriptions that ask for too much, or for what no layer can be: each ends as one line, before memory is taken."""

import copy

import pytest
import torch
from torch import nn

from models.description import budget, build
from models.description.budget import Budget, TooLarge
from models.description.rows import Row, torch_module
from models.flops import count_gflops
from models.yolo import DetectionModel
from tests.helpers.descriptions import small, with_row
from tests.helpers.project import command_here
from utils.errors import UserError, one_line


def said(description: dict) -> str:
    """The error that this description gives, which is short and has no control characters."""
    with pytest.raises(UserError) as caught:
        DetectionModel(description)
    message = one_line(caught.value)
    assert len(message) < 1200 and message.isprintable()
    return message


def nested(depth: int) -> list:
    found: list = []
    for _ in range(depth):
        found = [found]
    return found


def holding_itself() -> list:
    found: list = [1]
    found.append(found)
    return found


KEYS = {
    "classes": ({"nc": 100_001}, "nc is 100001; it is the number of classes, a whole number from 1 to 100,000"),
    "an infinite depth": ({"depth_multiple": float("inf")}, "depth_multiple is inf; it is a number above 0, at most 100"),
    "a huge width": ({"width_multiple": 1e308}, "width_multiple is 1e+308; it is a number above 0, at most 100"),
    "a width that is no number": ({"width_multiple": float("nan")}, "width_multiple is nan"),
    "a divisor": ({"channel_multiple": 10**9}, "channel_multiple is 1000000000; it is a whole number from 1 to 1024"),
    "widths that are neither": ({"stock_widths": "no"}, "stock_widths is 'no'; false scales every row by width_multiple"),
    "channels of an image": ({"ch": 10**6}, "ch is 1000000; it is a whole number from 1 to 1024"),
    "a count of anchors": ({"anchors": 10**9}, "anchors is 1000000000; write"),
    "anchors without end": ({"anchors": [[1.0] * 400] * 2}, "anchors of output 1 are 200 pairs; 100 are the most"),
    "anchors of no size": ({"anchors": [[1, float("inf")]] * 2}, "anchors of output 1 are [1, inf]; write"),
    "rows": ({"backbone": [[-1, 1, "nn.Identity", []]] * 501}, "backbone has 501 rows; 500 is the most"),
    "keys": ({str(n): n for n in range(200)}, "keys; a model YAML has at most 100"),
    "values": ({"names": ["a"] * 300_000}, "has more than 250,000 values"),
    "levels of lists": ({"names": nested(20_000)}, "its values lie deeper than 10 levels"),
    "a list that holds itself": ({"names": holding_itself()}, "its values lie deeper than 10 levels"),
    "a long text": ({"activation": "x" * 5000}, "holds the text `xxx"),
    "a text that controls a terminal": ({"activation": "\x1b[2J"}, "holds the text `\\x1b[2J`"),
    "a number of thousands of digits": ({"batchnorm": {"eps": 10**6000}}, "holds a whole number of 19932 bits"),
    "a tensor": ({"names": torch.zeros(3)}, "holds a Tensor; a model YAML has texts, numbers, lists and mappings"),
    "a size that is a list": ({"size": ["n"]}, "size is ['n']; there are n, s, m, l, x"),
    "an activation of gigabytes": ({"activation": "nn.PReLU(100000000000)"}, "activation 'nn.PReLU(100000000000)' is no module"),
    "an infinite eps": ({"batchnorm": {"eps": float("inf")}}, "batchnorm is {'eps': inf}"),
    "a deviation of zero": (
        {"backbone": "resnet18", "head": [[["P3", "P4"], 1, "Detect", ["nc", "anchors"]]], "normalize": {"std": [0, 1, 1]}},
        "normalize has std [0, 1, 1]; images are divided by it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KEYS)
def test_values_beyond_all_bounds(kind):
    changes, words = KEYS[kind]
    message = said(small(**changes))
    assert message.startswith("small.yaml: ") and words in message


ROWS = {
    "repeats": ([-1, 10**9, "C3", [64]], "the block would be repeated 330000000 times; 100 is the most"),
    "layers that it takes": ([[-1] * 101, 1, "Concat", [1]], "`from` holds 101 layers; it takes 1 to 100"),
    "no layer that it takes": ([[], 1, "Concat", [1]], "`from` holds 0 layers; it takes 1 to 100"),
    "channels": ([-1, 1, "Conv", [10**9]], "the parameters up to here take"),
    "a kernel": ([-1, 1, "Conv", [64, 10**9]], "cannot be built: RuntimeError"),
    "a kernel of gigabytes": ([-1, 1, "Conv", [64, 10**4]], "the parameters up to here take"),
    "a map": ([-1, 1, "nn.Upsample", ["None", 1000, "nearest"]], "a map of 1×32×160000×160000 has 3,051.8 GB"),
    "padding": ([-1, 1, "nn.ConstantPad2d", [10**6, 0]], "a map of 1×32×"),
    "a stride of three": (
        [-1, 1, "Conv", [64, 3, [1, 1, 1]]],
        "a convolution in Conv has a stride of 3 numbers: (1, 1, 1)",
    ),
    "a dilation of many": (
        [-1, 1, "nn.Conv2d", [64, 3, 1, 1, [1] * 9]],
        "nn.Conv2d has a dilation of 9 numbers: (1, 1, 1",
    ),
    "an empty map": ([-1, 1, "nn.AdaptiveAvgPool2d", [0]], "gives an empty map, 32×0×0, for images of 640 pixels"),
    "an argument of many characters": ([-1, 1, "nn.Upsample", ["(" * 999]], "an argument is a text of 999 characters"),
    "an argument that is a set of lists": ([-1, 1, "nn.Upsample", ["{[]: 1}"]], "nn.Upsample"),
    "a device": ([-1, 1, "nn.Conv2d", [64, 1, "device=meta"]], "asks for the device meta; that is chosen by --device"),
    "a lazy layer": ([-1, 1, "nn.LazyConv2d", [64, 1]], "finds its shape only when it runs"),
    "a class that is no layer": ([-1, 1, "nn.Parameter", []], "unknown block nn.Parameter"),
    "a function": ([-1, 1, "nn.factory_kwargs", []], "unknown block nn.factory_kwargs"),
    "a module without a forward": ([-1, 1, "nn.Module", []], "nn.Module does not fit its input 32×160×160"),
}


@pytest.mark.parametrize("kind", ROWS)
def test_rows_beyond_all_bounds(kind, monkeypatch):
    monkeypatch.setattr(budget, "available_memory", lambda: 4 << 30)
    row, words = ROWS[kind]
    message = said(with_row(2, row))
    assert message.startswith("small.yaml, layer 2 [") and words in message


def test_classes_of_the_head_s_own_row_are_weighed_too(monkeypatch):
    monkeypatch.setattr(budget, "available_memory", lambda: 64 << 20)
    message = said(with_row(8, [[7, 4], 1, "Detect", [100_000, "anchors"]]))
    assert message.startswith("small.yaml, layer 8 [") and "the parameters up to here take" in message


def test_a_network_by_name_is_weighed_too(monkeypatch):
    monkeypatch.setattr(budget, "available_memory", lambda: 64 << 20)
    levels = [[["P3", "P4"], 1, "Detect", ["nc", "anchors"]]]
    assert "backbone torchvision/resnet50: the parameters up to here take" in said(
        small(backbone="resnet50", head=levels)
    )


def test_the_first_row_takes_no_level_of_a_network_that_is_not_there():
    assert "layer 0 [P3, 1, Conv, [8, 3, 2]]: P3 is a level of a backbone by name" in said(
        with_row(0, ["P3", 1, "Conv", [8, 3, 2]])
    )


def test_weighing_changes_no_bit_and_draws_nothing():
    layers = {}
    for name in ("weighed", "not weighed"):
        torch.manual_seed(3)
        with Budget() if name == "weighed" else torch.no_grad():
            layers[name] = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(4, 4)), torch.rand(3)
    (weighed, after), (plain, as_well) = layers.values()
    assert torch.equal(after, as_well)
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in weighed.state_dict().items())


def test_copies_and_endless_work_are_weighed(monkeypatch):
    monkeypatch.setattr(budget, "available_memory", lambda: 1 << 20)
    with pytest.raises(TooLarge, match="the parameters up to here take"), Budget():
        layer = nn.Linear(250, 250)
        copy.deepcopy(layer)
        copy.deepcopy(layer)
    with pytest.raises(TooLarge, match="more than 100,000 operations"), Budget():
        while True:
            torch.ones(1)


def test_a_mistake_is_told_before_an_image_is_tried(monkeypatch):
    """Through a pool of a million pixels one would take minutes."""
    tried, run = [], build._run

    def note(*given, images):
        tried.append(images)
        return run(*given, images=images)

    monkeypatch.setattr(build, "_run", note)
    assert "SPPF does not fit its input 64×80×80" in said(with_row(4, [-1, 1, "SPPF", [128, 910_438]]))
    assert tried and not any(tried)


def test_a_layer_as_an_argument_is_made_of_small_plain_arguments_alone():
    with Budget():
        assert torch_module("nn.Linear(1000000, 1000000)") is None
    assert torch_module("nn.ReLU(inplace=[" * 100) is None
    assert torch_module("nn.MultiheadAttention(3, 2)") is None
    assert isinstance(torch_module("nn.LeakyReLU(0.1)"), nn.LeakyReLU)


def test_a_row_is_shown_short():
    row = Row("my.yaml", 3, -1, 1, "Conv", ["x" * 500, "\x1b[2J"])
    assert len(row.place) < 230 and row.place.isprintable()


def test_images_of_a_size_that_a_model_cannot_take():
    rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "nn.AvgPool2d", [64]]]
    model = DetectionModel(small(backbone=rows, head=[[[0, 1], 1, "Detect", ["nc", "anchors"]]]))
    with pytest.raises(UserError, match="images of 64×64 pixels can't go through this model: RuntimeError"):
        count_gflops(model, 64)


def test_the_command_ends_with_one_line(tmp_path):
    (tmp_path / "my.yaml").write_text(
        "nc: 9\nanchors: 3\nhead: []\nbackbone: [[-1, 1, Conv, [1000000000]]]\ndepth_multiple: 1e999\n"
    )
    result = command_here("models/yolo.py", "--cfg", tmp_path / "my.yaml")
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1 and "depth_multiple" in result.stderr
