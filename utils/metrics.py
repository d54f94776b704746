"""Precision, recall and average precision, and the confusion matrix. Everything here is numpy."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from utils.extras import handed_on

# for programs written for stock
__getattr__ = handed_on(__name__, {"bbox_iou": "engine.stock.boxes", "box_iou": "utils.boxes"})

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
CONFIDENCE_GRID = np.linspace(0, 1, 1000)
EPS = 1e-16


@dataclass
class APResult:
    """Per class that occurs in the targets, in the order of ``classes``; ``p``, ``r``, ``f1`` at the best mean F1."""

    classes: np.ndarray  # [k]
    p: np.ndarray  # [k]
    r: np.ndarray  # [k]
    f1: np.ndarray  # [k]
    ap: np.ndarray  # [k, 10], one column per IoU threshold
    tp: np.ndarray  # [k] true positives at that point
    fp: np.ndarray  # [k]
    p_curve: np.ndarray  # [k, 1000] over CONFIDENCE_GRID
    r_curve: np.ndarray
    f1_curve: np.ndarray
    pr_curve: np.ndarray  # [k, 1000] precision over recall, at IoU 0.5


class PRCurve(NamedTuple):
    """Mean precision over recall of all classes, at an IoU of 0.5: [n] each, and the mAP50 of it."""

    recall: np.ndarray
    precision: np.ndarray
    map50: float


def ap_per_class(tp: np.ndarray, conf: np.ndarray, pred_cls: np.ndarray, target_cls: np.ndarray) -> APResult:
    """Average precision of detections: ``tp`` [n, 10] hits at each IoU threshold, ``conf`` and ``pred_cls`` [n],
    ``target_cls`` [m] the classes of all labelled boxes."""
    order = np.argsort(-conf, kind="stable")
    tp, conf, pred_cls = tp[order], conf[order], pred_cls[order]
    classes, counts = np.unique(target_cls, return_counts=True)
    k = len(classes)
    ap = np.zeros((k, tp.shape[1]))
    p_curve, r_curve, pr_curve = (np.zeros((k, len(CONFIDENCE_GRID))) for _ in range(3))
    for i, (cls, count) in enumerate(zip(classes, counts, strict=True)):
        mine = pred_cls == cls
        if not mine.any():
            continue
        hits = tp[mine].cumsum(0)
        misses = (~tp[mine].astype(bool)).cumsum(0)
        recall = hits / (count + EPS)
        precision = hits / (hits + misses)
        falling = -conf[mine]  # np.interp needs rising x
        r_curve[i] = np.interp(-CONFIDENCE_GRID, falling, recall[:, 0], left=0)
        p_curve[i] = np.interp(-CONFIDENCE_GRID, falling, precision[:, 0], left=1)
        for j in range(tp.shape[1]):
            ap[i, j], envelope_recall, envelope = average_precision(recall[:, j], precision[:, j])
            if j == 0:
                pr_curve[i] = np.interp(CONFIDENCE_GRID, envelope_recall, envelope)
    f1_curve = 2 * p_curve * r_curve / (p_curve + r_curve + EPS)
    best = int(smooth(f1_curve.mean(0), 0.1).argmax()) if k else 0
    p, r, f1 = p_curve[:, best], r_curve[:, best], f1_curve[:, best]
    hits = (r * counts).round()
    misses = (hits / (p + EPS) - hits).round()
    return APResult(
        classes.astype(int),
        p,
        r,
        f1,
        ap,
        hits,
        misses,
        p_curve,
        r_curve,
        f1_curve,
        pr_curve,
    )


def average_precision(recall: np.ndarray, precision: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Area under the precision envelope by 101 points (COCO); also the envelope as (recall, precision)."""
    recall = np.concatenate(([0.0], recall, [1.0]))
    precision = np.concatenate(([1.0], precision, [0.0]))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    sampled = np.interp(np.linspace(0, 1, 101), recall, envelope)
    return float((sampled[1:] + sampled[:-1]).sum() / 200), recall, envelope


def smooth(values: np.ndarray, fraction: float) -> np.ndarray:
    """Box filter over ``fraction`` of the points, the ends held."""
    width = round(len(values) * fraction * 2) // 2 + 1
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")


def match_detections(iou: np.ndarray, label_cls: np.ndarray, pred_cls: np.ndarray) -> np.ndarray:
    """Which detections hit, per IoU threshold: [n, 10] bool.

    ``iou`` [labels, n], detections sorted by falling confidence. Each detection may hit only the label of its class that
    it overlaps most; each label counts for its most confident detection.
    """
    n = len(pred_cls)
    hits = np.zeros((n, len(IOU_THRESHOLDS)), dtype=bool)
    if not n or not len(label_cls):
        return hits
    iou = np.where(label_cls[:, None] == pred_cls[None], iou, -1.0)
    best_label = iou.argmax(0)
    best_iou = iou[best_label, np.arange(n)]
    for j, threshold in enumerate(IOU_THRESHOLDS):
        candidates = np.flatnonzero(best_iou >= threshold)
        _, first = np.unique(best_label[candidates], return_index=True)
        hits[candidates[first], j] = True
    return hits


def fitness(map50: float, map50_95: float) -> float:
    """The figure that decides which epoch is best: 0.1 mAP50 + 0.9 mAP50-95."""
    return 0.1 * map50 + 0.9 * map50_95


class ConfusionMatrix:
    """Counts [nc + 1, nc + 1] of predicted (rows) against true (columns) classes; the last of each is background."""

    def __init__(self, nc: int, conf: float = 0.25, iou_thres: float = 0.45):
        self.nc = nc
        self.conf = conf
        self.iou_thres = iou_thres
        self.matrix = np.zeros((nc + 1, nc + 1))

    def add(self, iou: np.ndarray, label_cls: np.ndarray, conf: np.ndarray, pred_cls: np.ndarray) -> None:
        """Count one image: ``iou`` [labels, n], classes of labels and detections, confidence of the detections.

        Pairs are made by falling IoU, regardless of class; labels and detections without a partner count as background.
        """
        confident = conf > self.conf
        iou, pred_cls = iou[:, confident], pred_cls[confident].astype(int)
        label_cls = label_cls.astype(int)
        label_free, pred_free = np.ones(len(label_cls), bool), np.ones(len(pred_cls), bool)
        labels, preds = np.nonzero(iou > self.iou_thres)
        for i in np.argsort(-iou[labels, preds], kind="stable"):
            label, pred = labels[i], preds[i]
            if label_free[label] and pred_free[pred]:
                label_free[label] = pred_free[pred] = False
                self.matrix[pred_cls[pred], label_cls[label]] += 1
        np.add.at(self.matrix, (self.nc, label_cls[label_free]), 1)
        np.add.at(self.matrix, (pred_cls[pred_free], self.nc), 1)
