"""ONNX: what ONNX Runtime computes from our files is what PyTorch computes."""

import ast

import cv2
import numpy as np
import pytest
import torch

from engine.export.formats.onnx import export_onnx
from engine.export.graph import ExportGraph
from engine.export.runtime import Runtime
from models.yolo import DetectionModel, read_model_yaml
from tests.helpers.export import images, lively
from utils.boxes import non_max_suppression
from utils.errors import UserError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def model() -> DetectionModel:
    return lively("yolov5n.yaml")


def run_onnx(file, pixels: torch.Tensor) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(str(file)).run(None, {"images": pixels.numpy()})


def assert_same(model: DetectionModel, file, pixels: torch.Tensor) -> None:
    """Raw maps to 1e-4, boxes to 0.01 px."""
    with torch.inference_mode():
        boxes, maps = model(pixels)
    exported, *exported_maps = run_onnx(file, pixels)
    for ours, theirs in zip(maps, exported_maps, strict=True):
        assert np.abs(ours.numpy() - theirs).max() < 1e-4
    difference = np.abs(boxes.numpy() - exported)
    assert difference[..., :4].max() < 0.01
    assert difference[..., 4:].max() < 1e-4


@pytest.mark.parametrize(
    "cfg",
    ["yolov5n.yaml", "yolov5s_EfficientNetV2.yaml", "yolov5l_ShuffleNetV2.yaml", "yolov5n_C3_UIB.yaml"],
)
def test_static_and_dynamic_onnx_equal_pytorch(cfg, tmp_path):
    model = lively(cfg)
    side = int(model.stride.max())
    export_onnx(model, tmp_path / "m.onnx", (side * 2, side), batch=2, maps=True)
    assert_same(model, tmp_path / "m.onnx", images(2, side * 2, side))
    export_onnx(model, tmp_path / "m.onnx", (side, side), dynamic=True, maps=True)
    assert_same(model, tmp_path / "m.onnx", images(2, side * 2, side * 3))
    assert_same(model, tmp_path / "m.onnx", images(1, side * 3, side))


@pytest.mark.parametrize("options", [{"opset": 10}, {"opset": 11}, {"opset": 20}, {"simplify": True}], ids=str)
def test_opsets_and_simplification_leave_the_function_alone(model, options, tmp_path):
    if "simplify" in options:
        pytest.importorskip("onnxslim")
    export_onnx(model, tmp_path / "m.onnx", (64, 96), maps=True, **options)
    assert_same(model, tmp_path / "m.onnx", images(1, 64, 96))
    opsets = {o.domain: o.version for o in onnx.load(str(tmp_path / "m.onnx")).opset_import}
    assert opsets[""] == options.get("opset", 17)


def assert_same_detections(found: torch.Tensor, expected: torch.Tensor) -> None:
    """The same rows; those of almost equal confidence may have changed places."""
    torch.testing.assert_close(found[:, 4], expected[:, 4], rtol=0, atol=1e-4)
    apart = (found[:, None] - expected).abs().amax(2)
    assert apart.amin(1).max() < 0.01
    assert apart.argmin(1).unique().numel() == len(expected)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("max_det", [300, 20])
@pytest.mark.parametrize("multi_label", [False, True])
def test_suppression_inside_the_graph_is_ours(model, dynamic, max_det, multi_label, tmp_path):
    thresholds = {"conf_thres": 0.3, "iou_thres": 0.3, "max_det": max_det, "multi_label": multi_label}
    export_onnx(model, tmp_path / "m.onnx", (64, 96), batch=2, dynamic=dynamic, nms=True, **thresholds)
    pixels = images(2, 64, 96)
    with torch.inference_mode():
        expected = non_max_suppression(model(pixels)[0], **thresholds)
        traced = ExportGraph(model, nms=True, **thresholds)(pixels)
    (found,) = run_onnx(tmp_path / "m.onnx", pixels)
    assert found.shape == (2, max_det, 6)
    for ours, theirs, module in zip(expected, found, traced, strict=True):
        assert 5 < len(ours) <= max_det
        assert multi_label == (len(ours[:, :4].unique(dim=0)) < len(ours))
        assert_same_detections(torch.from_numpy(theirs[: len(ours)]), ours)
        assert_same_detections(module[: len(ours)], ours)
        assert not theirs[len(ours) :].any()


def test_suppression_follows_the_size_of_dynamic_files(model, tmp_path):
    export_onnx(model, tmp_path / "m.onnx", (64, 64), dynamic=True, nms=True, conf_thres=0.3)
    pixels = images(3, 96, 160)
    with torch.inference_mode():
        expected = non_max_suppression(model(pixels)[0], conf_thres=0.3)
    (found,) = run_onnx(tmp_path / "m.onnx", pixels)
    for ours, theirs in zip(expected, found, strict=True):
        assert len(ours) > 5
        assert_same_detections(torch.from_numpy(theirs[: len(ours)]), ours)


def test_half_precision_keeps_the_head_and_both_ends_in_float32(model, tmp_path):
    export_onnx(model, tmp_path / "half.onnx", (64, 96), half=True)
    export_onnx(model, tmp_path / "full.onnx", (64, 96))
    pixels = images(1, 64, 96)
    (half,), (full,) = run_onnx(tmp_path / "half.onnx", pixels), run_onnx(tmp_path / "full.onnx", pixels)
    assert half.dtype == np.float32
    assert (tmp_path / "half.onnx").stat().st_size < 0.6 * (tmp_path / "full.onnx").stat().st_size
    likely = full[0, :, 4] > 0.4
    assert likely.sum() > 20
    assert 0 < np.abs(half - full)[0, likely, 4:].max() < 0.2


# what a file of one size has no use for: sizes are known, and grids and anchors are constants
COMPUTED = set("Shape Size Range ConstantOfShape Expand CumSum Gather Where Equal Identity".split())


@pytest.mark.parametrize("opset", [10, 17])
@pytest.mark.parametrize("cfg", ["yolov5n.yaml", "yolov5s_EfficientNetV2-P3.yaml", "yolov5s_ShuffleNetV2.yaml"])
def test_opencv_reads_files_of_one_size_in_which_nothing_computes_sizes(cfg, opset, tmp_path):
    # freshly initialised, so that equal weights are stored once
    model = DetectionModel(read_model_yaml(cfg)[0] | {"depth_multiple": 0.33, "width_multiple": 0.25}, nc=3).eval()
    export_onnx(model, tmp_path / "m.onnx", (96, 64), batch=2, opset=opset)
    nodes = onnx.load(str(tmp_path / "m.onnx")).graph.node
    assert not COMPUTED & {node.op_type for node in nodes}
    constants = {node.output[0] for node in nodes if node.op_type == "Constant"}
    for node in nodes:
        if node.op_type in ("Reshape", "Slice", "Split"):
            assert set(node.input[1:]) <= constants, node.name
    pixels = images(2, 96, 64)
    net = cv2.dnn.readNetFromONNX(str(tmp_path / "m.onnx"))
    net.setInput(pixels.numpy())
    found = net.forward()
    with torch.inference_mode():
        expected = model(pixels)[0].numpy()
    assert found.shape == expected.shape
    difference = np.abs(found - expected)
    assert difference[..., :4].max() < 0.01
    assert difference[..., 4:].max() < 1e-4


def test_opset_10_has_the_limits_of_relu6_in_the_node_where_older_opencv_reads_them(tmp_path):
    model = lively("yolov5n_C3_UIB.yaml")
    export_onnx(model, tmp_path / "m.onnx", (96, 64), opset=10, maps=True)
    clips = [node for node in onnx.load(str(tmp_path / "m.onnx")).graph.node if node.op_type == "Clip"]
    assert clips and all(len(node.input) == 1 and len(node.attribute) == 2 for node in clips)
    assert_same(model, tmp_path / "m.onnx", images(1, 96, 64))


@pytest.mark.parametrize(("version", "threads"), [("4.8.1", 1), ("4.10.0", 2)])
def test_opencv_4_8_whose_means_are_wrong_on_several_threads_gets_one(version, threads, model, tmp_path, monkeypatch):
    export_onnx(model, tmp_path / "m.onnx", (64, 64))
    monkeypatch.setattr(cv2, "__version__", version)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    before = cv2.getNumThreads()
    Runtime(tmp_path / "m.onnx", dnn=True, trust=True)
    assert cv2.getNumThreads() == threads
    cv2.setNumThreads(before)


@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        ({"batch": 2}, [[2, 378, 8]]),
        ({"dynamic": True}, [["batch", "n", 8]]),
        ({"nms": True, "max_det": 20}, [[1, 20, 6]]),
        ({"nms": True, "dynamic": True}, [["batch", 300, 6]]),
        ({"maps": True}, [[1, 378, 8], [1, 3, 12, 8, 8], [1, 3, 6, 4, 8], [1, 3, 3, 2, 8]]),
        (
            {"maps": True, "dynamic": True},
            [["batch", "n", 8], *(["batch", 3, f"map{i}_height", f"map{i}_width", 8] for i in (0, 1, 2))],
        ),
    ],
    ids=str,
)
def test_outputs_have_numbers_for_all_sides_that_are_not_open(model, options, shapes, tmp_path):
    export_onnx(model, tmp_path / "m.onnx", (96, 64), **options)
    outputs = onnx.load(str(tmp_path / "m.onnx")).graph.output
    sides = [[side.dim_param or side.dim_value for side in o.type.tensor_type.shape.dim] for o in outputs]
    assert sides == shapes


def test_the_file_says_what_it_is(model, tmp_path):
    export_onnx(model, tmp_path / "m.onnx", (64, 96), batch=2)
    graph = onnx.load(str(tmp_path / "m.onnx"))
    meta = {p.key: p.value for p in graph.metadata_props}
    assert ast.literal_eval(meta["names"]) == model.names
    assert (meta["task"], meta["stride"], meta["imgsz"], meta["batch"]) == ("detect", "32", "[64, 96]", "2")
    assert (meta["dynamic"], meta["nms"]) == ("False", "False")
    assert [d.dim_value for d in graph.graph.input[0].type.tensor_type.shape.dim] == [2, 3, 64, 96]
    assert [o.name for o in graph.graph.output] == ["output0"]


def test_the_model_stays_as_it_is(model, tmp_path):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    export_onnx(model, tmp_path / "m.onnx", (64, 64))
    assert model.training
    model.eval()
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert all(p.requires_grad for p in model.parameters())


def test_mistakes_are_named_and_leave_no_file(model, tmp_path):
    with pytest.raises(UserError, match="--opset 9: give 10 to 20"):
        export_onnx(model, tmp_path / "m.onnx", (64, 64), opset=9)
    with pytest.raises(UserError, match="--imgsz 64 70: must be multiples of the model's largest stride, 32"):
        export_onnx(model, tmp_path / "m.onnx", (64, 70))
    assert not list(tmp_path.iterdir())
