"""What bench/all.py measures: each step a user waits for, beside a floor of bare PyTorch, in turns.

A floor does the same work with nothing around it: the same model, the same batches, and no loader, no records, no log.
Ratios are of the two sides of one round, so that what else the machine does hits both; medians of the rounds are told.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from bench.loader import median_ratio
from engine.comparison.memory import most_resident
from engine.detection.detector import load_detector
from engine.detection.pipeline import VALIDATION
from models.flops import count_gflops
from utils.boxes import non_max_suppression
from utils.data.images import letterbox, read_image, stack_images, to_float
from utils.paths import ROOT

CPU = torch.device("cpu")
# rows and columns of the matrices whose product shows what the processor can do
ROWS = 2048


@dataclass(frozen=True)
class Row:
    """One figure: ``value`` in ``unit``, that of the floor beside it, and the ratio of the two, where there is a floor.

    ``ratio`` is the time of the floor over ours for steps, so that 1 is the best; of memory and commands ours over the floor.
    """

    part: str
    what: str
    unit: str
    value: float
    floor: float | None = None
    ratio: float | None = None
    floor_is: str = ""


def in_turns(calls: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each of ``calls`` returns in so many rounds; one before them, that warms all up, does not count."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            found[name].append(call())
    return {name: values[1:] for name, values in found.items()}


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


# Commands -----------------------------------------------------------------------------------------------------------------


def run_command(words: list, folder: Path) -> tuple[float, float, float]:
    """(seconds, seconds of all cores, peak MB) of a Python command, with ``folder`` as the place for what it writes.

    Raises CalledProcessError, with what it said, where it fails.
    """
    line = [sys.executable, *map(str, words)]
    most = 0
    started = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(line, cwd=folder, stdout=said, stderr=subprocess.STDOUT)
        # what the system says at the end is at least what this process held when it started the other
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            most = max(most, most_resident(process.pid) or 0)
            time.sleep(0.01)
        took = time.perf_counter() - started
        _, status, used = ended
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise subprocess.CalledProcessError(process.returncode, line, said.read())
    return took, used.ru_utime + used.ru_stime, most / 2**20


def startup(weights: Path, images: list[Path], folder: Path, rounds: int) -> list[Row]:
    """Whole commands, and what they take beyond importing PyTorch and OpenCV."""
    detect = [ROOT / "detect.py", "--weights", weights, "--source", two_of(images, folder)]
    detect += ["--project", folder / "runs", "--device", "cpu"]
    calls = {
        "imports": ["-c", "import torch, torchvision, cv2"],
        "torch": ["-c", "import torch, cv2"],
        "help": [ROOT / "train.py", "--help"],
        "check": [ROOT / "models" / "yolo.py", "--cfg", "yolov5n.yaml", "--device", "cpu"],
        "detect": detect,
    }
    found = in_turns({k: lambda words=words: run_command(words, folder)[0] for k, words in calls.items()}, rounds)
    middle = {name: statistics.median(values) for name, values in found.items()}
    return [
        Row("start", "import torch, torchvision, cv2", "s", middle["imports"]),
        Row("start", "import torch, cv2", "s", middle["torch"]),
        Row("start", "train.py --help", "s", middle["help"]),
        Row("start", "models/yolo.py --cfg yolov5n.yaml", "s", middle["check"]),
        Row(
            "start",
            "detect.py, two images",
            "s",
            middle["detect"],
            middle["imports"],
            median_ratio(found["detect"], found["imports"]),
            "import torch, torchvision, cv2",
        ),
    ]


def two_of(images: list[Path], folder: Path) -> Path:
    """A folder with the first two images."""
    pair = folder / "pair"
    pair.mkdir(exist_ok=True)
    for image in images[:2]:
        (pair / image.name).write_bytes(image.read_bytes())
    return pair


# Inference ----------------------------------------------------------------------------------------------------------------


def batches_of(images: list[Path], size: int, batch: int) -> list[torch.Tensor]:
    """Letterboxed images uint8 [b, 3, size, size]."""
    boxed = [letterbox(read_image(image), (size, size), auto=False)[0] for image in images]
    return [stack_images(boxed[i : i + batch]) for i in range(0, len(boxed), batch)]


def inference(weights: Path, images: list[Path], rounds: int) -> list[Row]:
    """One image at 640 and its share of a batch of 16, and the suppression of validation, per image."""
    model = load_detector(weights, CPU)
    gflops = count_gflops(model, 640)
    with torch.inference_mode():
        one, sixteen = (to_float(batches_of(images[:n], 640, n)[0], CPU) for n in (1, 16))
        predictions, _ = model(sixteen)
        squares = torch.rand(2, ROWS, ROWS)
        calls = {
            # how long it would take at the rate of a product of matrices
            "peak": lambda: seconds(lambda: squares[0] @ squares[1]) * gflops / (2e-9 * ROWS**3),
            "one": lambda: seconds(lambda: model(one)),
            "sixteen": lambda: seconds(lambda: model(sixteen)) / len(sixteen),
            "nms": lambda: seconds(lambda: non_max_suppression(predictions, **vars(VALIDATION))) / len(sixteen),
        }
        found = in_turns(calls, max(rounds * 3, 9))
    middle = {name: statistics.median(values) * 1e3 for name, values in found.items()}
    peak, ratio = f"a product of matrices of {ROWS:,}", median_ratio(found["peak"], found["one"])
    floor_is = f"its {gflops:.1f} GFLOPs at the rate of that product"
    return [
        Row("inference", peak, "GFLOP/s", gflops / middle["peak"] * 1e3),
        Row("inference", "yolov5n, 640 px, one image", "ms", middle["one"], middle["peak"], ratio, floor_is),
        Row("inference", f"yolov5n, 640 px, batch {len(sixteen)}", "ms an image", middle["sixteen"]),
        Row("inference", "suppression at the thresholds of val.py", "ms an image", middle["nms"]),
    ]


def validation(weights: Path, data: Path, images: list[Path], folder: Path, rounds: int) -> list[Row]:
    """The whole of val.py, pictures included, beside the imports and bare inference of the same batches."""
    model = load_detector(weights, CPU)
    batches = [to_float(batch, CPU) for batch in batches_of(images, 640, 16)]
    words = [ROOT / "val.py", "--weights", weights, "--data", data, "--batch-size", 16, "--device", "cpu"]
    words += ["--project", folder / "runs"]

    def floor() -> float:
        with torch.inference_mode():
            pure = seconds(lambda: [model(batch) for batch in batches])
        return pure + run_command(["-c", "import torch, torchvision, cv2"], folder)[0]

    found = in_turns({"ours": lambda: run_command(words, folder)[0], "floor": floor}, rounds)
    ours_s, floor_s = (statistics.median(found[side]) for side in ("ours", "floor"))
    ratio = median_ratio(found["ours"], found["floor"])
    what = f"val.py, {len(images)} images, 640 px, batch 16"
    return [Row("validation", what, "s", ours_s, floor_s, ratio, "imports and inference of the batches")]


def video(weights: Path, images: list[Path], folder: Path, rounds: int, frames: int = 120) -> list[Row]:
    """Milliseconds a frame of detect.py, with its video and without, beside inference of frames of that size alone, and
    beside the least that two cores can take for what it does."""
    clip = folder / "clip.mp4"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"mp4v"), 25, (640, 480))
    pictures = [cv2.resize(cv2.imread(str(image)), (640, 480)) for image in images[:8]]
    for i in range(frames):
        writer.write(np.roll(pictures[i // 15 % len(pictures)], 4 * i, 1))
    writer.release()
    model = load_detector(weights, CPU)
    image = torch.rand(1, 3, 480, 640).to(memory_format=torch.channels_last)
    words = [ROOT / "detect.py", "--weights", weights, "--device", "cpu", "--project", folder / "runs"]

    def inference_s() -> float:
        with torch.inference_mode():
            return seconds(lambda: [model(image) for _ in range(frames)])

    # what starting takes is told elsewhere
    def beyond_start(*more: str) -> float:
        whole = run_command([*words, "--source", clip, *more], folder)[0]
        return whole - run_command([*words, "--source", images[0], *more], folder)[0]

    calls = {
        "floor": inference_s,
        "shared": lambda: core_seconds(clip, folder / "copy.mp4", inference_s) / 2,
        "nosave": lambda: beyond_start("--nosave"),
        "ours": beyond_start,
    }
    found = in_turns(calls, min(rounds, 3))
    middle = {side: statistics.median(values) / frames * 1e3 for side, values in found.items()}
    return [
        Row("video", f"detect.py, 640×480, {what}", "ms a frame", middle[side], middle[floor], ratio, floor_is)
        for side, what, floor, floor_is in (
            ("nosave", "--nosave", "floor", "inference of the frames"),
            ("ours", "with its video", "floor", "inference of the frames"),
            ("ours", "with its video", "shared", "half of what reading, inference and writing take of all cores"),
        )
        for ratio in [median_ratio(found[floor], found[side])]
    ]


def core_seconds(clip: Path, copy: Path, inference_s: Callable[[], float]) -> float:
    """What the parts take of all cores, one after the other: the frames read, run through the model, and written."""
    begun = time.process_time()
    video = cv2.VideoCapture(str(clip))
    pictures = []
    while (picture := video.read()[1]) is not None:
        pictures.append(picture)
    video.release()
    inference_s()
    writer = cv2.VideoWriter(str(copy), cv2.VideoWriter_fourcc(*"mp4v"), 25, (640, 480))
    for picture in pictures:
        writer.write(picture)
    writer.release()
    return time.process_time() - begun


# Whole commands ------------------------------------------------------------------------------------------------


def whole_commands(
    checkouts: dict[str, Path], weights: Path, data: Path, images: list[Path], folder: Path, rounds: int
) -> list[Row]:
    """The public commands of this checkout beside those of another one, in seconds."""
    shared = ["--project", folder / "runs", "--device", "cpu"]
    train = ["--data", data, "--weights", "", "--cfg", "yolov5n.yaml", "--img", 320, "--batch-size", 16, "--epochs", 3]
    commands = {
        "train.py, 3 epochs": ["train.py", *train, *shared],
        "val.py": ["val.py", "--weights", weights, "--data", data, "--img", 320, *shared],
        "detect.py": ["detect.py", "--weights", weights, "--source", two_of(images, folder), *shared],
    }
    rows = []
    for name, (script, *words) in commands.items():
        runs: dict[str, list[tuple]] = {side: [] for side in checkouts}
        for _ in range(rounds):
            for side, checkout in checkouts.items():
                runs[side].append(run_command([checkout / script, *words], checkout))
        ours, other = (runs[side] for side in checkouts)
        times = [[run[0] for run in side] for side in (ours, other)]
        row = (statistics.median(times[0]), statistics.median(times[1]), median_ratio(times[0], times[1]))
        rows.append(Row("commands", name, "s", *row, "the other checkout"))
    return rows
