"""Geometry of boxes, and non-maximum suppression. Knows nothing of models."""

from importlib.util import find_spec
from pathlib import Path

import torch

CLASS_OFFSET = 7680  # px by which each class is moved from the one before it, for the suppression


def xywh2xyxy(boxes):
    """Centre and size → corners; the last dimension is x, y, w, h. Tensors and arrays."""
    out = boxes.clone() if isinstance(boxes, torch.Tensor) else boxes.copy()
    half = boxes[..., 2:4] / 2
    out[..., :2] = boxes[..., :2] - half
    out[..., 2:4] = boxes[..., :2] + half
    return out


def xyxy2xywh(boxes):
    """Corners → centre and size. Tensors and arrays."""
    out = boxes.clone() if isinstance(boxes, torch.Tensor) else boxes.copy()
    out[..., :2] = (boxes[..., :2] + boxes[..., 2:4]) / 2
    out[..., 2:4] = boxes[..., 2:4] - boxes[..., :2]
    return out


def box_iou(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Intersection over union of each box [n, 4] with each [m, 4] (corners) → [n, m]; of two without area, nan."""
    sides = (torch.min(first[:, None, 2:], second[:, 2:]) - torch.max(first[:, None, :2], second[:, :2])).clamp(min=0)
    shared = sides[..., 0] * sides[..., 1]
    areas = [(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (first, second)]
    return shared / (areas[0][:, None] + areas[1] - shared)


def scale_boxes(boxes: torch.Tensor, ratio: tuple[float, float], pad: tuple[float, float], shape: tuple[int, int]):
    """Corners in a letterboxed image → corners in the original of ``shape`` (h, w), clipped to it.

    ``ratio`` and ``pad`` are those of the letterbox, width first.
    """
    out = boxes.clone()
    out[..., [0, 2]] = ((boxes[..., [0, 2]] - pad[0]) / ratio[0]).clamp(0, shape[1])
    out[..., [1, 3]] = ((boxes[..., [1, 3]] - pad[1]) / ratio[1]).clamp(0, shape[0])
    return out


def non_max_suppression(
    predictions: torch.Tensor,
    conf_thres: float = 0.25,
    iou_thres: float = 0.45,
    classes: list[int] | None = None,
    agnostic: bool = False,
    multi_label: bool = False,
    max_det: int = 300,
    max_candidates: int = 30_000,
) -> list[torch.Tensor]:
    """Decoded predictions [b, n, nc + 5] (x, y, w, h, objectness, classes) → per image [m, 6]: x1 y1 x2 y2 conf class.

    Confidence is objectness × class score. ``multi_label`` lets a box carry every class above the threshold (validation),
    otherwise its best. ``classes`` keeps only these; ``agnostic`` lets boxes of different classes suppress each other.
    The result is sorted by falling confidence.
    """
    multi_label &= predictions.shape[2] > 6  # with a single class both mean the same
    kept = []
    for image in predictions:
        image = image[image[:, 4] > conf_thres]
        scores = image[:, 5:] * image[:, 4:5]
        if multi_label:
            row, cls = (scores > conf_thres).nonzero(as_tuple=True)
            conf = scores[row, cls]
        else:
            conf, cls = scores.max(1)
            row = (conf > conf_thres).nonzero().squeeze(1)
            conf, cls = conf[row], cls[row]
        if classes is not None:
            wanted = torch.isin(cls, torch.tensor(classes, device=cls.device))
            row, cls, conf = row[wanted], cls[wanted], conf[wanted]
        order = conf.argsort(descending=True, stable=True)[:max_candidates]
        boxes, conf, cls = xywh2xyxy(image[row[order], :4]), conf[order], cls[order]
        keep = nms_by_class(boxes.float(), conf.float(), torch.zeros_like(cls) if agnostic else cls, iou_thres)[
            :max_det
        ]
        kept.append(torch.cat((boxes[keep], conf[keep, None], cls[keep, None].to(boxes.dtype)), 1))
    return kept


def nms_by_class(boxes: torch.Tensor, conf: torch.Tensor, cls: torch.Tensor, iou_thres: float) -> torch.Tensor:
    """Indices of the boxes (corners, sorted by falling confidence) that no better box of their class suppresses, sorted.

    Every class is moved to a place of its own, 7680 px apart, as YOLOv5 does: the move rounds coordinates, so that
    leaving it out would decide a few borderline pairs differently. Many boxes on a CPU are then done class by class,
    with the same result and without comparing every pair.
    """
    moved = boxes + cls[:, None].to(boxes.dtype) * CLASS_OFFSET
    if boxes.device.type != "cpu" or len(boxes) < 1000:
        return nms(moved, conf, iou_thres)
    by_class = cls.argsort(stable=True)
    # not by the number of a class: that of a file with suppression inside may be anything
    counts = torch.unique_consecutive(cls[by_class], return_counts=True)[1].tolist()
    kept, start = [], 0
    for members, confident in zip(moved[by_class].split(counts), conf[by_class].split(counts), strict=True):
        kept.append(start + nms(members, confident, iou_thres))
        start += len(members)
    return by_class[torch.cat(kept)].sort().values


def nms(boxes: torch.Tensor, conf: torch.Tensor, iou_thres: float) -> torch.Tensor:
    """Indices of the boxes [n, 4] (corners) that no better one suppresses, by falling confidence [n]: torchvision's."""
    if not hasattr(torch.ops.torchvision, "nms"):
        _load_nms()
    return torch.ops.torchvision.nms(boxes, conf, iou_thres)


def _load_nms() -> None:
    """Make torchvision's compiled operators known.

    Its library alone, where it is found: all of torchvision takes as long to import as PyTorch.
    """
    spec = find_spec("torchvision")
    for library in Path(spec.origin).parent.glob("_C*.*") if spec and spec.origin else ():
        try:
            torch.ops.load_library(library)
        # made for another PyTorch, or wants its neighbours first: torchvision itself then says what is wrong
        except (OSError, RuntimeError):
            break
    if not hasattr(torch.ops.torchvision, "nms"):
        import torchvision  # noqa: F401
