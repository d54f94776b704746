"""How many training images a second come out of the loader: read, decoded, augmented with mosaics, collated.

    python bench/loader.py                              this checkout, in one process and in one and two loading processes
    python bench/loader.py --reference ../before        beside it another one, in turn with it: what counts is the ratio

Nothing is kept between epochs (no --cache), OpenCV has one thread, and nothing is trained meanwhile. The default recipe
(hyp.scratch-low.yaml) makes every image a mosaic. Each case is measured in rounds, one of each side after the other, so
that all see the same machine; medians are printed. The data sets are read where they lie, and nothing is written to them.
"""

# Run as a script: the project's folder comes before bench/ on the import path.
if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from utils.errors import UserError, exit_on_user_error

ROOT = Path(__file__).resolve().parents[1]
# Photographs that are not part of the project.
SHARED = ROOT.parent / "shared" / "datasets"

# What a side runs: it answers each line of its input by one of its output. Checkouts before the rooms had other modules.
SIDE = """
import json, sys, time
settings = json.loads(sys.argv[1])
sys.path[0] = settings["checkout"]
try:
    from utils.data.dataset import TrainSet
    from utils.data.labels import Annotation
    from utils.data.loader import EpochSampler, train_loader
    from engine.recipe.hyp import read_hyp
except ModuleNotFoundError:
    from utils.dataset import EpochSampler, TrainSet, train_loader
    from utils.hyp import read_hyp
    from utils.labels import Annotation
from pathlib import Path
import cv2, numpy as np, torch
cv2.setNumThreads(0)
torch.set_num_threads(1)
annotations = []
for image in sorted(Path(settings["images"]).rglob("*.jpg")):
    text = Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt")
    rows = text.read_text().splitlines() if text.exists() else []
    labels = np.array([row.split() for row in rows], np.float32).reshape(-1, 5)
    annotations.append(Annotation(str(image), cv2.imread(str(image)).shape[:2], labels, []))
dataset = TrainSet(annotations, settings["size"], read_hyp("hyp.scratch-low.yaml"))
loader = train_loader(dataset, EpochSampler(len(dataset), settings["batch"], 0), settings["workers"], False)
for epoch, _ in enumerate(sys.stdin):
    loader.batch_sampler.set_epoch(epoch)
    start, images = time.perf_counter(), 0
    for batch in loader:
        images += len(batch.images)
    print(images / (time.perf_counter() - start), flush=True)
"""


@dataclass(frozen=True)
class Case:
    """Images of a folder at ``size`` pixels, and what is asked of one process in multiples of commit 0747bcf."""

    name: str
    images: Path
    size: int
    asked: float


CASES = (
    Case("BCCD", SHARED / "bccd" / "images", 320, 2.9),
    Case("coco-val128", SHARED / "coco-val128" / "images", 640, 2.3),
)


@dataclass(frozen=True)
class Side:
    """A checkout, and how many processes load for it (0: the main process does)."""

    checkout: Path
    workers: int

    def start(self, case: Case, batch: int) -> subprocess.Popen:
        settings = {
            "checkout": str(self.checkout),
            "images": str(case.images),
            "size": case.size,
            "batch": batch,
            "workers": self.workers,
        }
        line = [sys.executable, "-c", SIDE, json.dumps(settings)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        return subprocess.Popen(line, cwd=self.checkout, env=environment, stdin=pipe, stdout=pipe, text=True)


def images_per_second(sides: list[Side], case: Case, rounds: int, batch: int = 16) -> list[list[float]]:
    """What each side loads, in each of ``rounds`` rounds of an epoch. Raises UserError where there are no images, or a side
    ends."""
    if not case.images.is_dir():
        raise UserError(f"{case.images}: no such folder of images; name another by --folder")
    return answers([(f"{side.checkout}, {side.workers} workers", side.start(case, batch)) for side in sides], rounds)


def answers(sides: list[tuple[str, subprocess.Popen]], rounds: int) -> list[list[float]]:
    """What each of some processes answers in so many rounds, in turns; a first one, which does not count, warms all up.

    A side has a name, and answers each line of its input by a number. All are ended. Raises UserError where one ends itself.
    """
    found: list[list[float]] = [[] for _ in sides]
    with ended([process for _, process in sides]):
        for _ in range(rounds + 1):
            for (name, process), figures in zip(sides, found, strict=True):
                try:
                    figures.append(answer(process))
                except (BrokenPipeError, ValueError):
                    raise UserError(f"{name}: has failed; see above") from None
    return [figures[1:] for figures in found]


def answer(process: subprocess.Popen) -> float:
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


@contextmanager
def ended(processes: list[subprocess.Popen]) -> Iterator[None]:
    """After the block, they are."""
    try:
        yield
    finally:
        for process in processes:
            # what was never read of a side that has ended can't be written
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()


def at_once(sides: list[Side], case: Case, rounds: int, batch: int) -> tuple[list[float], list[float]]:
    """What the first side loads alone, and all together at the same time, in each of ``rounds`` rounds."""
    running = [side.start(case, batch) for side in sides]
    with ThreadPoolExecutor() as pool, ended(running):
        found = [(answer(running[0]), sum(pool.map(answer, running))) for _ in range(rounds + 1)]
    alone, together = zip(*found[1:], strict=True)
    return list(alone), list(together)


def median_ratio(figures: list[float], others: list[float]) -> float:
    """The median of the rounds' ratios."""
    return median(a / b for a, b in zip(figures, others, strict=True))


def measure(case: Case, rounds: int, batch: int = 16, reference: Path | None = None) -> dict[str, float]:
    """Images a second of one process and of one and two loading ones, and the ratios that are asked for.

    Without ``reference``, a checkout of this project, there is no ratio to one. ``two processes``, each for itself and at
    once, show what two workers can do at most: cores share caches and memory.
    """
    sides = [Side(ROOT, workers) for workers in (0, 1, 2)] + ([Side(reference, 0)] if reference else [])
    found = images_per_second(sides, case, rounds, batch)
    figures = {"process": median(found[0]), "worker": median(found[1]), "two workers": median(found[2])}
    figures["two workers / worker"] = median_ratio(found[2], found[1])
    alone, both = at_once([Side(ROOT, 0)] * 2, case, rounds, batch)
    figures["two processes"] = median(both)
    figures["two processes / process"] = median_ratio(both, alone)
    if reference:
        figures["reference"] = median(found[3])
        figures["process / reference"] = median_ratio(found[0], found[3])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--reference", type=Path, help="folder with another checkout of this project, such as commit 0747bcf")
    add("--rounds", type=int, default=5, help="epochs of each side (default: %(default)s)")
    add("--batch", type=int, default=16, help="images of a batch (default: %(default)s)")
    add("--folder", type=Path, help="images/ of a data set of your own, beside labels/, in the place of the two")
    add("--imgsz", type=int, default=640, help="pixels, with --folder (default: %(default)s)")
    options = parser.parse_args()
    if options.reference and not (options.reference / "train.py").is_file():
        raise UserError(f"{options.reference}: is no checkout of this project: it has no train.py")
    cases = [Case(options.folder.name, options.folder, options.imgsz, 0)] if options.folder else CASES
    for case in cases:
        reference = options.reference.resolve() if options.reference else None
        figures = measure(case, options.rounds, options.batch, reference)
        print(f"{case.name} at {case.size} px, images/s, medians of {options.rounds}")
        for name, value in figures.items():
            asked = {"process / reference": case.asked, "two workers / worker": 1.8}.get(name)
            print(f"  {name:22}{value:8.2f}{f'  (asked: {asked})' if asked else ''}", flush=True)


if __name__ == "__main__":
    exit_on_user_error(main)
