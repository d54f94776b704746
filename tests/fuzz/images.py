"""Images, labels, lists, sources and layouts: what detect.py, val.py, train.py and data/convert.py decode."""

import contextlib
import os
import random
import shutil
import socket
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import torch

from models.yolo import DetectionModel
from tests.fuzz.arena import Case
from tests.fuzz.parts.documents import HUGE, NAMES, NUMBERS, coco_text, damaged, voc_text
from tests.helpers.descriptions import small
from tests.helpers.sets import make_set
from utils.checkpoint import save_checkpoint

SUFFIXES = (".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm", ".pgm", ".gif", ".jp2", ".avif")
VIDEOS = (".avi", ".mp4")
FLAGS = (
    "--save-txt",
    "--save-crop",
    "--save-csv",
    "--save-json",
    "--nosave",
    "--save-conf",
    "--augment",
    "--hide-labels",
)
# pictures of what the layers do
DRAWN = ([], ["--visualize"], ["--explain"], ["--explain", "eigencam"])


def prepare(sound: Path) -> None:
    """Weights with sound and with absurd class names, an image of every format, short videos, a data set."""
    tiny_weights(sound / "weights.pt", {0: "rectangle", 1: "disc"})
    tiny_weights(sound / "names.pt", dict(enumerate(NAMES)))
    picture = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    for suffix in SUFFIXES:
        with contextlib.suppress(cv2.error):
            good, data = cv2.imencode(suffix, picture if suffix != ".pgm" else picture[..., 0])
            if good:
                (sound / f"image{suffix}").write_bytes(data.tobytes())
    deep = cv2.imencode(".tiff", picture.astype(np.float32))[1]
    (sound / "deep.tiff").write_bytes(deep.tobytes())
    for suffix, code in zip(VIDEOS, ("MJPG", "mp4v"), strict=True):
        video = cv2.VideoWriter(str(sound / f"video{suffix}"), cv2.VideoWriter_fourcc(*code), 10, (32, 24))
        for _ in range(3):
            video.write(picture)
        video.release()
    make_set(sound / "set", train=2, val=2, size=(32, 32))


def tiny_weights(path: Path, names: dict[int, str]) -> None:
    """A checkpoint of a model of a few rows that finds boxes everywhere."""
    torch.manual_seed(0)
    model = DetectionModel(small(), nc=len(names))
    for conv in model.detect.m:
        conv.bias.data.view(2, -1)[:, 4:] = 0.0
    save_checkpoint(path, {"yaml": model.yaml, "names": names, "model": model.state_dict(), "args": {"imgsz": 64}})


def make(rng: random.Random, folder: Path, sound: Path) -> Case:
    """One of the ways that images come in."""
    ways = (detection, detection, detection, validation, validation, conversion, conversion, conversion, training)
    return rng.choice(ways if rng.random() < 0.15 else ways[:-1])(rng, folder, sound)


# Bytes -------------------------------------------------------------------------------------------------------------------


def png(rng: random.Random) -> bytes:
    """A PNG whose sums are right, whatever it announces."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    width, height = (rng.choice((*HUGE, 16, 64, 64, 64)) for _ in range(2))
    depth, kind = rng.choice((1, 2, 4, 8, 16, 3)), rng.choice((0, 2, 3, 4, 6, 1))
    header = struct.pack(">IIBBBBB", width, height, depth, kind, rng.choice((0, 0, 1)), 0, rng.choice((0, 0, 1, 7)))
    rest = [
        chunk(b"IDAT", zlib.compress(b"\0" * rng.choice((0, 1000, 1_000_000)))),
        chunk(b"PLTE", rng.randbytes(rng.choice((3, 768, 5)))),
        chunk(b"acTL", struct.pack(">II", rng.choice(HUGE), 0)),
        chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, *(rng.choice(HUGE) for _ in range(4)), 1, 1, 0, 0)),
        chunk(b"tEXt", b"a\0" + b"b" * rng.randrange(1000)),
        chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 1_000_000)),
        chunk(b"eXIf", b"II*\0" + rng.randbytes(20)),
    ]
    middle = [rest[0]] if rng.random() < 0.5 else rng.sample(rest, rng.randrange(1, len(rest)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(middle) + chunk(b"IEND", b"")


def image_bytes(rng: random.Random, sound: Path) -> bytes:
    """An image file, sound or not."""
    how = rng.randrange(10)
    if how == 0:
        return png(rng)
    if how == 1:
        return rng.randbytes(rng.choice((0, 1, 15, 16, 17, 300)))
    if how == 2:
        begin = rng.choice(
            (b"\xff\xd8", b"BM", b"II*\0", b"MM\0+", b"P6 ", b"GIF89a", b"RIFF....WEBP", b"\0\0\0 ftypavif")
        )
        return begin + rng.randbytes(rng.choice((0, 10, 200)))
    if how == 3:
        size = " ".join(str(rng.choice(HUGE)) for _ in range(2))
        return f"P{rng.randrange(1, 8)}{rng.choice((' ', ' #x', chr(10)))}{size} 255\n".encode() + b"1 " * 600
    data = rng.choice(sorted(sound.glob("image.*")) + [sound / "deep.tiff"]).read_bytes()
    return data if how > 7 else damaged(rng, data)


def hostile_name(rng: random.Random, suffix: str) -> bytes:
    """The name of a file, among them some that are hard to write down."""
    stems = (
        b"a",
        b"a_2",
        b"a-2",
        b"7",
        b"007",
        b"x" * 240,
        b"\xff\xfe",
        b"a\nb",
        b"\x1b[2J",
        b"-a",
        b"a b",
        b"..a",
        b"%s",
        "图".encode(),
    )
    return rng.choice(stems) + suffix.encode()


def put_image(rng: random.Random, folder: Path, sound: Path) -> Path:
    """An image, or what bears the name of one, in ``folder``."""
    path = Path(os.fsdecode(os.path.join(os.fsencode(folder), hostile_name(rng, rng.choice(SUFFIXES)))))
    if os.path.lexists(path):
        return path
    how = rng.randrange(14)
    if how == 0:
        os.mkfifo(path)
    elif how == 1:
        path.mkdir()
    elif how == 2:
        path.symlink_to(rng.choice(("/dev/zero", path.name, "/dev/null", "/", "nowhere")))
    elif how == 3:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as pipe:
            pipe.bind(os.fsencode(path))
    elif how == 4:
        with open(path, "wb") as file:
            file.truncate(rng.choice((1 << 20, 1 << 31, 1 << 40)))
    else:
        path.write_bytes(image_bytes(rng, sound))
    return path


def put_video(rng: random.Random, folder: Path, sound: Path) -> Path:
    suffix = rng.choice(VIDEOS)
    path = folder / f"{rng.choice(('a', 'a_2', 'clip'))}{suffix}"
    if rng.random() < 0.1:
        os.mkfifo(path)
    elif not path.exists():
        data = (sound / f"video{suffix}").read_bytes()
        path.write_bytes(data if rng.random() < 0.4 else damaged(rng, data))
    return path


def text_lines(rng: random.Random, lines: list[str]) -> bytes:
    """Lines, and what else may stand in a text file."""
    lines = list(lines)
    for _ in range(rng.choice((0, 0, 1, 3))):
        lines.insert(
            rng.randrange(len(lines) + 1),
            rng.choice(
                (
                    "",
                    "\0",
                    "x" * 100_000,
                    "\ufeff",
                    "../../../../etc/passwd",
                    "/dev/zero",
                    "/",
                    ".",
                    "./",
                    "~",
                    "*",
                    "\x1b[2J",
                )
            ),
        )
    data = rng.choice(("\n", "\n", "\r\n", "\r", "\x0b")).join(lines).encode()
    return damaged(rng, data) if rng.random() < 0.3 else data


def label_text(rng: random.Random) -> bytes:
    rows = []
    for _ in range(rng.choice((0, 1, 3, 3000))):
        count = rng.choice((5, 5, 5, 7, 9, 6, 4, 1, 101))
        usual = [str(rng.randrange(2)), *(f"{rng.random() * 0.5 + 0.1:.3f}" for _ in range(count - 1))]
        rows.append(" ".join(rng.choice(NUMBERS) if rng.random() < 0.05 else word for word in usual))
    return text_lines(rng, rows)


# Ways in -----------------------------------------------------------------------------------------------------------------


def detection(rng: random.Random, folder: Path, sound: Path) -> Case:
    """detect.py on a folder, a file, a glob, a list, or lines that name streams."""
    where = folder / "in"
    where.mkdir()
    paths = [put_image(rng, where, sound) for _ in range(rng.choice((1, 2, 3)))]
    if rng.random() < 0.3:
        paths.append(put_video(rng, where, sound))
    source: str = rng.choice(
        (str(where), str(paths[-1]), str(where / "*"), "list.txt", "list.txt", "list.streams", "pipe")
    )
    if source == "list.txt":
        again = folder / "again"
        again.mkdir()
        paths += [put_image(rng, again, sound) for _ in range(2)]
        (folder / source).write_bytes(
            text_lines(rng, [str(path).encode("utf-8", "replace").decode() for path in paths])
        )
    elif source == "list.streams":
        # none that is waited for
        streams = (
            "http://[",
            "9" * 30,
            "rtsp://127.0.0.1:1/x",
            "udp://",
            "x",
            "http://127.0.0.1:99999/a",
            "\0",
        )
        (folder / source).write_bytes(text_lines(rng, rng.sample(streams, rng.randrange(1, 3))))
    elif source == "pipe":
        source = rng.choice(("pipe", "pipe.txt", "pipe.mp4", "pipe.streams", "pipe.jpg"))
        os.mkfifo(folder / source)
    words = ["detect.py", "--source", source, "--imgsz", "32", "--device", "cpu", "--project", "runs", "--max-det", "5"]
    words += [
        "--weights",
        str(sound / rng.choice(("weights.pt", "names.pt"))),
        "--conf-thres",
        rng.choice(("0.1", "0.9")),
    ]
    return Case([*words, *rng.sample(FLAGS, rng.randrange(4)), *rng.choices(DRAWN, (92, 3, 3, 2))[0]])


def hostile_set(rng: random.Random, folder: Path, sound: Path) -> Path:
    """A data set with a few things wrong; its YAML."""
    shutil.copytree(sound / "set", folder / "set")
    root = folder / "set"
    for split in ("train", "val"):
        images, labels = root / "images" / split, root / "labels" / split
        for _ in range(rng.choice((0, 1, 2))):
            path = put_image(rng, images, sound)
            name = labels / f"{rng.choice(('0', '1', path.stem))}.txt"
            if name.is_file():
                name.unlink()
            if os.path.lexists(name):
                continue
            how = rng.randrange(6)
            if how == 0:
                os.mkfifo(name)
            elif how == 1:
                name.mkdir()
            else:
                name.write_bytes(label_text(rng))
    if rng.random() < 0.2:
        how, cache = rng.randrange(3), root / "labels" / "val.cache"
        if how == 0:
            os.mkfifo(cache)
        elif how == 1:
            cache.mkdir()
        else:
            cache.write_bytes(rng.randbytes(100))
    entry = "images/val"
    if rng.random() < 0.4:
        lines = [str(path).encode("utf-8", "replace").decode() for path in sorted((root / "images").rglob("*.*"))]
        entry = "val.txt"
        if rng.random() < 0.1:
            os.mkfifo(root / entry)
        else:
            (root / entry).write_bytes(text_lines(rng, [*lines, "./images/val/0.png"]))
    (root / "data.yaml").write_text(f"path: {root}\ntrain: images/train\nval: {entry}\nnames: [rectangle, disc]\n")
    return root / "data.yaml"


def validation(rng: random.Random, folder: Path, sound: Path) -> Case:
    data = hostile_set(rng, folder, sound)
    words = ["val.py", "--data", str(data), "--weights", str(sound / "weights.pt"), "--imgsz", "32", "--device", "cpu"]
    flags = rng.sample(("--save-txt", "--save-json", "--single-cls", "--save-conf"), rng.randrange(3))
    return Case([*words, "--batch-size", "2", "--workers", "0", "--project", "runs", *flags])


def training(rng: random.Random, folder: Path, sound: Path) -> Case:
    data = hostile_set(rng, folder, sound)
    words = [
        "train.py",
        "--data",
        str(data),
        "--weights",
        str(sound / "weights.pt"),
        "--imgsz",
        "32",
        "--device",
        "cpu",
    ]
    words += [
        "--epochs",
        "1",
        "--batch-size",
        "2",
        "--workers",
        "0",
        "--noplots",
        "--project",
        "runs",
        "--noval",
        "--noautoanchor",
    ]
    return Case([*words, *(["--cache", rng.choice(("ram", "disk"))] if rng.random() < 0.5 else [])])


def conversion(rng: random.Random, folder: Path, sound: Path) -> Case:
    """data/convert.py, from and to each layout."""
    layout = rng.choice(("voc", "coco", "to-voc", "to-coco", "split"))
    words = ["data/convert.py", layout]
    if layout == "split":
        return Case(
            [*words, str(hostile_set(rng, folder, sound)), "out", *(["--groups"] if rng.random() < 0.2 else [])]
        )
    if layout.startswith("to-"):
        return Case([*words, str(hostile_set(rng, folder, sound)), "out", *(["--link"] if rng.random() < 0.2 else [])])
    images = folder / "images"
    images.mkdir()
    names = []
    for _ in range(3):
        names.append(put_image(rng, images, sound).name.encode("utf-8", "replace").decode())
    if layout == "coco":
        file = folder / rng.choice(("instances_val.json", "a.json", "...json"))
        how = rng.randrange(12)
        if how == 0:
            os.mkfifo(file)
        else:
            file.write_bytes(coco_text(rng, names) if how > 2 else damaged(rng, coco_text(rng, names)))
        return Case([*words, str(file), "out", "--images", str(images)])
    (folder / "Annotations").mkdir()
    for name in names:
        path = folder / "Annotations" / f"{Path(name).stem[:200]}.xml"
        if os.path.lexists(path):
            continue
        with contextlib.suppress(OSError):
            if rng.random() < 0.05:
                os.mkfifo(path)
            else:
                path.write_bytes(voc_text(rng, name))
    if rng.random() < 0.4:
        lists = folder / "ImageSets" / "Main"
        lists.mkdir(parents=True)
        if rng.random() < 0.1:
            os.mkfifo(lists / "train.txt")
        else:
            (lists / "train.txt").write_bytes(text_lines(rng, [Path(name).stem for name in names]))
    return Case([*words, str(folder), "out", "--images", str(images), *(["--one-based"] if rng.random() < 0.2 else [])])
