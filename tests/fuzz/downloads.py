"""URLs, servers and archives: what detect.py --source, `download:` of a data YAML, and names of released weights fetch."""

import contextlib
import gzip
import io
import lzma
import os
import random
import socket
import tarfile
import threading
import warnings
import zipfile
from pathlib import Path

import cv2
import numpy as np

from tests.fuzz.arena import Case
from tests.fuzz.images import tiny_weights
from tests.fuzz.parts.documents import damaged
from tests.helpers.sets import make_set
from utils.checkpoint import RELEASE_VARIABLE
from utils.sources.streams import is_live

# by which cases name the server
HERE = "http://127.0.0.1:{port}"
URLS = (
    "http://[", "http://[::1", "http://127.0.0.1:99999/{name}", "http://127.0.0.1:-1/{name}",
    "http://127.0.0.1:x/{name}", "http://",
    "http:///{name}", "http://127.0.0.1:1/{name}", "http://user:secret@127.0.0.1:{port}/{name}", "http://127.0.0.1:{port}",
    HERE + "/..", HERE + "/%2e%2e", HERE + "/a/../../{name}", HERE + "/%00{name}", HERE + "/%2f%2fetc%2f{name}",
        HERE + "/图{name}",
    HERE + "/{name}?q=é#x", HERE + "/\x1b[2J{name}", HERE + "/" + "x" * 300 + "{name}", HERE + "/" + "x" * 9000 + "{name}",
    "http://" + "a" * 300 + "/{name}", "http://" + "é." * 40 + "/{name}", "http://\u2100/{name}",
    "file:///dev/zero/{name}", "file:///etc",
    "file:///dev/zero", "file://host/{name}", "file:///nowhere/{name}", "file://{folder}/pipe",
    "file://{folder}/{name}", "file:///%00",
    "https://127.0.0.1:{port}/{name}", "http://127.0.0.1:{port}\\{name}", "http://127.1:{port}/{name}",
    "http://%31:{port}/{name}",
)  # fmt: skip
MEMBERS = (
    "a.txt", "A.txt", "a.txt", "images/train/0.png", "../evil", "/evil", "C:evil", "a\\..\\..\\evil", "x" * 300,
    "x/" * 500 + "y", "", ".",
    "./", "a/b", "a", "con", "é图", "\x1b[2J", "a\nb", "a/./b", "-rf", "~", " ", "images", "set/images/train/0.png",
    "..", "a\0b", "\udcff",
)  # fmt: skip
NUMBERS = (0, 1, -1, 511, 512, 10**6, 2**31, 2**33, 2**63, 2**64)


def prepare(sound: Path) -> None:
    """Weights, an image, a data set as archives of each kind, and archives that grow a thousandfold."""
    tiny_weights(sound / "weights.pt", {0: "rectangle", 1: "disc"})
    picture = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    (sound / "image.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    root = sound / "set"
    make_set(root, train=2, val=2, size=(32, 32))
    members = {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
    with zipfile.ZipFile(sound / "sound.zip", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    for mode in ("", "gz", "bz2", "xz"):
        with tarfile.open(sound / f"sound.tar{mode and '.'}{mode}", f"w:{mode}") as archive:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    zeros, count = bytes(1 << 20), 270
    info = tarfile.TarInfo("a.txt")
    info.size = count << 20
    # each piece of both formats stands for itself, so one of zeros is packed once
    for suffix, pack in (("gz", gzip.compress), ("xz", lzma.compress)):
        (sound / f"bomb.tar.{suffix}").write_bytes(pack(info.tobuf()) + pack(zeros) * count)
    packed = zipfile.ZipFile(sound / "bomb.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with packed, packed.open("a.txt", "w") as file:
        for _ in range(count):
            file.write(zeros)


def make(rng: random.Random, folder: Path, sound: Path) -> Case:
    """A command that fetches something, and the server that has it."""
    # bound here, so that the command line can name its port; the child inherits it
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    way = rng.choice((picture, archive, archive, archive, local_archive, released))
    case, body, name = way(rng, folder, sound, port)
    answers = [answer(rng, body, f"http://127.0.0.1:{port}", name) for _ in range(3)]

    release = url(rng, folder, port, "").rstrip("/")

    def before() -> None:
        os.environ[RELEASE_VARIABLE] = release
        threading.Thread(target=serve, args=(listener, answers), daemon=True).start()

    return Case(case, before)


def url(rng: random.Random, folder: Path, port: int, name: str) -> str:
    form = HERE + "/{name}" if rng.random() < 0.6 else rng.choice(URLS)
    return form.replace("{port}", str(port)).replace("{name}", name).replace("{folder}", str(folder))


def picture(rng: random.Random, folder: Path, sound: Path, port: int) -> tuple[list[str], bytes, str]:
    """detect.py --source URL"""
    body = (sound / "image.png").read_bytes()
    name = rng.choice(("a.png", "a.jpg", "a.mp4", "b.gif"))
    os.mkfifo(folder / "pipe")
    address = url(rng, folder, port, name)
    # streams are waited for
    while is_live(address):
        address = url(rng, folder, port, name)
    words = [
        "detect.py",
        "--source",
        address,
        "--weights",
        str(sound / "weights.pt"),
        "--imgsz",
        "32",
    ]
    return [*words, "--device", "cpu", "--project", "runs"], body if rng.random() < 0.6 else damaged(rng, body), name


def released(rng: random.Random, folder: Path, sound: Path, port: int) -> tuple[list[str], bytes, str]:
    """Weights that are asked for by the name of a release."""
    body = (sound / "weights.pt").read_bytes()
    words = ["detect.py", "--source", str(sound / "image.png"), "--weights", "yolov5n.pt", "--imgsz", "32"]
    return (
        [*words, "--device", "cpu", "--project", "runs"],
        body if rng.random() < 0.5 else damaged(rng, body),
        "yolov5n.pt",
    )


def local_archive(rng: random.Random, folder: Path, sound: Path, port: int) -> tuple[list[str], bytes, str]:
    """A data YAML whose archive is a local file, put there by hand or named by a file URL."""
    name = rng.choice(("a.zip", "a.tar.gz", "..zip", "data.yaml"))
    body = archive_bytes(rng, sound)
    # that of the YAML itself is taken
    if name != "data.yaml" and rng.random() < 0.1:
        os.mkfifo(folder / name)
    elif name != "data.yaml":
        (folder / name).write_bytes(body)
    return data_yaml(folder, sound, f"{rng.choice(('http://127.0.0.1:1', f'file://{folder}'))}/{name}"), body, name


def archive(rng: random.Random, folder: Path, sound: Path, port: int) -> tuple[list[str], bytes, str]:
    """A data YAML with the URL of an archive."""
    name = rng.choice(("a.zip", "a.tar", "a.tar.gz", "set", "a"))
    return data_yaml(folder, sound, url(rng, folder, port, name)), archive_bytes(rng, sound), name


def data_yaml(folder: Path, sound: Path, address: str) -> list[str]:
    """The command line that reads a data YAML which is to be fetched from ``address``."""
    lines = (f"path: {folder}/set", "train: images/train", "val: images/val", "names: [rectangle, disc]")
    quoted = address.replace("\\", "\\\\").replace('"', '\\"').replace("\x1b", "\\x1b")
    (folder / "data.yaml").write_text("\n".join((*lines, f'download: "{quoted}"')))
    words = [
        "val.py",
        "--data",
        "data.yaml",
        "--weights",
        str(sound / "weights.pt"),
        "--imgsz",
        "32",
        "--device",
        "cpu",
    ]
    return [*words, "--workers", "0", "--project", "runs"]


# Archives ----------------------------------------------------------------------------------------------------------------


def archive_bytes(rng: random.Random, sound: Path) -> bytes:
    how = rng.randrange(8)
    if how == 0:
        return rng.randbytes(rng.choice((0, 10, 1000)))
    if how == 1 and rng.random() < 0.3:
        return rng.choice(sorted(sound.glob("bomb.*"))).read_bytes()
    if how < 4:
        data = rng.choice(sorted(sound.glob("sound.*"))).read_bytes()
        return data if rng.random() < 0.4 else damaged(rng, data)
    data = hostile_zip(rng) if rng.random() < 0.5 else hostile_tar(rng)
    return damaged(rng, data) if rng.random() < 0.3 else data


def hostile_zip(rng: random.Random) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))) as zipped:
        for name in rng.choices(MEMBERS, k=rng.choice((1, 2, 5))):
            info = zipfile.ZipInfo("a")
            info.filename = info.orig_filename = name.encode("utf-8", "replace").decode()
            if rng.random() < 0.1:
                info.external_attr = rng.choice((0o120777, 0o20666, 0o10666, 0o40755, 0xFFFF)) << 16
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                zipped.writestr(info, rng.randbytes(rng.randrange(50)))
    data = bytearray(file.getvalue())
    # fields of the directory at the end: flags (encrypted), method, sizes, names, that differ from those before each member
    if rng.random() < 0.5 and (place := data.rfind(b"PK\1\2")) >= 0:
        field, length = rng.choice(((8, 2), (10, 2), (20, 4), (24, 4), (28, 2), (30, 2), (42, 4), (46, 1)))
        data[place + field : place + field + length] = (rng.choice(NUMBERS) % (1 << 8 * length)).to_bytes(
            length, "little"
        )
    return bytes(data)


def hostile_tar(rng: random.Random) -> bytes:
    file = io.BytesIO()
    for name in rng.choices(MEMBERS, k=rng.choice((1, 2, 5))):
        info = tarfile.TarInfo(name.replace("\0", "_") if rng.random() < 0.9 else name)
        info.type = rng.choice(
            (b"0",) * 12 + (b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S", b"L", b"K", b"x", b"g", b"Z", b"\0")
        )
        info.linkname = rng.choice(("", "../evil", "/etc/passwd", "a"))
        data = rng.randbytes(rng.randrange(50))
        info.size = len(data) if rng.random() < 0.8 else rng.choice(NUMBERS)
        if rng.random() < 0.2:
            keys = (
                "path",
                "size",
                "linkpath",
                "mtime",
                "GNU.sparse.map",
                "GNU.sparse.size",
                "GNU.sparse.major",
                "GNU.sparse.minor",
            )
            info.pax_headers = {
                key: rng.choice(("-1", "x" * 5000, "1", "../evil", "0,5", "1e9")) for key in rng.sample(keys, 2)
            }
        with contextlib.suppress(Exception):
            file.write(info.tobuf(rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)), "utf-8", "surrogateescape"))
            file.write(data + bytes(-len(data) % 512))
    if rng.random() < 0.05:
        header = tarfile.TarInfo("a")
        header.type, header.size = b"L", 2
        file.write((header.tobuf() + b"a\0" + bytes(510)) * 3000)
    packed = file.getvalue() + bytes(1024 if rng.random() < 0.8 else 0)
    return rng.choice((bytes, gzip.compress, lzma.compress))(packed)


# The server --------------------------------------------------------------------------------------------------------------


def answer(rng: random.Random, body: bytes, here: str, name: str) -> bytes:
    """The bytes that a request is answered by."""
    how = rng.randrange(12)
    if how < 4:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    if how == 4:
        length = rng.choice(
            ("-5", "x", "1e9", "9" * 30, "0", "", "+3", "٣", str(len(body) + 100), str(max(len(body) - 9, 0)))
        )
        return f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode() + body
    if how == 5:
        sizes = (f"{len(body):x}", "-5", "ffffffffffffffffffffffff", "zz", "", "0", "7" * 70_000, f"{len(body):x};x=y")
        return (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            + f"{rng.choice(sizes)}\r\n".encode()
            + body
            + b"\r\n0\r\n\r\n"
        )
    if how == 6:
        to = rng.choice(
            (
                f"{here}/{name}",
                "file:///etc/passwd",
                "ftp://127.0.0.1:1/a",
                "http://[",
                "",
                "//",
                "\x1b[2J",
                "http://127.0.0.1:99999/",
                "data:,x",
                "/" * 9000,
                f"{here}/é",
            )
        )
        return (
            f"HTTP/1.1 {rng.choice((301, 302, 307, 308))} Moved\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()
        )
    if how == 7:
        status = rng.choice(
            (
                "404 Not\x1b[2J Found",
                "500 " + "x" * 5000,
                "401 Unauthorized",
                "204 No",
                "999 x",
                "099 x",
                "abc",
                "",
                "-200 x",
                "416 x",
            )
        )
        return f"HTTP/1.1 {status}\r\nWWW-Authenticate: Basic\r\n\r\n".encode()
    if how == 8:
        return (
            b"HTTP/1.1 200 OK\r\n"
            + rng.choice((b"a: b\r\n" * 1000, b"a" * 100_000 + b"\r\n", b"no colon\r\n", b"\0: \xff\r\n"))
            + b"\r\n"
            + body
        )
    if how == 9:
        return rng.choice(
            (
                b"",
                b"\0" * 100,
                rng.randbytes(300),
                b"HTTP/9.9 200\r\n\r\n",
                b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
                b"\r\n" * 1000,
            )
        )
    return b"HTTP/1.0 200 OK\r\nContent-Type: x\r\nContent-Encoding: gzip\r\n\r\n" + body


def serve(listener: socket.socket, answers: list[bytes]) -> None:
    """Answer each request by the next of ``answers``, over and over."""
    number = 0
    while True:
        connection, _ = listener.accept()
        with contextlib.suppress(OSError), connection:
            connection.settimeout(2)
            connection.recv(65536)
            connection.sendall(answers[number % len(answers)])
        number += 1
