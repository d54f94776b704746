"""What a validation writes: pictures, text files, COCO's JSON, curves."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from engine.evaluation.figures import Evaluation
from utils.boxes import box_iou
from utils.data.coco import coco_results, image_id
from utils.data.labels import text_line
from utils.data.loader import Batch
from utils.files import short_name, unique_name
from utils.metrics import CONFIDENCE_GRID
from utils.plots.evaluation import plot_confusion_matrix, plot_errors, plot_metric_curve, plot_pr_curve
from utils.plots.grid import plot_images


def plot_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """PR, F1, P and R curves and the confusion matrix, as pictures in ``folder``; kinds of errors where they were asked for."""
    ap, names = evaluation.ap, evaluation.names
    classes = ap.classes.tolist()
    if evaluation.errors is not None:
        plot_errors(evaluation.errors.gains, evaluation.errors.counts, folder / "errors.png")
    plot_confusion_matrix(evaluation.confusion, names, folder / "confusion_matrix.png")
    if not classes:
        return
    plot_pr_curve(CONFIDENCE_GRID, ap.pr_curve, ap.ap[:, 0], folder / "PR_curve.png", names, classes)
    for curve, file, label in (
        (ap.f1_curve, "F1_curve.png", "F1"),
        (ap.p_curve, "P_curve.png", "Precision"),
        (ap.r_curve, "R_curve.png", "Recall"),
    ):
        plot_metric_curve(CONFIDENCE_GRID, curve, folder / file, names, classes, label)


def with_labels(detections: torch.Tensor, labelled: torch.Tensor, iou_thres: float) -> torch.Tensor:
    """The labels [n, 6], and behind them those of the detections [m, 6] that overlap none of their class by more than
    ``iou_thres``; x1 y1 x2 y2 confidence class."""
    same = labelled[:, None, 5] == detections[None, :, 5]
    known = ((box_iou(labelled[:, :4], detections[:, :4]) > iou_thres) & same).any(0)
    return torch.cat((labelled, detections[~known]))


class Counter(Protocol):
    """What takes in the detections [n, 6] and the labels [m, 6] of each image: x1 y1 x2 y2 confidence class, in its pixels."""

    def add(self, detections: torch.Tensor, labelled: torch.Tensor) -> None: ...


class Recorder:
    """Writes what a validation finds: pictures of the first three batches, a text file per image, one COCO JSON.

    With ``hybrid_iou`` the text files have the labels, too, and of what is found only that which overlaps no label of its
    class by more: a set that is labelled in part becomes one to look through. What is found and labelled goes to
    ``counters``, too.
    """

    def __init__(
        self,
        folder: Path,
        names: dict[int, str],
        plots: bool = True,
        save_txt: bool = False,
        save_conf: bool = False,
        save_json: bool = False,
        hybrid_iou: float | None = None,
        counters: Sequence[Counter] = (),
    ):
        self.folder = folder
        self.names = names
        self.plots = plots
        self.save_txt = save_txt
        self.hybrid_iou = hybrid_iou
        self.save_conf = save_conf
        self.json: list[dict] | None = [] if save_json else None
        self.counters = counters
        # of the images so far: two folders may hold a file of the same name
        self.stems: set[str] = set()
        self.numbers: set[int] = set()
        if save_txt:
            (folder / "labels").mkdir(exist_ok=True)

    def image(self, path: str, native: tuple[int, int], detections: torch.Tensor, labelled: torch.Tensor) -> None:
        """Record the detections [m, 6] of one image, and its labels [n, 6], of confidence 1: both in its own pixels."""
        stem = unique_name(short_name(Path(path).stem), self.stems)
        self.stems.add(stem)
        if self.save_txt:
            kept = detections if self.hybrid_iou is None else with_labels(detections, labelled, self.hybrid_iou)
            lines = [text_line(d, native, self.save_conf) for d in kept.tolist()]
            (self.folder / "labels" / f"{stem}.txt").write_text("".join(lines), encoding="utf-8")
        if self.json is not None:
            self.json += coco_results(image_id(stem, self.numbers), detections.tolist(), self.names)
        for counter in self.counters:
            counter.add(detections, labelled)

    def batch(self, number: int, batch: Batch, native_detections: list[torch.Tensor]) -> None:
        """Draw the labels and the detections of one of the first batches."""
        if not self.plots or number >= 3:
            return
        images = batch.images.permute(0, 2, 3, 1).contiguous().numpy()
        titles = [Path(p).name for p in batch.paths]
        height, width = images.shape[1:3]
        plot_images(images, batch.targets.numpy(), self.folder / f"val_batch{number}_labels.jpg", self.names, titles)
        rows, scores = [], []
        for i, detections in enumerate(native_detections):
            (rw, rh), (dw, dh) = batch.ratios[i], batch.pads[i]
            for x1, y1, x2, y2, conf, cls in detections[:, :6].tolist():
                x1, x2, y1, y2 = (x1 * rw + dw, x2 * rw + dw, y1 * rh + dh, y2 * rh + dh)
                rows.append(
                    [i, cls, (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
                )
                scores.append(conf)
        targets = np.array(rows, np.float32).reshape(-1, 6)
        path = self.folder / f"val_batch{number}_pred.jpg"
        plot_images(images, targets, path, self.names, titles, scores=np.array(scores, np.float32))

    def finish(self) -> Path | None:
        """Write the JSON, if it was asked for; returns its path."""
        if self.json is None:
            return None
        path = self.folder / "predictions.json"
        path.write_text(json.dumps(self.json), encoding="utf-8")
        return path
