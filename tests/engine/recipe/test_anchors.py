"""AutoAnchor: the figures YOLOv5 reports, and better anchors where they are needed."""

import numpy as np
import pytest
import torch

from engine.recipe.anchors import anchor_fit, box_sizes, evolve_anchors, fit_anchors
from models.yolo import DetectionModel
from tests.helpers.project import shared
from utils.data.config import image_files
from utils.data.index import index_images
from utils.data.labels import Annotation


def annotations_of(sizes, image=(640, 640)):
    """One annotation a box of the given pixel sizes."""
    height, width = image
    return [Annotation("", image, np.array([[0, 0.5, 0.5, w / width, h / height]], np.float32), []) for w, h in sizes]


def test_sizes_are_taken_at_the_training_size():
    sizes = box_sizes(annotations_of([(100, 50)], (240, 480)), 320)
    np.testing.assert_allclose(sizes, [[100 * 320 / 480, 50 * 320 / 480]], rtol=1e-5)


def test_fit_counts_what_the_loss_would_match():
    sizes = np.array([[10.0, 10], [100, 100], [10, 100]])
    anchors = np.array([[10.0, 10], [20, 20]])  # both fit the first box; no side may differ by a factor of four or more
    per_box, recall = anchor_fit(sizes, anchors, 4.0)
    assert (per_box, recall) == (pytest.approx(2 / 3), pytest.approx(1 / 3))


def test_bccd_figures(capsys):
    images = image_files([str(shared("datasets", "bccd", "images", "train"))])
    annotations = index_images(images, 3, None, "bccd").annotations
    model = DetectionModel("yolov5s.yaml", nc=3)
    before = model.detect.anchors.clone()
    fit_anchors(model.detect, annotations, 320, 4.0, 0)
    said = capsys.readouterr().out
    per_box = float(said.split("AutoAnchor: ")[1].split()[0])
    assert per_box == pytest.approx(6.33, abs=0.05)  # the sizes are jittered by a tenth, as stock does
    assert "1.000 Best Possible Recall" in said
    assert torch.equal(model.detect.anchors, before)


def test_anchors_are_found_where_the_yaml_has_a_count_only(capsys):
    model = DetectionModel("yolov5-p34.yaml", nc=2)
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.normal([3.5, 4.0], 0.6, (300, 2)))
    fit_anchors(model.detect, annotations_of(sizes), 640, 4.0, 0)
    pixels = (model.detect.anchors * model.stride.view(-1, 1, 1)).reshape(-1, 2).numpy()
    assert anchor_fit(sizes, pixels, 4.0)[1] > 0.98
    assert (np.diff(pixels.prod(1)) > 0).all()
    assert "with the new anchors" in capsys.readouterr().out


def test_finding_anchors_is_reproducible_and_beats_plain_clusters():
    sizes = np.exp(np.random.default_rng(1).normal([3.5, 4.0], 0.8, (400, 2)))
    first, second = (evolve_anchors(sizes, 6, 4.0, np.random.default_rng(0)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    clusters = evolve_anchors(sizes, 6, 4.0, np.random.default_rng(0), generations=0)

    def mean_fit(anchors):
        ratio = sizes[:, None] / anchors[None]
        return np.minimum(ratio, 1 / ratio).min(2).max(1).mean()

    assert mean_fit(first) > mean_fit(clusters)


def test_fewer_boxes_than_anchors():
    boxes = np.array([[20.0, 30], [500, 4]])
    anchors = evolve_anchors(boxes, 9, 4.0, np.random.default_rng(0))
    assert anchors.shape == (9, 2) and np.isfinite(anchors).all()
    assert anchor_fit(boxes, anchors, 4.0)[1] == 1
