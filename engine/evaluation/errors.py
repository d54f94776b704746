"""What kinds of mistakes a detector makes, and what each of them costs: TIDE (Bolya et al., arXiv:2008.08115).

A false positive is of one kind (section 2.2 there), by the label of its own class and that of another class that it overlaps
most. Foreground begins at an IoU of 0.5 as everywhere in AP50, background ends at 0.1:

    Cls     at least 0.5 with a label of another class: right place, wrong class
    Loc     0.1 to 0.5 with one of its own class: right class, wrong place
    Both    0.1 to 0.5 with one of another class
    Dupe    at least 0.5 with one of its own class, which a more confident detection has found already
    Bkg     below 0.1 with all
    Miss    a label that is not found, nor is that of a Cls or Loc

The paper leaves open which kind it is where several apply; here the own class comes first: Dupe, Loc, Cls, Both. A kind costs
dAP, the AP50 with its errors mended less the AP50 as it is (section 2.3): Cls gets the label's class, Loc the label's box, of
several detections that then find one label the most confident stays; Both, Dupe and Bkg go; labels of Miss are not counted.
So mended, detections without any false positive are FalsePos, those that miss nothing FalseNeg. Kinds don't add up: who mends
one uncovers another.

What is matched to what, and AP, are as in the table of val.py, so that its mAP50 is the one that is gained upon.
"""

from dataclasses import dataclass

import numpy as np
import torch

from utils.boxes import box_iou
from utils.metrics import average_precision, match_detections

KINDS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
# all false positives, and all labels that are not found
SPECIAL = ("FalsePos", "FalseNeg")
FOREGROUND, BACKGROUND = 0.5, 0.1
# what AP by 101 points can reach: all is found, and nothing else
PERFECT = average_precision(np.ones(1), np.ones(1))[0]


@dataclass(frozen=True)
class Overlaps:
    """A set's n detections against its m labels. ``own`` and ``other`` [n]: the label of the detection's class, and that of
    another, which it overlaps most, as indices into ``label_cls``, -1 where there is none in its image; their IoUs."""

    conf: np.ndarray  # [n]
    cls: np.ndarray  # [n]
    hits: np.ndarray  # [n] bool: true positives at IoU 0.5; what they find is their ``own``
    own: np.ndarray
    own_iou: np.ndarray
    other: np.ndarray
    other_iou: np.ndarray
    label_cls: np.ndarray  # [m]

    def kinds(self) -> np.ndarray:
        """[n]: what each detection is, an index into KINDS; -1 for true positives."""
        conditions = {
            "Dupe": self.own_iou >= FOREGROUND,
            "Loc": self.own_iou >= BACKGROUND,
            "Cls": self.other_iou >= FOREGROUND,
            "Both": self.other_iou >= BACKGROUND,
        }
        chosen = [KINDS.index(kind) for kind in conditions]
        return np.where(self.hits, -1, np.select(list(conditions.values()), chosen, KINDS.index("Bkg")))

    def missed(self, kinds: np.ndarray) -> np.ndarray:
        """[m] bool: the labels of Miss, where the detections are of ``kinds``."""
        missed = self.not_found()
        missed[self.own[kinds == KINDS.index("Loc")]] = False
        missed[self.other[kinds == KINDS.index("Cls")]] = False
        return missed

    def not_found(self) -> np.ndarray:
        """[m] bool: the labels that no true positive has."""
        missed = np.ones(len(self.label_cls), bool)
        missed[self.own[self.hits]] = False
        return missed


@dataclass(frozen=True)
class ErrorFigures:
    """How often each of KINDS and SPECIAL occurs, and its dAP: what ``ap50`` would gain without it."""

    ap50: float
    gains: dict[str, float]
    counts: dict[str, int]

    HEADER = ("error", "count", "dAP50")

    def table(self) -> str:
        """A row per kind, as wide as the table of classes."""
        lines = [f"{'Error':>22}{'Count':>11}{'dAP50':>11}"]
        lines += [f"{kind:>22}{self.counts[kind]:>11}{gain:>11.3g}" for kind, gain in self.gains.items()]
        return "\n".join(lines)

    def cells(self) -> list[list[str]]:
        """The same as the cells of a CSV."""
        rows = [[kind, str(self.counts[kind]), f"{gain:.5g}"] for kind, gain in self.gains.items()]
        return [list(self.HEADER), *rows]


class ErrorEvaluator:
    """Takes in what is found and labelled, image by image."""

    def __init__(self):
        self.labels = 0
        # of each image: the columns of Overlaps
        self.images: list[tuple[np.ndarray, ...]] = []

    def add(self, detections: torch.Tensor, labelled: torch.Tensor) -> None:
        """An image's detections [n, 6], by falling confidence, and labels [m, 6]: x1 y1 x2 y2 confidence class, in pixels."""
        iou = box_iou(labelled[:, :4], detections[:, :4]).numpy()
        (conf, cls), label_cls = detections[:, 4:].T.numpy(), labelled[:, 5].numpy()
        hits = match_detections(iou, label_cls, cls)[:, 0]
        own = label_cls[:, None] == cls
        columns = [label for mask in (own, ~own) for label in _most_overlapped(iou, mask, self.labels)]
        self.images.append((conf, cls, hits, *columns, label_cls))
        self.labels += len(labelled)

    def overlaps(self) -> Overlaps:
        """Those of all images that were added, of which there is at least one."""
        return Overlaps(*map(np.concatenate, zip(*self.images, strict=True)))

    def figures(self) -> ErrorFigures:
        overlaps = self.overlaps()
        kinds = overlaps.kinds()
        counts = {kind: int((kinds == i).sum()) for i, kind in enumerate(KINDS)}
        counts["Miss"] = int(overlaps.missed(kinds).sum())
        counts |= {"FalsePos": int((kinds >= 0).sum()), "FalseNeg": int(overlaps.not_found().sum())}
        return ErrorFigures(_ap50(overlaps), error_kinds(overlaps), counts)


def _most_overlapped(iou: np.ndarray, mask: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the labels under ``mask`` [labels, n], that which each detection overlaps most, counted from ``first``, and the IoU;
    -1 and 0 where there is none."""
    if not len(iou):
        return np.full(iou.shape[1], -1), np.zeros(iou.shape[1], np.float32)
    masked = np.where(mask, iou, -1.0)
    most = masked.max(0)
    return np.where(most >= 0, masked.argmax(0) + first, -1), most.clip(0)


def error_kinds(overlaps: Overlaps) -> dict[str, float]:
    """dAP, 0..1, of each of KINDS and SPECIAL: by how much AP50 rises when these errors, and no others, are mended."""
    kinds = overlaps.kinds()
    before = _ap50(overlaps)
    return {kind: _ap50_without(overlaps, kinds, kind) - before for kind in (*KINDS, *SPECIAL)}


def _ap50_without(overlaps: Overlaps, kinds: np.ndarray, kind: str) -> float:
    """AP50 with the errors of one kind mended."""
    if kind == "Miss":
        return _ap50(overlaps, counted=~overlaps.missed(kinds))
    if kind == "FalseNeg":
        return _ap50(overlaps, counted=~overlaps.not_found())
    if kind == "FalsePos":
        return _ap50(overlaps, kept=overlaps.hits)
    wrong = kinds == KINDS.index(kind)
    if kind not in ("Cls", "Loc"):
        return _ap50(overlaps, kept=~wrong)
    label = np.where(wrong & (kind == "Cls"), overlaps.other, overlaps.own)
    hits = overlaps.hits | wrong
    cls = np.where(hits, overlaps.label_cls[label], overlaps.cls) if len(overlaps.label_cls) else overlaps.cls
    # each label goes to the most confident that finds it, the others of these are duplicates
    claims = np.flatnonzero(hits)
    claims = claims[np.argsort(-overlaps.conf[claims], kind="stable")]
    _, first = np.unique(label[claims], return_index=True)
    kept = ~hits
    kept[claims[first]] = True
    return _ap50(overlaps, kept, hits, cls)


def _ap50(
    overlaps: Overlaps,
    kept: np.ndarray | None = None,
    hits: np.ndarray | None = None,
    cls: np.ndarray | None = None,
    counted: np.ndarray | None = None,
) -> float:
    """Mean AP at IoU 0.5 over the classes with labels, of the detections ``kept`` [n], against the labels ``counted`` [m].

    A class none of whose labels is counted is as if all were found: there is nothing left to find.
    """
    order = np.argsort(-overlaps.conf, kind="stable")
    if kept is not None:
        order = order[kept[order]]
    hits = (overlaps.hits if hits is None else hits)[order]
    cls = (overlaps.cls if cls is None else cls)[order]
    label_cls = overlaps.label_cls if counted is None else overlaps.label_cls[counted]
    found = []
    for c in np.unique(overlaps.label_cls):
        own, labels = hits[cls == c], (label_cls == c).sum()
        if not labels:
            found.append(PERFECT)
            continue
        true = own.cumsum()
        precision = true / np.arange(1, len(own) + 1)
        found.append(average_precision(true / labels, precision)[0] if len(own) else 0.0)
    return float(np.mean(found)) if found else 0.0
