"""Intervals over images and seeds, and the verdicts upon them: by simulation, where the truth is known."""

import numpy as np
import pytest

from engine.comparison import pairs
from engine.comparison.pairs import LENT, WORTH, Sample, compare_pairs, estimate, holm, lend, seeds_more, spread_of
from engine.comparison.record import FIRST, NO_DIFFERENCE, TOO_FEW
from engine.evaluation.bootstrap import draw_images

IMAGES, RESAMPLES = 60, 100
WEIGHTS = draw_images(IMAGES, RESAMPLES).astype(float) / IMAGES


def sample(name: str, values: np.ndarray) -> Sample:
    """A candidate whose figure is the mean of a value of each image: ``values`` [seeds, images]."""
    factor = IMAGES / (IMAGES - 1) / (RESAMPLES - 1)
    return Sample(name, values.mean(1), values @ WEIGHTS.T, factor, IMAGES)


def drawn(count: int, seeds: int, spread: float, rng: np.random.Generator) -> list[Sample]:
    """Equal candidates: images that are easy for all or for one, seeds that differ by ``spread``, and chance."""
    easy = rng.normal(0, 1, IMAGES)
    means = [easy + rng.normal(0, 0.5, IMAGES) + rng.normal(0, spread, (seeds, 1)) for _ in range(count)]
    return [sample(str(i), mean + rng.normal(0, 0.5, (seeds, IMAGES))) for i, mean in enumerate(means)]


@pytest.mark.parametrize("spread", [0, 0.4])
def test_intervals_hold_the_truth_and_equals_have_no_winner(spread, monkeypatch):
    """Of 120 studies 95 % are 114; fewer than 106 come once in a thousand."""
    monkeypatch.setattr(pairs, "seeds_more", lambda *_: None)
    rng = np.random.default_rng(3)
    found = [compare_pairs(drawn(2, 3, spread, rng), "map50")[0] for _ in range(120)]
    assert sum(p.low <= 0 <= p.high for p in found) >= 107
    assert sum(p.verdict != NO_DIFFERENCE for p in found) <= 13


def test_of_many_equals_none_wins(monkeypatch):
    monkeypatch.setattr(pairs, "seeds_more", lambda *_: None)
    rng = np.random.default_rng(4)
    studies = [compare_pairs(drawn(5, 3, 0.2, rng), "map50") for _ in range(12)]
    assert sum(any(p.verdict != NO_DIFFERENCE for p in study) for study in studies) <= 3


def test_resamples_that_leave_seeds_out_would_find_winners():
    """What the test above is for: by the images alone, most equals whose seeds differ have a winner."""
    rng = np.random.default_rng(5)
    winners = 0
    for _ in range(50):
        first, second = drawn(2, 3, 0.8, rng)
        low, high = np.quantile(first.resampled.mean(0) - second.resampled.mean(0), (0.025, 0.975))
        winners += not low <= 0 <= high
    assert winners > 25


def test_a_difference_that_is_there_is_shown_from_three_seeds_on():
    rng = np.random.default_rng(0)
    values = rng.normal(0.5, 0.1, IMAGES) + rng.normal(0, 0.01, (3, IMAGES))
    better, worse = sample("better", values + 0.1), sample("worse", values[::-1])
    (pair,) = compare_pairs([worse, better], "map50")
    assert (pair.first, pair.second, pair.verdict) == ("better", "worse", FIRST)
    assert pair.difference == pytest.approx(0.1) and pair.low < 0.1 < pair.high and pair.low > 0.08
    for seeds in (2, 1):
        few = [Sample(s.name, s.figures[:seeds], s.resampled[:seeds], s.factor, s.draws) for s in (worse, better)]
        (pair,) = compare_pairs(few, "map50")
        assert pair.verdict == TOO_FEW and (pair.low is None) == (seeds == 1)
        assert (estimate(few[0]).low is None) == (seeds == 1)


def test_a_run_against_itself_differs_by_nothing():
    one = drawn(1, 3, 0.1, np.random.default_rng(0))[0]
    (pair,) = compare_pairs([one, Sample("again", one.figures, one.resampled, one.factor, one.draws)], "map50")
    assert pair.difference == 0 and pair.low <= 0 <= pair.high and pair.p == 1
    fixed = [Sample(name, np.full(3, 0.5), np.full((3, 9), 0.5), 1 / 8, 9) for name in "ab"]
    (pair,) = compare_pairs(fixed, "map50")
    assert (pair.low, pair.high, pair.p, pair.verdict) == (0, 0, 1, NO_DIFFERENCE)


def test_means_that_go_alike_on_images_leave_what_seeds_differ_by():
    """Each run has its own way with the images, the means of both the same: less than that of the seeds the difference can't
    vary by, though on resamples of the images it never does."""
    rng = np.random.default_rng(0)
    own = rng.normal(0, 0.01, 40)
    ways = np.stack([own, -own, np.zeros(40)])
    samples = [
        Sample(name, figures, ways, 1 / 39, 40)
        for name, figures in (("a", np.array([0.4, 0.5, 0.6])), ("b", np.array([0.5, 0.6, 0.7])))
    ]
    assert samples[0].shared > 0
    assert spread_of(np.zeros(40), samples).variance == pytest.approx(2 * 0.01 / 3)


def test_others_lend_what_they_tell_of_seeds():
    """A variance between seeds is its own and that of the others, as that of LENT seeds, or of half as many as those know."""
    spreads = (0.1, 0.2, 0.3, 0.4)
    two = [sample(str(i), np.outer((1, 2, 3), np.full(IMAGES, s))) for i, s in enumerate(spreads)]
    single = sample("single", np.full((1, IMAGES), 0.5))
    first, second, *_, last = lend([*two, single])
    assert [s.own for s in two] == pytest.approx([s**2 for s in spreads])
    assert first.others_df == 6 and first.lent == 3
    assert first.between == pytest.approx((2 * 0.01 + 3 * (0.04 + 0.09 + 0.16) / 3) / 5)
    assert second.between == pytest.approx((2 * 0.04 + 3 * (0.01 + 0.09 + 0.16) / 3) / 5)
    assert last.others_df == 8 and estimate(last).low is None
    assert lend(lend(two) * 2)[0].lent == LENT == 4
    # of two candidates with three seeds each the one lends a degree of freedom
    assert [s.lent for s in lend(two[:2])] == [1, 1]
    # the two that are compared know no more than all seeds: 3 × 2 degrees of freedom
    for most, samples in ((6, lend(two[:3])), (8, lend(two)), (4, two)):
        first = samples[0]
        alike = [
            Sample(str(i), first.figures, first.resampled * 0, 1, 9, first.others, first.others_df) for i in range(2)
        ]
        assert spread_of(alike[0].resampled.mean(0), alike).seeds_df == pytest.approx(most)


def test_a_difference_of_many_candidates_is_shown_by_three_seeds():
    """Of eight whose seeds spread alike one is ten standard deviations behind: found by what all seeds tell of the spread
    in nearly all studies, by those of the two alone in few."""
    rng, found, alone = np.random.default_rng(6), 0, 0
    for _ in range(10):
        values = [rng.normal(0, 0.1, (3, 1)) + np.full((3, IMAGES), -1.0 * (i == 0)) for i in range(8)]
        samples = [sample(str(i), v + rng.normal(0, 1e-3, (3, IMAGES))) for i, v in enumerate(values)]
        shown = {(p.first, p.second): p.verdict for p in compare_pairs(samples, "map50")}
        found += sum(verdict == FIRST for (_, second), verdict in shown.items() if second == "0")
        gained = [s.resampled.mean(0) - samples[0].resampled.mean(0) for s in samples[1:]]
        differ = [float(s.figures.mean() - samples[0].figures.mean()) for s in samples[1:]]
        raw = [spread_of(g, (samples[0], s)).p(d) for g, s, d in zip(gained, samples[1:], differ, strict=True)]
        alone += sum(p * 28 <= 0.05 for p in raw)
    assert found >= 60 and alone <= 50


def test_paired_images_count_less_than_others():
    """Images that are easy for both don't widen the interval of the difference."""
    rng = np.random.default_rng(1)
    easy = rng.normal(0, 1, IMAGES)
    first, second = (sample(n, easy + rng.normal(0, 0.01, (3, IMAGES))) for n in "ab")
    assert spread_of(first.resampled.mean(0), [first]).margin() > 0.2
    assert spread_of(first.resampled.mean(0) - second.resampled.mean(0), [first, second]).margin() < 0.02


def test_how_many_seeds_more_would_show_half_a_point():
    rng = np.random.default_rng(2)
    easy = rng.normal(0.5, 0.1, IMAGES)
    steady = [
        sample(n, easy + rng.normal(0, s, (3, 1)) + rng.normal(0, 1e-4, (3, IMAGES))) for n, s in (("a", 0.004),) * 2
    ]
    more = seeds_more(steady[0].resampled.mean(0) - steady[1].resampled.mean(0), steady)
    assert 3 < more < 100
    # as many more seeds of the same spread give an interval that is narrower than half a point
    gained = steady[0].resampled.mean(0) - steady[1].resampled.mean(0)
    assert spread_of(gained, steady, 3 + more).margin() < WORTH
    # images that suit one of the two, by chance: no number of seeds tells more of them
    apart = [sample(n, easy + rng.normal(0, 0.2, IMAGES) + np.zeros((3, 1))) for n in "ab"]
    assert seeds_more(apart[0].resampled.mean(0) - apart[1].resampled.mean(0), apart) is None


def test_holms_correction():
    """The example of any textbook: multiplied by how many are left, and never falling."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.5, 0.9]) == [1.0, 1.0]
