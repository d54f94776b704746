"""A comparison that nobody has made: eight candidates, three seeds, pictures with boxes, figures as plausible as need be."""

import itertools
import random
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from engine.comparison.record import (
    DONE,
    FIRST,
    METRICS,
    NO_DIFFERENCE,
    SECOND,
    Candidate,
    Comparison,
    Data,
    Estimate,
    Latency,
    Machine,
    Pair,
    Pick,
    Picture,
    Point,
    Run,
    Settings,
)

# name, millions of parameters, GFLOPs, ms from the image to the boxes, mAP50-95
NETWORKS = (
    ("yolov5n", 1.77, 4.2, 21.4, 0.512),
    ("shufflenet_v2_x1_0", 1.62, 3.1, 19.8, 0.498),
    ("mobilenet_v3_small", 1.84, 2.6, 17.2, 0.476),
    ("efficientnet_b0", 4.41, 6.4, 38.9, 0.547),
    ("c3_uib", 1.29, 3.3, 23.0, 0.503),
    ("ghostnet_100", 3.40, 4.0, 33.5, 0.521),
    ("regnet_x_400mf", 5.20, 7.1, 29.7, 0.533),
    ("resnet18", 11.9, 21.6, 61.2, 0.549),
)
# names that break out of markup, scripts and lines, turn round what follows, or are long
HOSTILE = (
    "</script><script>document.title = 'broken'</script>",
    "<img src=x onerror=\"document.title = 'broken'\">",
    "a\u2028b\u202egnp.exe",
    "\u202e\u202eevil",
    "'\"&amp;${1}{{script}}",
    "非常长的名字" * 20,
    "x" * 300,
    "half \ud800",
)
KINDS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss", "FalsePos", "FalseNeg")


def example(
    folder: Path, seeds: int = 3, epochs: int = 30, pictures: int = 8, names: tuple[str, ...] = ()
) -> Comparison:
    """A finished one, whose pictures are written to ``folder``. ``names`` take the places of the candidates' own."""
    rng = random.Random(0)
    rows = [(name, *row[1:]) for name, row in itertools.zip_longest(names, NETWORKS, fillvalue="") if row]
    rows = [(name or own[0], *figures) for (name, *figures), own in zip(rows, NETWORKS, strict=True)]
    candidates = tuple(_candidate(row, seeds, epochs, rng) for row in rows)
    pairs = tuple(_pair(a, b) for a, b in itertools.combinations(candidates, 2))
    slow = {
        c.name: f"{c.latencies[0].median_ms:.1f} ms from file to boxes, more than 40"
        for c in candidates
        if c.latencies[0].median_ms > 40
    }
    ranked = sorted((c for c in candidates if c.name not in slow), key=lambda c: -c.accuracy["map50_95"].mean)
    fastest = sorted(candidates, key=lambda c: c.latencies[0].median_ms)
    front = {c.name for i, c in enumerate(fastest) if all(_mean(c) > _mean(other) for other in fastest[:i])}
    return Comparison(
        title="Eight backbones on blood cells",
        created="2026-01-05T09:12:44+00:00",
        updated="2026-01-05T13:30:02+00:00",
        command="python compare.py --cfg yolov5n.yaml --data data/bccd.yaml --epochs 30 --seeds 3 --imgsz 256",
        stage="finished",
        machine=Machine(
            "Xeon", 2, 2, "Linux 6.1", "3.12.4", "2.5.1", "0.20.1", "4.10.0", "cpu", {"onnxruntime": "1.20.1"}, 0.013
        ),
        data=Data("data/bccd.yaml", ("Platelets", "RBC", "WBC"), 255, 73, 256),
        settings=Settings(epochs, tuple(range(seeds)), "map50_95", 16, ("pytorch", "onnx"), ("--imgsz", "256")),
        candidates=tuple(replace(c, on_front=c.name in front) for c in candidates),
        pairs=pairs,
        pick=Pick({"max_latency": 40.0}, ranked[0].name, ranked[1].name, "", slow),
        pictures=tuple(_picture(folder, i, rows, rng) for i in range(pictures)),
    )


def _mean(candidate: Candidate) -> float:
    return candidate.accuracy["map50_95"].mean


def _candidate(row: tuple, seeds: int, epochs: int, rng: random.Random) -> Candidate:
    name, millions, gflops, ms, accuracy = row
    runs = tuple(_run(name, seed, accuracy + rng.gauss(0, 0.006), ms, epochs) for seed in range(seeds))
    estimates = {}
    for metric in METRICS:
        mean = sum(getattr(run, metric) for run in runs) / max(seeds, 1)
        estimates[metric] = Estimate(mean, mean - 0.017, mean + 0.016)
    return Candidate(
        name=name,
        source={"cfg": "yolov5n.yaml", "backbone": name},
        parameters=round(millions * 1e6) + 321,
        gflops=gflops,
        file_mb=millions * 2.06,
        latencies=tuple(
            Latency(
                runtime,
                batch,
                part,
                ms * speed * (0.8 if batch > 1 else 1) * share,
                ms * speed * share * 1.12,
                accuracy,
            )
            for runtime, speed in (("pytorch", 1.0), ("onnx", 0.72))
            for batch in (1, 16)
            for part, share in (("end_to_end", 1.0), ("model", 0.78))
        ),
        inference_mb=180 + 22 * millions,
        training_mb=900 + 160 * millions,
        images_per_second=1500 / ms,
        runs=runs,
        accuracy=estimates,
        seconds_to={"0.4": ms * 9, "0.5": ms * 21 if accuracy > 0.505 else None},
        errors={kind: max(0.001, rng.gauss(0.05, 0.02) * (i % 3 + 1) / 2) for i, kind in enumerate(KINDS)},
    )


def _run(name: str, seed: int, accuracy: float, ms: float, epochs: int) -> Run:
    rng = random.Random(1000 * ms + seed)
    risen = [1 - 0.92 ** (epoch * 40 / max(epochs, 1)) for epoch in range(1, epochs + 1)]
    curve = tuple(
        Point(epoch, epoch * ms * 1.3, share * (accuracy + 0.33), max(0.0, share * accuracy + rng.gauss(0, 0.006)))
        for epoch, share in enumerate(risen, 1)
    )
    figures = (accuracy, accuracy + 0.33, accuracy + 0.08, accuracy - 0.2, accuracy - 0.05, accuracy + 0.12)
    command = (
        f"python train.py --cfg yolov5n.yaml --backbone {name} --data data/bccd.yaml --epochs {epochs} --seed {seed}"
    )
    seconds = epochs * ms * 1.3
    return Run(
        seed,
        f"{name}/seed{seed}",
        DONE,
        "",
        epochs,
        seconds,
        **dict(zip(METRICS, figures, strict=True)),
        curve=curve,
        weights=f"{name}/seed{seed}/weights/best.pt",
        command=command,
    )


def _pair(first: Candidate, second: Candidate) -> Pair:
    difference = _mean(first) - _mean(second)
    verdict = NO_DIFFERENCE if abs(difference) < 0.018 else FIRST if difference > 0 else SECOND
    p = min(1.0, 0.4 * 2.0 ** (-abs(difference) * 300))
    more = 9 if verdict == NO_DIFFERENCE else None
    bounds = (difference - 0.016, difference + 0.015)
    holm = min(1.0, p * 28)
    return Pair(first.name, second.name, "map50_95", difference, *bounds, p, holm, verdict, more)


def _picture(folder: Path, number: int, rows: list[tuple], rng: random.Random) -> Picture:
    """Discs on a grainy ground, and for each candidate boxes that lie more or less about them."""
    width, height = (320, 240) if number % 2 else (256, 256)
    noise = np.random.default_rng(number).integers(200, 235, (height, width, 1), np.uint8)
    image, labels = np.repeat(noise, 3, 2), []
    for _ in range(6):
        x, y, r, kind = rng.randint(30, width - 30), rng.randint(30, height - 30), rng.randint(9, 24), rng.randrange(3)
        cv2.circle(image, (x, y), r, ((150, 90, 190), (110, 110, 215), (160, 60, 90))[kind], -1)
        labels.append((float(x - r), float(y - r), float(x + r), float(y + r), 1.0, kind))
    file = f"cells_{number}.png"
    cv2.imwrite(str(folder / file), image)
    boxes = {}
    for name, *_ in rows:
        boxes[name] = tuple(
            (*(v + rng.gauss(0, 1.5) for v in label[:4]), rng.uniform(0.1, 0.99), label[5]) for label in labels
        )
    return Picture(file, width, height, tuple(labels), boxes)
