"""Kinds of errors: what can be worked out by hand, and what holds whatever a detector finds."""

import numpy as np
import pytest
import torch

from engine.evaluation.errors import KINDS, PERFECT, SPECIAL, ErrorEvaluator, ErrorFigures, error_kinds
from utils.boxes import box_iou
from utils.metrics import ap_per_class, match_detections

# places of labels 10 px wide, far apart; moved by so many pixels, a box overlaps its label by an IoU of about .33 and .05
PLACES = (0, 100, 200)
AWAY, FAR = 5, 9


def boxes(*rows) -> torch.Tensor:
    """(x, class, confidence) → x1 y1 x2 y2 confidence class, of boxes 10 px wide."""
    return torch.tensor([[x, 0, x + 10, 10, conf, cls] for x, cls, conf in rows]).reshape(-1, 6)


def labels(*classes) -> torch.Tensor:
    return boxes(*((x, cls, 1) for x, cls in zip(PLACES, classes, strict=False)))


def figures(*images) -> ErrorFigures:
    evaluator = ErrorEvaluator()
    for found, labelled in images:
        evaluator.add(found, labelled)
    return evaluator.figures()


# Of one class with two labels, the first found at .9, AP is .75: precision 1 up to a recall of .5, then falling to (1, 0).
# With a false alarm above it .375: all of that at half the precision. Of a class with one label, found below a false alarm, .5.
CASES = {
    "Loc": (
        labels(0, 0),
        boxes((100 + AWAY, 0, 0.95), (0, 0, 0.9)),
        0.375,
        {"Loc": 0.625, "FalsePos": 0.375, "FalseNeg": 0.125},
    ),
    "Cls": (labels(0, 0), boxes((100, 1, 0.95), (0, 0, 0.9)), 0.75, {"Cls": 0.25, "FalseNeg": 0.25}),
    "Both": (
        labels(0, 0, 1),
        boxes((100 + AWAY, 1, 0.95), (0, 0, 0.9), (200, 1, 0.85)),
        0.625,
        {"Both": 0.25, "Miss": 0.125, "FalsePos": 0.25, "FalseNeg": 0.125},
    ),
    "Dupe": (
        labels(0, 0),
        boxes((0, 0, 0.9), (1, 0, 0.85), (100, 0, 0.8)),
        5 / 6,
        {"Dupe": 1 / 6, "FalsePos": 1 / 6},
    ),
    "Bkg": (labels(0), boxes((FAR, 0, 0.95), (0, 0, 0.9)), 0.5, {"Bkg": 0.5, "FalsePos": 0.5}),
    "Miss": (labels(0, 0), boxes((0, 0, 0.9)), 0.75, {"Miss": 0.25, "FalseNeg": 0.25}),
}


@pytest.mark.parametrize("kind", CASES)
def test_each_kind_by_hand(kind):
    labelled, found, ap50, gains = CASES[kind]
    # no error on the second image, which has nothing
    figures_ = figures((found, labelled), (boxes(), boxes()))
    assert figures_.ap50 == pytest.approx(ap50, abs=0.006)
    assert figures_.gains == pytest.approx(dict.fromkeys((*KINDS, *SPECIAL), 0.0) | gains, abs=0.006)
    missed = {"Loc": 1, "Cls": 1, "Both": 1, "Miss": 1}.get(kind, 0)
    expected = {kind: 1, "FalsePos": int(kind != "Miss"), "FalseNeg": missed} | ({"Miss": 1} if kind == "Both" else {})
    assert {name: count for name, count in figures_.counts.items() if count} == {k: v for k, v in expected.items() if v}


def test_the_more_confident_of_two_that_find_a_label_stays():
    """A loose box above a good one: moved into place it finds the label, and the good one goes."""
    found = figures((boxes((AWAY, 0, 0.9), (0, 0, 0.8)), labels(0)))
    assert found.gains["Loc"] == pytest.approx(0.5, abs=0.006) and found.counts["Loc"] == 1
    # below it the loose one goes, and nothing is gained
    below = figures((boxes((0, 0, 0.8), (AWAY, 0, 0.7)), labels(0)))
    assert below.gains["Loc"] == pytest.approx(0, abs=1e-9) and below.counts["Loc"] == 1
    # and so for the class: the same box under two names
    twice = figures((boxes((0, 1, 0.9), (0, 0, 0.8)), labels(0)), (boxes((0, 1, 0.7)), labels(1)))
    assert twice.counts == dict.fromkeys((*KINDS, *SPECIAL), 0) | {"Cls": 1, "FalsePos": 1}
    assert twice.gains["Cls"] == pytest.approx(0.25, abs=0.006)


def test_where_several_apply_the_own_class_comes_first():
    at = torch.tensor([[0, 0, 10, 10, 1, 0], [0, 0, 10, 9, 1, 1], [0, 0, 4, 10, 1, 2]])
    named = {}
    for cls, hit in ((0, True), (1, True), (2, False)):
        found = torch.tensor([[0, 0, 10, 10, 0.9, cls], [0, 0, 10, 10, 0.8, cls]])
        counts = figures((found, at)).counts
        named[cls] = {kind: counts[kind] for kind in KINDS[:-1] if counts[kind]}
        assert counts["FalsePos"] == 2 - hit
    # IoUs 1 and .9 with its label: the second is a duplicate, though it lies on another class's; .4: Loc, not Cls
    assert named == {0: {"Dupe": 1}, 1: {"Dupe": 1}, 2: {"Loc": 2}}


def test_nothing_found_and_nothing_labelled():
    nothing = dict.fromkeys((*KINDS, *SPECIAL), 0.0)
    assert figures((boxes(), labels(0, 1))).gains == nothing | {"Miss": PERFECT, "FalseNeg": PERFECT}
    assert figures((boxes((0, 0, 0.5)), boxes())).gains == nothing
    assert figures((boxes((0, 0, 0.5)), boxes())).counts == dict.fromkeys(nothing, 0) | {"Bkg": 1, "FalsePos": 1}
    assert figures((boxes(), boxes())).gains == nothing


def scene(rng: np.random.Generator, skill: float = 0.6) -> tuple[torch.Tensor, torch.Tensor]:
    """An image of up to six labels of three classes, found more or less well, twice or not at all, and false alarms."""
    n = rng.integers(0, 7)
    corners = rng.uniform(0, 300, (n, 2))
    labelled = np.hstack((corners, corners + rng.uniform(20, 80, (n, 2)), np.ones((n, 1)), rng.integers(0, 3, (n, 1))))
    found = labelled[rng.random(n) < 0.9].repeat(2, 0)
    found[:, :4] += rng.normal(0, 12 * (1 - skill), (len(found), 4)) * rng.choice([0.3, 3], (len(found), 1))
    alarms = rng.uniform(0, 300, (rng.integers(0, 5), 2))
    alarms = np.hstack((alarms, alarms + 40, np.ones((len(alarms), 1)), rng.integers(0, 3, (len(alarms), 1))))
    found = np.vstack((found, alarms))
    found[:, 4] = rng.uniform(0.05, 1, len(found))
    wrong = rng.random(len(found)) < 0.2
    found[wrong, 5] = rng.integers(0, 3, wrong.sum())
    order = np.argsort(-found[:, 4])
    return torch.tensor(found[order], dtype=torch.float32), torch.tensor(labelled, dtype=torch.float32)


@pytest.mark.parametrize("seed", range(8))
def test_what_holds_for_any_detector(seed):
    rng = np.random.default_rng(seed)
    images = [scene(rng, skill=seed / 8) for _ in range(30)]
    found = figures(*images)
    # AP50 is that of the table
    hits, conf, cls, label_cls = [], [], [], []
    for detections, labelled in images:
        iou = box_iou(labelled[:, :4], detections[:, :4]).numpy()
        hits.append(match_detections(iou, labelled[:, 5].numpy(), detections[:, 5].numpy()))
        conf.append(detections[:, 4].numpy())
        cls.append(detections[:, 5].numpy())
        label_cls.append(labelled[:, 5].numpy())
    ap = ap_per_class(*map(np.concatenate, (hits, conf, cls, label_cls)))
    assert found.ap50 == pytest.approx(ap.ap[:, 0].mean(), abs=1e-9)
    # mending only helps, and no kind more than all of them
    assert min(found.gains.values()) > -1e-9 and max(found.gains.values()) <= PERFECT - found.ap50 + 1e-9
    assert all(found.gains["FalsePos"] >= found.gains[kind] - 1e-9 for kind in ("Both", "Dupe", "Bkg"))
    assert found.gains["FalseNeg"] >= found.gains["Miss"] - 1e-9
    # every detection is a hit or of one kind
    every = np.concatenate(hits)[:, 0]
    assert sum(found.counts[kind] for kind in KINDS[:-1]) == found.counts["FalsePos"] == (~every).sum()
    assert found.counts["FalseNeg"] == sum(map(len, label_cls)) - every.sum() >= found.counts["Miss"]
    assert all(found.counts[kind] for kind in KINDS)
    # the order of images doesn't matter
    assert figures(*images[::-1]).gains == pytest.approx(found.gains, abs=1e-9)


def test_perfect_detections_have_no_errors():
    rng = np.random.default_rng(0)
    evaluator = ErrorEvaluator()
    for _ in range(20):
        labelled = scene(rng)[1]
        evaluator.add(labelled, labelled)
    found = evaluator.figures()
    assert found.ap50 == PERFECT == pytest.approx(0.995) and not any(found.counts.values())
    assert error_kinds(evaluator.overlaps()) == pytest.approx(dict.fromkeys((*KINDS, *SPECIAL), 0.0))
