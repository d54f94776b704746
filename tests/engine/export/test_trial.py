"""Files of others are tried out in a process of their own."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

import engine.export.trial
from engine.export.formats.onnx import export_onnx
from engine.export.runtime import Runtime
from engine.export.trial import limit_memory, try_out
from tests.helpers.export import export_quietly, images, lively
from tests.helpers.models import make_weights
from utils.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a process is forked off on Linux only")


@pytest.fixture(autouse=True)
def strangers(tmp_path, monkeypatch):
    """No file is this user's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nowhere"))


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    pytest.importorskip("onnx")
    return export_onnx(lively("yolov5n.yaml"), tmp_path_factory.mktemp("onnx") / "best.onnx", (64, 64))


def children() -> set[int]:
    """The processes that this one has, such as those of tests before this one; also ended ones that it has not asked after."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/status"):
        # it may have ended meanwhile
        with suppress(OSError):
            if f"\nPPid:\t{os.getpid()}\n" in status.read_text():
                found.add(int(status.parent.name))
    return found


def refuse():
    raise UserError("a mistake")


def take_memory():
    limit_memory(1 << 28)
    try:
        np.zeros(1 << 30, np.uint8).sum()
    except MemoryError:
        refuse()


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (refuse, "^a mistake$"),
        (take_memory, "^a mistake$"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), r"a.onnx: the library .* crashes upon it \(SIGSEGV\)"),
        (lambda: time.sleep(60), "a.onnx: was not loaded and run in 1 s; --trust runs it without"),
    ],
)
def test_how_a_trial_ends_is_one_error(use, words, tmp_path, monkeypatch):
    monkeypatch.setattr(engine.export.trial, "SECONDS", 1)
    before = children()
    with pytest.raises(UserError, match=words):
        try_out(tmp_path / "a.onnx", 1000, use)
    assert children() == before


@pytest.mark.parametrize("use", [lambda: None, lambda: 1 / 0])
def test_what_ends_well_and_what_is_a_fault_of_ours_goes_on(use, tmp_path):
    assert try_out(tmp_path / "a.onnx", 1000, use) is None


@pytest.mark.parametrize("name", ["onnx", "onnx-dnn", "openvino", "ncnn"])
def test_a_sound_file_of_others_runs_as_ones_own(name, tmp_path, monkeypatch):
    """In a process that has run one already, with threads that the trial has not."""
    kind, dnn = name.removesuffix("-dnn"), name.endswith("dnn")
    (result,) = export_quietly(make_weights(tmp_path / "best.pt", seed=0), kind, imgsz=[64])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    pixels, threads = images(1, 64, 64), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        known = Runtime(result.file, dnn=dnn, trust=True)(pixels)[0]
        boxes = Runtime(result.file, dnn=dnn)(pixels)[0]
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(boxes, known, rtol=0, atol=0)


def test_a_file_upon_which_opencv_crashes_is_one_error(onnx_file, tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(onnx_file))
    next(node for node in model.graph.node if node.op_type == "Constant").op_type = "Transpose"
    onnx.save(model, str(tmp_path / "damaged.onnx"))
    with pytest.raises(UserError, match="damaged.onnx: the library that runs it crashes upon it"):
        Runtime(tmp_path / "damaged.onnx", dnn=True)


@pytest.mark.parametrize("what", ["memory", "loop"])
def test_a_graph_that_asks_for_too_much_is_one_error(what, onnx_file, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, model = onnx.helper, onnx.load(str(onnx_file))
    for node in model.graph.node:
        node.output[:] = ["boxes" if name == "output0" else name for name in node.output]
    if what == "memory":
        repeats = onnx.numpy_helper.from_array(np.array([1, 1 << 24, 1], np.int64), "repeats")
        model.graph.initializer.append(repeats)
        model.graph.node.append(helper.make_node("Tile", ["boxes", "repeats"], ["output0"]))
    else:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1 << 50), "trips"))
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "go"))
        ends = [
            helper.make_tensor_value_info(name, kind, shape)
            for name, kind, shape in (("i", 7, []), ("c", 9, []), ("x", 1, None), ("c2", 9, []), ("x2", 1, None))
        ]
        nodes = [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Relu", ["x"], ["x2"])]
        body = helper.make_graph(nodes, "body", ends[:3], ends[3:])
        model.graph.node.append(helper.make_node("Loop", ["trips", "go", "boxes"], ["output0"], body=body))
    onnx.save(model, str(tmp_path / "greedy.onnx"))
    # of few trips at the size of a trial, and of hours at that of an image
    words = (
        "can't be run" if what == "memory" else "greedy.onnx: has a Loop, which may go on without end; --trust runs it"
    )
    with pytest.raises(UserError, match=words):
        Runtime(tmp_path / "greedy.onnx")
