"""Blocks of the user's own: --plugins on every command, through training, resuming and checkpoints; and --size."""

import pytest
import torch
from torch import nn

import detect
import train
import val
from engine.training.options import TrainOptions
from engine.training.setup import set_up
from engine.training.trainer import Trainer
from models import plugins
from models.flops import count_parameters
from models.load import described_model
from models.plugins import PLUGINS, load_plugins, register_block
from models.yolo import DetectionModel
from tests.helpers.project import ROOT, assert_user_error, command_here
from tests.helpers.training import options
from utils.checkpoint import read_checkpoint
from utils.errors import UserError

SOURCE = """from torch import nn

from models.plugins import register_block


@register_block
class LargeKernel(nn.Module):
    def __init__(self, c1, c2, k=7):
        super().__init__()
        self.depthwise = nn.Conv2d(c1, c1, k, padding=k // 2, groups=c1)
        self.pointwise = nn.Conv2d(c1, c2, 1)

    def forward(self, x):
        return self.pointwise(self.depthwise(x))
"""


@pytest.fixture(autouse=True)
def no_plugins():
    """Each test begins and ends without registered blocks."""
    PLUGINS.clear()
    yield
    PLUGINS.clear()


@pytest.fixture
def blocks(tmp_path):
    path = tmp_path / "blocks.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def cfg(tmp_path):
    path = tmp_path / "large.yaml"
    stock = (ROOT / "models" / "yolov5n.yaml").read_text()
    path.write_text(stock.replace("[-1, 1, SPPF, [1024, 5]]", "[-1, 1, LargeKernel, [1024, 9]]"))
    assert "LargeKernel" in path.read_text()
    return path


def test_a_registered_block_is_fed_by_the_inferred_rule(blocks, cfg):
    assert load_plugins([str(blocks)]) == [str(blocks)]
    model = DetectionModel(cfg)
    assert model.model[9].depthwise.weight.shape == (256, 1, 9, 9)
    assert PLUGINS["LargeKernel"].origin == str(blocks) and model.rows[9].rule == "channels"


def test_the_decorator_takes_a_rule_and_a_name(tmp_path):
    @register_block("keep")
    class Scale(nn.Module):
        def __init__(self, width, start=1.0):
            super().__init__()
            self.gain = nn.Parameter(torch.full((width, 1, 1), start))

        def forward(self, x):
            return x * self.gain

    assert register_block(rule="repeats", name="Other")(Scale) is Scale
    assert {name: plugin.rule for name, plugin in PLUGINS.items()} == {"Scale": "keep", "Other": "repeats"}
    text = (ROOT / "models" / "yolov5n.yaml").read_text()
    rows = text.replace("[-1, 1, SPPF, [1024, 5]]", "[-1, 2, Scale, [0.5]]")
    path = tmp_path / "scaled.yaml"
    path.write_text(rows)
    model = DetectionModel(path)
    assert model.model[9].gain.shape == (256, 1, 1) and model.model[9].gain.unique().tolist() == [0.5]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "class LargeKernel",
            "class SPPF",
            ["blocks.py, line 6: SPPF is a block of the project itself", 'name="MySPPF"'],
        ),
        ("groups=c1)", "groups=c1", ["blocks.py, line 10: SyntaxError: '(' was never closed"]),
        ("from torch import nn", "import tarch", ["blocks.py, line 1: ModuleNotFoundError: No module named 'tarch'"]),
        (
            "@register_block",
            '@register_block("keeps")',
            ["line 6", "no rule 'keeps'", "channels, repeats, keep, plain"],
        ),
        (
            "@register_block\nclass LargeKernel(nn.Module)",
            "class LargeKernel",
            ["holds no class that extends nn.Module, so no"],
        ),
        ("(nn.Module)", "", ["line 6", "it belongs above a class that extends nn.Module"]),
    ],
)
def test_a_broken_file_is_named_with_its_line(blocks, old, new, words):
    blocks.write_text(SOURCE.replace(old, new, 1))
    with pytest.raises(UserError) as error:
        load_plugins([str(blocks)])
    for word in words:
        assert word in str(error.value)
    assert not PLUGINS


def test_a_missing_file_and_a_name_in_two_files(blocks, tmp_path):
    with pytest.raises(UserError, match="--plugins gone.py: no such Python file"):
        load_plugins(["gone.py"])
    second = tmp_path / "second.py"
    second.write_text(SOURCE)
    with pytest.raises(UserError, match=rf"second.py, line 6: LargeKernel is registered by {blocks} already"):
        load_plugins([str(blocks), str(second)])


def test_a_file_that_was_edited_is_read_anew(blocks, cfg):
    load_plugins([str(blocks)])
    blocks.write_text(SOURCE.replace("c2, 1)", "c2, 1, bias=False)"))
    load_plugins([str(blocks)])
    assert DetectionModel(cfg).model[9].pointwise.bias is None


def test_names_of_the_project_are_kept_also_where_it_is_loaded_later():
    register_block(type("Mine", (nn.Module,), {}))
    with pytest.raises(UserError, match="Mine is a block of the project itself"):
        plugins.reserve({"Mine"})
    plugins._shipped.discard("Mine")


@pytest.mark.slow
def test_plugins_through_training_resuming_validation_and_detection(blocks, cfg, tiny_set, tmp_path, capsys):
    started = options(tiny_set, tmp_path, cfg=str(cfg), plugins=[str(blocks)], epochs=2, name="mine")
    trainer = Trainer(set_up(TrainOptions.of(started)))
    trainer.train_epoch()
    trainer.state.epoch, trainer.state.batches_done = 1, 0
    trainer.save(is_best=True)
    last = trainer.weights / "last.pt"
    saved = read_checkpoint(last)
    assert saved.training["args"]["plugins"] == [str(blocks)]
    assert "LargeKernel" in str(saved.yaml) and b"class LargeKernel" not in last.read_bytes()

    # as in a new process
    PLUGINS.clear()
    with pytest.raises(UserError, match=rf"{last}: was begun with blocks of your own.*: add --plugins {blocks}"):
        train.run(resume=str(last), workers=2)
    assert not PLUGINS
    assert f"--resume {last} --plugins {blocks} " in trainer.last_words()
    resumed = train.run(resume=str(last), workers=2, plugins=[str(blocks)])
    best = resumed / "weights" / "best.pt"
    PLUGINS.clear()
    with pytest.raises(UserError) as error:
        val.run(weights=[str(best)], data=str(tiny_set), project=str(tmp_path / "val"))
    said = str(error.value)
    assert said.startswith(f"{best}: {cfg}, layer 9 [-1, 1, LargeKernel, [1024, 9]]: unknown block LargeKernel")
    assert said.endswith(f"Was it trained with --plugins? Yes, with {blocks}: give that file here, too.")

    moved = tmp_path / "elsewhere.py"
    blocks.rename(moved)
    small = {"weights": [str(best)], "plugins": [str(moved)], "device": "cpu"}
    assert val.run(data=str(tiny_set), imgsz=64, project=str(tmp_path / "val"), workers=0, **small).images == 4
    folder = detect.run(
        source=str(tiny_set.parent / "images" / "val"), imgsz=[64], project=str(tmp_path / "d"), **small
    )
    assert len(list(folder.glob("*.png"))) == 4


def test_a_resumed_run_whose_plugin_has_moved(blocks, cfg, tiny_set, tmp_path):
    started = options(tiny_set, tmp_path, cfg=str(cfg), plugins=[str(blocks)], epochs=2)
    trainer = Trainer(set_up(TrainOptions.of(started)))
    trainer.save()
    blocks.rename(tmp_path / "moved.py")
    last = str(trainer.weights / "last.pt")
    with pytest.raises(
        UserError, match=rf"--plugins {blocks}: no such Python file; where it has moved, name its new place"
    ):
        train.run(resume=last, plugins=[str(blocks)])
    again = Trainer(set_up(TrainOptions.of({"resume": last, "plugins": [str(tmp_path / "moved.py")]})))
    assert type(again.learner.model.model[9]).__name__ == "LargeKernel"
    with pytest.raises(UserError, match=r"--size m: the size of .*last.pt is that of its YAML.* leave --size out"):
        train.run(resume=last, size="m")


def test_the_command_names_a_broken_plugin(blocks, cfg):
    blocks.write_text("import nothing_of_that_name\n")
    message = f"--plugins {blocks}, line 1: ModuleNotFoundError: No module named 'nothing_of_that_name'"
    assert_user_error(command_here("models/yolo.py", "--cfg", cfg, "--plugins", blocks), f"error: {message}")
    for other in (train, val, detect):
        with pytest.raises(UserError) as error:
            other.run(plugins=[str(blocks)])
        assert str(error.value) == message


# Sizes ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "parameters"),
    [("n", 1_872_157), ("s", 7_235_389), ("m", 21_190_557), ("l", 46_563_709), ("x", 86_749_405)],
)
def test_every_size_of_the_stock_model(size, parameters):
    model = DetectionModel("yolov5s.yaml", size=size)
    assert count_parameters(model)[0] == parameters
    assert model.summary(64).startswith(f"yolov5s (size {size}) summary: ")


def test_a_size_that_does_not_exist():
    with pytest.raises(UserError, match=r"yolov5s.yaml: size is 'xxl'; there are n, s, m, l, x"):
        DetectionModel("yolov5s.yaml", size="xxl")


def test_a_size_is_part_of_the_checkpoint(tiny_set, tmp_path, capsys):
    folder = train.run(**options(tiny_set, tmp_path, cfg="yolov5s_EfficientNetV2.yaml", size="n"))
    said = capsys.readouterr().out
    assert "yolov5s_EfficientNetV2 (size n) summary" in said
    assert said.count("warning: ") == said.count("cells of its stride 16") == 1  # once, though the best is loaded anew
    yaml = read_checkpoint(folder / "weights" / "best.pt").yaml
    assert (yaml["size"], yaml["depth_multiple"], yaml["width_multiple"]) == ("n", 0.33, 0.25)
    model = described_model(read_checkpoint(folder / "weights" / "best.pt"), nc=5)
    assert model.name == "yolov5s_EfficientNetV2 (size n)"
    other = described_model(read_checkpoint(folder / "weights" / "best.pt"), size="s")
    assert other.name == "yolov5s_EfficientNetV2 (size s)"
    assert [m.model[3].expansion_conv.conv.weight.shape[1] for m in (model, other)] == [16, 24]


PASTED = """
class SPPF(nn.Module):
    def __init__(self, c1, c2, k=5):
        super().__init__()
        self.cv = Conv(c1, c2, k, 1, None, 1, False)
        self.scale = math.sqrt(2)

    def forward(self, x):
        return self.cv(x) * self.scale
"""


def test_a_file_of_pasted_code_is_taken_as_if_it_stood_in_common(tmp_path, capsys):
    """Without a decorator and without its imports; a class of a built-in's name comes before that."""
    (tmp_path / "mine.py").write_text(PASTED)
    load_plugins([str(tmp_path / "mine.py")])
    model = DetectionModel(ROOT / "models" / "yolov5n.yaml")
    assert model.model[9].scale == pytest.approx(2**0.5) and model.model[9].cv.conv.weight.shape == (256, 256, 5, 5)
    (told,) = [w for w in model.warnings if "SPPF" in w]
    assert told.endswith(f"layer 9: SPPF is that of {tmp_path / 'mine.py'}; the built-in one is not used")
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.fuse().modules())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SPPF", "the class that was pasted lacks shuffle: take it out, and the built-in SPPF is used"),
        ("Own", "its class lacks shuffle, which its forward asks for: copy that, too"),
    ],
)
def test_a_method_that_a_write_up_left_out_is_named(tmp_path, name, words):
    (tmp_path / "mine.py").write_text(PASTED.replace("SPPF", name).replace("* self.scale", "* self.shuffle(x)"))
    text = (ROOT / "models" / "yolov5n.yaml").read_text().replace("SPPF", name)
    (tmp_path / "my.yaml").write_text(text)
    load_plugins([str(tmp_path / "mine.py")])
    with pytest.raises(UserError) as raised:
        DetectionModel(tmp_path / "my.yaml")
    assert f"my.yaml, layer 9 [-1, 1, {name}, [1024, 5]]: {name} does not fit its input" in str(raised.value)
    assert str(raised.value).endswith(words)
