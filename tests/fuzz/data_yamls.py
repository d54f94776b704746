"""Data YAMLs and files of hyper-parameters: sound ones with values, keys and bytes that no one meant."""

import os
import random
import shutil
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from tests.fuzz.arena import Case
from tests.fuzz.descriptions import disturb, value
from tests.helpers.descriptions import small
from tests.helpers.project import ROOT

PATHS = (
    *(
        "",
        ".",
        "images",
        "images/train",
        "images/train/0.jpg",
        "list.txt",
        "my.yaml",
        "nowhere",
        "../images",
        "./images/train",
    ),
    *(
        "images/*",
        "images/**/*.jpg",
        "**/**",
        "**/**/**",
        "[",
        "[!",
        "images/train/[0-9].jpg",
        "pipe",
        "loop",
        "~",
        "~nobody/x",
    ),
    *(
        "a\0b",
        "x" * 300,
        "x/" * 1500,
        "y" * 5000,
        "/dev/null",
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/mem",
        "\ud83d",
        "\x1b]0;x\x07",
    ),
    *(
        "images/train\n",
        "$(touch canary)",
        "`touch canary`",
        "; touch canary",
        "file:///etc/passwd",
        "图",
        "%s",
        "{}",
        "labels",
    ),
)
DOWNLOADS = (
    *(
        "touch canary",
        "import os; os.system('touch canary')",
        "bash get.sh",
        "http://127.0.0.1:9/x.zip",
        "ftp://x/y.zip",
    ),
    *(
        "https://",
        "http://[::1",
        "http://127.0.0.1:9/\r\nx",
        "gs://x",
        "file:///etc/passwd",
        "x" * 3000,
        5,
        [],
        {},
        [[]],
        [None],
    ),
    *(
        {"../..": "http://127.0.0.1:9/x.zip"},
        {"/": "x"},
        {"a": {"b": "c"}},
        {"in": ["http://127.0.0.1:9/x.zip", 3]},
        {None: "x"},
    ),
)
NAMES = (
    [], {}, "cat", 5, None, ["a"], ["a", "b", "c"], [None, "b"], [["a"], "b"], [True, False], [1, 2.5],
    ["a" * 201, "b"], ["a\nb", "c"], {0: "a"}, {0: "a", 1: "b"}, {"0": "a", "1": "b"}, {0: "a", 2: "b"},
    {-1: "a", 0: "b"}, {1: "a", 2: "b"}, {0.0: "a", 1.0: "b"}, {0.5: "a", 1: "b"}, {None: "a"},
    {"²": "a", "1": "b"}, {"٠": "a", 1: "b"}, {True: "a", False: "b"}, {0: {0: "a"}, 1: "b"},
    {10**30: "a", 0: "b"}, {"nc": 2, "0": "a"}, ["\x1b[2J", "b"], ["<b>", "%d"], ["\u202ex", "b"],
)  # fmt: skip


def prepare(sound: Path) -> None:
    """Four tiny images in two splits with labels, a list of them, and a tiny model."""
    draw = np.random.default_rng(0)
    for split in ("train", "val"):
        (sound / "images" / split).mkdir(parents=True)
        (sound / "labels" / split).mkdir(parents=True)
        for number in range(2):
            picture = draw.integers(0, 255, (24, 32, 3), np.uint8)
            Image.fromarray(picture).save(sound / "images" / split / f"{number}.jpg")
            (sound / "labels" / split / f"{number}.txt").write_text(f"{number} 0.5 0.5 0.4 0.4\n")
    (sound / "list.txt").write_text("./images/train/0.jpg\n./images/val/1.jpg\n")
    rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]]]
    tiny = small(nc=2, backbone=rows, head=[[[1, 2], 1, "Detect", ["nc", "anchors"]]])
    (sound / "tiny.yaml").write_text(yaml.safe_dump(tiny))

    from models.yolo import DetectionModel
    from utils.checkpoint import save_checkpoint

    model = DetectionModel(sound / "tiny.yaml")
    names = {0: "a", 1: "b"}
    save_checkpoint(
        sound / "tiny.pt", {"yaml": model.yaml, "names": names, "model": model.state_dict(), "args": {"imgsz": 32}}
    )


def make(rng: random.Random, folder: Path, sound: Path) -> Case:
    """A data YAML for val.py, or hyper-parameters or a data YAML for train.py."""
    # one level down: caches and archives lie beside the folder of a set, which must be in the case's folder as well
    place = folder / "set"
    shutil.copytree(sound, place)
    if rng.random() < 0.2:
        os.mkfifo(place / "pipe")
        os.symlink("loop", place / "loop")
    hyp = rng.random() < 0.4
    data = {"path": str(place), "train": "images/train", "val": "images/val", "names": ["a", "b"]}
    if not hyp:
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
            _change_data(rng, data)
    (place / "data.yaml").write_bytes(_text(rng, data, 0.0 if hyp else 0.3))
    kinds = sorted((ROOT / "data" / "hyps").glob("*.yaml"))
    settings = yaml.safe_load(rng.choice(kinds).read_text(encoding="utf-8"))
    if hyp:
        for _ in range(rng.choice((0, 1, 1, 1, 2, 5))):
            _change_hyp(rng, settings)
    (place / "hyp.yaml").write_bytes(_text(rng, settings, 0.3 if hyp else 0.0))
    said = rng.choice(("set/data.yaml", "set/data.yaml", "./set/data.yaml", str(place / "data.yaml")))
    common = f"--imgsz 32 --batch-size 2 --workers 0 --device cpu --project {folder}/runs --data".split() + [said]
    if not hyp and rng.random() < 0.8:
        task = rng.choice(([], [], ["--task", "test"], ["--task", "train"]))
        return Case(["val.py", "--weights", "set/tiny.pt", *common, *task])
    more = rng.choice(([], ["--noautoanchor"], ["--optimizer", "Adam"], ["--cos-lr"], ["--image-weights"]))
    recipe = "--cfg set/tiny.yaml --hyp set/hyp.yaml --epochs 1 --noplots --weights".split() + [""]
    return Case(["train.py", *recipe, *common, *more])


def _text(rng: random.Random, data: dict, share: float) -> bytes:
    text = yaml.safe_dump(
        data, sort_keys=False, allow_unicode=rng.random() < 0.5, default_flow_style=rng.choice((None, False))
    )
    found = text.encode("utf-8", "surrogatepass")
    while rng.random() < share:
        found = disturb(rng, found)
    return found


def _entry(rng: random.Random) -> object:
    return rng.choice(
        (rng.choice(PATHS), rng.choice(PATHS), [rng.choice(PATHS) for _ in range(rng.randrange(4))], value(rng))
    )


def _change_data(rng: random.Random, data: dict) -> None:
    key = rng.choice(("path", "train", "val", "test", "names", "names", "nc", "download", "generate", "", 3))
    if rng.random() < 0.1:
        data.pop(key, None)
    elif key in ("path", "train", "val", "test"):
        data[key] = _entry(rng)
    elif key == "names":
        many = rng.choice((3, 300, 3000))
        data[key] = rng.choice((rng.choice(NAMES), [f"n{i}" for i in range(many)], value(rng)))
    elif key == "nc":
        data[key] = rng.choice((0, 1, 2, 2.0, "2", True, -1, [2], 10**20, float("nan"), value(rng)))
    elif key == "download":
        # only data that is not there is fetched
        data[key], data["val"] = rng.choice((rng.choice(DOWNLOADS), value(rng))), rng.choice(("images/val", "nowhere"))
    else:
        data[key] = rng.choice(("Shapes", "coco", "", [], value(rng)))


def _change_hyp(rng: random.Random, settings: dict) -> None:
    key = rng.choice(
        [
            *settings,
            "nominal_batch",
            "label_smoothing",
            "mosaic9",
            "close_mosaic",
            "iou_t",
            "distill_obj",
            "none_such",
            "",
        ]
    )
    if rng.random() < 0.1:
        settings.pop(key, None)
        return
    likely = (
        0,
        0.0,
        1,
        0.5,
        1.0,
        1.5,
        2,
        1e-9,
        1e-320,
        1e-3,
        10,
        100,
        360,
        1e5,
        1e6,
        1e7,
        -1e-9,
        "1e-3",
        "0.1",
        "inf",
        ".inf",
        "",
        None,
    )
    settings[key] = rng.choice(likely) if rng.random() < 0.7 else value(rng)
