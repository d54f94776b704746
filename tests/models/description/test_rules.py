"""How rows are read: names of layers, channels that write-ups give, networks as first rows, and blocks that are not there."""

import copy

import pytest
import torch
import yaml

from models.yolo import DetectionModel
from tests.helpers.project import ROOT
from utils.errors import UserError

STOCK = yaml.safe_load((ROOT / "models" / "yolov5n.yaml").read_text())


def changed(rows: dict[int, object]) -> dict:
    """yolov5n with other rows in the places of these."""
    description = copy.deepcopy(STOCK) | {"yaml_file": "my.yaml"}
    backbone, head = description["backbone"], description["head"]
    for index, row in rows.items():
        section, place = (backbone, index) if index < len(backbone) else (head, index - len(backbone))
        section[place] = row
    return description


def said(rows: dict[int, object]) -> str:
    with pytest.raises(UserError) as raised:
        DetectionModel(changed(rows))
    return str(raised.value)


def row_of(index: int) -> list:
    return copy.deepcopy([*STOCK["backbone"], *STOCK["head"]][index])


def named(index: int, name: object, source: object = None) -> list:
    row = row_of(index)
    return [row[0] if source is None else source, *row[1:], name]


def test_layers_are_taken_by_name():
    rows = {
        4: named(4, "low"),
        6: named(6, "mid"),
        12: [[-1, "mid"], 1, "Concat", [1]],
        16: [["low", -1], 1, "Concat", [1]],
    }
    model = DetectionModel(changed(rows))
    assert (model.rows[12].source, model.rows[16].source) == ([-1, 6], [4, -1])
    assert not model.warnings and {4, 6} <= set(model.save)
    # a row more, and the names still mean the same layers
    description = changed(rows)
    description["backbone"].insert(3, [-1, 1, "Conv", [128, 3, 1]])
    more = DetectionModel(description)
    assert (more.rows[13].source, more.rows[17].source) == ([-1, 7], [5, -1])
    # from a checkpoint's description, too
    assert [r.source for r in DetectionModel(more.yaml).rows] == [r.source for r in more.rows]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({4: named(4, "P3")}, "P3 can't be its name: it stands for a level of a backbone by name"),
        ({4: named(4, -1)}, "its fifth part is -1; it is a name for the layer, such as low"),
        ({4: named(4, "a b")}, "its fifth part is 'a b'; it is a name"),
        ({4: named(4, "low"), 5: named(5, "low")}, "the name low is that of layer 4; each names one layer"),
        ({4: named(4, "low"), 12: [[-1, "lov"], 1, "Concat", [1]]}, "names of earlier rows; did you mean low?"),
        ({4: named(4, "low", "low")}, "`from` holds 'low'; it takes layer numbers"),
        ({4: [*named(4, "low"), 1]}, "a row has four parts, [from, number, module, args]; this one has 6"),
    ],
)
def test_names_that_name_no_layer(rows, words):
    message = said(rows)
    assert message.startswith("my.yaml, layer ") and words in message


@pytest.mark.parametrize("block", ["SE", "CBAM", "CoordAtt", "ECA", "SOCA", "SimAM", "MobileMQA"])
def test_attention_takes_the_channels_that_write_ups_give_it(block):
    """Each number once: the same model as without, and one line about all of its rows."""
    given = DetectionModel(changed({2: [-1, 1, block, [128]], 9: [-1, 1, block, [1024]]}))
    without = DetectionModel(changed({2: [-1, 1, block, []], 9: [-1, 1, block, []]}))
    assert [r.parameters for r in given.rows] == [r.parameters for r in without.rows]
    told = [w for w in given.warnings if "keeps its channels" in w]
    assert len(told) == 2 and "layer 9: " in told[1] and "1024 is taken for them, and [] is enough" in told[1]
    twice = DetectionModel(changed({8: [-1, 1, block, [1024]], 9: [-1, 1, block, [1024]], 7: row_of(7)}))
    assert [w for w in twice.warnings if "keeps" in w][0].startswith("my.yaml, layers 8, 9: ")


def test_other_channels_than_those_that_come_in_are_an_error():
    message = said({9: [-1, 1, "CBAM", [512]]})
    assert "CBAM keeps the 256 channels that come in and takes no output channels; take 512 out: []" in message
    # a value that is meant, however large
    assert DetectionModel(changed({9: [-1, 1, "SE", [64]]})).rows[9].built_args == [256, 64]


def test_all_unknown_blocks_are_told_at_once():
    rows = {2: [-1, 1, "C2f", [128]], 4: [-1, 1, "C2f", [128]], 6: [-1, 1, "Foo", [128]], 9: [-1, 1, "CA", [1024, 32]]}
    message = said(rows)
    assert message.startswith("my.yaml: unknown blocks: C2f (layers 2, 4), Foo (layer 6; did you mean Focus?), ")
    assert "CA (layer 9; CoordAtt is its name here). A block of your own goes into models/common.py" in message
    assert "layer 9 [-1, 1, CA, [1024, 32]]: unknown block CA; CoordAtt is its name here." in said({9: rows[9]})


@pytest.mark.parametrize(
    "head", ["IDetect", "IAuxDetect", "DetectX", "ASFF_Detect", "Decoupled_Detect", "Detect_DyHead"]
)
def test_heads_of_other_projects_are_named_with_what_stands_in_for_them(head):
    message = said({24: [[17, 20, 23], 1, head, ["nc", "anchors"]]})
    assert f"{head} is a head of another project and not built in: Detect takes " in message


@pytest.mark.parametrize("dots", ["...", ["..."]])
def test_dots_stand_for_rows_that_are_left_out(dots):
    assert "three dots stand for rows that a write-up leaves out" in said({5: dots})


def network_rows(name: str) -> dict:
    """A network as the first row and a head that counts its maps as layers 0 to 4, as such YAMLs do."""
    description = copy.deepcopy(STOCK) | {
        "yaml_file": "my.yaml",
        "backbone": [[-1, 1, name, []], [-1, 1, "SPPF", [1024, 5]]],
    }
    head = description["head"]
    for row, source in ((2, [-1, 3]), (6, [-1, 2]), (9, [-1, 10]), (12, [-1, 6])):
        head[row][0] = source
    head[14][0] = [13, 16, 19]
    return description


def test_a_network_of_torchvision_as_the_first_row():
    model = DetectionModel(network_rows("resnet18"))
    assert [r.source for r in model.rows if r.block == "Concat"] == [[-1, "P4"], [-1, "P3"], [-1, 6], [-1, 2]]
    assert model.stride.tolist() == [8, 16, 32] and model.rows[4].shape == (128 + 256, 40, 40)
    assert (
        len(model.warnings) == 1
        and "gives 5 maps, which this YAML counts as layers 0, 1, 2, 3 and 4" in model.warnings[0]
    )
    assert model.eval()(torch.zeros(1, 3, 64, 64))[0].shape == (1, 3 * (64 + 16 + 4), 85)
    again = DetectionModel(model.yaml)
    assert again.state_dict().keys() == model.state_dict().keys()
    with pytest.raises(UserError, match="is a whole network already: --backbone takes the place of the rows"):
        DetectionModel(network_rows("resnet18"), backbone="resnet50")


def test_a_number_is_scaled_where_the_row_says_so():
    assert DetectionModel(changed({9: [-1, 1, "SPPF", ["1024*width", 5]]})).rows[9].built_args == [256, 256, 5]
    assert DetectionModel(changed({9: [-1, 1, "nn.PReLU", ["1024 * width"]]})).rows[9].built_args == [256]
    assert DetectionModel(changed({9: [-1, 1, "nn.PReLU", ["num_parameters=1024*width"]]})).rows[9].parameters == 256
    assert "the argument" not in said({9: [-1, 1, "nn.PReLU", ["1024*height"]]})
