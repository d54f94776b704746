"""Boxes as programs written for YOLOv5 call for them: its names and arguments over utils/boxes.py."""

from collections.abc import Sequence

import numpy as np
import torch

from utils.boxes import non_max_suppression as suppress
from utils.boxes import xywh2xyxy, xyxy2xywh
from utils.loss.box import pairwise_iou


def non_max_suppression(
    prediction: torch.Tensor | Sequence[torch.Tensor],
    conf_thres: float = 0.25,
    iou_thres: float = 0.45,
    classes: list[int] | None = None,
    agnostic: bool = False,
    multi_label: bool = False,
    labels: Sequence[torch.Tensor] = (),
    max_det: int = 300,
    nm: int = 0,
) -> list[torch.Tensor]:
    """What a model gives, [b, n, nc + 5] or that and its maps → per image [m, 6]: x1 y1 x2 y2 conf class.

    ``labels``: per image [k, 5], class x y w h in pixels, that are taken for sure detections. Raises ValueError for ``nm``
    above 0: there are no masks here.
    """
    if nm:
        raise ValueError(f"nm={nm}: masks are of segmentation, which is not part of this project")
    if not isinstance(prediction, torch.Tensor):
        prediction = prediction[0]
    settings = (conf_thres, iou_thres, classes, agnostic, multi_label, max_det)
    if not any(len(known) for known in labels):
        return suppress(prediction, *settings)
    found = []
    for image, known in zip(prediction, labels, strict=True):
        sure = image.new_zeros((len(known), image.shape[1]))
        sure[:, :4] = known[:, 1:5]
        sure[:, 4] = 1
        sure[range(len(known)), known[:, 0].long() + 5] = 1
        found += suppress(torch.cat((image, sure))[None], *settings)
    return found


def scale_boxes(
    img1_shape: Sequence[int],
    boxes: torch.Tensor | np.ndarray,
    img0_shape: Sequence[int],
    ratio_pad: tuple[Sequence[float], Sequence[float]] | None = None,
) -> torch.Tensor | np.ndarray:
    """Corners [m, 4 or more] in a letterboxed image of ``img1_shape`` (h, w) → in the original of ``img0_shape``, in place.

    ``ratio_pad``: ((ratio, ratio), (x, y)) of the letterbox; worked out from the shapes where it isn't given.
    """
    if ratio_pad is None:
        ratio = min(img1_shape[0] / img0_shape[0], img1_shape[1] / img0_shape[1])
        pad = (img1_shape[1] - img0_shape[1] * ratio) / 2, (img1_shape[0] - img0_shape[0] * ratio) / 2
    else:
        ratio, pad = ratio_pad[0][0], ratio_pad[1]
    boxes[..., [0, 2]] -= pad[0]
    boxes[..., [1, 3]] -= pad[1]
    boxes[..., :4] /= ratio
    clip_boxes(boxes, img0_shape)
    return boxes


def clip_boxes(boxes: torch.Tensor | np.ndarray, shape: Sequence[int]) -> None:
    """Move corners [m, 4 or more] into an image of ``shape`` (h, w), in place."""
    clip = torch.clamp if isinstance(boxes, torch.Tensor) else np.clip
    boxes[..., [0, 2]] = clip(boxes[..., [0, 2]], 0, shape[1])
    boxes[..., [1, 3]] = clip(boxes[..., [1, 3]], 0, shape[0])


def xywhn2xyxy(x, w: int = 640, h: int = 640, padw: float = 0, padh: float = 0):
    """Centre and size as shares of the image → corners in the pixels of ``w`` by ``h`` and a padding."""
    corners = xywh2xyxy(x)
    corners[..., [0, 2]] = corners[..., [0, 2]] * w + padw
    corners[..., [1, 3]] = corners[..., [1, 3]] * h + padh
    return corners


def xyxy2xywhn(x, w: int = 640, h: int = 640, clip: bool = False, eps: float = 0.0):
    """Corners in pixels → centre and size as shares of an image of ``w`` by ``h``; ``clip`` moves them into it first."""
    if clip:
        clip_boxes(x, (h - eps, w - eps))
    centres = xyxy2xywh(x)
    centres[..., [0, 2]] = centres[..., [0, 2]] / w
    centres[..., [1, 3]] = centres[..., [1, 3]] / h
    return centres


def bbox_iou(
    box1: torch.Tensor,
    box2: torch.Tensor,
    xywh: bool = True,
    GIoU: bool = False,
    DIoU: bool = False,
    CIoU: bool = False,
    eps: float = 1e-7,
) -> torch.Tensor:
    """IoU of each box of ``box1`` [n or 1, 4] with that of ``box2`` [n, 4] → [n, 1], or one of its kin.

    ``xywh``: centre and size; otherwise corners.
    """
    if not xywh:
        box1, box2 = xyxy2xywh(box1), xyxy2xywh(box2)
    kind = "CIoU" if CIoU else "DIoU" if DIoU else "GIoU" if GIoU else "IoU"
    box1, box2 = torch.broadcast_tensors(box1, box2)
    return pairwise_iou(box1, box2, kind, eps)[..., None]
