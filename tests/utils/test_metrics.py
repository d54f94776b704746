"""Metrics by cases one can count; the reference arrays are in test_parity.py."""

import numpy as np
import pytest

from utils.metrics import ConfusionMatrix, ap_per_class, average_precision, fitness, match_detections, smooth


def test_perfect_detections_have_average_precision_one():
    result = ap_per_class(
        np.ones((4, 10), bool), np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])
    )
    assert result.ap.min() > 0.99
    assert result.classes.tolist() == [0, 1]
    assert result.tp.tolist() == [2, 2] and result.fp.tolist() == [0, 0]


def test_a_false_alarm_above_the_only_hit_halves_precision():
    result = ap_per_class(np.array([[0] * 10, [1] * 10], bool), np.array([0.9, 0.5]), np.zeros(2), np.zeros(1))
    assert result.ap[0, 0] == pytest.approx(0.5, abs=0.01)


def test_a_missed_class_counts_as_zero_and_an_unlabelled_one_not_at_all():
    result = ap_per_class(np.ones((1, 10), bool), np.array([0.9]), np.array([2]), np.array([1]))
    assert result.classes.tolist() == [1]
    assert result.ap.tolist() == [[0] * 10]


def test_nothing_labelled_at_all():
    result = ap_per_class(np.zeros((3, 10), bool), np.ones(3), np.zeros(3), np.zeros(0))
    assert result.ap.shape == (0, 10)


def test_area_under_the_envelope():
    # recall 0.5 at precision 1, then 1.0 at precision 2/3: the 101 points see 1 up to 0.5, then a fall to 2/3
    area, _, _ = average_precision(np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3]))
    assert area == pytest.approx(0.5 + 0.5 * 2 / 3, abs=0.01)


def test_smoothing_keeps_length_and_constants():
    assert smooth(np.full(1000, 3.0), 0.1) == pytest.approx(np.full(1000, 3.0))
    spike = np.zeros(1000)
    spike[500] = 101
    assert smooth(spike, 0.1)[500] == pytest.approx(1)  # a box of 101 points


def test_each_detection_hits_its_best_label_and_each_label_counts_once():
    iou = np.array([[0.8, 0.7, 0.0], [0.0, 0.6, 0.9]])  # labels × detections, detections by falling confidence
    hits = match_detections(iou, np.array([0, 0]), np.array([0, 0, 0]))
    assert hits[:, 0].tolist() == [True, False, True]  # the second detection prefers label 0, which is taken
    assert hits.sum(1).tolist() == [7, 0, 9]  # thresholds 0.50 … 0.80, and … 0.90


def test_classes_must_agree():
    assert not match_detections(np.array([[0.9]]), np.array([1]), np.array([0])).any()
    assert match_detections(np.zeros((0, 2)), np.zeros(0), np.zeros(2)).shape == (2, 10)


def test_confusion_matrix_counts_pairs_misses_and_false_alarms():
    confusion = ConfusionMatrix(2)
    iou = np.array([[0.9, 0.0, 0.0, 0.9], [0.0, 0.6, 0.0, 0.0], [0.0, 0.0, 0.2, 0.0]])
    confusion.add(iou, np.array([0, 0, 1]), np.array([0.9, 0.8, 0.7, 0.1]), np.array([0, 1, 1, 0]))
    assert confusion.matrix.tolist() == [
        [1, 0, 0],  # predicted 0
        [1, 0, 1],  # predicted 1: a true 0, and background
        [0, 1, 0],  # missed: a 1
    ]


def test_fitness():
    assert fitness(0.5, 0.3) == pytest.approx(0.05 + 0.27)
