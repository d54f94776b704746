"""Anchors: their order over the levels, how well they fit a data set, and better ones where they don't.

"Fit" is the rule the loss matches by: neither side of a box is more than ``anchor_t`` times that of the anchor, or less
than 1/anchor_t of it.
"""

import cv2
import numpy as np
import torch

from models.heads.anchors import anchors_in_stride_order
from models.heads.protocol import Head
from utils.console.progress import track
from utils.data.labels import Annotation

GOOD_RECALL = 0.98  # of the boxes have an anchor that fits: then the anchors stay


def box_sizes(annotations: list[Annotation], size: int, jitter: np.ndarray | None = None) -> np.ndarray:
    """Widths and heights [n, 2] in pixels of all boxes, each image's longer side at ``size`` times its ``jitter``."""
    scales = np.ones(len(annotations)) if jitter is None else jitter
    sizes = [
        a.labels[:, 3:5] * (np.array(a.shape[::-1]) / max(a.shape) * size * scale)
        for a, scale in zip(annotations, scales, strict=True)
    ]
    return np.concatenate(sizes).astype(np.float64)


def side_ratios(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """The worse side ratio of each box [n, 2] to each anchor [k, 2], 0..1, 1 being equal: [n, k]."""
    ratio = sizes[:, None] / anchors[None]
    return np.minimum(ratio, 1 / ratio).min(2)


def anchor_fit(sizes: np.ndarray, anchors: np.ndarray, anchor_t: float) -> tuple[float, float]:
    """Anchors per box that fit it, and the share of boxes that have one (best possible recall)."""
    fits = side_ratios(sizes, anchors) > 1 / anchor_t
    return float(fits.sum(1).mean()), float(fits.any(1).mean())


def fit_anchors(detect: Head, annotations: list[Annotation], size: int, anchor_t: float, seed: int) -> None:
    """Check the anchors of a head against the data at ``size``; one without anchors has none to check.

    Where fewer than 98 % of the boxes have a fitting anchor, find better ones, and put them in if they are.
    """
    if not detect.anchored:
        return
    rng = np.random.default_rng((seed, len(annotations)))
    sizes = box_sizes(annotations, size, rng.uniform(0.9, 1.1, len(annotations)))
    stride = detect.stride.view(-1, 1, 1)
    present = (detect.anchors * stride).reshape(-1, 2).cpu().double().numpy()
    per_box, recall = anchor_fit(sizes, present, anchor_t)
    print(f"AutoAnchor: {per_box:.2f} anchors/target, {recall:.3f} Best Possible Recall (BPR)", end=". ")
    if recall > GOOD_RECALL:
        print("The anchors fit the data.")
        return
    print("The anchors fit the data poorly, looking for better ones.")
    found = evolve_anchors(box_sizes(annotations, size), len(present), anchor_t, rng)
    per_box, found_recall = anchor_fit(sizes, found, anchor_t)
    if found_recall <= recall:
        print("AutoAnchor: none better found, the anchors stay.")
        return
    new = torch.tensor(found, dtype=detect.anchors.dtype, device=detect.anchors.device).view_as(detect.anchors)
    detect.anchors[:] = anchors_in_stride_order(new, detect.stride) / stride
    words = ", ".join(f"{w:.0f},{h:.0f}" for w, h in found)
    print(f"AutoAnchor: {per_box:.2f} anchors/target, {found_recall:.3f} BPR with the new anchors {words}")


def evolve_anchors(
    sizes: np.ndarray, count: int, anchor_t: float, rng: np.random.Generator, generations: int = 1000
) -> np.ndarray:
    """``count`` anchors [count, 2] for boxes [n, 2], smallest first: k-means on whitened sizes, then random mutation that
    keeps what raises the mean of the best fits."""
    sizes = sizes[(sizes >= 2).any(1)]
    spread = sizes.std(0) + 1e-9
    if len(sizes) >= count:
        cv2.setRNGSeed(int(rng.integers(2**31 - 1)))
        criteria = (cv2.TERM_CRITERIA_MAX_ITER + cv2.TERM_CRITERIA_EPS, 300, 1e-4)
        points = (sizes / spread).astype(np.float32)
        anchors = cv2.kmeans(points, count, None, criteria, 10, cv2.KMEANS_PP_CENTERS)[2].astype(np.float64) * spread
    else:  # fewer boxes than anchors: the boxes themselves, over and over, a little changed
        anchors = np.resize(sizes, (count, 2)) * rng.uniform(0.9, 1.1, (count, 2))

    def score(candidate: np.ndarray) -> float:
        best = side_ratios(sizes, candidate).max(1)
        return float((best * (best > 1 / anchor_t)).mean())

    best = score(anchors)
    for _ in track(range(generations), "evolving anchors"):
        changed = rng.random(anchors.shape) < 0.9
        factor = 1 + changed * rng.random() * rng.normal(size=anchors.shape) * 0.1
        candidate = (anchors * factor.clip(0.3, 3.0)).clip(2.0)
        candidate_score = score(candidate)
        if candidate_score > best:
            anchors, best = candidate, candidate_score
    return anchors[anchors.prod(1).argsort()]
