"""Model YAMLs as users break them: the whole message, from which the mistake can be mended without reading code."""

import re

import pytest

from models.description.find import model_yamls
from models.yolo import DetectionModel
from tests.helpers.project import ROOT, assert_user_error, command_here
from utils.errors import UserError, one_line

STOCK = (ROOT / "models" / "yolov5s.yaml").read_text()
SPPF = "  - [-1, 1, SPPF, [1024, 5]]      # 9\n"
C3_17 = "  - [-1, 3, C3, [256, False]]                 # 17\n"
DETECT = "  - [[17, 20, 23], 1, Detect, [nc, anchors]]  # 24\n"
EXAMPLE = "write one list of width,height pairs per output, such as [10, 13, 16, 30, 33, 23], or one number (a count)"
SHIFTED = "Where a row was inserted or removed above, every layer number behind it shifts"


@pytest.fixture
def said(tmp_path, monkeypatch):
    """``said(text)``: the error that my.yaml with this text gives, or the warnings where it builds."""
    monkeypatch.chdir(tmp_path)

    def check(text: str) -> str | list[str]:
        (tmp_path / "my.yaml").write_text(text, encoding="utf-8")
        try:
            return DetectionModel("my.yaml").warnings
        except UserError as e:
            return one_line(e)

    return check


def edited(*pairs: tuple[str, str]) -> str:
    """yolov5s.yaml with each first text replaced by the second."""
    text = STOCK
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    return text


BROKEN = {
    "a skip to a layer that comes later": (
        edited(("[[-1, 14], 1, Concat", "[[-1, 21], 1, Concat")),
        "my.yaml, layer 19 [[-1, 21], 1, Concat, [1]]: `from` 21 is not an earlier layer; layers 0 to 18 are. "
        + SHIFTED,
    ),
    "a row deleted, the numbers behind it not shifted": (
        edited(("  - [-1, 1, Conv, [256, 1, 1]]                # 14\n", "")),
        "my.yaml, layer 18 [[-1, 14], 1, Concat, [1]]: inputs differ in size at 640: layer 17 is 40×40, layer 14 is 80×80. "
        "Layers at 40×40: 5, 6, 11, 12, 13. " + SHIFTED,
    ),
    "a strided convolution without padding": (
        edited(("[-1, 1, Conv, [1024, 3, 2]]   # 7", "[-1, 1, nn.Conv2d, [1024, 3, 2]]")),
        "my.yaml, layer 12 [[-1, 6], 1, Concat, [1]]: inputs differ in size at 640: layer 11 is 38×38, layer 6 is 40×40. "
        "Layer 7 [-1, 1, nn.Conv2d, [1024, 3, 2]] gives 19×19, which does not divide 640: give its convolution a padding of "
        "half the kernel",
    ),
    "the same, where no Concat notices": (
        edited(
            ("[-1, 1, Conv, [512, 3, 2]]                # 21", "[-1, 1, nn.Conv2d, [512, 3, 2]]"),
            ("[[-1, 10], 1, Concat, [1]]", "[-1, 1, nn.Identity, []]"),
        ),
        "my.yaml, layer 24 [[17, 20, 23], 1, Detect, [nc, anchors]]: layer 23 is 19×19 at 640, so its stride 33.68 is no "
        "whole number. Layer 21 [-1, 1, nn.Conv2d, [512, 3, 2]] gives 19×19, which does not divide 640: give its "
        "convolution a padding of half the kernel",
    ),
    "a stride in one direction only": (
        edited(
            ("[-1, 1, Conv, [512, 3, 2]]                # 21", "[-1, 1, nn.Conv2d, [512, 3, [2, 1], 1]]"),
            ("[[-1, 10], 1, Concat, [1]]", "[-1, 1, nn.Identity, []]"),
        ),
        "my.yaml, layer 24 [[17, 20, 23], 1, Detect, [nc, anchors]]: layer 23 is 20×40 at 640; Detect takes maps with one "
        "stride for both sides",
    ),
    "channels for a block that keeps them": (
        edited((SPPF, SPPF.replace("SPPF, [1024, 5]", "nn.BatchNorm2d, [2048]"))),
        "my.yaml, layer 9 [-1, 1, nn.BatchNorm2d, [2048]]: nn.BatchNorm2d keeps the 512 channels that come in and takes no "
        "output channels; take 2048 out: []",
    ),
    "groups that do not divide": (
        edited(("[-1, 1, Conv, [512, 3, 2]]    # 5", "[-1, 1, Conv, [512, 3, 2, None, 3]]")),
        "my.yaml, layer 5 [-1, 1, Conv, [512, 3, 2, None, 3]]: Conv(128, 256, 3, 2, None, 3) cannot be built: ValueError: "
        "in_channels must be divisible by groups; 128 channels come in, 512 × width_multiple 0.5 = 256 go out; choose "
        "groups that divide both, or channels that the groups divide",
    ),
    "a width that the heads do not divide": (
        edited(("[-1, 3, C3, [1024]]", "[-1, 3, C3TR, [1024, True, 1, 0.3]]")),
        "my.yaml, layer 8 [-1, 3, C3TR, [1024, True, 1, 0.3]]: C3TR(512, 512, 1, True, 1, 0.3) cannot be built: "
        "AssertionError: embed_dim must be divisible by num_heads; 512 channels come in, 1024 × width_multiple 0.5 = 512 go "
        "out; choose output channels, or a width_multiple, that the number of heads divides",
    ),
    "a comma forgotten before the arguments": (
        edited(("[-1, 6, C3, [256]]", "[-1, 6, C3 [256]]")),
        "my.yaml, line 16: not valid YAML: expected ',' or ']', but got '[' in `- [-1, 6, C3 [256]] # 4`; a comma or a "
        "closing bracket is missing",
    ),
    "a comma forgotten within the arguments": (
        edited(("[1024, 3, 2]", "[1024 3, 2]")),
        "my.yaml, layer 7 [-1, 1, Conv, [1024 3, 2]]: the first argument of Conv is its output channels, a positive whole "
        "number, and '1024 3' is not; write [128] or [128, …]",
    ),
    "a comma of a Chinese keyboard": (
        edited((SPPF, SPPF.replace("[-1,", "[-1，"))),
        "my.yaml, layer 9 [-1， 1, SPPF, [1024, 5]]: type the full-width '，' in half width",
    ),
    "a colon of a Chinese keyboard": (
        edited(("nc: 80", "nc：80")),
        "my.yaml, line 4: not valid YAML: expected '<document start>', but found '<block mapping start>' in "
        "`depth_multiple: 0.33 # factor on the repeats of each row`; type the full-width '：' in half width",
    ),
    "a tab": (
        edited(("  - [-1, 6, C3", "\t- [-1, 6, C3")),
        "my.yaml, line 16: not valid YAML: found character '\\t' that cannot start any token in `- [-1, 6, C3, [256]] # 4`; "
        "indent by spaces: YAML takes no tabs",
    ),
    "a row indented deeper": (
        edited((SPPF, "  " + SPPF)),
        "my.yaml, line 21: not valid YAML: expected <block end>, but found '<block sequence start>' in "
        "`- [-1, 1, SPPF, [1024, 5]] # 9`; indent it like the rows above",
    ),
    "a dash without a space": (
        edited((SPPF, SPPF.replace("- ", "-", 1))),
        "my.yaml, line 21: not valid YAML: could not find expected ':' in `-[-1, 1, SPPF, [1024, 5]] # 9`; a row begins with "
        "a dash and a space, a setting reads `key: value`",
    ),
    "a head pasted below the old one": (
        STOCK + "\nhead:\n" + DETECT,
        "my.yaml, line 40: not valid YAML: `head` is given twice, first in line 23",
    ),
    "the arguments of Upsample as one text": (
        edited(("[None, 2, nearest]", "['None, 2, nearest']")),
        "my.yaml, layer 11 [-1, 1, nn.Upsample, [None, 2, nearest]]: the argument 'None, 2, nearest' is one text; write its "
        "parts without quotes, [None, 2, nearest]",
    ),
    "arguments that are no list": (
        edited(("[-1, 3, C3, [1024]]", "[-1, 3, C3, 1024]")),
        "my.yaml, layer 8 [-1, 3, C3, 1024]: args is 1024; it must be a list, [1024], or [] if there are none",
    ),
    "none for None": (
        edited(("[None, 2, nearest]", "[none, 2, nearest]")),
        "my.yaml, layer 11 [-1, 1, nn.Upsample, [none, 2, nearest]]: 'none' is written None",
    ),
    "an argument of another name": (
        edited((SPPF, SPPF.replace("5]]", "kernel=5]]"))),
        "my.yaml, layer 9 [-1, 1, SPPF, [1024, kernel=5]]: got an unexpected keyword argument 'kernel'; args of SPPF are "
        "[c2, k=5]",
    ),
    "one argument too many": (
        edited((SPPF, SPPF.replace("5]]", "5, 9, 13]]"))),
        "my.yaml, layer 9 [-1, 1, SPPF, [1024, 5, 9, 13]]: too many positional arguments; args of SPPF are [c2, k=5]",
    ),
    "the repeats among the arguments": (
        edited(("[-1, 3, C3, [1024]]", "[-1, 1, C3, [1024, 3, True, 1, 0.5]]")),
        "my.yaml, layer 8 [-1, 1, C3, [1024, 3, True, 1, 0.5]]: too many positional arguments; args of C3 are "
        "[c2, shortcut=True, g=1, e=0.5]",
    ),
    "a block that is not in the table": (
        edited((SPPF, SPPF.replace("SPPF", "SPFF"))),
        "my.yaml, layer 9 [-1, 1, SPFF, [1024, 5]]: unknown block SPFF; did you mean SPPF or SP or SPP? A block of your own goes "
        "into models/common.py and BLOCKS of models/yolo.py, or into a file that is given by --plugins",
    ),
    "two layers for a block that takes one": (
        edited((SPPF, SPPF.replace("-1", "[-1, 6]", 1))),
        "my.yaml, layer 9 [[-1, 6], 1, SPPF, [1024, 5]]: SPPF([512, 256], 512, 5) cannot be built: TypeError: unsupported "
        "operand type(s) for //: 'list' and 'int'; 512 and 256 channels come in, 1024 × width_multiple 0.5 = 512 go out; it "
        "is fed a list of 2 layers, which only blocks that join maps take, such as Concat",
    ),
    "one layer for a Concat": (
        edited(("[[-1, 6], 1, Concat", "[-1, 1, Concat")),
        "my.yaml, layer 12 [-1, 1, Concat, [1]]: `from` of Concat is a list of layers, such as [-1, 6], and here it is -1",
    ),
    "two Detect rows": (
        STOCK + DETECT,
        "my.yaml, layer 24 [[17, 20, 23], 1, Detect, [nc, anchors]]: Detect stands again in layer 25; a model has one, as its "
        "last row",
    ),
    "a row after Detect": (
        STOCK + C3_17,
        "my.yaml, layer 24 [[17, 20, 23], 1, Detect, [nc, anchors]]: the last row of the head must be Detect, but layer 25 "
        "[-1, 3, C3, [256, False]] follows it; move that row up, or take it out",
    ),
    "no Detect": (
        edited((DETECT, "")),
        "my.yaml: the last row of the head must be Detect, and there is none; end the head with a row such as "
        "[[17, 20, 23], 1, Detect, [nc, anchors]]",
    ),
    "a level without anchors": (
        edited(("[[17, 20, 23], 1", "[[2, 17, 20, 23], 1")),
        "my.yaml, layer 24 [[2, 17, 20, 23], 1, Detect, [nc, anchors]]: 4 inputs (layers 2, 17, 20 and 23), but anchors for 3 "
        "outputs; every input needs one list of anchors: add 1 list to `anchors`",
    ),
    "anchors without a level": (
        edited(("[[17, 20, 23], 1", "[[17, 20], 1")),
        "my.yaml, layer 24 [[17, 20], 1, Detect, [nc, anchors]]: 2 inputs (layers 17 and 20), but anchors for 3 outputs; every "
        "input needs one list of anchors: take 1 list out of `anchors`, or name more layers in `from`",
    ),
    "an anchor's height forgotten": (
        edited(("33, 23]", "33]")),
        "my.yaml: anchors of output 1 are [10, 13, 16, 30, 33], which is 5 numbers; they are width,height pairs, so their "
        "count is even: one is missing or too many",
    ),
    "fewer anchors in one output": (
        edited(("59, 119]", "]")),
        "my.yaml: anchors of output 2 are 2 pairs, those of output 1 are 3; every output needs the same number of anchors",
    ),
    "anchors without brackets": (
        edited(("- [10, 13, 16, 30, 33, 23]", "- 10,13, 16,30, 33,23")),
        "my.yaml: anchors of output 1 are '10,13, 16,30, 33,23', a text; put it in brackets, [10,13, 16,30, 33,23]",
    ),
    "all anchors in one list": (
        re.sub(r"anchors:.*?\n\n", "anchors: [10, 13, 16, 30, 33, 23]\n\n", STOCK, flags=re.S),
        f"my.yaml: anchors is [10, 13, 16, 30, 33, 23]; {EXAMPLE}",
    ),
    "the number of classes as text": (
        edited(("nc: 80", "nc: eighty")),
        "my.yaml: nc is 'eighty'; it is the number of classes, a whole number from 1 to 100,000",
    ),
    "a decimal comma": (
        edited(("0.33", "0,33")),
        "my.yaml: depth_multiple is '0,33'; it is a number above 0, at most 100, such as 0.5",
    ),
    "a key misspelt": (
        edited(("head:", "haed:")),
        "my.yaml: `head` is missing; is `haed` meant?",
    ),
    "a row of three parts": (
        edited(("[-1, 3, C3, [1024]]", "[-1, C3, [1024]]")),
        "my.yaml, layer 8 [-1, C3, [1024]]: a row has four parts, [from, number, module, args]; this one has 3",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_yaml_says_how_to_mend_it(kind, said):
    text, message = BROKEN[kind]
    assert said(text) == message


INSERTED = ("  - [-1, 1, Conv, [256, 3, 2]]    # 3\n", "  - [-1, 1, nn.Identity, []]\n  - [-1, 1, Conv, [256, 3, 2]]\n")


def test_a_row_inserted_and_the_numbers_not_shifted(said):
    """It builds, with strides 8, 16, 32, and takes every skip one layer too early."""
    unused, *skips = said(edited(INSERTED))
    assert unused == (
        "my.yaml, layer 24 [-1, 3, C3, [1024, False]]: nothing uses this layer: the next row does not start from it, no later "
        "`from` names it, and Detect takes layers 17, 20 and 23. Name it where it is meant to go, or take the row out"
    )
    assert skips[0] == (
        "my.yaml, layer 13 [[-1, 6], 1, Concat, [1]]: takes layer 6 (Conv), while its stage ends with layer 7 (C3). "
        "Was a row inserted above? Then `from` is [-1, 7] here"
    )
    assert skips[-1].endswith("Was a row inserted above? Then `from` is [18, 21, 24] here")
    assert [int(re.search(r"layer (\d+)", line)[1]) for line in skips] == [13, 17, 20, 23, 25]
    shifted = [("[-1, 6]", "[-1, 7]"), ("[-1, 4]", "[-1, 5]"), ("[-1, 14]", "[-1, 15]"), ("[-1, 10]", "[-1, 11]")]
    assert said(edited(INSERTED, *shifted, ("[17, 20, 23]", "[18, 21, 24]"))) == []


def test_skips_from_before_the_convolutions_that_lead_up_are_no_mistake(said):
    """YOLOv7's own; together with others they are the signature of numbers that were not shifted."""
    up = ("[[-1, 10], 1, Concat", "[[-1, 9], 1, Concat"), ("[[-1, 14], 1, Concat", "[[-1, 13], 1, Concat")
    assert said(edited(*up)) == []
    assert len(said(edited(*up, ("[[-1, 6], 1", "[[-1, 5], 1")))) == 3


def test_a_skip_from_where_the_way_forks_is_no_mistake(said):
    """As before an ELAN block: layer 7 goes to two branches, and on to a later Concat."""
    fork = "  - [-1, 1, Conv, [256, 1, 1]]\n  - [-2, 1, Conv, [256, 1, 1]]\n  - [[-1, -2], 1, Concat, [1]]\n"
    text = edited(("  - [-1, 3, C3, [1024]]           # 8\n", fork))
    later = ("[-1, 4]", "[-1, 4]"), ("[[-1, 14], 1", "[[-1, 16], 1"), ("[[-1, 10], 1", "[[-1, 7], 1")
    for old, new in (*later, ("[17, 20, 23]", "[19, 22, 25]")):
        assert old in text
        text = text.replace(old, new, 1)
    assert said(text) == []


def test_outputs_that_are_not_in_order(said):
    (found,) = said(edited(("[17, 20, 23]", "[23, 20, 17]")))
    assert "layer 24" in found and "strides of its outputs are 32, 16 and 8, not rising" in found
    assert "from fine to coarse" in found


def test_a_key_that_nothing_reads(said):
    assert said(edited(("width_multiple", "width_mutiple"))) == [
        "my.yaml: the key `width_mutiple` is not used; did you mean width_multiple or depth_multiple or channel_multiple?"
    ]


def test_anchors_that_do_not_fit_the_strides_are_told_for_the_published_efficientnetv2_alone():
    found = {path.name: DetectionModel(path, size="n").warnings for path in model_yamls()}
    (warning,) = found.pop("yolov5s_EfficientNetV2.yaml")
    assert warning.partition(", layer 27 ")[2] == (
        "[[20, 23, 26], 1, Detect, [nc, anchors]]: the anchors of output 1 average 20 px, 1.3 cells of its stride 16 "
        "(usual: 2 to 10); they would fit strides 8, 16 and 32, so check the strides of the backbone. Small objects will be "
        "missed; choose layers for `from` whose stride fits, or anchors that do"
    )
    assert set(map(tuple, found.values())) == {()}


def test_outputs_too_fine_for_their_anchors(said):
    finer = [("[64, 6, 2, 2]", "[64, 5, 1, 2]")]  # no stride in the first layer: outputs at 4, 8, 16
    (found,) = said(edited(*finer))
    assert "the anchors of output 3 average 209 px, 13.1 cells of its stride 16" in found
    assert "they would fit strides 8, 16 and 32" in found and "Small objects" not in found


def test_anchors_that_are_counts_or_fit_say_nothing(said):
    assert said(re.sub(r"anchors:.*?\n\n", "anchors: 3\n\n", STOCK, flags=re.S)) == []
    assert said(STOCK) == []


def test_the_command_refuses_errors_and_tells_warnings(tmp_path):
    broken, doubtful = tmp_path / "broken.yaml", tmp_path / "doubtful.yaml"
    broken.write_text(BROKEN["a level without anchors"][0])
    assert_user_error(
        command_here("models/yolo.py", "--cfg", broken), f"error: {broken}, layer 24", "add 1 list to `anchors`"
    )
    doubtful.write_text(edited(INSERTED))
    result = command_here("models/yolo.py", "--cfg", doubtful, "--imgsz", 100)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "warning: --imgsz 100 is no multiple of the largest stride 32; 128 is used"
    assert sum(line.startswith(f"warning: {doubtful}, layer ") for line in lines) == 6
