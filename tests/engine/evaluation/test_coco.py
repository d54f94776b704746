"""COCO's figures by the size of objects: what can be counted by hand, and what pycocotools says."""

from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
import torch

from engine.evaluation.coco import CocoEvaluator


def boxes(*rows) -> torch.Tensor:
    """x y side confidence class → x1 y1 x2 y2 confidence class."""
    return torch.tensor([[x, y, x + side, y + side, conf, cls] for x, y, side, conf, cls in rows]).reshape(-1, 6)


def evaluator() -> CocoEvaluator:
    pytest.importorskip("faster_coco_eval")
    return CocoEvaluator()


def test_each_size_has_its_own_figure():
    """A small and a large object are found exactly, one of medium size is not; the second class is never labelled."""
    found = evaluator()
    labels = boxes((0, 0, 20, 1, 0), (100, 100, 50, 1, 0), (200, 200, 200, 1, 0))
    found.add(boxes((0, 0, 20, 0.9, 0), (200, 200, 200, 0.8, 0), (500, 0, 10, 0.7, 1)), labels)
    found.add(boxes(), boxes())
    figures = found.figures(2)
    # precision is 1 up to a recall of 2/3: at 67 of 101 points
    np.testing.assert_allclose(figures.per_class[0], [67 / 101] * 3 + [1, 0, 1], atol=1e-12)
    assert np.isnan(figures.per_class[1]).all()
    np.testing.assert_array_equal(figures.overall, figures.per_class[0])
    assert figures.line() == "by COCO's rules: AP 0.663, AP50 0.663, AP75 0.663, APs 1, APm 0, APl 1"


def test_nothing_found_and_nothing_labelled():
    found = evaluator()
    found.add(boxes(), boxes((0, 0, 20, 1, 0)))
    assert found.figures(1).line() == "by COCO's rules: AP 0, AP50 0, AP75 0, APs 0"
    bare = evaluator()
    bare.add(boxes((0, 0, 20, 0.5, 0)), boxes())
    assert bare.figures(1).line() == "by COCO's rules: nothing is labelled"


def test_the_figures_are_those_of_pycocotools():
    """On 40 made-up images with three classes, boxes of all sizes found more or less well, and false alarms."""
    coco, cocoeval = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    found, rng = evaluator(), np.random.default_rng(0)
    for _ in range(40):
        labels = boxes(*((*rng.uniform(0, 400, 2), rng.choice([20, 60, 150]), 1, rng.integers(3)) for _ in range(6)))
        seen = labels.clone()
        seen[:, :4] += torch.tensor(rng.normal(0, 5, (6, 4)))
        seen[:, 4] = torch.tensor(rng.uniform(0.1, 1, 6))
        alarms = boxes(
            *((*rng.uniform(0, 400, 2), rng.choice([20, 60, 150]), rng.uniform(0, 0.6), 1) for _ in range(4))
        )
        found.add(torch.cat((seen, alarms)), labels)
    figures = found.figures(3)
    with redirect_stdout(StringIO()):
        truth = coco.COCO()
        truth.dataset = {
            "images": [{"id": i + 1} for i in range(40)],
            "annotations": found.labels,
            "categories": [{"id": c} for c in range(3)],
        }
        truth.createIndex()
        run = cocoeval.COCOeval(truth, truth.loadRes(found.found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    np.testing.assert_allclose(figures.overall, run.stats[:6], rtol=0, atol=1e-9)
    assert (figures.overall > 0.02).all() and len(set(figures.overall)) == 6
