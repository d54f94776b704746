"""Validation: how well a detector finds what is labelled.

evaluate(model, loader, …) → Evaluation      figures over a whole set
    Recorder                                 what is written on the way: pictures, text files, JSON
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.ops import box_iou
from tqdm import tqdm

from engine.export.runtime import Runtime, find_boxes
from utils.boxes import scale_boxes, xywh2xyxy
from utils.data.coco import coco_results
from utils.data.labels import text_line
from utils.data.loader import Batch, watching_workers
from utils.device import now
from utils.distributed import World
from utils.loss.detection import DetectionLoss
from utils.metrics import CONFIDENCE_GRID, APResult, ConfusionMatrix, ap_per_class, match_detections
from utils.plots.evaluation import plot_confusion_matrix, plot_metric_curve, plot_pr_curve
from utils.plots.grid import plot_images


@dataclass
class Evaluation:
    """Figures of one validation. ``speed`` in ms per image: pre-processing, inference, NMS; ``loss``: box, obj, cls."""

    names: dict[int, str]
    images: int
    instances: int
    ap: APResult
    images_per_class: np.ndarray  # [nc]
    instances_per_class: np.ndarray  # [nc]
    speed: tuple[float, float, float]
    loss: np.ndarray = field(default_factory=lambda: np.zeros(3))
    confusion: np.ndarray | None = None

    @property
    def p(self) -> float:
        return _mean(self.ap.p)

    @property
    def r(self) -> float:
        return _mean(self.ap.r)

    @property
    def map50(self) -> float:
        return _mean(self.ap.ap[:, 0])

    @property
    def map50_95(self) -> float:
        return _mean(self.ap.ap)

    @property
    def class_maps(self) -> np.ndarray:
        """mAP50-95 of every class [nc]; of one that does not occur, the mean of the others."""
        maps = np.full(len(self.names), self.map50_95)
        maps[self.ap.classes] = self.ap.ap.mean(1)
        return maps

    HEADER = f"{'Class':>22}{'Images':>11}{'Instances':>11}{'P':>11}{'R':>11}{'mAP50':>11}{'mAP50-95':>11}"

    def table(self, verbose: bool = False) -> str:
        """The row of all classes, and with ``verbose`` one per class that occurs."""
        figures = (self.p, self.r, self.map50, self.map50_95)
        lines = [_row("all", self.images, self.instances, figures)]
        if verbose:
            ap = self.ap
            for i, c in enumerate(ap.classes):
                figures = (ap.p[i], ap.r[i], ap.ap[i, 0], ap.ap[i].mean())
                lines.append(_row(self.names[c], self.images_per_class[c], self.instances_per_class[c], figures))
        return "\n".join(lines)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0


def _row(name: str, images: int, instances: int, figures: tuple) -> str:
    return f"{name:>22}{images:>11}{instances:>11}" + "".join(f"{v:>11.3g}" for v in figures)


class Tally:
    """What is counted while a set is evaluated, piece by piece; the pieces of several processes can be put together."""

    def __init__(self, nc: int):
        self.pieces: dict[
            int, list[tuple[np.ndarray, ...]]
        ] = {}  # batch number → images' hits, conf, cls, label classes
        self.images_per_class = np.zeros(nc, int)
        self.confusion = np.zeros((nc + 1, nc + 1))
        self.losses = np.zeros(3)
        self.clock = np.zeros(3)

    def add(self, others: list["Tally"]) -> "Tally":
        """Take in what other processes have counted; images are then in the order of the set again."""
        for other in others:
            self.pieces |= other.pieces
            for name in ("images_per_class", "confusion", "losses", "clock"):
                setattr(self, name, getattr(self, name) + getattr(other, name))
        self.pieces = dict(sorted(self.pieces.items()))
        return self


@watching_workers()
@torch.inference_mode()
def evaluate(
    model: nn.Module | Runtime,
    loader: DataLoader,
    device: torch.device,
    names: dict[int, str],
    conf_thres: float = 0.001,
    iou_thres: float = 0.6,
    max_det: int = 300,
    augment: bool = False,
    single_cls: bool = False,
    loss: DetectionLoss | None = None,
    recorder: "Recorder | None" = None,
    progress: str | None = Evaluation.HEADER,
    world: World | None = None,
) -> Evaluation:
    """Run ``model`` (eval mode) over the batches of ``loader`` and hold its boxes against the labels, in native pixels.

    With ``world`` the loader has this process's share of the batches, and every process returns the figures of all.
    """
    world = world or World()
    nc = len(names)
    tally = Tally(nc)
    confusion = ConfusionMatrix(nc)
    hidden = progress is None or not world.is_first
    for number, batch in enumerate(tqdm(loader, desc=progress, disable=hidden, bar_format="{l_bar}{bar:10}{r_bar}")):
        times = [now(device)]
        pixels = batch.images.to(device, non_blocking=True)
        targets = batch.targets.to(device)
        pixels = pixels.float() / 255
        times.append(now(device))
        predictions, maps = model(pixels, augment=augment)
        times.append(now(device))
        if loss is not None:
            tally.losses += loss(maps, targets)[1].cpu().numpy()
        started = now(device)
        thresholds = {"conf_thres": conf_thres, "iou_thres": iou_thres, "max_det": max_det}
        found = find_boxes(model, predictions, agnostic=single_cls, multi_label=True, **thresholds)
        finished = now(device)
        tally.clock += np.diff(times).tolist() + [finished - started]
        height, width = batch.images.shape[2:]
        size = torch.tensor([width, height, width, height], device=device)
        images = []
        for i, detections in enumerate(found):
            where = (batch.ratios[i], batch.pads[i], batch.natives[i])
            labels = targets[targets[:, 0] == i, 1:]
            boxes = scale_boxes(xywh2xyxy(labels[:, 1:] * size), *where)
            detections[:, :4] = scale_boxes(detections[:, :4].float(), *where)
            if single_cls:
                detections[:, 5] = 0
            iou = box_iou(boxes, detections[:, :4].float()).cpu().numpy()
            label_cls, (conf, cls) = labels[:, 0].cpu().numpy(), detections[:, 4:].T.float().cpu().numpy()
            images.append((match_detections(iou, label_cls, cls), conf, cls, label_cls))
            tally.images_per_class[np.unique(label_cls).astype(int)] += 1
            confusion.add(iou, label_cls, conf, cls)
            if recorder is not None:
                recorder.image(batch.paths[i], batch.natives[i], detections.cpu())
        tally.pieces[number * world.size + world.rank] = images
        if recorder is not None:
            recorder.batch(number, batch, found)
    tally.confusion = confusion.matrix
    return evaluation_of(Tally(nc).add(world.gather(tally)), names)


def evaluation_of(tally: Tally, names: dict[int, str]) -> Evaluation:
    images = [image for piece in tally.pieces.values() for image in piece]
    hits, conf, cls, label_cls = (np.concatenate(column) for column in zip(*images, strict=True))
    return Evaluation(
        names=names,
        images=len(images),
        instances=len(label_cls),
        ap=ap_per_class(hits, conf, cls, label_cls),
        images_per_class=tally.images_per_class,
        instances_per_class=np.bincount(label_cls.astype(int), minlength=len(names)),
        speed=tuple(tally.clock / len(images) * 1e3),
        loss=tally.losses / len(tally.pieces),
        confusion=tally.confusion,
    )


def plot_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """PR, F1, P and R curves and the confusion matrix, as pictures in ``folder``."""
    ap, names = evaluation.ap, evaluation.names
    classes = ap.classes.tolist()
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


class Recorder:
    """Writes what a validation finds: pictures of the first three batches, a text file per image, one COCO JSON."""

    def __init__(
        self,
        folder: Path,
        names: dict[int, str],
        plots: bool = True,
        save_txt: bool = False,
        save_conf: bool = False,
        save_json: bool = False,
    ):
        self.folder = folder
        self.names = names
        self.plots = plots
        self.save_txt = save_txt
        self.save_conf = save_conf
        self.json: list[dict] | None = [] if save_json else None
        if save_txt:
            (folder / "labels").mkdir(exist_ok=True)

    def image(self, path: str, native: tuple[int, int], detections: torch.Tensor) -> None:
        """Record the detections [m, 6] of one image, in its own pixels."""
        if self.save_txt:
            lines = [text_line(d, native, self.save_conf) for d in detections.tolist()]
            (self.folder / "labels" / f"{Path(path).stem}.txt").write_text("".join(lines), encoding="utf-8")
        if self.json is not None:
            self.json += coco_results(Path(path).stem, detections.tolist(), self.names)

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
