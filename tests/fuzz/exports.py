"""Exported files: bytes, metadata, graphs and archives of every format, and programs that pass for detectors."""

import contextlib
import json
import os
import random
import re
import shutil
import sys
import zipfile
from pathlib import Path

from tests.fuzz.arena import Case
from tests.fuzz.parts.damage import DEEP, NUMBERS, TEXTS, VALUES, damage, damage_numbers, nonsense
from tests.fuzz.parts.onnx_graphs import damage_graph

MODEL = """
nc: 2
depth_multiple: 1.0
width_multiple: 1.0
anchors: [[10, 13, 16, 30, 33, 23]]
backbone: [[-1, 1, Conv, [8, 3, 2]], [-1, 1, Conv, [8, 3, 2]], [-1, 1, Conv, [8, 3, 2]]]
head: [[-1, 1, C3, [8]], [[3], 1, Detect, [nc, anchors]]]
"""
# name of the sound file → format and settings of its export
SOUND = {
    "plain.torchscript": ("torchscript", {}),
    "plain.onnx": ("onnx", {}),
    "dynamic.onnx": ("onnx", {"dynamic": True}),
    "nms.onnx": ("onnx", {"nms": True, "max_det": 20}),
    "plain_openvino_model": ("openvino", {}),
    "nms_openvino_model": ("openvino", {"nms": True, "max_det": 20}),
    "plain_ncnn_model": ("ncnn", {}),
}
KEYS = ("names", "stride", "imgsz", "batch", "dynamic", "nms", "task", "other")


def prepare(sound: Path) -> None:
    """A tiny detector in every format whose packages are there, a list of their digests, a picture and a set of it."""
    import cv2
    import numpy as np
    import torch

    from engine.export.exporter import export_one
    from engine.export.settings import Settings
    from models.yolo import DetectionModel
    from tests.helpers.hostile_scripts import OnLoad, OnRun

    os.environ["XDG_CACHE_HOME"] = str(sound / "cache")
    (sound / "model.yaml").write_text(MODEL)
    torch.manual_seed(0)
    model = DetectionModel(str(sound / "model.yaml")).eval()
    for name, (kind, settings) in SOUND.items():
        stem = name.partition("." if "." in name else "_")[0]
        with _silence():
            result = export_one(kind, model, sound / f"{stem}.pt", Settings(imgsz=(32, 32), **settings))
        if not result.ok:
            print(f"no cases of {name}: {result.why}")
    for kind in ("images", "labels"):
        (sound / "set" / kind).mkdir(parents=True)
    cv2.imwrite(
        str(sound / "set" / "images" / "a.png"), np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8)
    )
    (sound / "set" / "labels" / "a.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (sound / "set" / "data.yaml").write_text("path: .\ntrain: images\nval: images\nnames: [a, b]\n")
    with _silence():
        for program in (OnLoad, OnRun):
            config = {"config.txt": json.dumps({"names": ["a", "b"], "stride": 8, "imgsz": [32, 32]})}
            file = sound / f"hostile-{program.__name__}.torchscript"
            torch.jit.save(torch.jit.script(program()), str(file), _extra_files=config)


@contextlib.contextmanager
def _silence():
    """Converters say much, and not through Python."""
    sys.stdout.flush()
    kept, nowhere = [os.dup(1), os.dup(2)], os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        yield
    finally:
        sys.stdout.flush()
        for stream, file in zip((1, 2), kept, strict=True):
            os.dup2(file, stream)


def make(rng: random.Random, folder: Path, sound: Path) -> Case:
    """One exported file, sound, damaged or hostile, given to detect.py or val.py."""
    shutil.copytree(sound / "set", folder / "set")
    # the digests of the sound files are known now and then
    if rng.random() < 0.3 and (sound / "cache").exists():
        shutil.copytree(sound / "cache", folder / "home" / "cache")
    way = rng.choice([_onnx] * 8 + [_openvino] * 4 + [_ncnn] * 4 + [_torchscript] * 3 + [_others, _irregular])
    name, flags = way(rng, folder, sound)
    words = ["--weights", name, "--device", "cpu", "--project", "runs", *flags]
    if rng.random() < 0.6:
        more = [[], ["--save-txt"], ["--save-csv", "--save-crop"], ["--classes", "0"], ["--conf-thres", "0"]]
        return Case(["detect.py", "--source", "set/images", *words, *rng.choice(more)])
    more = [[], ["--single-cls"], ["--imgsz", "32"], ["--task", "speed"], ["--batch-size", "2"]]
    return Case(["val.py", "--data", "set/data.yaml", "--workers", "0", *words, *rng.choice(more)])


def _taken(rng: random.Random, folder: Path, sound: Path, suffix: str) -> Path:
    """A copy of a sound file or folder of that suffix; a made-up file where there is none."""
    names = [name for name in SOUND if name.endswith(suffix) and (sound / name).exists()]
    if not names:
        (folder / f"none{suffix}").write_bytes(rng.randbytes(rng.randrange(2000)))
        return folder / f"none{suffix}"
    name = rng.choice(names)
    copy = shutil.copytree if (sound / name).is_dir() else shutil.copyfile
    return Path(copy(sound / name, folder / name))


# Damage of any file ------------------------------------------------------------------------------------------------------


def _damage_file(rng: random.Random, file: Path) -> None:
    file.write_bytes(damage(rng, file.read_bytes()))


def _damage_metadata(rng: random.Random, file: Path) -> None:
    """Another value of a key, a key less, or a text that is nothing of the kind."""
    text = file.read_text()
    how = rng.randrange(4)
    if how == 0:
        key = rng.choice(KEYS)
        text = re.sub(rf"^{key}:.*\n(^[ -].*\n)*", "", text, flags=re.M) + f"{key}: {nonsense(rng)}\n"
    elif how == 1:
        lines = text.splitlines(keepends=True)
        del lines[rng.randrange(len(lines))]
        text = "".join(lines)
    elif how == 2:
        text = damage_numbers(rng, text)
    else:
        text = damage(rng, text.encode()).decode("latin-1")
    file.write_text(text, encoding="utf-8")


# The formats -------------------------------------------------------------------------------------------------------------


def _onnx(rng: random.Random, folder: Path, sound: Path) -> tuple[str, list[str]]:
    file = _taken(rng, folder, sound, ".onnx")
    how = rng.randrange(12)
    if how <= 3:
        _damage_file(rng, file)
    elif how <= 10:
        damage_graph(rng, file)
    return file.name, ["--dnn"] if rng.random() < 0.5 else []


def _openvino(rng: random.Random, folder: Path, sound: Path) -> tuple[str, list[str]]:
    place = _taken(rng, folder, sound, "_openvino_model")
    if place.is_dir():
        (graph,), (weights,) = place.glob("*.xml"), place.glob("*.bin")
        how = rng.randrange(9)
        if how == 0:
            _damage_file(rng, weights)
        elif how <= 2:
            _damage_file(rng, graph)
        elif how <= 4:
            graph.write_text(damage_numbers(rng, graph.read_text()))
        elif how == 5:
            text = graph.read_text()
            kinds = sorted(set(re.findall(r'type="(\w+)"', text)))
            old, new = rng.choice(kinds), rng.choice([*kinds, "Nothing", "Loop", "TensorIterator", "If", ""])
            graph.write_text(text.replace(f'type="{old}"', f'type="{new}"', rng.choice((1, -1))))
        elif how <= 7:
            _damage_metadata(rng, place / "metadata.yaml")
        _lose(rng, place)
    return place.name, []


def _ncnn(rng: random.Random, folder: Path, sound: Path) -> tuple[str, list[str]]:
    place = _taken(rng, folder, sound, "_ncnn_model")
    if place.is_dir():
        graph, how = place / "model.ncnn.param", rng.randrange(9)
        if how == 0:
            _damage_file(rng, place / "model.ncnn.bin")
        elif how <= 2:
            _damage_file(rng, graph)
        elif how <= 4:
            graph.write_text(damage_numbers(rng, graph.read_text()))
        elif how == 5:
            words = graph.read_text().split(" ")
            words[rng.randrange(len(words))] = rng.choice((*words, *TEXTS))
            graph.write_text(" ".join(words))
        elif how <= 7:
            _damage_metadata(rng, place / "metadata.yaml")
        _lose(rng, place)
    return place.name, []


def _lose(rng: random.Random, place: Path) -> None:
    """A file of the folder is missing, a pipe, or a folder, now and then."""
    if rng.random() < 0.1:
        file = rng.choice(sorted(place.iterdir()))
        file.unlink()
        rng.choice((lambda: None, lambda: os.mkfifo(file), file.mkdir, lambda: file.symlink_to("/dev/zero")))()


def _torchscript(rng: random.Random, folder: Path, sound: Path) -> tuple[str, list[str]]:
    how = rng.randrange(6)
    # these are programs: without --trust
    if how == 0:
        file = rng.choice(sorted(sound.glob("hostile-*.torchscript")))
        shutil.copyfile(file, folder / "best.torchscript")
        return "best.torchscript", []
    file = _taken(rng, folder, sound, ".torchscript")
    if how <= 2:
        _damage_file(rng, file)
        return file.name, []
    if how <= 4:
        _rewrite_zip(rng, file)
    return file.name, ["--trust"] if rng.random() < 0.7 else []


def _rewrite_zip(rng: random.Random, file: Path) -> None:
    """Other metadata, a member less, or one twice."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = next(name for name in members if name.endswith("config.txt"))
    how = rng.randrange(4)
    if how == 0:
        values = json.loads(members[config]) | {
            rng.choice(KEYS): rng.choice((nonsense(rng), rng.choice(NUMBERS), [], {}))
        }
        members[config] = json.dumps(values).encode()
    elif how == 1:
        members[config] = rng.choice((*DEEP, *VALUES)).encode()
    elif how == 2:
        del members[rng.choice([config, *sorted(members)])]
    else:
        members[config] = damage(rng, members[config])
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def _others(rng: random.Random, folder: Path, sound: Path) -> tuple[str, list[str]]:
    """Formats whose packages are hardly ever there, and names of no format."""
    suffix = rng.choice((".engine", ".tflite", ".mlpackage", ".onnx.data", "", ".bin"))
    file = folder / f"best{suffix}"
    if suffix == ".mlpackage":
        (file / "Data").mkdir(parents=True)
        (file / "Manifest.json").write_text(rng.choice((*DEEP, *VALUES)))
    else:
        file.write_bytes(rng.randbytes(rng.choice((0, 1, 5000))))
    (folder / f"{file.name}.yaml").write_text(f"names: {nonsense(rng)}\n")
    return file.name, rng.choice(([], ["--trust"], ["--dnn"], ["--half"]))


def _irregular(rng: random.Random, folder: Path, sound: Path) -> tuple[str, list[str]]:
    """What is no file, or no folder, under the name of a format."""
    file = folder / f"best{rng.choice(('.onnx', '.torchscript', '_openvino_model', '_ncnn_model', '.mlpackage'))}"
    how = rng.randrange(6)
    if how == 0:
        os.mkfifo(file)
    elif how == 1:
        file.mkdir()
    elif how == 2:
        file.symlink_to(rng.choice(("/dev/zero", "/dev/random", file.name, "/proc/self/mem", "nothing")))
    elif how == 3:
        with open(file, "wb") as f:
            f.truncate(rng.choice((0, 1, 2**33)))
    elif how == 4:
        file.mkdir()
        for i in range(rng.choice((3, 400))):
            (file / f"{i}.xml").write_text("<net/>")
        (file / "metadata.yaml").write_text("names: [a, b]\n")
    return file.name, rng.choice(([], ["--trust"]))
