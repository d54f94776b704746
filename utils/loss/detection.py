"""The loss of YOLOv5: box, objectness and class terms over the levels of the head."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from utils.device import sent
from utils.loss.box import pairwise_iou

LEVEL_WEIGHTS = {3: (4.0, 1.0, 0.4)}  # of objectness, finest level first
OTHER_LEVEL_WEIGHTS = (4.0, 1.0, 0.25, 0.06, 0.02)
NEIGHBOURS = ((0, 0), (1, 0), (0, 1), (-1, 0), (0, -1))  # a target's own cell, then left, up, right, down of it


def level_weights(nl: int) -> tuple[float, ...]:
    """The weights of objectness for a head of ``nl`` levels."""
    return LEVEL_WEIGHTS.get(nl, OTHER_LEVEL_WEIGHTS)[:nl]


def scale_gains(hyp: dict, nl: int, nc: int, imgsz: int) -> dict:
    """The hyper-parameters with their loss gains fitted to the number of levels, of classes, and the image size."""
    return hyp | {
        "box": hyp["box"] * 3 / nl,
        "cls": hyp["cls"] * nc / 80 * 3 / nl,
        "obj": hyp["obj"] * (imgsz / 640) ** 2 * 3 / nl,
    }


def binary_cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, positive_weight: float, gamma: float
) -> torch.Tensor:
    """Summed binary cross-entropy on logits, focal (1708.02002, alpha 0.25) where ``gamma`` > 0."""
    weight = logits.new_full((), positive_weight)
    if gamma <= 0:
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight, reduction="sum")
    loss = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight, reduction="none")
    p = logits.sigmoid()
    right = targets * p + (1 - targets) * (1 - p)
    alpha = targets * 0.25 + (1 - targets) * 0.75
    return (loss * alpha * (1 - right) ** gamma).sum()


class DetectionLoss:
    """Raw maps and targets → loss.

    ``anchors`` [nl, na, 2] in grid units; ``hyp`` with the gains box, cls, obj (see scale_gains), the positive weights
    cls_pw and obj_pw, fl_gamma, anchor_t and label_smoothing. ``box`` names the measure of boxes, see utils/loss/box.py.

        loss, items = DetectionLoss(anchors, nc, hyp)(maps, targets)

    ``maps``: nl tensors [b, na, ny, nx, nc + 5]; ``targets`` [n, 6]: image, class, x, y, w, h (0..1).
    ``loss`` is batch size × (box + obj + cls), a scalar; ``items`` the three terms, detached, [3].

    Targets are matched on the CPU, while a GPU still works on the maps: give them there. Of a GPU nothing is then waited
    for, neither here nor in the backward pass. Every sum has its order, and where several targets fall to one cell its
    objectness is that of the last: on a CPU the same maps and targets give the same bits, by any number of threads.

    Where several processes share a batch, ``total`` sums a tensor over them. The terms are then means over the whole
    batch, and the mean of the processes' gradients is that of one process with all images.
    """

    def __init__(
        self,
        anchors: torch.Tensor,
        nc: int,
        hyp: dict,
        total: Callable[[torch.Tensor], torch.Tensor] = lambda counts: counts,
        processes: int = 1,
        box: str = "CIoU",
    ):
        self.anchors = anchors.detach().cpu().clone()
        self.nc = nc
        self.hyp = hyp
        self.total = total
        self.processes = processes
        self.box = box
        self.level_weights = level_weights(len(anchors))
        smoothing = hyp.get("label_smoothing", 0.0)
        self.positive, self.negative = 1 - smoothing / 2, smoothing / 2  # class targets

    def __call__(self, maps: list[torch.Tensor], targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hyp, device = self.hyp, maps[0].device
        targets = targets.cpu()
        matches = [self.match(targets, level, raw.shape) for level, raw in enumerate(maps)]
        counts = [maps[0].shape[0], *(len(m.classes) for m in matches), *(raw[..., 0].numel() for raw in maps)]
        images, *counts = self.total(sent(torch.tensor(counts), device))
        box_loss, obj_loss, cls_loss = (torch.zeros((), device=device) for _ in range(3))
        for level, (raw, match) in enumerate(zip(maps, matches, strict=True)):
            matched, cells = counts[level], counts[len(maps) + level]
            wanted_objectness = torch.zeros(raw.shape[:4], device=device)
            match = match.to(device)
            objectness, picked = Needed.apply(raw, match.places)
            if len(match.classes):
                # an embedding: its gradient is summed in order, that of an index by several threads at once
                predicted = F.embedding(match.which, picked)
                xy = predicted[:, :2].sigmoid() * 2 - 0.5
                wh = (predicted[:, 2:4].sigmoid() * 2) ** 2 * match.anchors
                iou = pairwise_iou(torch.cat((xy, wh), 1), match.boxes, self.box)
                box_loss = box_loss + (1 - iou).sum() / matched
                wanted_objectness.view(-1)[match.places] = iou.detach().clamp(0)[match.last]
                if self.nc > 1:
                    wanted = torch.full_like(predicted[:, 5:], self.negative)
                    wanted.scatter_(1, match.classes[:, None], self.positive)
                    level_loss = binary_cross_entropy(predicted[:, 5:], wanted, hyp["cls_pw"], hyp["fl_gamma"])
                    cls_loss = cls_loss + level_loss / (matched * self.nc)
            level_loss = binary_cross_entropy(objectness, wanted_objectness, hyp["obj_pw"], hyp["fl_gamma"])
            obj_loss = obj_loss + level_loss / cells * self.level_weights[level]
        items = torch.stack((box_loss * hyp["box"], obj_loss * hyp["obj"], cls_loss * hyp["cls"]))
        return items.sum() * images * self.processes, self.total(items.detach())

    def match(self, targets: torch.Tensor, level: int, shape: torch.Size) -> "Matches":
        """Give each target to the anchors of like shape, in its own cell and the two nearest neighbour cells.

        ``targets`` [n, 6] are on the CPU; ``shape``: of the level's map.
        """
        _, na, ny, nx, _ = shape
        grid = torch.tensor([nx, ny])
        anchors = self.anchors[level]
        image, cls, xy, wh = targets[:, 0].long(), targets[:, 1].long(), targets[:, 2:4] * grid, targets[:, 4:6] * grid

        ratio = wh[None] / anchors[:, None]  # [na, n, 2]
        fits = torch.maximum(ratio, 1 / ratio).amax(2) < self.hyp["anchor_t"]
        anchor, target = fits.nonzero(as_tuple=True)
        xy, wh = xy[target], wh[target]

        # which neighbours are near: left where x lies in the left half of its cell, and so on; never outside the map
        from_end = grid - xy
        near_low = (xy % 1 < 0.5) & (xy > 1)
        near_high = (from_end % 1 < 0.5) & (from_end > 1)
        takes = torch.stack((torch.ones_like(near_low[:, 0]), *near_low.T, *near_high.T))  # [5, matches]
        direction, match = takes.nonzero(as_tuple=True)
        offset = torch.tensor(NEIGHBOURS)[direction] * 0.5
        cell = (xy[match] - offset).long()

        anchor, target = anchor[match], target[match]
        boxes = torch.cat((xy[match] - cell, wh[match]), 1)
        row, column = cell[:, 1].clamp(0, ny - 1), cell[:, 0].clamp(0, nx - 1)
        places = ((image[target] * na + anchor) * ny + row) * nx + column
        last = last_of_each(places)
        different = places[last]
        return Matches(different, last, torch.searchsorted(different, places), boxes, anchors[anchor], cls[target])


class Needed(torch.autograd.Function):
    """What the loss needs of a map [b, na, ny, nx, no], in float32: the objectness of all, and ``places`` whole.

        objectness [b, na, ny, nx], picked [k, no] = Needed.apply(raw, places)

    ``places`` [k] differ. A map is large and little of it is needed: its gradient is written once, in its own type, where
    those of a conversion, of an index and of a slice would be three of its size.
    """

    @staticmethod
    def forward(ctx, raw: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(places)
        ctx.shape, ctx.dtype = raw.shape, raw.dtype
        return raw[..., 4].float(), raw.flatten(0, 3)[places].float()

    @staticmethod
    def backward(ctx, objectness: torch.Tensor, picked: torch.Tensor) -> tuple[torch.Tensor, None]:
        (places,) = ctx.saved_tensors
        gradient = picked.new_zeros(ctx.shape, dtype=ctx.dtype)
        gradient[..., 4] = objectness
        whole = picked.clone()
        whole[:, 4] += objectness.flatten()[places]
        gradient.flatten(0, 3)[places] = whole.to(ctx.dtype)
        return gradient, None


class Matches(NamedTuple):
    """Targets given to predictions of one level, in the order in which they count."""

    # [k] the places in the map that occur, counted through [b, na, ny, nx], rising
    places: torch.Tensor
    # [k] which of the matches is the last of each
    last: torch.Tensor
    # [m] which of the places each match is given
    which: torch.Tensor
    # [m, 4] as x, y relative to the cell and w, h, in grid units
    boxes: torch.Tensor
    # [m, 2]
    anchors: torch.Tensor
    # [m]
    classes: torch.Tensor

    def to(self, device: torch.device) -> "Matches":
        """The same on ``device``, sent without waiting."""
        return Matches(*(sent(tensor, device) for tensor in self))


def last_of_each(values: torch.Tensor) -> torch.Tensor:
    """Where each of the different ``values`` [m], integers, is found for the last time, by rising value."""
    ordered, order = values.sort(stable=True)
    ends = torch.ones_like(ordered, dtype=torch.bool)
    ends[:-1] = ordered[1:] != ordered[:-1]
    return order[ends]
