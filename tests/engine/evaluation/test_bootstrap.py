"""Intervals over images: against images that are literally repeated, and against the truth of made-up detectors."""

from dataclasses import replace

import numpy as np
import pytest

from bench.comparison.interval_coverage import coverage, detect, figures_of, make_scene, paired_coverage
from engine.evaluation.bootstrap import (
    draw_images,
    interval,
    intervals_of,
    mean_over_classes,
    paired_difference,
    resampled_figures,
)
from engine.evaluation.matches import ImageMatches, Matches
from utils.metrics import APResult, ap_per_class


def made_up(images=12, classes=3, seed=0, labels=3.0, **model) -> Matches:
    rng = np.random.default_rng(seed)
    return detect(make_scene(images, classes, rng, labels), rng, **model)


def images_of(matches: Matches) -> list[ImageMatches]:
    found, labelled = (
        [column == i for i in range(len(matches.paths))] for column in (matches.image, matches.label_image)
    )
    return [
        ImageMatches(path, matches.hits[f], matches.conf[f], matches.cls[f], matches.label_cls[m])
        for path, f, m in zip(matches.paths, found, labelled, strict=True)
    ]


def repeated(matches: Matches, counts: np.ndarray) -> APResult:
    """The project's own figures of a set that has each image as often as it was drawn."""
    images = images_of(matches)
    drawn = Matches.of(image for image, count in zip(images, counts, strict=True) for _ in range(count))
    return ap_per_class(drawn.hits, drawn.conf, drawn.cls, drawn.label_cls)


def with_ties(matches: Matches) -> Matches:
    """In the order of the images, with rounded confidences: many are equal across images, none within one."""
    matches = Matches.of(images_of(matches))
    within = np.array([(matches.image[:i] == image).sum() for i, image in enumerate(matches.image)])
    return replace(matches, conf=np.round(matches.conf) + within / 1000)


@pytest.mark.parametrize(
    "matches",
    [
        made_up(),
        made_up(images=30, classes=2, seed=1),
        with_ties(made_up(images=40, classes=1, seed=2)),
        # all found, so that recall reaches 1; nothing but alarms; hits alone, some of them too loose
        made_up(skill=20, seed=3),
        made_up(skill=-20, seed=4),
        made_up(alarms=0, seed=5),
        # resamples without labels of a class, and without its detections
        made_up(images=6, classes=8, labels=1, alarms=1, seed=6),
    ],
)
def test_a_resample_has_the_figures_of_its_images_repeated(matches):
    weights = draw_images(len(matches.paths), 12)
    weights[0] = 1
    classes = np.unique(matches.label_cls)
    figures = resampled_figures(matches, weights)
    assert figures.shape == (12, len(classes), 3)
    for counts, per_class, mean in zip(weights, figures, mean_over_classes(figures), strict=True):
        expected = repeated(matches, counts)
        there = np.isin(classes, expected.classes)
        columns = np.stack((expected.ap[:, 0], expected.ap[:, 5], expected.ap.mean(1)), 1)
        np.testing.assert_allclose(per_class[there], columns, rtol=0, atol=1e-12)
        assert np.isnan(per_class[~there]).all()
        np.testing.assert_allclose(mean, columns.mean(0), rtol=0, atol=1e-12)


def test_each_resample_has_as_many_images_as_there_are():
    weights = draw_images(50, 400)
    assert weights.shape == (400, 50) and (weights.sum(1) == 50).all()
    # each image is left out of 0.98^50 = 36 % of them
    assert (weights == 0).mean() == pytest.approx(0.364, abs=0.01)


def test_the_same_seed_gives_the_same_intervals():
    matches = made_up(images=40)
    first, again, other = (intervals_of(matches, 100, seed, progress=False) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.overall, again.overall)
    np.testing.assert_array_equal(first.per_class, again.per_class)
    assert (first.overall != other.overall).any()
    low, high = first.overall.T
    assert (low < figures_of(matches)).all() and (figures_of(matches) < high).all()


def test_what_is_the_same_in_every_resample_has_no_width():
    none = Matches.of([ImageMatches("a", np.zeros((0, 10), bool), np.zeros(0), np.zeros(0), np.zeros(2))] * 3)
    assert (intervals_of(none, 20, progress=False).overall == 0).all()
    alone = made_up(images=1, labels=9)
    bounds = intervals_of(alone, 20, progress=False)
    assert (bounds.overall == figures_of(alone)[:, None]).all() and 0 < bounds.overall[0, 0] < 1
    unlabelled = made_up(labels=0)
    bounds = intervals_of(unlabelled, 20, progress=False)
    assert len(unlabelled.conf) and (bounds.overall == 0).all() and bounds.per_class.shape == (0, 3, 2)


def test_a_class_that_was_never_drawn_has_no_interval():
    images = images_of(made_up(images=2, classes=1, labels=9))
    images[1] = images[1]._replace(cls=images[1].cls + 1, label_cls=images[1].label_cls + 1)
    seed = next(seed for seed in range(99) if draw_images(2, 1, seed)[0, 1] == 0)
    bounds = intervals_of(Matches.of(images), 1, seed, progress=False)
    assert np.isfinite(bounds.overall).all()
    assert np.isfinite(bounds.per_class[0]).all() and np.isnan(bounds.per_class[1]).all()


def test_bounds_are_percentiles_and_farther_out_for_few_images():
    values = np.linspace(0, 1, 10_001)
    np.testing.assert_allclose(interval(values, 10**6), [0.025, 0.975], atol=1e-4)
    # Student's t of 29 degrees of freedom, 2.0452, times the root of 30/29: 2.0802 standard deviations, with 0.0188 beyond
    np.testing.assert_allclose(interval(values, 30), [0.0188, 0.9812], atol=3e-4)
    assert np.isnan(interval(np.full(9, np.nan), 5)).all()


def test_a_difference_is_of_the_same_images_for_both():
    """A model that is a little better on most images: the intervals of the two overlap, that of the difference says so."""
    rng = np.random.default_rng(0)
    scene = make_scene(150, 2, rng)
    worse, better = (detect(scene, np.random.default_rng(seed), skill) for seed, skill in ((1, 0), (2, 0.3)))
    found = paired_difference(worse, better, 300)
    np.testing.assert_allclose(found.figures, figures_of(better) - figures_of(worse), atol=1e-12)
    assert (found.bounds[:, 0] > 0).all()
    high, low = intervals_of(worse, 300, progress=False), intervals_of(better, 300, progress=False)
    assert (high.overall[:, 1] > low.overall[:, 0]).all()
    back = paired_difference(better, worse, 300)
    np.testing.assert_allclose(back.bounds, -found.bounds[:, ::-1], atol=1e-12)
    same = paired_difference(worse, worse, 300)
    assert (same.figures == 0).all() and (same.bounds == 0).all()


def test_images_are_paired_by_their_paths():
    rng = np.random.default_rng(0)
    scene = make_scene(20, 2, rng)
    first, second = detect(scene, rng), detect(scene, rng, 0.3)
    turned = Matches.of(reversed(images_of(second)))
    expected, found = paired_difference(first, second, 50), paired_difference(first, turned, 50)
    np.testing.assert_allclose(found.bounds, expected.bounds, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="same images"):
        paired_difference(first, replace(second, paths=[f"other/{path}" for path in second.paths]), 5)
    with pytest.raises(ValueError, match="same labels"):
        paired_difference(first, replace(second, label_cls=1 - second.label_cls), 5)


@pytest.mark.parametrize("measure", [coverage, paired_coverage])
def test_of_a_hundred_intervals_about_ninety_five_hold_the_truth(measure):
    held = measure(images=200, classes=1, runs=200, resamples=100)
    assert (held >= 0.93).all() and (held <= 0.97).all(), held
