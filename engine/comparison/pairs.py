"""What the runs of candidates tell of their accuracy, and of the differences between them: 95 % intervals, and verdicts.

    Sample            of one candidate: its figure for each seed, and the same on resamples of the images
    lend              to each what the others tell of how much seeds differ
    estimate          its mean over seeds, with an interval over images and seeds
    compare_pairs     all pairs, their p-values corrected by Holm

Images and seeds are both drawn from what there could have been, so both count (a model with two random effects). What the
mean of S seeds varies by when other images are drawn is seen in the resamples; what it varies by when other seeds are drawn,
in the variance s² between the seeds, as s² / S. That variance holds the part, too, by which each training takes to each image
in its own way; the resamples have it already, and it is taken out once. Three seeds tell little of s², many images tell much:
a difference is held against Student's t with the degrees of freedom of either, weighted by their shares of the variance (as
Cochran and Cox do with two samples, Experimental Designs, 1957, section 4.14).

Seeds of other candidates, trained alike, tell something of s² as well: their variance counts like that of LENT more seeds (a
moderated t, Smyth, Statistical Applications in Genetics and Molecular Biology 3, 2004, article 3, where it is estimated how many
they stand for; of few candidates that can't be told).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.comparison.record import FIRST, NO_DIFFERENCE, SECOND, TOO_FEW, Estimate, Pair
from engine.evaluation.student import crossing, two_sided

# no winner is named below so many seeds
LEAST_SEEDS = 3
ALPHA = 0.05
# How much of what the resamples have already is not counted as known by the seeds: where chance makes s² small, they know the
# whole no better. With this number intervals hold the truth in 95 to 98 cases of 100 whatever causes the differences, be it
# images, seeds, or the way of each training with each image (bench/comparison/false_winners.py)
TAKEN = 0.6
# How many degrees of freedom the others' variance between seeds counts for, half of theirs at most. With so many, winners
# among equals stay rare also where standard deviations differ by a factor of two or so, and of eight candidates with three
# seeds each nearly all is shown that would be if all were known to spread alike
LENT = 4
# a difference that would be worth knowing, half a point of mAP; and how surely more seeds should show it
WORTH, POWER = 0.005, 0.8
MOST_MORE = 1000


@dataclass(frozen=True)
class Sample:
    """A candidate's ``figures`` [S], one for each seed, and the same on R resamples of the images, ``resampled`` [S, R], which
    are the same resamples for all candidates. ``factor``: what a sum of squares over the resamples is multiplied by to become
    a variance: 1 / (R - 1) for a bootstrap, (R - 1) / R for a jackknife. ``draws``: how many images or groups of them.
    ``others``: the variance between seeds of the other candidates, known by ``others_df`` degrees of freedom."""

    name: str
    figures: np.ndarray
    resampled: np.ndarray
    factor: float
    draws: int
    others: float = 0.0
    others_df: int = 0

    @property
    def seeds(self) -> int:
        return len(self.figures)

    @property
    def own(self) -> float:
        """The variance of the figure between its own seeds."""
        return float(self.figures.var(ddof=1)) if self.seeds > 1 else math.nan

    @property
    def lent(self) -> float:
        """How many degrees of freedom the others lend."""
        return min(LENT, self.others_df / 2)

    @property
    def between(self) -> float:
        """The variance of the figure between seeds, s²: its own, and what the others lend."""
        own_df = self.seeds - 1
        return (own_df * self.own + self.lent * self.others) / (own_df + self.lent) if own_df else math.nan

    @property
    def shared(self) -> float:
        """What of s² comes of the images: of each training's own way with each of them."""
        if self.seeds < 2:
            return math.nan
        own = self.resampled - self.resampled.mean(0)
        return float(sum(_spread(row, self.factor) for row in own) / (self.seeds - 1))


@dataclass(frozen=True)
class Spread:
    """The ``variance`` of a mean or of a difference of means, a ``share`` of which is known by the seeds and the rest by the
    images, each with so many degrees of freedom."""

    variance: float
    share: float
    seeds_df: float
    images_df: float

    def p(self, difference: float) -> float:
        """The probability of a difference as large, either way, where there is none."""
        if not self.variance:
            return float(difference == 0)
        return self._tail(difference / math.sqrt(self.variance))

    def margin(self, level: float = ALPHA) -> float:
        """How far the bounds lie from the middle of an interval that misses the truth in a share ``level`` of cases."""
        return crossing(self._tail, level) * math.sqrt(self.variance) if self.variance else 0.0

    def _tail(self, t: float) -> float:
        return self.share * two_sided(t, self.seeds_df) + (1 - self.share) * two_sided(t, self.images_df)


def lend(samples: Sequence[Sample]) -> list[Sample]:
    """The samples, each with the variance between seeds of all others."""
    found = []
    for sample in samples:
        several = [s for s in samples if s is not sample and s.seeds > 1]
        df = sum(s.seeds - 1 for s in several)
        others = sum((s.seeds - 1) * s.own for s in several) / df if df else 0.0
        found.append(replace(sample, others=others, others_df=df))
    return found


def estimate(sample: Sample) -> Estimate:
    """The mean over the seeds; of one seed alone, without an interval: nothing is known of how others would do."""
    mean = float(sample.figures.mean())
    if sample.seeds < 2:
        return Estimate(mean)
    margin = spread_of(sample.resampled.mean(0), [sample]).margin()
    return Estimate(mean, max(0.0, mean - margin), min(1.0, mean + margin))


def spread_of(resampled: np.ndarray, samples: Sequence[Sample], seeds: int | None = None) -> Spread:
    """That of a sum or difference of means of ``samples``, which on the resamples gave ``resampled`` [R].

    With ``seeds`` it is what so many of each would give. Every sample has two seeds at least.
    """
    counts = [seeds or s.seeds for s in samples]
    parts = [s.between / n for s, n in zip(samples, counts, strict=True)]
    twice = sum(s.shared / n for s, n in zip(samples, counts, strict=True))
    # what all of a candidate's trainings have in common on an image, which no number of seeds takes away; where it is
    # nothing, chance must not make it less
    common = max(0.0, _spread(resampled, samples[0].factor) - sum(s.shared / s.seeds for s in samples))
    left = max(0.0, sum(parts) - twice)
    variance = common + twice + left
    if not variance:
        return Spread(0.0, 0.0, 1, 1)
    known = [n - 1 + s.lent for s, n in zip(samples, counts, strict=True)]
    # two that borrow from the same others know no more than all seeds do
    rest = max(0, samples[0].others_df - sum(s.seeds - 1 for s in samples[1:]))
    whole = _degrees(parts, known, sum(counts) - len(counts) + rest)
    # what is left of s² is known less well than the whole
    degrees = max(min(known), whole * left / sum(parts)) if left else min(known)
    share = min(1.0, max(0.0, sum(parts) - TAKEN * twice) / variance)
    return Spread(variance, share, degrees, max(samples[0].draws - 1, 1))


def _degrees(parts: Sequence[float], known: Sequence[float], most: float) -> float:
    """The degrees of freedom of a sum of variances that are ``known`` by so many each (Welch, Biometrika 34, 1947), which lie
    between those of one and those of all, ``most`` at most."""
    least, most = min(known), min(sum(known), most)
    weights = sum(part**2 / (df + 2) for part, df in zip(parts, known, strict=True))
    return max(min(sum(parts) ** 2 / weights - 2, most), least) if weights else least


def _spread(values: np.ndarray, factor: float) -> float:
    return float(((values - values.mean()) ** 2).sum() * factor)


def compare_pairs(samples: Sequence[Sample], metric: str) -> list[Pair]:
    """All pairs, the better of each first by its mean. Their p-values are corrected for all of them: which one is the best is
    seen in the same figures, so that a correction for its own pairs alone would find winners where there are none."""
    ordered = sorted(lend(samples), key=lambda s: -s.figures.mean())
    couples = list(itertools.combinations(ordered, 2))
    pairs = [_pair(first, second, metric, len(couples)) for first, second in couples]
    corrected = holm([p.p for p in pairs if p.p is not None])
    found = []
    for pair in pairs:
        if pair.p is None:
            found.append(pair)
            continue
        few = min(s.seeds for s in samples if s.name in (pair.first, pair.second)) < LEAST_SEEDS
        p_holm = corrected.pop(0)
        shown = FIRST if pair.difference > 0 else SECOND
        verdict = TOO_FEW if few else shown if p_holm <= ALPHA else NO_DIFFERENCE
        found.append(Pair(**{**vars(pair), "p_holm": p_holm, "verdict": verdict}))
    return found


def _pair(first: Sample, second: Sample, metric: str, pairs: int) -> Pair:
    """One of so many, without a verdict; without an interval where one of the two has a single seed."""
    difference = float(first.figures.mean() - second.figures.mean())
    if min(first.seeds, second.seeds) < 2:
        return Pair(first.name, second.name, metric, difference)
    gained = first.resampled.mean(0) - second.resampled.mean(0)
    spread = spread_of(gained, (first, second))
    margin = spread.margin()
    p = spread.p(difference)
    low, high = difference - margin, difference + margin
    more = seeds_more(gained, (first, second), ALPHA / pairs)
    return Pair(first.name, second.name, metric, difference, low, high, p, seeds_more=more)


def seeds_more(gained: np.ndarray, samples: Sequence[Sample], level: float = ALPHA) -> int | None:
    """How many seeds more of each would show a difference of WORTH at that ``level`` with a probability of POWER; None where
    the images are too few for any number of seeds to do so. ``gained`` [R]: the difference on the resamples."""
    had = max(s.seeds for s in samples)

    def shows(more: int) -> bool:
        spread = spread_of(gained, samples, had + more)
        return spread.margin(level) + spread.margin(2 * (1 - POWER)) <= WORTH

    if not shows(MOST_MORE):
        return None
    low, high = -1, MOST_MORE
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shows(middle) else (middle, high)
    return high


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979): each may be held against the
    level by which one false finding among all of them is to be kept rare."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    corrected, most = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        most = max(most, min(1.0, p[i] * (len(p) - rank)))
        corrected[i] = most
    return corrected
