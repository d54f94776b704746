"""Geometry and suppression, by hand-made boxes."""

import subprocess
import sys

import numpy as np
import torch
import torchvision

from tests.helpers.project import ROOT
from utils.boxes import box_iou, nms, nms_by_class, non_max_suppression, scale_boxes, xywh2xyxy, xyxy2xywh
from utils.loss.box import pairwise_iou


def prediction(*rows: list[float]) -> torch.Tensor:
    """One image's decoded predictions from rows x y w h obj cls0 cls1 …"""
    return torch.tensor([rows], dtype=torch.float32)


def test_corners_and_centres_are_inverse():
    boxes = torch.tensor([[10.0, 20, 4, 6]])
    assert xywh2xyxy(boxes).tolist() == [[8, 17, 12, 23]]
    assert xyxy2xywh(xywh2xyxy(boxes)).tolist() == boxes.tolist()
    assert isinstance(xywh2xyxy(boxes.numpy()), np.ndarray)
    assert boxes.tolist() == [[10, 20, 4, 6]]  # the input stays


def test_boxes_leave_the_letterbox():
    boxes = torch.tensor([[10.0, 30, 60, 90], [-5.0, 0, 200, 200]])
    out = scale_boxes(boxes, (0.5, 0.5), (0.0, 20.0), (100, 120))
    assert out.tolist() == [[20, 20, 120, 100], [0, 0, 120, 100]]


def test_overlaps_of_boxes_one_computes_in_the_head():
    a, b = torch.tensor([[2.0, 2, 4, 4]]), torch.tensor([[4.0, 2, 4, 4]])  # two squares, half a side apart
    assert pairwise_iou(a, b).item() == torch.tensor(8 / 24).item()
    torch.testing.assert_close(pairwise_iou(a, b, "GIoU"), torch.tensor([8 / 24]))  # hull 24 = union 24
    torch.testing.assert_close(pairwise_iou(a, b, "DIoU"), torch.tensor([8 / 24 - 4 / 52]))
    # equal aspect: no third term
    torch.testing.assert_close(pairwise_iou(a, b, "CIoU"), torch.tensor([8 / 24 - 4 / 52]))


def test_the_best_of_overlapping_boxes_stays():
    found = non_max_suppression(
        prediction([50, 50, 20, 20, 0.9, 0.9, 0.1], [51, 50, 20, 20, 0.8, 0.9, 0.1], [90, 50, 20, 20, 0.7, 0.1, 0.9])
    )[0]
    torch.testing.assert_close(found[:, :4], torch.tensor([[40.0, 40, 60, 60], [80, 40, 100, 60]]))
    torch.testing.assert_close(found[:, 4], torch.tensor([0.81, 0.63]))
    assert found[:, 5].tolist() == [0, 1]


def test_classes_do_not_suppress_each_other_unless_agnostic():
    boxes = prediction([50, 50, 20, 20, 0.9, 0.9, 0.1], [50, 50, 20, 20, 0.8, 0.1, 0.9])
    assert len(non_max_suppression(boxes)[0]) == 2
    assert non_max_suppression(boxes, agnostic=True)[0][:, 5].tolist() == [0]


def test_several_labels_per_box():
    box = prediction([50, 50, 20, 20, 1.0, 0.6, 0.5])
    assert non_max_suppression(box)[0][:, 5].tolist() == [0]
    assert non_max_suppression(box, multi_label=True)[0][:, 5].tolist() == [0, 1]


def test_filters():
    boxes = prediction(*([i * 30, 50, 20, 20, 0.9, 0.9 - 0.1 * i, 0.05] for i in range(5)))
    assert len(non_max_suppression(boxes, conf_thres=0.5)[0]) == 4
    assert len(non_max_suppression(boxes, max_det=2)[0]) == 2
    assert len(non_max_suppression(boxes, max_candidates=3)[0]) == 3
    assert len(non_max_suppression(boxes, classes=[1])[0]) == 0
    assert non_max_suppression(boxes, conf_thres=0.99)[0].shape == (0, 6)


def test_many_boxes_class_by_class_equals_all_at_once():
    import torchvision

    generator = torch.Generator().manual_seed(0)
    n = 3000
    corner = torch.rand(n, 2, generator=generator) * 300
    boxes = torch.cat((corner, corner + 5 + torch.rand(n, 2, generator=generator) * 60), 1)
    conf = torch.rand(n, generator=generator).sort(descending=True).values
    cls = torch.randint(0, 7, (n,), generator=generator)
    expected = torchvision.ops.nms(boxes + cls[:, None] * 7680, conf, 0.5)
    assert nms_by_class(boxes, conf, cls, 0.5).tolist() == expected.tolist()
    assert 10 < len(expected) < n
    # as a damaged file may have them
    odd = torch.tensor([-3.0, 2.5, 0.0, 1e6, 7.0, 8.0, 9.0])[cls]
    assert nms_by_class(boxes, conf, odd, 0.5).tolist() == nms(boxes + odd[:, None] * 7680, conf, 0.5).tolist()


def test_overlaps_and_suppression_are_torchvisions_to_the_bit():
    """Without importing it: torchvision.ops takes as long to import as PyTorch."""
    random = torch.Generator().manual_seed(0)
    corners = torch.rand(500, 4, generator=random) * 100
    corners[:, 2:] += corners[:, :2]
    # equal ones, and one without area
    corners[7], corners[8, 2:] = corners[6], corners[8, :2]
    conf = torch.rand(500, generator=random)
    assert torch.equal(box_iou(corners, corners[::3]), torchvision.ops.box_iou(corners, corners[::3]))
    assert torch.equal(nms(corners, conf, 0.4), torchvision.ops.nms(corners, conf, 0.4))


def test_without_its_library_alone_torchvision_is_imported():
    """As where it is packed into one file with the program, so that no library lies beside it."""
    code = (
        "import sys, torch, utils.boxes as boxes\n"
        "boxes.find_spec = lambda name: None\n"
        "print(boxes.nms(torch.tensor([[0., 0, 9, 9], [0, 0, 9, 8], [20, 20, 30, 30]]), torch.tensor([.1, .9, .5]), .5).tolist(),"
        " 'torchvision.ops' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[1, 2] True\n", done.stderr
