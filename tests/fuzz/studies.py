"""Studies of compare.py: YAML files of candidates, and folders of begun studies whose files were tampered with."""

import contextlib
import io
import json
import multiprocessing
import os
import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.fuzz import data_yamls
from tests.fuzz.arena import Case
from tests.fuzz.descriptions import disturb, value
from tests.fuzz.parts.damage import damage

STUDY = "--project . --name study --data set/data.yaml --imgsz 32 --runs 1 --workers 0 --device cpu".split()
FINISHED = ["--weights", "set/tiny.pt", "set/other.pt"]
FILES = ("comparison.json", "settings.yaml", "found/tiny.pt-seed0.npz", "found/other.pt-seed0.npz")
# of candidates: options of train.py, and names that become folders
FLAGS = "cfg backbone weights finished size optimizer seed epochs name evolve freeze teacher recipe progressive cos-lr x".split()
NAMES = (
    "",
    ".",
    "..",
    "a/b",
    "../x",
    "a" * 300,
    "CON",
    "a\nb",
    "\x1b[2J",
    "图",
    "-rf",
    3,
    None,
    True,
    "set",
    "logs",
    "found",
)
WORDS = (
    *("set/tiny.pt", "set/tiny.yaml", "set", "nowhere.pt", "set/pipe", "resnet18", "efficientnet_b0", "yolov5n.yaml"),
    *("/dev/zero", "~", "", "a\0b", "small", "x" * 300, "--cfg"),
)


def prepare(sound: Path) -> None:
    """A set of four images, two finished models, and a study of them."""
    import compare

    data_yamls.prepare(sound / "set")
    place = sound / "set"
    data = {"path": "set", "train": "images/train", "val": "images/val", "names": ["a", "b"]}
    (place / "data.yaml").write_text(yaml.safe_dump(data))
    shutil.copy(place / "tiny.pt", place / "other.pt")
    before = os.getcwd()
    os.chdir(sound)
    try:
        at_once()
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            compare.run(**vars(compare.build_parser().parse_args([*STUDY, *FINISHED, "--epochs", "1"])))
    finally:
        os.chdir(before)


def at_once() -> None:
    """Measures are taken in this process: one of its own takes seconds to import PyTorch, and reports as it does."""
    from engine.comparison import measures, memory
    from utils.errors import UserError

    def measure_apart(function, *given):
        receiver, sender = multiprocessing.Pipe(duplex=False)
        memory._answer(sender, function, given)
        answer, error = receiver.recv()
        if error:
            raise UserError(error)
        return answer

    measures.measure_apart = measure_apart


def make(rng: random.Random, folder: Path, sound: Path) -> Case:
    """A study YAML, or the folder of a study that is gone on with. Nothing is trained: that would start programs."""
    shutil.copytree(sound / "set", folder / "set")
    if rng.random() < 0.6:
        (folder / "my.yaml").write_bytes(_study(rng))
        more = rng.choice(([], [], FINISHED, ["--cfg", "set/tiny.yaml"], ["--metric", "map75"]))
        return Case(["compare.py", *STUDY, "--study", "my.yaml", "--epochs", "0", *more], before=at_once)
    shutil.copytree(sound / "study", folder / "study")
    for name in rng.sample(FILES, rng.choice((1, 1, 2))):
        file = folder / "study" / name
        file.write_bytes(_changed(rng, file))
    more = rng.choice(([], [], ["--metric", "map50"], ["--max-latency", "5"], ["--watch"], ["--max-params", "9e3"]))
    return Case(["compare.py", *STUDY, *FINISHED, "--epochs", "1", *more], before=at_once)


def _study(rng: random.Random) -> bytes:
    found: dict[Any, Any] = {
        "candidates": {"one": {"finished": "set/tiny.pt"}, "two": {"cfg": "set/tiny.yaml"}},
        "train": {"optimizer": "SGD"},
        "seeds": 1,
    }
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        _change(rng, found)
    text = yaml.safe_dump(found, sort_keys=False, allow_unicode=rng.random() < 0.5)
    content = text.encode("utf-8", "surrogatepass")
    while rng.random() < 0.3:
        content = disturb(rng, content)
    return content


def _change(rng: random.Random, study: dict[Any, Any]) -> None:
    kind, candidates = rng.randrange(6), study.get("candidates")
    if kind == 0:
        names = "candidates train epochs seeds imgsz data jobs project weights max-latency metric runtimes runs hyp trust size"
        study[rng.choice([*names.split(), "x", 3, None])] = value(rng)
    elif kind == 1:
        study["train"] = {rng.choice(FLAGS): rng.choice((rng.choice(WORDS), value(rng))) for _ in range(2)}
    elif not isinstance(candidates, dict) or not candidates:
        study["candidates"] = {"one": {"finished": "set/tiny.pt"}}
    elif kind == 2:
        candidates[rng.choice(NAMES)] = rng.choice(({"finished": "set/tiny.pt"}, {"cfg": "set/tiny.yaml"}, value(rng)))
    elif kind == 3:
        candidates[rng.choice([*candidates])] = value(rng)
    else:
        own = {rng.choice(FLAGS): rng.choice((rng.choice(WORDS), [rng.choice(WORDS)], value(rng)))}
        candidates[rng.choice([*candidates])] = own | ({"cfg": "set/tiny.yaml"} if rng.random() < 0.5 else {})


def _changed(rng: random.Random, file: Path) -> bytes:
    """The content of a file of a study with something wrong in it."""
    content = file.read_bytes()
    if rng.random() < 0.2:
        return damage(rng, content)
    if file.suffix == ".npz":
        return _arrays(rng, file)
    data = json.loads(content) if file.suffix == ".json" else yaml.safe_load(content)
    for _ in range(rng.choice((1, 1, 2))):
        holder, key = rng.choice(_entries(data))
        if rng.random() < 0.2:
            del holder[key]
        else:
            holder[key] = rng.choice((value(rng), *NAMES, 10**400, -1, 1e308, 0, [], {}, float("nan"), holder))
            if holder[key] is holder:
                holder[key] = json.loads(json.dumps({"a": 1}))
    return (json.dumps(data) if file.suffix == ".json" else yaml.safe_dump(data)).encode("utf-8", "surrogatepass")


def _entries(data: Any) -> list[tuple[Any, Any]]:
    """(holder, key) of everything nested in ``data``."""
    keys = [*data] if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else []
    return [(data, key) for key in keys] + [found for key in keys for found in _entries(data[key])]


def _arrays(rng: random.Random, file: Path) -> bytes:
    """What was found by a candidate, with other arrays."""
    with np.load(file) as saved:
        arrays = {name: saved[name] for name in saved.files}
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice([*arrays])
        before = arrays[name]
        changes = (
            lambda b: b[:-1] if b.ndim else b,
            lambda b: np.concatenate((b, b)) if b.ndim else b,
            lambda b: b[None],
            lambda b: b.astype(float) * np.nan if b.dtype.kind in "if" else b,
            lambda b: b - 7 if b.dtype.kind in "if" else b,
            lambda b: b * 10**9 if b.dtype.kind in "if" else b,
            lambda b: np.array(rng.choice(["x", 3, -1, 2.5, b"x", True, 1j])),
            lambda b: np.zeros(rng.choice([(0,), (0, 6), (3,), (2, 7), (1000, 3), (1, 1, 1)])),
            lambda b: b.astype(rng.choice(["U9", "f2", "i1", "complex64", "bool", "M8[s]"])),
        )
        # a text that is no number
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            arrays[name] = rng.choice(changes)(before)
        if rng.random() < 0.1:
            del arrays[name]
    huge = rng.choice([*arrays]) if rng.random() < 0.1 else ""
    arrays.pop(huge, None)
    written = io.BytesIO()
    np.savez_compressed(written, **arrays)
    if huge:
        # of very many numbers, by what it says of itself
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (10**13,)})
        with zipfile.ZipFile(written, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{huge}.npy", head.getvalue() + bytes(rng.choice((8, 2**28))))
    return written.getvalue()
