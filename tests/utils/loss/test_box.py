"""Measures of boxes are looked up by name, one more is a function and a line of the table."""

import pytest
import torch

from engine.recipe.hyp import read_hyp
from utils.errors import UserError
from utils.loss.box import MEASURES, pairwise_iou
from utils.loss.detection import DetectionLoss

ANCHORS = torch.tensor([[[2.0, 3], [4, 2]]])


def box_loss(kind: str) -> float:
    """The box term for a target that random maps are far from."""
    raw = torch.randn(1, 2, 8, 8, 7, generator=torch.Generator().manual_seed(0))
    loss = DetectionLoss(ANCHORS, 2, read_hyp("hyp.scratch-low.yaml"), box=kind)
    return loss([raw], torch.tensor([[0, 1, 0.5, 0.4, 0.3, 0.4]]))[1][0].item()


@pytest.mark.parametrize("kind", MEASURES)
def test_equal_boxes_agree_wholly(kind):
    boxes = torch.tensor([[2.0, 3, 4, 8], [1, 1, 2, 2]])
    torch.testing.assert_close(pairwise_iou(boxes, boxes, kind), torch.ones(2))


def test_the_loss_goes_by_the_measure_that_it_is_given(monkeypatch):
    losses = {kind: box_loss(kind) for kind in MEASURES}
    assert losses["IoU"] < losses["DIoU"] < losses["CIoU"] and losses["GIoU"] > losses["IoU"]
    monkeypatch.setitem(MEASURES, "halved", lambda pairs: 1 - (1 - pairs.iou) / 2)
    assert box_loss("halved") == pytest.approx(losses["IoU"] / 2)


def test_without_a_name_it_is_ciou():
    assert DetectionLoss(ANCHORS, 2, read_hyp("hyp.scratch-low.yaml")).box == "CIoU"


def test_an_unknown_measure_is_named():
    with pytest.raises(UserError, match="called EIoU; there are IoU, GIoU, DIoU, CIoU"):
        pairwise_iou(torch.ones(1, 4), torch.ones(1, 4), "EIoU")


@pytest.mark.parametrize("kind", MEASURES)
def test_a_box_agrees_with_itself(kind):
    boxes = (torch.rand(500, 4, generator=torch.Generator().manual_seed(0)) * 50 + 1).requires_grad_()
    found = pairwise_iou(boxes, boxes.detach().clone(), kind)
    torch.testing.assert_close(found, torch.ones(500), rtol=0, atol=2e-5)
    found.sum().backward()
    assert boxes.grad.isfinite().all()
