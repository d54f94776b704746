"""Checkpoints, given to the commands that read them."""

import copy
import functools
import io
import json
import os
import random
import shutil
import struct
import sys
import types
import warnings
from pathlib import Path

import torch

from tests.fuzz.arena import Case
from tests.fuzz.parts import pickles
from tests.fuzz.parts.tampering import damaged, nasty, tampered
from tests.helpers.sets import make_set

NETWORK = "shufflenet_v2_x0_5"
TINY = {
    "nc": 2,
    "depth_multiple": 1.0,
    "width_multiple": 1.0,
    "anchors": [[4, 5, 8, 10], [10, 13, 16, 20]],
    "backbone": [
        [-1, 1, "Conv", [8, 3, 2]],
        [-1, 1, "Conv", [8, 3, 2]],
        [-1, 1, "Conv", [8, 3, 2]],
        [-1, 1, "SPPF", [8, 3]],
    ],
    "head": [[-1, 1, "Conv", [8, 3, 2]], [[3, 4], 1, "Detect", ["nc", "anchors"]]],
}


def prepare(sound: Path) -> None:
    """A data set and the sound kinds of files."""
    from models.backbones.networks import create_classifier
    from models.yolo import DetectionModel
    from utils.yaml_file import write_yaml

    make_set(sound / "set", train=2, val=2, size=(32, 32))
    model = DetectionModel(TINY)
    names = {0: "rectangle", 1: "disc"}
    own = {
        "format": 1,
        "yaml": model.yaml,
        "names": names,
        "model": model.state_dict(),
        "args": {"imgsz": 32},
        "date": "now",
    }
    torch.save(own, sound / "own.pt")
    torch.save(own | {"ema": model.state_dict()}, sound / "average.pt")
    torch.save(model.state_dict(), sound / "bare.pt")
    write_yaml(sound / "tiny.yaml", TINY)
    with fork() as made:
        whole = made(model)
        torch.save({"epoch": 3, "model": whole, "ema": None}, sound / "whole.pt")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save({"model": whole}, sound / "oldest.pt", _use_new_zipfile_serialization=False)
    torch.save(create_classifier(NETWORK).state_dict(), sound / "backbone.pth")


class fork:
    """Within it, a class of a package that the project does not have, which pickles name."""

    def __enter__(self):
        class Model(torch.nn.Module):
            def __init__(self, model):
                super().__init__()
                self.model, self.yaml, self.names = model.model, dict(model.yaml), ["rectangle", "disc"]

        Model.__module__, Model.__qualname__ = "fork_of_yolo", "Model"
        sys.modules["fork_of_yolo"] = types.ModuleType("fork_of_yolo")
        sys.modules["fork_of_yolo"].Model = Model
        return Model

    def __exit__(self, *_):
        del sys.modules["fork_of_yolo"]


@functools.cache
def loaded(file: Path) -> dict:
    """What a sound file holds."""
    return torch.load(file, weights_only=True)


def saved(data, **more) -> bytes:
    """What torch.save writes; where that can't be, of what is left without it."""
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(data, stream, **more)
    # a value that no pickler takes
    except (RecursionError, RuntimeError, TypeError, AttributeError, UnicodeError, ValueError, NotImplementedError):
        return b""
    return stream.getvalue()


def content(rng: random.Random, sound: Path) -> bytes:
    """A file: sound now and then, most often not."""
    kind = rng.random()
    if kind < 0.4:
        within = rng.choice([(), (), ("yaml",), ("names",), ("model",), ("args",)])
        old = {"_use_new_zipfile_serialization": False} if rng.random() < 0.1 else {}
        return saved(tampered(rng, loaded(sound / rng.choice(["own.pt", "average.pt"])), within), **old)
    if kind < 0.45:
        return saved(
            rng.choice([nasty(rng), {"model": nasty(rng)}, {"state_dict": nasty(rng)}, tampered_bare(rng, sound)])
        )
    if kind < 0.7:
        pickled = pickles.written(rng)
        return rng.choice([lambda _, p: p, pickles.in_archive, pickles.in_archive, pickles.in_stream])(rng, pickled)
    file = (sound / rng.choice(["own.pt", "average.pt", "bare.pt", "whole.pt", "oldest.pt"])).read_bytes()
    if kind < 0.8 and file[:2] == b"PK":
        return pickles.repacked(rng, file)
    if kind < 0.87:
        return tampered_whole(rng, sound)
    return damaged(rng, file) if kind < 0.97 else file


def tampered_bare(rng: random.Random, sound: Path) -> dict:
    return tampered(rng, dict(loaded(sound / "bare.pt")))


def tampered_whole(rng: random.Random, sound: Path) -> bytes:
    """A pickled module with attributes that it should not have."""
    from models.yolo import DetectionModel

    with fork() as made:
        # a copy: models share the one activation of their process
        whole = copy.deepcopy(made(DetectionModel(TINY)))
        holder = rng.choice([whole, *whole.modules()])
        name = rng.choice(["yaml", "names", "_modules", "_parameters", "_buffers", "_non_persistent_buffers_set", "x"])
        if rng.random() < 0.3:
            holder._modules["again"] = rng.choice([whole, holder])
        elif name == "yaml":
            whole.yaml = rng.choice([nasty(rng), tampered(rng, TINY)])
        else:
            (whole if name == "names" else holder).__dict__[name] = nasty(rng)
        return saved({"epoch": nasty(rng), rng.choice(["model", "model", "ema"]): whole})


def safetensors(rng: random.Random) -> bytes:
    """A file of that format which says of itself what can't be."""
    entry = {"dtype": rng.choice(["F32", "F8_E4M3", "I4", "X"]), "shape": [2, rng.choice([2, -1, 2**62])]}
    entry["data_offsets"] = rng.choice([[0, 16], [0, 2**62], [16, 0], [0]])
    header = json.dumps({rng.choice(["conv1.0.weight", "", "__metadata__"]): entry}).encode()
    length = rng.choice([len(header), len(header), 2**62, 0, len(header) + 9])
    return struct.pack("<Q", length) + header + bytes(16)


def no_file(rng: random.Random, folder: Path) -> str:
    """The path of something that is no file."""
    name = rng.choice(["folder", "pipe", "device", "link", "none", "nul", "long", "official"])
    place = folder / f"{name}.pt"
    if name == "folder":
        place.mkdir()
    elif name == "pipe":
        os.mkfifo(place)
    elif name in ("device", "link"):
        place.symlink_to(rng.choice(["/dev/zero", "/dev/stdin"]) if name == "device" else place)
    return {"nul": "a\0b.pt", "long": "x" * 5000 + ".pt", "official": str(folder / "none" / "x\nyolov5s.pt")}.get(
        name, str(place)
    )


def make(rng: random.Random, folder: Path, sound: Path) -> Case:
    """A file, and a command that reads it."""
    shutil.copytree(sound / "set", folder / "set")
    text = (folder / "set" / "data.yaml").read_text().replace(str(sound), str(folder))
    (folder / "set" / "data.yaml").write_text(text)
    file = str(folder / "x.pt")
    kind = rng.random()
    backbone = kind < 0.06
    if backbone and rng.random() < 0.5:
        file = str(folder / "x.safetensors")
        Path(file).write_bytes(safetensors(rng))
    elif backbone:
        whole = dict(loaded(sound / "backbone.pth"))
        Path(file).write_bytes(saved(whole) if rng.random() < 0.1 else saved(tampered(rng, whole)))
    elif kind < 0.1:
        file = no_file(rng, folder)
    else:
        Path(file).write_bytes(content(rng, sound))
    project, data = ["--project", str(folder / "runs")], ["--data", str(folder / "set" / "data.yaml")]
    train = [
        "train.py",
        *project,
        *data,
        "--imgsz",
        "32",
        "--epochs",
        "1",
        "--workers",
        "0",
        "--noplots",
        "--batch-size",
        "2",
    ]
    if backbone:
        return Case([*train, "--cfg", "yolov5n.yaml", "--backbone", NETWORK, "--backbone-weights", file])
    if (kind := rng.random()) < 0.5:
        image = str(folder / "set" / "images" / "val" / "0.png")
        return Case(
            ["detect.py", *project, "--source", image, "--imgsz", "32", "--conf-thres", "0.01", "--weights", file]
        )
    if kind < 0.65:
        return Case(
            ["val.py", *project, *data, "--imgsz", "32", "--workers", "0", "--batch-size", "2", "--weights", file]
        )
    if kind < 0.75:
        return Case(["export.py", "--imgsz", "32", "--include", "torchscript", "--weights", file])
    if kind < 0.85:
        return Case(["detect.py"], functools.partial(through_hub, file))
    more = rng.choice([[], ["--cfg", str(sound / "tiny.yaml")]])
    return Case([*train, *more, "--weights", file])


def through_hub(file: str) -> None:
    """What a program does with torch.hub, ended as a command is."""
    import hubconf
    from utils.errors import exit_on_user_error

    exit_on_user_error(lambda: hubconf.custom(file, device="cpu", autoshape=False))
    raise SystemExit(0)
