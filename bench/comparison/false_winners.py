"""How often compare.py names a winner among equals, and how often its intervals hold the truth; and how long they take.

    python bench/comparison/false_winners.py                           made-up detectors whose seeds differ; some minutes
    python bench/comparison/false_winners.py --candidates 2 8 --seeds 3 --spread 0 0.1 0.3
    python bench/comparison/false_winners.py --pool runs/*/found/*.npz  one configuration's runs, dealt out at random
    python bench/comparison/false_winners.py --time 5000               1,000 paired resamples of 5,000 images, 80 classes

Each study draws other images and other seeds. All its candidates are equally good: any winner is a false one, and 0 is the
true difference. `named` is the share of studies in which any pair has a winner, `held` the share of intervals with the truth
in them, of pairs as they were named and not as they turned out: the first candidate and the second.
"""

# Run as a script: the project's folder comes before bench/ on the import path.
if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])

import argparse
import time
from pathlib import Path

import numpy as np

from bench.comparison.interval_coverage import detect, make_scene
from engine.comparison.accuracy import read_found, sample_of
from engine.comparison.pairs import Sample, compare_pairs
from engine.comparison.record import FIRST, SECOND, Pair
from engine.evaluation.bootstrap import draw_images, mean_over_classes, resampled_figures
from engine.evaluation.matches import Matches

METRIC = "map50_95"


def sample(name: str, runs: list[Matches], resamples: int) -> Sample:
    """What the statistics get of one candidate, whose runs these are: its mAP50-95."""
    images = len(runs[0].paths)
    weights = np.vstack((np.ones((1, images), np.uint16), draw_images(images, resamples)))
    found = np.stack([mean_over_classes(resampled_figures(matches, weights))[:, 2] for matches in runs])
    return Sample(name, found[:, 0], found[:, 1:], images / (images - 1) / (resamples - 1), images)


def study(
    candidates: int, seeds: int, spread: float, images: int, classes: int, resamples: int, rng: np.random.Generator
) -> list[Pair]:
    """The pairs of candidates that are equally good, with seeds whose skill has a standard deviation of ``spread``."""
    scene = make_scene(images, classes, rng)
    samples = []
    for number in range(candidates):
        runs = [detect(scene, rng, skill) for skill in rng.normal(0, spread, seeds)]
        samples.append(sample(str(number), runs, resamples))
    return compare_pairs(samples, METRIC)


def named(pairs: list[Pair]) -> bool:
    return any(pair.verdict in (FIRST, SECOND) for pair in pairs)


def held(pairs: list[Pair]) -> bool:
    """Whether the interval of the first two candidates holds 0."""
    pair = next(p for p in pairs if {p.first, p.second} == {"0", "1"})
    return pair.low <= 0 <= pair.high


def simulate(runs: int, seed: int = 0, **what) -> tuple[float, float]:
    """(share of studies with a winner, share of intervals that hold the truth) of so many."""
    rng = np.random.default_rng(seed)
    found = [study(rng=rng, **what) for _ in range(runs)]
    return float(np.mean(list(map(named, found)))), float(np.mean(list(map(held, found))))


def parts(files: list[Path], candidates: int, runs: int, seed: int = 0) -> tuple[float, float]:
    """The same of a pool of runs that is dealt out among so many candidates at random."""
    founds = [read_found(file) for file in files]
    rng = np.random.default_rng(seed)
    results = []
    for _ in range(runs):
        dealt = np.array_split(rng.permutation(len(founds)), candidates)
        samples = [sample_of(str(i), [founds[j] for j in part], METRIC) for i, part in enumerate(dealt)]
        results.append(compare_pairs(samples, METRIC))
    return float(np.mean(list(map(named, results)))), float(np.mean(list(map(held, results))))


def seconds(images: int, classes: int = 80, detections: int = 100, resamples: int = 1000) -> float:
    """How long the comparison of two runs on a set like COCO's takes: 7 labels an image, and so many detections."""
    rng = np.random.default_rng(0)
    scene = make_scene(images, classes, rng, labels=7)
    runs = [detect(scene, rng, alarms=detections - 7) for _ in range(2)]
    start = time.perf_counter()
    compare_pairs([sample(str(i), [matches], resamples) for i, matches in enumerate(runs)], METRIC)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, nargs="+", default=[2, 8], help="how many are compared")
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5], help="trainings of each")
    parser.add_argument("--spread", type=float, nargs="+", default=[0, 0.1, 0.3], help="between seeds, in skill")
    parser.add_argument("--images", type=int, default=100, help="of each study")
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--runs", type=int, default=2000, help="studies of each kind")
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--pool", type=Path, nargs="+", metavar="NPZ", help="deal these runs out among the candidates")
    parser.add_argument("--time", type=int, metavar="IMAGES", help="only measure the time for a set of so many images")
    given = parser.parse_args()
    if given.time:
        print(
            f"1000 paired resamples of {given.time} images, 80 classes, 100 detections each: {seconds(given.time):.1f} s"
        )
        return
    if given.pool:
        for candidates in given.candidates:
            winners, holding = parts(given.pool, candidates, given.runs)
            print(
                f"{len(given.pool)} runs dealt out among {candidates} candidates {given.runs} times: "
                f"named {winners:.1%}, held {holding:.1%}"
            )
        return
    print(f"{'candidates':>10}{'seeds':>8}{'spread':>8}{'named':>8}{'held':>8}")
    for candidates in given.candidates:
        for seeds in given.seeds:
            for spread in given.spread:
                what = {"images": given.images, "classes": given.classes, "resamples": given.resamples}
                winners, holding = simulate(given.runs, candidates=candidates, seeds=seeds, spread=spread, **what)
                print(f"{candidates:10}{seeds:8}{spread:8}{winners:8.1%}{holding:8.1%}", flush=True)


if __name__ == "__main__":
    main()
