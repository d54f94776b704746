"""Do the heat maps of detect.py --explain lie on the objects? Measured on images of data/shapes.yaml, which need not be written.

    python bench/heat_on_objects.py --weights runs/train/exp/weights/best.pt --imgsz 192

For a checkpoint that has learnt the shapes, and for its own description with fresh weights: how many times its share of the
area a labelled box holds of the heat. 1 is what heat without a place would have.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from engine.detection.heatmaps import Explainer  # noqa: E402
from engine.detection.pipeline import Thresholds  # noqa: E402
from models.load import detector_from  # noqa: E402
from models.yolo import DetectionModel  # noqa: E402
from utils.boxes import box_iou, xywh2xyxy  # noqa: E402
from utils.checkpoint import read_checkpoint  # noqa: E402
from utils.data.shapes import IMAGE_SIZE, IMAGES, draw_scene  # noqa: E402


def gains(explainer: Explainer, scenes: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """How many times its share of the area a labelled box holds of the heat: of each detection, the box it overlaps most;
    by EigenCAM, which knows of no detection, all boxes of an image.

    ``scenes``: images uint8 [h, w, 3], and the boxes [m, 4] of their objects, x1 y1 x2 y2 in pixels.
    """
    found = []
    for image, boxes in scenes:
        seen = explainer(image)
        if explainer.method == "eigencam":
            found.append(share_within(seen.heat(), boxes))
            continue
        nearest = box_iou(torch.from_numpy(boxes).float(), seen.detections[:, :4]).argmax(0).tolist()
        found += [share_within(seen.enlarged(own), boxes[[i]]) for own, i in zip(seen.maps, nearest, strict=True)]
    return np.array(found)


def share_within(heat: np.ndarray, boxes: np.ndarray) -> float:
    """The part of ``heat`` [h, w] within ``boxes`` by the part of the area that they cover; 0 where there is no heat."""
    inside = np.zeros(heat.shape, bool)
    for x1, y1, x2, y2 in boxes.round().astype(int).clip(0):
        inside[y1:y2, x1:x2] = True
    return float(heat[inside].sum() / max(heat.sum(), 1e-12) / inside.mean())


def shapes(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The first scenes of the set that have objects, those of the validation before those of the training."""
    found = []
    for split, index in itertools.chain(*(zip(itertools.repeat(s), range(IMAGES[s])) for s in ("val", "train"))):
        scene = draw_scene(split, index)
        if len(scene.labels):
            found.append((scene.image, xywh2xyxy(scene.labels[:, 1:]) * IMAGE_SIZE))
        if len(found) == count:
            break
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, help="a checkpoint that has learnt data/shapes.yaml")
    parser.add_argument("--imgsz", type=int, default=192)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--max-det", type=int, default=3, help="of how many detections an image's heat is made")
    options = parser.parse_args()
    scenes = shapes(options.images)
    trained = detector_from(read_checkpoint(options.weights)).fuse()
    torch.manual_seed(0)
    fresh = DetectionModel(trained.yaml).fuse()
    print(f"{len(scenes)} images with {sum(len(boxes) for _, boxes in scenes)} objects")
    for name, model, least in ((options.weights, trained, 0.25), ("fresh weights", fresh, 0.0)):
        for method in ("layercam", "eigencam"):
            thresholds = Thresholds(least, max_det=options.max_det)
            explainer = Explainer(model, torch.device("cpu"), thresholds, (options.imgsz,) * 2, method)
            found = gains(explainer, scenes)
            said = (
                f"median {np.median(found):.1f} ×, 3 × or more on {np.mean(found >= 3):.0%}"
                if len(found)
                else "nothing"
            )
            print(f"{method} of {name}: {said} of {len(found)} maps")


if __name__ == "__main__":
    main()
