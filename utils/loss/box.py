"""How well a box agrees with the one it should be: the measures of which a loss of boxes is made, each by its name."""

import math
from collections.abc import Callable

import torch

from utils.errors import UserError


class Pairs:
    """Boxes, each with the one it is compared with; what several measures need of them is computed once.

    ``boxes1`` and ``boxes2`` [n, 4] as x, y, w, h; ``eps`` keeps quotients finite. All attributes are [n].
    """

    def __init__(self, boxes1: torch.Tensor, boxes2: torch.Tensor, eps: float):
        (x1, y1, w1, h1), (x2, y2, w2, h2) = boxes1.unbind(-1), boxes2.unbind(-1)
        left1, right1, top1, bottom1 = x1 - w1 / 2, x1 + w1 / 2, y1 - h1 / 2, y1 + h1 / 2
        left2, right2, top2, bottom2 = x2 - w2 / 2, x2 + w2 / 2, y2 - h2 / 2, y2 + h2 / 2
        overlap_width = (torch.minimum(right1, right2) - torch.maximum(left1, left2)).clamp(0)
        overlap_height = (torch.minimum(bottom1, bottom2) - torch.maximum(top1, top2)).clamp(0)
        intersection = overlap_width * overlap_height
        self.union = w1 * h1 + w2 * h2 - intersection + eps
        self.iou = intersection / self.union
        # of the smallest box around both
        self.hull_width = torch.maximum(right1, right2) - torch.minimum(left1, left2)
        self.hull_height = torch.maximum(bottom1, bottom2) - torch.minimum(top1, top2)
        self.centres = (x1, y1), (x2, y2)
        self.sizes = (w1, h1), (w2, h2)
        self.eps = eps


def iou(pairs: Pairs) -> torch.Tensor:
    """Intersection over union."""
    return pairs.iou


def giou(pairs: Pairs) -> torch.Tensor:
    """Less what of the hull is in neither box (1902.09630)."""
    hull = pairs.hull_width * pairs.hull_height + pairs.eps
    return pairs.iou - (hull - pairs.union) / hull


def diou(pairs: Pairs) -> torch.Tensor:
    """Less the distance of the centres, by the diagonal of the hull (1911.08287)."""
    return pairs.iou - _distance(pairs)


def ciou(pairs: Pairs) -> torch.Tensor:
    """Less that distance, and the difference of the boxes' proportions (1911.08287)."""
    (w1, h1), (w2, h2) = pairs.sizes
    distance = _distance(pairs)
    v = 4 / math.pi**2 * (torch.atan(w2 / (h2 + pairs.eps)) - torch.atan(w1 / (h1 + pairs.eps))) ** 2
    with torch.no_grad():
        # 0 / 0 where both boxes are the same to the bit
        alpha = v / (v - pairs.iou + (1 + pairs.eps)).clamp(min=1e-12)
    return pairs.iou - (distance + v * alpha)


def _distance(pairs: Pairs) -> torch.Tensor:
    (x1, y1), (x2, y2) = pairs.centres
    diagonal = pairs.hull_width**2 + pairs.hull_height**2 + pairs.eps
    return ((x2 - x1) ** 2 + (y2 - y1) ** 2) / diagonal


# The box loss is 1 − one of these.
MEASURES: dict[str, Callable[[Pairs], torch.Tensor]] = {"IoU": iou, "GIoU": giou, "DIoU": diou, "CIoU": ciou}


def pairwise_iou(boxes1: torch.Tensor, boxes2: torch.Tensor, kind: str = "IoU", eps: float = 1e-7) -> torch.Tensor:
    """The measure ``kind`` of each box of ``boxes1`` with the one in the same place of ``boxes2``.

    Both [n, 4] as x, y, w, h → [n]. Raises UserError for a name that MEASURES doesn't have.
    """
    if kind not in MEASURES:
        raise UserError(f"no measure of boxes is called {kind}; there are {', '.join(MEASURES)}")
    return MEASURES[kind](Pairs(boxes1, boxes2, eps))
