"""How often the 95 % intervals of ``val.py --bootstrap`` hold the true figure, on made-up detectors; and how long they take.

    python bench/comparison/interval_coverage.py                        a few minutes
    python bench/comparison/interval_coverage.py --runs 4000 --images 400
    python bench/comparison/interval_coverage.py --time 5000            1,000 resamples of 5,000 images, 80 classes

The true figure is that of 100,000 images. Each run makes other images of the same kind, and looks whether the interval that
is found on them holds it. Objects of one image are found or missed together, as in photographs: some images are harder.
"""

# Run as a script: the project's folder comes before bench/ on the import path.
if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])

import argparse
import time
from dataclasses import dataclass

import numpy as np

from engine.evaluation.bootstrap import (
    FIGURES,
    intervals_of,
    mean_over_classes,
    paired_difference,
    resampled_figures,
)
from engine.evaluation.matches import Matches
from utils.metrics import IOU_THRESHOLDS

MANY = 100_000


@dataclass(frozen=True)
class Scene:
    """Labelled images: how easy each of them is, and each of their m labels, in standard deviations."""

    classes: int
    ease: np.ndarray  # [images]
    label_image: np.ndarray  # [m]
    label_cls: np.ndarray  # [m]
    label_ease: np.ndarray  # [m]


def make_scene(images: int, classes: int, rng: np.random.Generator, labels: float = 3) -> Scene:
    """So many ``labels`` an image on average; of the last class there are a third as many as of the first."""
    label_image = np.repeat(np.arange(images), rng.poisson(labels, images))
    shares = np.linspace(3, 1, classes)
    label_cls = rng.choice(classes, len(label_image), p=shares / shares.sum())
    return Scene(classes, rng.normal(0, 0.7, images), label_image, label_cls, rng.normal(0, 0.7, len(label_image)))


def detect(scene: Scene, rng: np.random.Generator, skill: float = 0, alarms: float = 5) -> Matches:
    """What a made-up model finds: each label, more or less well, and so many false ``alarms`` an image on average."""
    images = len(scene.ease)
    quality = skill + scene.ease[scene.label_image] + scene.label_ease + rng.normal(0, 0.7, len(scene.label_image))
    overlap = 1 / (1 + np.exp(-1 - quality))
    alarm_image = np.repeat(np.arange(images), rng.poisson(alarms, images))
    # the clearer what is there, the less is seen that is not
    false = rng.normal(-1, 1, len(alarm_image)) - scene.ease[alarm_image]
    return Matches(
        paths=[str(i) for i in range(images)],
        hits=np.concatenate((overlap[:, None] >= IOU_THRESHOLDS, np.zeros((len(false), 10), bool))),
        conf=np.concatenate((quality + rng.normal(0, 0.7, len(quality)), false)),
        cls=np.concatenate((scene.label_cls, rng.integers(scene.classes, size=len(false)))),
        image=np.concatenate((scene.label_image, alarm_image)),
        label_cls=scene.label_cls,
        label_image=scene.label_image,
    )


def figures_of(matches: Matches) -> np.ndarray:
    """FIGURES [3] of the set as it is."""
    return mean_over_classes(resampled_figures(matches, np.ones((1, len(matches.paths)), np.uint16)))[0]


def coverage(images: int, classes: int, runs: int, resamples: int, seed: int = 0, labels: float = 3) -> np.ndarray:
    """The share of ``runs`` whose interval holds the true figure: [3], in the order of FIGURES."""
    rng = np.random.default_rng(seed)
    truth = figures_of(detect(make_scene(MANY, classes, rng, labels), rng))
    held = np.zeros(len(FIGURES))
    for run in range(runs):
        matches = detect(make_scene(images, classes, rng, labels), rng)
        low, high = intervals_of(matches, resamples, run, progress=False).overall.T
        held += (low <= truth) & (truth <= high)
    return held / runs


def paired_coverage(images: int, classes: int, runs: int, resamples: int, seed: int = 0) -> np.ndarray:
    """The same of the difference between two models, one of them a little better: [3]."""
    rng = np.random.default_rng(seed)
    skills = (0, 0.2)
    scene = make_scene(MANY, classes, rng)
    worse, better = (figures_of(detect(scene, rng, skill)) for skill in skills)
    held = np.zeros(len(FIGURES))
    for run in range(runs):
        scene = make_scene(images, classes, rng)
        low, high = paired_difference(*(detect(scene, rng, skill) for skill in skills), resamples, run).bounds.T
        held += (low <= better - worse) & (better - worse <= high)
    return held / runs


def seconds(images: int, classes: int = 80, detections: int = 100, resamples: int = 1000) -> float:
    """How long the intervals of a set like COCO's take: 7 labels an image, and so many detections."""
    rng = np.random.default_rng(0)
    matches = detect(make_scene(images, classes, rng, labels=7), rng, alarms=detections - 7)
    start = time.perf_counter()
    intervals_of(matches, resamples)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[50, 200, 800], help="sizes of the sets")
    parser.add_argument("--classes", type=int, nargs="+", default=[1, 5], help="numbers of classes")
    parser.add_argument("--runs", type=int, default=1000, help="sets of each kind")
    parser.add_argument("--resamples", type=int, default=500, help="resamples of each set")
    parser.add_argument("--time", type=int, metavar="IMAGES", help="only measure the time for a set of so many images")
    given = parser.parse_args()
    if given.time:
        print(f"1000 resamples of {given.time} images, 80 classes, 100 detections each: {seconds(given.time):.1f} s")
        return
    print(f"{'':12}{'images':>8}{'classes':>8}", *(f"{name:>10}" for name in FIGURES))
    for images in given.images:
        for classes in given.classes:
            for what, measure in (("figures", coverage), ("differences", paired_coverage)):
                held = measure(images, classes, given.runs, given.resamples)
                print(f"{what:12}{images:8}{classes:8}", *(f"{share:10.1%}" for share in held), flush=True)


if __name__ == "__main__":
    main()
