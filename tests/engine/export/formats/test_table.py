"""The table of export formats: a row and a file are all that a format needs."""

import inspect
import re

import pytest
import torch

import engine.export.formats
import export
from engine.detection.detector import load_detector
from engine.export.formats.table import FORMATS, Format, describe_formats, is_exported, open_reader, variants
from engine.export.runtime import Runtime
from tests.helpers.export import images
from tests.helpers.models import make_weights
from tests.helpers.project import ROOT
from utils.errors import UserError

TOY = '''
"""A format of a test: TorchScript under another name."""

from engine.export.formats import torchscript


def write(model, file, settings):
    return torchscript.write(model, file, settings)


class Reader(torchscript.Reader):
    def run(self, images):
        return super().run(images)
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A format that has its row and its file, and nothing else."""
    folder = tmp_path / "formats"
    folder.mkdir()
    (folder / "toy_format.py").write_text(TOY)
    monkeypatch.setattr(engine.export.formats, "__path__", [*engine.export.formats.__path__, str(folder)])
    monkeypatch.setitem(FORMATS, "toy", Format("toy", "_toy", "toybox", ("half", "int8"), module="toy_format"))


def test_a_row_and_a_file_are_a_format(toy, tmp_path):
    assert {"toy", "toy-int8"} <= set(variants())
    parser = export.build_parser()
    assert parser.parse_args(["--include", "toy"]).include == ["toy"]
    (row,) = (line for line in parser.description.splitlines() if line.startswith("toy "))
    assert row.split() == ["toy", "best_toy", "toybox", "half"]
    weights = make_weights(tmp_path / "best.pt", seed=0)
    (result,) = export.run(weights=str(weights), include=["toy"], imgsz=[64])
    assert result.ok and result.file == tmp_path / "best_toy" and is_exported(result.file)
    assert result.difference[0] < 0.01
    with torch.inference_mode():
        pixels = images(1, 64, 64)
        expected = load_detector(weights, torch.device("cpu"))(pixels)[0]
        assert torch.allclose(Runtime(result.file)(pixels)[0], expected, atol=1e-3)
    (refused,) = export.run(weights=str(weights), include=["toy"], imgsz=[64], dynamic=True)
    assert refused.why == "toy is not made with --dynamic here; export it by itself, without"
    with pytest.raises(UserError, match="--dnn: runs ONNX files"):
        open_reader(result.file, torch.device("cpu"), dnn=True)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_a_writer_and_its_readers(name):
    kind = FORMATS[name]
    module = kind.load()
    assert kind.name == name
    assert list(inspect.signature(module.write).parameters) == ["model", "file", "settings"]
    readers = ["Reader", "OpenCVReader"] if kind.dnn else [] if kind.checkpoint else ["Reader"]
    for reader in (getattr(module, reader) for reader in readers):
        assert list(inspect.signature(reader).parameters) == ["file", "device"]
        assert callable(reader.run)


def test_no_suffix_ends_in_another_and_a_checkpoint_is_none_of_them():
    suffixes = [kind.suffix for kind in FORMATS.values()]
    assert not any(a != b and a.endswith(b) for a in suffixes for b in suffixes)
    assert len(set(suffixes)) == len(suffixes)
    assert not is_exported("best.pt") and not is_exported("best_stock.pt") and not is_exported("best.engine.yaml")
    with pytest.raises(UserError, match="known are .pt and .torchscript .onnx"):
        open_reader(ROOT / "README.md", torch.device("cpu"), dnn=False)


def test_ways_of_a_format_are_told_apart():
    assert [name for name, way in variants().items() if way.dnn] == ["onnx-dnn"]
    assert [name for name, way in variants().items() if way.int8] == ["openvino-int8"]
    assert variants()["onnx-dnn"].format is variants()["onnx"].format is FORMATS["onnx"]


@pytest.mark.parametrize("page", ["deploy.md", "deploy.zh-CN.md"])
def test_the_table_of_the_docs_says_the_same(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    rows = {row[0]: row[1:] for row in re.findall(r"^\| `(\w+)` \| `(best\S+?)`.*? \| (.*) \| (.*) \|$", text, re.M)}
    assert list(rows) == list(FORMATS)
    for name, (file, packages, flags) in rows.items():
        kind = FORMATS[name]
        assert file.rstrip("/") == f"best{kind.suffix}"
        assert packages.strip("`").replace("–", "") == kind.packages.partition(",")[0]
        assert set(re.findall(r"--(\w+)`", flags)) - {"label"} == set(kind.flags)


def test_the_table_of_help_is_straight():
    heading, *rows = describe_formats().splitlines()
    starts = [heading.index(word) for word in ("--include", "file", "pip install", "flags")]
    for kind, row in zip(FORMATS.values(), rows, strict=True):
        name, file, packages, flags = (row[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True))
        assert (name, file.rstrip("/"), packages) == (kind.name, f"best{kind.suffix}", kind.packages)
        assert set(flags.split()) == set(kind.flags) & {"dynamic", "nms", "half"}
