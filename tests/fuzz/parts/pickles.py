"""Pickles written step by step, as no pickler would, and the archives around them."""

import io
import random
import struct
import zipfile

from tests.fuzz.arena import CANARY

CALLS = [
    ("os", "system", f"touch {CANARY}"),
    ("posix", "system", f"touch {CANARY}"),
    ("nt", "system", f"touch {CANARY}"),
    ("builtins", "exec", f"open({CANARY!r}, 'w')"),
    ("__builtin__", "eval", f"open({CANARY!r}, 'w')"),
    ("builtins", "open", CANARY),
    ("io", "open", CANARY),
    ("subprocess", "getoutput", f"touch {CANARY}"),
    ("commands", "getoutput", f"touch {CANARY}"),
    ("pathlib", "Path.touch", CANARY),
    ("pathlib", "os.system", f"touch {CANARY}"),
    ("torch.serialization", "os.system", f"touch {CANARY}"),
    ("torch", "_utils.sys.modules", CANARY),
    ("torch.hub", "load", CANARY),
    ("torch._utils", "_import_dotted_name", "os.system"),
    ("torch", "load", CANARY),
    ("torch.storage", "_load_from_bytes", "x"),
    ("utils.yaml_file", "write_yaml", CANARY),
    ("utils.files", "remove", "/"),
    ("models.yolo", "DetectionModel", "yolov5n.yaml"),
    ("numpy", "save", CANARY),
    ("numpy.core.multiarray", "_reconstruct", "x"),
    ("timeit", "timeit", f"open({CANARY!r}, 'w')"),
    ("runpy", "run_path", CANARY),
    ("collections", "namedtuple", "x"),
    ("collections", "OrderedDict", "x"),
    ("argparse", "_sys.modules", "x"),
    ("functools", "partial", "x"),
    ("operator", "attrgetter", "x"),
    ("", "", ""),
    ("a" * 300, "b\x1b[2J", "x"),
]
OPCODES = b".012FNSTVXUC()[]{}abcdeghijlopqrsuGIJKLMPQR" + bytes(range(0x80, 0x99))


def text(value: str) -> bytes:
    """A step that pushes a text."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def named(rng: random.Random, module: str, name: str) -> bytes:
    """Steps that push a class or function by its name."""
    spellings = [
        f"c{module}\n{name}\n".encode(),
        text(module) + text(name) + b"\x93",
        text(module) + b"q\x05" + text("x") + b"0" + text(name) + b"q\x06" + b"0h\x05h\x06\x93",
        text(name) + b"\x940" + text(module) + b"h\x00\x93",
        b"\x8c" + bytes([min(len(module), 255)]) + module.encode()[:255] + text(name) + b"\x93",
    ]
    return rng.choice(spellings)


def call(rng: random.Random) -> bytes:
    """Steps that call something, in one of the ways there are."""
    module, name, argument = rng.choice(CALLS)
    what = named(rng, module, name)
    return rng.choice(
        [
            what + text(argument) + b"\x85R",
            what + b"(" + text(argument) + b"tR",
            what + text(argument) + b"\x85\x81",
            what + text(argument) + b"\x85}\x92",
            b"(" + text(argument) + f"i{module}\n{name}\n".encode(),
            b"(" + what + text(argument) + b"o",
            what + b")\x81}" + text("__setstate__") + what + b"s" + b"b",
            what + text(argument) + b"b",
            what + b"Q",
            text(argument) + b"Q",
            f"P{argument}\n".encode(),
            b"\x82\x01",
        ]
    )


def soup(rng: random.Random) -> bytes:
    """Steps at random, with arguments that are mostly right."""
    parts = []
    for _ in range(rng.choice([5, 30, 200])):
        opcode = rng.choice(OPCODES)
        parts.append(bytes([opcode]) + rng.choice([b"", b"\0", b"\1\0\0\0", b"5\n", b"a\nb\n", rng.randbytes(8)]))
    return b"".join(parts) + b"."


def bomb(rng: random.Random) -> bytes:
    """Steps that are few, for something large, deep or endless."""
    model = b"cfork.yolo\nModel\n)\x81"
    return rng.choice(
        [
            b"(K\x01" + b"2\x86" * 10 + b"t.",
            b")" + b"q\x00h\x00\x86" * rng.choice([30, 3000]) + b".",
            b"]" + b"q\x00h\x00h\x00\x86" * 40 + b".",
            b")" + b"\x85" * rng.choice([90, 5000, 300_000]) + b".",
            b"}" + b")" + b"\x85" * rng.choice([3, 90, 200_000]) + b"K\x01s.",
            b"]" * rng.choice([5, 200_000]) + b"a" * 100_000 + b".",
            b"(" * rng.choice([5, 400_000, 600_000]) + b".",
            b"}" * rng.choice([400_000, 600_000]) + b".",
            b"\x8b" + struct.pack("<i", 200_000) + b"\x7f" * 200_000 + b".",
            b"L" + b"9" * 5000 + b"L\n.",
            b"}r\xff\xff\xff\xff0N.",
            b"\x8d" + struct.pack("<Q", 2**62) + b"x.",
            b"\x96" + struct.pack("<Q", 2**62) + b"x.",
            b"B" + struct.pack("<I", 2**32 - 1) + b"x.",
            b"X\x03\x00\x00\x00\xed\xa0\x80.",
            b"}(" + b"".join(b"\x8a\x08" + struct.pack("<q", i * 2**20) + b"N" for i in range(3000)) + b"u.",
            # modules that hold themselves, or each other without end
            b"}" + text("model") + model + b"q\x01}" + text("yaml") + b"}s" + text("_modules") + b"}" + text("a")
            + b"h\x01sssbs.",
            b"}" + text("model") + (model + b"}" + text("_modules") + b"}" + text("a")) * 2000 + b"N" + b"ssb" * 2000 + b"s.",
            b"}" + text("model") + model + b"}" + text("yaml") + b"}q\x02" + text("a") + b"h\x02ss"
            + text("_modules") + b"}ssbs.",
        ]
    )  # fmt: skip


def written(rng: random.Random) -> bytes:
    """A pickle of one of these kinds, or of a mapping with a call where weights are expected."""
    kind = rng.random()
    if kind < 0.25:
        return b"\x80\x02" + soup(rng)
    if kind < 0.5:
        return b"\x80\x02" + bomb(rng)
    key = rng.choice(["model", "ema", "state_dict", "format", "x"])
    return rng.choice([b"", b"\x80\x02", b"\x80\x04"]) + b"}" + text(key) + call(rng) + b"s."


def in_archive(rng: random.Random, pickled: bytes) -> bytes:
    """The archive that torch.save makes of a pickle."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", rng.choice(["little"] * 12 + ["big", ""]))
        archive.writestr("archive/data/0", bytes(16))
        archive.writestr("archive/version", "3\n")
    return stream.getvalue()


def in_stream(rng: random.Random, pickled: bytes) -> bytes:
    """The format before PyTorch 1.6."""
    head = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00X\r\x00\x00\x00little_endianq\x01\x88s."
    tail = rng.choice([b"", b"\x80\x02].", b"\x80\x02]X\x01\x00\x00\x000a.", b"\x80\x02}."])
    return head + pickled + tail + rng.choice([b"", struct.pack("<q", rng.choice([4, -1, 2**62])) + bytes(16)])


def repacked(rng: random.Random, content: bytes) -> bytes:
    """A sound archive with its members compressed, twice, gone, longer, swapped, or with very many more of them."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    kind = rng.choice("compressed twice gone longer swapped many bomb constants renamed moved sizes".split())
    at = rng.randrange(len(members))
    name, data = members[at]
    if kind == "twice":
        members.append((name, rng.choice([data, b"", bytes(len(data))])))
    elif kind == "gone":
        del members[at]
    elif kind == "longer":
        members[at] = name, rng.choice([data * 2, data + b"\0", data[:-1], b""])
    elif kind == "swapped":
        members[at] = name, rng.choice(members)[1]
    elif kind == "many":
        members += [(f"archive/data/x{i}", b"") for i in range(rng.choice([10, 3000]))]
    elif kind == "bomb":
        members[at] = name, bytes(30_000_000)
    elif kind == "constants":
        members.append(("archive/constants.pkl", b"."))
    elif kind == "renamed":
        members[at] = rng.choice(["../../x", "/etc/x", name.upper(), "x" * 60000, "a\nb", "\x1b"]), data
    elif kind == "moved":
        members = [(name.replace("archive/", "", 1), data) for name, data in members]
    stream = io.BytesIO()
    way = zipfile.ZIP_DEFLATED if kind in ("compressed", "bomb") else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", way) as archive:
        for name, data in members:
            archive.writestr(name, data)
    if kind != "sizes":
        return stream.getvalue()
    # what the list of members says of one
    found = bytearray(stream.getvalue())
    start = found.rindex(b"PK\1\2") if rng.random() < 0.5 else found.index(b"PK\1\2")
    struct.pack_into("<I", found, start + rng.choice([16, 20, 24, 38, 42]), rng.choice([0, 1, 2**31, 2**32 - 1]))
    return bytes(found)
