"""Command lines: sound ones of every command, with one to three flags given nonsense, or what is just possible."""

import json
import os
import random
import shutil
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import cv2
import numpy as np

from engine.comparison.options import CompareOptions
from engine.detection.options import DetectOptions
from engine.evaluation.options import ValOptions
from engine.export.options import ExportOptions
from engine.studies.options import BenchmarkOptions
from engine.training.options import TrainOptions
from models.yolo import ModelOptions
from tests.fuzz.arena import Case, nothing
from tests.fuzz.studies import at_once
from tests.helpers.descriptions import TINY
from tests.helpers.models import own_checkpoint
from tests.helpers.sets import make_set
from utils.cli import Flag
from utils.layouts.options import ConvertOptions
from utils.yaml_file import write_yaml

# command → its options, and words that make it end well within a moment; how often it is drawn
SMALL = ["--imgsz", "32", "--device", "cpu"]
COMMANDS = {
    "train.py": (
        TrainOptions,
        "--data data.yaml --cfg model.yaml --epochs 1 --batch-size 2 --workers 0 --noplots --project runs".split()
        + SMALL,
        6,
    ),
    "val.py": (ValOptions, "--data data.yaml --weights model.pt --workers 0 --project runs".split() + SMALL, 4),
    "detect.py": (DetectOptions, ["--weights", "model.pt", "--source", "image.png", "--project", "runs", *SMALL], 6),
    "export.py": (ExportOptions, ["--weights", "model.pt", "--include", "torchscript", *SMALL], 4),
    "benchmarks.py": (
        BenchmarkOptions,
        "--data data.yaml --weights model.pt --include pytorch --runs 1 --project runs".split() + SMALL,
        1,
    ),
    "compare.py": (
        CompareOptions,
        "--data data.yaml --weights model.pt --epochs 0 --runs 1 --workers 0 --project runs".split() + SMALL,
        2,
    ),
    "data/convert.py": (ConvertOptions, ["to-coco", "data.yaml", "out"], 3),
    "models/yolo.py": (ModelOptions, ["--cfg", "model.yaml", *SMALL], 3),
}
# each unit of these is work: only a few, or more than is let through
COSTLY = ("epochs", "imgsz", "batch_size", "runs", "evolve", "workers", "opset")
# not tried: they ask a program of its own whether there is a display, build every model, start a compiler
LEFT_OUT = ("view_img", "test", "compile")
# of these only what stays in the folder of the case
PLACES = ("project", "dest")
NUMBERS = (
    "-1 0 1 2 -5 3.5 1e9 nan inf -inf 1e309 1e-320 0x10 1_0 ٣ ² --5 true None +1 1,5 007 -0 ½ 1e400 -1e400".split()
)
NUMBERS += ["", " ", " 7", "1 2", "9" * 5000, "-" + "9" * 30, "1\n", "\x1b[31m"]
LARGE = [2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**9, 10**30]
INSIDE = ["", " ", "a/b", "model.pt", "image.png/x", "a" * 300, "字" * 100, "b/" * 3000, "a\0b", "\ud800", "caf\udce9"]
INSIDE += ["runs", "runs/exp", "\x1b[31mred", "a\nb", "%s{}", "~", "-", "$HOME", "*", "**", "[", "[!", "con", "a" * 250]
TEXTS = [
    *INSIDE,
    ".",
    "..",
    "/",
    "//",
    "/absent/x.yaml",
    "/dev/null",
    "/dev/zero",
    "/proc/self/mem",
    "/proc/self/environ",
]
TEXTS += [
    "pipe",
    "image.png",
    "data.yaml",
    "model.yaml",
    "bare.pt",
    "set",
    "list.txt",
    "../.",
    "~nobody/x",
    "-x",
    "\\",
    "a" * 255,
]
TEXTS += [
    "file:///etc/passwd",
    "http://127.0.0.1:1/x.jpg",
    "http://",
    "http://[",
    "rtsp://",
    "99",
    "0",
    "screen x",
    "None",
]
TEXTS += ["http://127.0.0.1:1/" + "q" * 5000, "a.streams", "x.txt", ".pt", ".yaml", "c/../data.yaml", "é" * 127 + "x"]
DEVICES = [
    "cuda",
    "0",
    "mps",
    "-1",
    "cpu:0",
    "CPU",
    " cpu ",
    "cuda:0",
    "cuda:",
    "0,1",
    "²",
    "9" * 100,
    ",",
    "meta",
    "xla",
]
JUNK = [
    "--",
    "---",
    "-",
    "",
    "@data.yaml",
    "@",
    "--help",
    "--version",
    "--no-such",
    "--=",
    "--=5",
    "-h",
    "word",
    "a b",
    "\0",
]
JUNK += ["-5", "--imgsz", "--weights", "-" * 3000, "--\x1b[31m", "--n\nx", "字", "\udcff"]


def prepare(sound: Path) -> None:
    """A model, a checkpoint of it, a set with its images, and other files that a flag may name by mistake."""
    make_set(sound / "set", train=2, val=1, size=(32, 40))
    write_yaml(sound / "model.yaml", TINY)
    own_checkpoint(sound / "model.pt", cfg=str(sound / "model.yaml"))
    write_yaml(sound / "data.yaml", {"path": "set", "train": "images/train", "val": "images/val", "names": ["a", "b"]})
    cv2.imwrite(str(sound / "image.png"), np.random.default_rng(0).integers(0, 255, (32, 40, 3), dtype=np.uint8))
    (sound / "bare.pt").write_bytes(b"not a checkpoint")
    (sound / "list.txt").write_text("image.png\n")
    (sound / "a.streams").write_text("word\n")
    (sound / "coco.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))


def make(rng: random.Random, folder: Path, sound: Path) -> Case:
    """A command, sound but for a few of its flags."""
    shutil.copytree(sound, folder, dirs_exist_ok=True)
    command = rng.choices(list(COMMANDS), [weight for *_, weight in COMMANDS.values()])[0]
    options, words, _ = COMMANDS[command]
    words = list(words)
    if command == "data/convert.py":
        words = rng.choice(
            [
                words,
                ["to-voc", "data.yaml", "out"],
                ["coco", "coco.json", "out"],
                ["voc", "set", "out"],
                ["split", "data.yaml", "out"],
            ]
        )
        words = [broken(rng, "dest" if i == 2 else "source", word) for i, word in enumerate(words)]
    # with epochs, compare.py starts trainings as programs
    left_out = (*LEFT_OUT, "epochs") if command == "compare.py" else LEFT_OUT
    flags = [entry for entry in options.flags() if not entry[1].positional and entry[0] not in left_out]
    for name, declared, hint in rng.sample(flags, min(rng.choice([1, 1, 2, 3]), len(flags))):
        words += spelt(rng, name, declared, hint)
    if rng.random() < 0.1:
        words.insert(rng.randint(0, len(words)), rng.choice(JUNK))
    if "pipe" in words:
        os.mkfifo(folder / "pipe")
    return Case([command, *words], before=at_once if command == "compare.py" else nothing)


def broken(rng: random.Random, name: str, word: str) -> str:
    """A word, or now and then another."""
    return word if rng.random() < 0.8 else rng.choice(INSIDE if name in PLACES else TEXTS)


def spelt(rng: random.Random, name: str, declared: Flag, hint: Any) -> list[str]:
    """A flag in one of the ways of writing it."""
    word = rng.choice([f"--{name.replace('_', '-')}", *declared.spellings])
    if rng.random() < 0.05:
        word = rng.choice([f"--{name}", word[: rng.randint(2, len(word))], word.upper(), f"-{word}"])
    if hint is bool:
        return [rng.choices([word, f"{word}=yes", f"{word}="], [6, 1, 1])[0]]
    # --evolve alone stands for 300 trainings
    several = rng.choice([1, 1, 2, 3]) if "list" in str(hint) else rng.choices([name == "evolve", 1, 2], [1, 12, 1])[0]
    values = [value(rng, name, declared, hint) for _ in range(several)]
    form = rng.choice(["apart", "joined", "twice"])
    if form == "joined" and values:
        return [f"{word}={values[0]}", *values[1:]]
    return [word, *values] if form == "apart" else [word, *values, word, *values]


def value(rng: random.Random, name: str, declared: Flag, hint: Any) -> str:
    """Nonsense of the kind that the flag takes or doesn't take, or what is just within its range or just outside."""
    kinds = {hint, *get_args(hint), *(kind for part in get_args(hint) for kind in get_args(part))} - {NoneType, bool}
    if declared.choices and rng.random() < 0.7:
        if name == "include":
            return rng.choice(["torchscript", "onnx", "pytorch", "ONNX", "", "saved_model", "torchscript onnx"])
        return rng.choice([*declared.choices, "", "none", rng.choice(list(declared.choices)).swapcase()])
    if name == "device":
        return rng.choice([*DEVICES, *TEXTS])
    if kinds & {int, float}:
        return number(rng, name, declared)
    return rng.choice(INSIDE if name in PLACES else TEXTS)


def number(rng: random.Random, name: str, declared: Flag) -> str:
    """A word where a number belongs."""
    low, high = declared.at_least, declared.at_most
    borders = [n for n in (low, low and low - 1, declared.above) if n is not None]
    if high is not None:
        borders += [high + 1, high * 10] + [high] * (name not in COSTLY)
    words = [*NUMBERS, *map(str, borders * 4)]
    if name not in COSTLY:
        words += map(str, LARGE)
    else:
        words += [str(n) for n in LARGE if high is not None and n > high]
    word = rng.choice(words)
    return "0" if name == "evolve" and word in ("1", "2", "+1", "007", " 7", "1_0", "1\n") else word
