"""How the work grows: images, classes, boxes an image and image size, each from little to much. A part of bench/all.py.

    python bench/scale.py           draws docs/images/scale.png beside the figures; takes some minutes

Every row gives what one unit of work costs at that scale (an image, a class, a box, a pixel), beside what it costs at the
least scale: a ratio above 1 is worse than linear.
"""

# Run as a script: the project's folder comes before bench/ on the import path.
if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from bench.speed import Row, run_command, seconds
from models.yolo import DetectionModel
from utils.boxes import non_max_suppression
from utils.data.config import index_split, prepare_data, read_data_yaml
from utils.data.dataset import TrainSet
from utils.data.labels import Annotation
from utils.data.loader import EpochSampler, train_loader
from utils.errors import exit_on_user_error
from utils.paths import ROOT
from utils.plots.figure import new_figure, save_figure

PICTURE = ROOT / "docs" / "images" / "scale.png"
IMAGES = (1_000, 10_000, 100_000)
CLASSES = (80, 300, 1_000)
BOXES = (10, 100, 1_000)
SIZES = (320, 640, 1_280)
MOST_NAMES = 60_000


def scale(folder: Path, rounds: int, images: tuple[int, ...] = IMAGES) -> list[Row]:
    """All rows; ``folder`` takes the made-up images."""
    rows = scans(folder, images)
    rows += grown("a training step, classes", "µs a class", CLASSES, lambda n: step_s(n, 20, 320, rounds))
    rows += grown("suppression, classes", "µs a class", CLASSES, lambda n: suppression_s(n, rounds))
    rows += grown("loading with mosaics, boxes an image", "µs a box", BOXES, lambda n: loading_s(folder, n, rounds))
    rows += grown("the loss, boxes an image", "µs a box", BOXES, lambda n: loss_s(n, rounds))
    rows += grown("a training step, pixels of a side", "ns a pixel", SIZES, lambda n: step_s(80, 20, n, rounds), 2, 1e9)
    return rows


def grown(what: str, unit: str, scales: tuple[int, ...], cost, power: int = 1, parts: float = 1e6) -> list[Row]:
    """A row for each of ``scales``: what ``cost``, in seconds, comes to for one of so many (to a ``power``)."""
    found = {n: cost(n) / n**power * parts for n in scales}
    least = found[scales[0]]
    return [
        Row("scale", f"{what}: {n:,}", unit, value, least, value / least, f"the same at {scales[0]:,}")
        for n, value in found.items()
    ]


# Images -------------------------------------------------------------------------------------------------------------------


def scans(folder: Path, scales: tuple[int, ...]) -> list[Row]:
    """Reading a set at the start of a run: for the first time, and from the cache; and the memory that it takes."""
    found: dict[int, dict[str, float]] = {}
    for n in scales:
        data = made_up(folder / f"images{n}", n)
        script = f"import sys; sys.path[0] = {str(ROOT)!r}; from bench.scale import scan; scan({str(data)!r}, {{!r}})"
        for name in ("first", "again"):
            answer = folder / f"{name}{n}.json"
            run_command(["-c", script.format(str(answer))], ROOT)
            found.setdefault(n, {})[name], found[n]["bytes"] = json.loads(answer.read_text())
    rows = []
    for what, unit, key, parts in (
        ("scan of new images", "µs an image", "first", 1e6),
        ("scan of known images", "µs an image", "again", 1e6),
        ("memory of annotations", "bytes an image", "bytes", 1),
    ):
        rows += grown(f"{what}, images", unit, scales, lambda n, key=key: found[n][key], parts=parts)
    return rows


def made_up(folder: Path, n: int) -> Path:
    """The data YAML of n images of 64 px, ten boxes each."""
    rng = np.random.default_rng(0)
    pictures, labels = folder / "images" / "train", folder / "labels" / "train"
    pictures.mkdir(parents=True)
    labels.mkdir(parents=True)
    cv2.imwrite(str(folder / "one.jpg"), rng.integers(0, 255, (64, 64, 3), np.uint8))
    boxes = np.column_stack((rng.integers(0, 80, 10), rng.uniform(0.3, 0.7, (10, 2)), rng.uniform(0.1, 0.3, (10, 2))))
    text = "".join(f"{int(c)} {x:.4f} {y:.4f} {w:.4f} {h:.4f}\n" for c, x, y, w, h in boxes)
    (folder / "one.txt").write_text(text)
    for i in range(n):
        for one, place in ((folder / "one.jpg", pictures), (folder / "one.txt", labels)):
            # a file has but so many names: 65,000 on ext4
            if i and i % MOST_NAMES == 0:
                shutil.copyfile(one, folder / "next").replace(one)
            os.link(one, place / f"{i:06d}{one.suffix}")
    data = folder / "data.yaml"
    names = ", ".join(f"c{i}" for i in range(80))
    data.write_text(f"path: {json.dumps(str(folder))}\ntrain: images/train\nval: images/train\nnames: [{names}]\n")
    return data


def scan(data: str, answer: str) -> None:
    """Write (seconds, bytes that this process has grown by) of reading a set to ``answer``."""
    config = prepare_data(read_data_yaml(data))
    before, started = _held(), time.perf_counter()
    index = index_split(config, "train")
    took = time.perf_counter() - started
    Path(answer).write_text(json.dumps((took, _held() - before)))
    assert index.annotations


def _held() -> int:
    """Bytes of memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# Classes, boxes, size -----------------------------------------------------------------------------------------------------


def middle_s(call, rounds: int) -> float:
    """Median seconds of ``rounds`` calls, after one that warms up."""
    call()
    return statistics.median(seconds(call) for _ in range(rounds))


def labelled(n: int, nc: int, batch: int) -> torch.Tensor:
    """Targets [batch · n, 6] of n boxes an image."""
    rng = torch.Generator().manual_seed(0)
    targets = torch.rand(batch * n, 6, generator=rng)
    targets[:, 0] = torch.arange(batch * n) // n
    targets[:, 1] = (targets[:, 1] * nc).floor()
    targets[:, 4:] = targets[:, 4:] * 0.2 + 0.02
    return targets


def learner(nc: int, size: int):
    """A training's model, and its loss."""
    from engine.recipe.hyp import read_hyp

    torch.manual_seed(0)
    model = DetectionModel("yolov5n.yaml", nc=nc).to(memory_format=torch.channels_last).train()
    return model, model.detect.loss(read_hyp("hyp.scratch-low.yaml"), size)


def step_s(nc: int, boxes: int, size: int, rounds: int) -> float:
    """Seconds of forward, loss and backward of two images."""
    model, loss = learner(nc, size)
    images, targets = torch.rand(2, 3, size, size), labelled(boxes, nc, 2)
    return middle_s(lambda: loss(model(images), targets)[0].backward(), rounds)


def loss_s(boxes: int, rounds: int) -> float:
    """Seconds of the loss alone of four images."""
    model, loss = learner(80, 320)
    with torch.no_grad():
        maps = model(torch.rand(4, 3, 320, 320))
        targets = labelled(boxes, 80, 4)
        return middle_s(lambda: loss(maps, targets), rounds * 3)


def suppression_s(nc: int, rounds: int) -> float:
    """Seconds of val.py's suppression of an image of 6,300 places."""
    rng = torch.Generator().manual_seed(0)
    predictions = torch.rand(1, 6_300, 5 + nc, generator=rng)
    predictions[..., :4] = predictions[..., :4] * 280 + 20
    # few places are sure of anything, and of few classes
    predictions[..., 4] = predictions[..., 4] ** 8
    predictions[..., 5:] = predictions[..., 5:] ** (nc / 2)
    return middle_s(lambda: non_max_suppression(predictions, 0.001, 0.6, multi_label=True, max_det=300), rounds)


def loading_s(folder: Path, boxes: int, rounds: int) -> float:
    """Seconds of an epoch of mosaics over 64 images, an image."""
    from engine.recipe.hyp import read_hyp

    file = folder / "photo.jpg"
    if not file.exists():
        cv2.imwrite(str(file), np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8))
    targets = labelled(boxes, 80, 1)[:, 1:].numpy()
    annotations = [Annotation(str(file), (240, 320), targets, []) for _ in range(64)]
    dataset = TrainSet(annotations, 320, read_hyp("hyp.scratch-low.yaml"), 0)
    loader = train_loader(dataset, EpochSampler(64, 16, 0), 0, False)
    return middle_s(lambda: [None for _ in loader], rounds) / 64


# The picture --------------------------------------------------------------------------------------------------------------


def draw(rows: list[Row], file: Path) -> None:
    """What a unit costs at each scale, as a multiple of the least."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        what, _, n = row.what.rpartition(": ")
        curves.setdefault(what, []).append((float(n.replace(",", "")), row.ratio or 0.0))
    figure = new_figure(9, 5)
    axes = figure.subplots()
    for what, points in curves.items():
        first = points[0][0]
        axes.plot([n / first for n, _ in points], [ratio for _, ratio in points], "o-", label=what)
    axes.axhline(1, color="0.5", linewidth=1)
    axes.set(
        xscale="log",
        xlabel="times the least scale",
        ylabel="cost of a unit, times that at the least scale",
        ylim=(0, 2),
    )
    axes.legend(fontsize=8)
    save_figure(figure, file)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = scale(Path(folder), 5)
    for row in rows:
        print(f"{row.what}: {row.value:.3g} {row.unit}, {row.ratio:.2f} of that at the least")
    draw(rows, PICTURE)
    print(f"drawn in {PICTURE}")


if __name__ == "__main__":
    exit_on_user_error(main)
