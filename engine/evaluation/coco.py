"""COCO's own figures, those of small, medium and large objects among them, as faster-coco-eval computes them."""

from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO

import numpy as np
import torch

from utils.extras import load_extra

# AP at all thresholds, at IoU 0.5 and 0.75; and of boxes up to 32², up to 96², and above, in pixels of the image
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
# (threshold, or all of them; area) of these in what the library gives: areas are all, small, medium, large
PLACES = ((slice(None), 0), (slice(0, 1), 0), (slice(5, 6), 0), (slice(None), 1), (slice(None), 2), (slice(None), 3))


@dataclass(frozen=True)
class CocoFigures:
    """NAMES of all classes, and of each; NaN where nothing of that class and size is labelled."""

    overall: np.ndarray  # [6]
    per_class: np.ndarray  # [nc, 6]

    def line(self) -> str:
        said = [f"{name} {value:.3g}" for name, value in zip(NAMES, self.overall, strict=True) if not np.isnan(value)]
        return f"by COCO's rules: {', '.join(said) or 'nothing is labelled'}"


class CocoEvaluator:
    """Takes in what is found and labelled, image by image. Raises UserError where faster-coco-eval is missing."""

    def __init__(self):
        self.library = load_extra("faster_coco_eval", "--areas", "faster-coco-eval")
        self.images = 0
        self.labels: list[dict] = []
        self.found: list[dict] = []

    def add(self, detections: torch.Tensor, labelled: torch.Tensor) -> None:
        """An image's detections [n, 6] and labels [m, 6]: x1 y1 x2 y2 confidence class, in its own pixels."""
        self.images += 1
        for rows, into in ((labelled, self.labels), (detections, self.found)):
            for x1, y1, x2, y2, conf, cls in rows.tolist():
                box = [x1, y1, x2 - x1, y2 - y1]
                entry = {"image_id": self.images, "category_id": int(cls), "bbox": box, "score": conf}
                # 0 would mean that there is none
                into.append(entry | {"id": len(into) + 1, "area": box[2] * box[3], "iscrowd": 0})

    def figures(self, nc: int) -> CocoFigures:
        """The figures of all that was added, of which there are ``nc`` classes."""
        images = [{"id": i + 1} for i in range(self.images)]
        truth = {
            "images": images,
            "annotations": self.labels,
            "categories": [{"id": c, "name": str(c)} for c in range(nc)],
        }
        # the library talks
        with redirect_stdout(StringIO()):
            labels = self.library.COCO(truth)
            run = self.library.COCOeval_faster(labels, labels.loadRes(self.found), "bbox")
            run.evaluate()
            run.accumulate()
        # [thresholds, recall, classes, areas, most detections], -1 where nothing is labelled
        precision = run.eval["precision"][..., -1]
        precision = np.where(precision < 0, np.nan, precision)
        per_class = np.stack([precision[rows, :, :, area].mean((0, 1)) for rows, area in PLACES], 1)
        there = ~np.isnan(per_class)
        overall = np.where(there, per_class, 0).sum(0) / np.maximum(there.sum(0), 1)
        return CocoFigures(np.where(there.any(0), overall, np.nan), per_class)
