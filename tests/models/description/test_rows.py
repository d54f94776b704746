"""What a row of a model YAML means, and what mistakes in it say."""

import pytest
from torch import nn

from models.yolo import DetectionModel
from tests.helpers.descriptions import small, with_row
from utils.errors import UserError


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


def test_repeats_follow_the_depth_multiple():
    model = DetectionModel(with_row(1, [-1, 9, "Conv", [64, 3, 2]]))
    assert len(model.model[1]) == 3  # 9 × 0.33, rounded
    # only the first block changes the channels
    assert [block.conv.weight.shape[:2] for block in model.model[1]] == [(32, 16), (32, 32), (32, 32)]
    assert [row.built_number for row in model.rows[:3]] == [1, 3, 1]


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
