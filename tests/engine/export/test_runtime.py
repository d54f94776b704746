"""What a Runtime takes from its file on trust: nothing of shapes, classes and numbers."""

import sys
from types import SimpleNamespace

import pytest
import torch

from engine.export.formats.table import FORMATS, Format
from engine.export.metadata import read_values
from engine.export.runtime import Runtime
from utils.errors import UserError

VALUES = {"names": ["a", "b"], "stride": 32, "imgsz": [64, 96], "batch": 1, "dynamic": False, "nms": False}


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """``opened(gives, shape, **values)``: a Runtime of a file whose library gives what ``gives(images)`` says."""
    monkeypatch.setitem(FORMATS, "told", Format("told", ".told"))
    (tmp_path / "a.told").touch()

    def open_file(gives=None, shape=(1, 3, 64, 96), **values):
        def read(file, device):
            metadata = read_values(file, VALUES | values)
            return SimpleNamespace(metadata=metadata, shape=shape, on_cpu="", device=device, run=gives)

        monkeypatch.setitem(sys.modules, "engine.export.formats.told", SimpleNamespace(Reader=read))
        return Runtime(tmp_path / "a.told", trust=True)

    return open_file


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ((1, 3, 64, 64), {}),
        ((2, 3, 64, 96), {}),
        ((1, 3, 64), {}),
        ((None, 3, None, 640), {}),
        ((1, 3, 64, 96), {"batch": 4}),
    ],
)
def test_the_graph_takes_what_the_metadata_say(shape, values, opened):
    with pytest.raises(UserError, match=r"a.told: its graph takes \(.*\), its metadata say batches of \d"):
        opened(shape=shape, **values)


def test_what_the_graph_leaves_open_is_taken_from_the_metadata(opened):
    assert opened(shape=(1, 3, None, None)).fixed_size == (64, 96)
    assert opened(shape=()).channels is None
    assert opened(shape=(None, 3, None, None), dynamic=True).fixed_size is None


def test_images_of_other_channels_are_refused(opened):
    with pytest.raises(UserError, match="takes images of 4 channels, not 3"):
        opened(shape=(1, 4, 64, 96))(torch.zeros(1, 3, 64, 96))


@pytest.mark.parametrize(
    ("gives", "words"),
    [
        (torch.zeros(1, 5, 8), r"torch.float32 \[1, 5, 8\]; a detector of 2 classes gives floats \[1, n, 7\]"),
        (torch.zeros(5, 7), r"torch.float32 \[5, 7\]"),
        (torch.zeros(2, 5, 7), r"torch.float32 \[2, 5, 7\]"),
        (torch.zeros(1, 5, 7, dtype=torch.int64), "torch.int64"),
        ([1, 2], "list"),
    ],
)
def test_what_no_detector_gives_is_one_error(gives, words, opened):
    with pytest.raises(UserError, match=f"a.told: gives {words}"):
        opened(lambda images: gives)(torch.zeros(1, 3, 64, 96))


def test_a_library_that_fails_is_one_error(opened):
    def fail(images):
        raise KeyError("out0\nand more")

    with pytest.raises(UserError, match="^.*a.told: can't be run: 'out0"):
        opened(fail)(torch.zeros(1, 3, 64, 96))


@pytest.mark.parametrize("row", [[0, 0, 9, 9, 0.9, 2], [0, 0, 9, 9, 0.9, -1], [0, 0, float("nan"), 9, 0.9, 1]])
def test_boxes_of_no_class_and_no_number_are_one_error(row, opened):
    runtime = opened(lambda images: torch.tensor([[row]]), nms=True)
    with pytest.raises(UserError, match="gives boxes that are no numbers or of no class"):
        runtime.suppress(runtime(torch.zeros(1, 3, 64, 96))[0])


def test_boxes_without_suppression_are_numbers_too(opened):
    row = [float("inf"), 9.0, 9.0, 9.0, 0.9, 0.9, 0.1]
    runtime = opened(lambda images: torch.tensor([[row]]))
    with pytest.raises(UserError, match="gives boxes that are no numbers"):
        runtime.suppress(runtime(torch.zeros(1, 3, 64, 96))[0])
