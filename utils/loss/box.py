"""Losses of boxes: how far each lies from the one it should be."""

import math

import torch


def pairwise_iou(boxes1: torch.Tensor, boxes2: torch.Tensor, kind: str = "IoU", eps: float = 1e-7) -> torch.Tensor:
    """IoU of each box of ``boxes1`` with the one in the same place of ``boxes2``, both [n, 4] as x, y, w, h → [n].

    ``kind``: IoU, GIoU (1902.09630), DIoU or CIoU (1911.08287).
    """
    (x1, y1, w1, h1), (x2, y2, w2, h2) = boxes1.unbind(-1), boxes2.unbind(-1)
    left1, right1, top1, bottom1 = x1 - w1 / 2, x1 + w1 / 2, y1 - h1 / 2, y1 + h1 / 2
    left2, right2, top2, bottom2 = x2 - w2 / 2, x2 + w2 / 2, y2 - h2 / 2, y2 + h2 / 2
    overlap_width = (torch.minimum(right1, right2) - torch.maximum(left1, left2)).clamp(0)
    overlap_height = (torch.minimum(bottom1, bottom2) - torch.maximum(top1, top2)).clamp(0)
    intersection = overlap_width * overlap_height
    union = w1 * h1 + w2 * h2 - intersection + eps
    iou = intersection / union
    if kind == "IoU":
        return iou
    hull_width = torch.maximum(right1, right2) - torch.minimum(left1, left2)
    hull_height = torch.maximum(bottom1, bottom2) - torch.minimum(top1, top2)
    if kind == "GIoU":
        hull = hull_width * hull_height + eps
        return iou - (hull - union) / hull
    diagonal = hull_width**2 + hull_height**2 + eps
    distance = ((x2 - x1) ** 2 + (y2 - y1) ** 2) / diagonal
    if kind == "DIoU":
        return iou - distance
    v = 4 / math.pi**2 * (torch.atan(w2 / (h2 + eps)) - torch.atan(w1 / (h1 + eps))) ** 2
    with torch.no_grad():
        alpha = v / (v - iou + (1 + eps))
    return iou - (distance + v * alpha)
