"""How far figures of average precision may lie from what more images of the same kind would give: bootstrap over images.

As many images as there are are drawn from them with replacement, many times over; an image that is drawn twice counts twice.
For each such resample the figures are what ``ap_per_class`` of utils/metrics.py would give for it, at a fraction of the work:

    weights [r, images]        how often each resample has each image                    draw_images
    figures [r, classes, 3]    of each resample, NaN for a class without labels in it    resampled_figures
    means [r, 3]               over the classes with labels                              mean_over_classes
    bounds [3, 2]              of 95 % intervals                                         interval

The detections are sorted once. In a resample each of them counts as often as its image, so that running sums of the weights
take the place of counting; copies of one detection stand side by side.
"""

import warnings
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from engine.evaluation.matches import Matches
from utils.console.progress import track

# of these there are intervals: AP at IoU 0.5 and 0.75, and the mean of the ten thresholds
FIGURES = ("mAP50", "mAP75", "mAP50-95")
# the points of recall at which precision is read, and for each of them the sum of 1 - recall over it and those behind it
POINTS = np.linspace(0, 1, 101)
TAILS = np.cumsum((1 - POINTS)[::-1])[::-1]
# numbers in one matrix: few enough to stay in a processor's cache
CHUNK = 2**18
# 95 % of a normal distribution lie within so many standard deviations
Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Intervals:
    """95 % intervals, low and high, of FIGURES, and of the same for each class that occurs; NaN where none was drawn."""

    images: int
    resamples: int
    overall: np.ndarray  # [3, 2]
    per_class: np.ndarray  # [k, 3, 2]

    def line(self) -> str:
        """What belongs under a table, which has no mAP75."""
        bounds = dict(zip(FIGURES, self.overall, strict=True))
        said = [f"{name} {bounds[name][0]:.3g} to {bounds[name][1]:.3g}" for name in ("mAP50", "mAP50-95")]
        return f"95 % intervals over {self.images} images, {self.resamples} resamples: {', '.join(said)}"


@dataclass(frozen=True)
class Difference:
    """By how much one model's FIGURES exceed another's on the same images, and the 95 % interval of that, low and high."""

    images: int
    resamples: int
    figures: np.ndarray  # [3]
    bounds: np.ndarray  # [3, 2]


def intervals_of(matches: Matches, resamples: int, seed: int = 0, progress: bool = True) -> Intervals:
    """The intervals of one model's figures, the same for the same ``seed``; ``progress`` is shown on standard error."""
    images = len(matches.paths)
    weights = draw_images(images, resamples, seed)
    figures = resampled_figures(matches, weights, f"{resamples} resamples" if progress else None)
    overall = interval(mean_over_classes(figures), images)
    return Intervals(images, resamples, overall, interval(figures, images))


def paired_difference(first: Matches, second: Matches, resamples: int, seed: int = 0) -> Difference:
    """The figures of ``second`` less those of ``first``: what both lose or gain with an image is in neither's favour.

    Raises ValueError where the two are not of the same images with the same labels; their order may be another.
    """
    place = {path: i for i, path in enumerate(first.paths)}
    if sorted(first.paths) != sorted(second.paths):
        raise ValueError("a paired difference needs two models' matches on the same images")
    order = np.array([place[path] for path in second.paths])
    labels = [np.stack((matches.label_image, matches.label_cls)) for matches in (first, second)]
    labels[1][0] = order[second.label_image]
    labels = [pairs[:, np.lexsort(pairs)] for pairs in labels]
    if not np.array_equal(*labels):
        raise ValueError("a paired difference needs two models' matches against the same labels")
    # the first row of the weights is the set as it is
    weights = np.vstack((np.ones((1, len(place)), np.uint16), draw_images(len(place), resamples, seed)))
    before = mean_over_classes(resampled_figures(first, weights))
    gained = mean_over_classes(resampled_figures(second, weights[:, order])) - before
    return Difference(len(place), resamples, gained[0], interval(gained[1:], len(place)))


def draw_images(images: int, resamples: int, seed: int = 0) -> np.ndarray:
    """How often each of so many images is drawn in each of so many resamples: [resamples, images], uint16."""
    rng = np.random.default_rng(seed)
    weights = np.empty((resamples, images), np.uint16)
    for row in weights:
        row[:] = np.bincount(rng.integers(images, size=images), minlength=images)
    return weights


def resampled_figures(matches: Matches, weights: np.ndarray, progress: str | None = None) -> np.ndarray:
    """FIGURES of each class that occurs, for each row of ``weights`` [r, images]: [r, k, 3], in the order of the classes.

    NaN where a class has no labels in a resample: there it is left out of the mean.
    """
    order = np.argsort(-matches.conf, kind="stable")
    hits, cls, image = matches.hits[order], matches.cls[order], matches.image[order]
    classes = np.unique(matches.label_cls)
    figures = np.full((len(weights), len(classes), len(FIGURES)), np.nan)
    for i, c in enumerate(track(classes, progress, hidden=progress is None)):
        own_image, at = image[cls == c], [np.flatnonzero(column) for column in hits[cls == c].T]
        label_image = matches.label_image[matches.label_cls == c]
        rows = max(1, CHUNK // max(len(own_image), len(label_image)))
        for start in range(0, len(weights), rows):
            some = weights[start : start + rows]
            labels = some.take(label_image, 1).sum(1, dtype=int)
            ap = _average_precision(at, some.take(own_image, 1), labels)
            ap[labels == 0] = np.nan
            figures[start : start + rows, i] = np.stack((ap[:, 0], ap[:, 5], ap.mean(1)), 1)
    return figures


def _average_precision(at: list[np.ndarray], weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """AP [r, 10] of one class in r resamples: how often each of its detections is there, by falling confidence
    (``weights`` [r, n]), which of them are hits ``at`` each IoU threshold, and how many ``labels`` [r] there are.

    Precision rises with each hit and falls with each miss. So its envelope is level from behind one hit up to the next, and
    it is enough to know it at the hits, and how many of POINTS each of them passes. Behind the last hit, where recall rises
    no more, it is a straight line from the precision of all detections down to (1, 0).
    """
    ap = np.zeros((len(weights), len(at)))
    found = np.cumsum(weights, 1, dtype=np.int32)
    # how many of POINTS lie below each recall that so many labels allow; a row's entries begin at its start
    most = np.maximum(labels, 1)[:, None]
    below = np.searchsorted(POINTS, np.arange(most.max() + 1) / most)
    starts = np.arange(len(below), dtype=np.int32)[:, None] * below.shape[1]
    below = below.astype(float).ravel()
    for j, hits in enumerate(at):
        if not len(hits):
            continue
        true = np.cumsum(weights.take(hits, 1), 1, dtype=np.int32)
        precision = true / np.maximum(found.take(hits, 1), 1)
        envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        passed = below.take(true + starts)
        level = np.einsum("rn,rn->r", envelope, np.diff(passed, axis=1, prepend=0))
        last = true[:, -1] / np.maximum(found[:, -1], 1)
        recall = true[:, -1] / most[:, 0]
        left = np.where(recall < 1, 1 - recall, 1)
        falling = last / left * TAILS[passed[:, -1].astype(int)]
        # trapezoids: the first and the last point count half; that at recall 1 is zero
        ap[:, j] = (2 * (level + falling) - envelope[:, 0]) / 200
    return ap


def mean_over_classes(figures: np.ndarray) -> np.ndarray:
    """[r, k, 3] → [r, 3]: the mean over the classes that have labels; 0 where none has, as val.py says then."""
    there = ~np.isnan(figures)
    return np.where(there, figures, 0).sum(1) / np.maximum(there.sum(1), 1)


def interval(values: np.ndarray, images: int) -> np.ndarray:
    """The bounds [..., 2] of the 95 % interval of a figure whose resamples of so many images gave ``values`` [r, ...].

    They are percentiles, for few images a little farther out than 2.5 and 97.5: resamples vary less than sets of as many
    images, and few images say little of how much they vary (Hesterberg, arXiv:1411.5279, the expanded percentile interval).
    NaN among the values are passed over; where there is nothing else, the bounds are NaN.
    """
    if not values[0].size:
        return np.empty((*values.shape[1:], 2))
    spread = max(images - 1, 1)
    # Student's t of that many degrees of freedom, near enough
    t = (Z + (Z**3 + Z) / (4 * spread)) * np.sqrt(images / spread)
    outside = NormalDist().cdf(-t)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice")
        # of a few hundred resamples, other methods leave out too much
        return np.stack(np.nanquantile(values, (outside, 1 - outside), axis=0, method="weibull"), -1)
