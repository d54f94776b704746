"""The stock results, to the tolerances that the reference states."""

import json

import numpy as np
import pytest
import torch

from engine.recipe.hyp import read_hyp
from models import common
from models.load import detector_from
from tests.helpers.project import shared
from utils.boxes import non_max_suppression
from utils.checkpoint import read_checkpoint
from utils.loss.box import pairwise_iou
from utils.loss.detection import DetectionLoss
from utils.metrics import ap_per_class
from utils.paths import ROOT

BLOCKS = {
    "stem": "stem",
    "stem_k1": "stem",
    "FusedMBConv_e1": "FusedMBConv",
    "FusedMBConv_res": "FusedMBConv",
    "FusedMBConv_s2": "FusedMBConv",
    "MBConv_res": "MBConv",
    "MBConv_s2": "MBConv",
    "Conv_maxpool": "Conv_maxpool",
    "ShuffleNetV2_InvertedResidual_s1": "ShuffleNetV2_InvertedResidual",
    "ShuffleNetV2_InvertedResidual_s2": "ShuffleNetV2_InvertedResidual",
    "UniversalInvertedBottleneckBlock": "UniversalInvertedBottleneckBlock",
    "C3_UIB": "C3_UIB",
}
NMS = {
    "detect": {"conf_thres": 0.25, "iou_thres": 0.45},
    "val": {"conf_thres": 0.001, "iou_thres": 0.6, "multi_label": True},
    "agnostic": {"conf_thres": 0.25, "iou_thres": 0.45, "agnostic": True},
    "classes": {"conf_thres": 0.1, "iou_thres": 0.45, "classes": [0, 2]},
    "max5": {"conf_thres": 0.01, "iou_thres": 0.6, "multi_label": True, "max_det": 5},
}


@pytest.mark.parametrize("name", BLOCKS)
def test_write_up_blocks(name, reference):
    arrays = reference("tutorial_blocks.npz")
    block = getattr(common, BLOCKS[name])(*json.loads(str(arrays[f"{name}/args"]))).eval()
    prefix = f"{name}/w/"
    weights = {k.removeprefix(prefix): torch.from_numpy(arrays[k]) for k in arrays.files if k.startswith(prefix)}
    assert list(block.state_dict()) == list(weights)
    block.load_state_dict(weights)
    with torch.no_grad():
        out = block(torch.from_numpy(arrays[f"{name}/in"]))
    np.testing.assert_allclose(out.numpy(), arrays[f"{name}/out"], rtol=0, atol=1e-5)


def test_every_reference_block_is_tested(reference):
    assert {name.split("/")[0] for name in reference("tutorial_blocks.npz").files} == set(BLOCKS)


def test_official_checkpoint_forward(reference, yolov5n):
    arrays = reference("yolov5n_forward.npz")
    model = detector_from(read_checkpoint(yolov5n))
    with torch.no_grad():
        decoded, maps = model(torch.from_numpy(arrays["images"]).float() / 255)
    for i, raw in enumerate(maps):
        np.testing.assert_allclose(raw.numpy(), arrays[f"raw{i}"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(decoded.numpy(), arrays["decoded"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("setting", NMS)
def test_non_max_suppression(setting, reference):
    arrays = reference("yolov5n_forward.npz")
    found = non_max_suppression(torch.from_numpy(arrays["decoded"]), **NMS[setting])
    for i, detections in enumerate(found):
        expected = arrays[f"nms_{setting}{i}"]
        assert detections.shape == expected.shape
        np.testing.assert_allclose(detections.numpy(), expected, rtol=0, atol=1e-3)
        assert (detections[:, 4].diff() <= 0).all()


@pytest.mark.parametrize(
    ("case", "extra"), [("plain", {}), ("smooth", {"label_smoothing": 0.1}), ("focal", {"fl_gamma": 1.5})]
)
def test_loss_and_its_gradients(case, extra, reference):
    arrays, forward = reference("loss.npz"), reference("yolov5n_forward.npz")
    hyp = json.loads(str(arrays["hyp"])) | extra
    maps = [torch.from_numpy(forward[f"raw{i}"]).requires_grad_() for i in range(3)]
    loss, items = DetectionLoss(torch.from_numpy(arrays["anchors_grid_units"]), 80, hyp)(
        maps, torch.from_numpy(arrays[f"{case}/targets"])
    )
    loss.backward()
    np.testing.assert_allclose(loss.item(), arrays[f"{case}/loss"].item(), rtol=1e-4)
    np.testing.assert_allclose(items.numpy(), arrays[f"{case}/items"], rtol=1e-4)
    for i, raw in enumerate(maps):
        expected = arrays[f"{case}/grad{i}"]
        np.testing.assert_allclose(raw.grad.numpy(), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_average_precision(reference):
    arrays = reference("metrics.npz")
    result = ap_per_class(arrays["tp"], arrays["conf"], arrays["pred_cls"], arrays["target_cls"])
    pairs = {
        "p": result.p,
        "r": result.r,
        "f1": result.f1,
        "ap": result.ap,
        "tp_count": result.tp,
        "fp_count": result.fp,
        "unique_classes": result.classes,
    }
    for name, value in pairs.items():
        np.testing.assert_allclose(value, arrays[name], rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", ["IoU", "GIoU", "DIoU", "CIoU"])
def test_pairwise_iou(kind, reference):
    arrays = reference("metrics.npz")
    boxes = [torch.from_numpy(arrays[name]) for name in ("box1_xywh", "box2_xywh")]
    np.testing.assert_allclose(pairwise_iou(*boxes, kind).numpy(), arrays[f"iou_{kind}"], rtol=0, atol=1e-5)


def test_hyper_parameter_files():
    expected = json.loads(shared("reference", "hyps.json").read_text())
    assert {p.name for p in (ROOT / "data" / "hyps").glob("*.yaml")} == {
        *expected,
        "hyp.scratch-tiny.yaml",
        "hyp.shapes.yaml",
    }
    for name, values in expected.items():
        hyp = read_hyp(name)
        assert {k: hyp[k] for k in values} == values
