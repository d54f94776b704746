"""Documents of layouts, numbers and names, for the cases of tests/fuzz/images.py."""

import json
import random
import struct

NUMBERS = (
    "nan inf -inf 1e999 -1 0 1 2 0.5 1e-300 1e308 9999999999999999999999 0x10 1_0 ٣ ½ - + . true None -0.0 1e5 0.9999 0,5"
).split()
# of classes, which become folders and tags
NAMES = ("..", ".", "a/b", "a_b", "x" * 400, "CON", "nul.txt", "é图", "", " ", "a\nb", "\x1b[31m", "-rf", "C:\\x", "a.")
ODD = ("x" * 5000, "\ud800", "\0", "")
HUGE = (0, 1, 9, 10, 4096, 16384, 20000, 65535, 65536, 1 << 20, (1 << 31) - 1, (1 << 32) - 1)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """The bytes of a sound file, changed in a few places, cut off, or mixed up."""
    data = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 2, 5, 20))):
        place = rng.randrange(len(data)) if data else 0
        how = rng.randrange(8)
        if how == 0 and data:
            data[place] ^= 1 << rng.randrange(8)
        elif how == 1 and data:
            # headers are where lies are believed
            data[rng.randrange(min(len(data), 64))] = rng.randrange(256)
        elif how == 2:
            del data[place:]
        elif how == 3:
            del data[place : place + rng.randrange(64)]
        elif how == 4:
            data[place:place] = rng.randbytes(rng.randrange(1, 64))
        elif how == 5:
            form = rng.choice(("<I", ">I", "<H", ">H"))
            number = rng.choice(HUGE) & (0xFFFFFFFF if form[1] == "I" else 0xFFFF)
            data[place : place + struct.calcsize(form)] = struct.pack(form, number)
        elif how == 6:
            data[place : place + 32] = data[:32]
        else:
            data[place : place + 16] = bytes((rng.choice((0, 255)),)) * 16
    return bytes(data)


def value(rng: random.Random, usual: object) -> object:
    """What is usual in a JSON, now and then something else."""
    if rng.random() > 0.04:
        return usual
    return rng.choice(
        (None, True, -1, 0, 10**400, 1e308, float("nan"), float("inf"), "../../a.jpg", *ODD, [], {}, [usual])
    )


def coco_text(rng: random.Random, names: list[str]) -> bytes:
    pictures = [
        {"id": value(rng, i), "file_name": value(rng, name), "width": value(rng, 32), "height": value(rng, 24)}
        for i, name in enumerate(names)
    ]
    boxes = [
        {
            "id": value(rng, i),
            "image_id": value(rng, i % 3),
            "category_id": value(rng, 1 + i % 2),
            "iscrowd": value(rng, 0),
        }
        | {"bbox": value(rng, [value(rng, v) for v in (1, 2, 10.5, 9)])}
        for i in range(6)
    ]
    classes = [{"id": value(rng, i), "name": value(rng, rng.choice((f"c{i}", *NAMES)))} for i in (1, 2)]
    data = {"images": value(rng, pictures), "annotations": value(rng, boxes), "categories": value(rng, classes)}
    text = json.dumps(data)
    if rng.random() < 0.05:
        text = rng.choice(("[" * 100_000, "9" * 10_000, '{"images": ' * 5000, "null", "[]", "", text[:-20]))
    return text.encode()


def voc_text(rng: random.Random, name: str) -> bytes:
    def number(usual: float) -> str:
        return rng.choice(NUMBERS) if rng.random() < 0.06 else str(usual)

    def escaped(text: str) -> str:
        return "".join(c for c in text if c.isprintable()).replace("&", "&amp;").replace("<", "&lt;")

    begin = rng.choice(
        (
            "",
            "",
            '<?xml version="1.0"?>',
            '<?xml version="1.0" encoding="x-none"?>',
            '<?xml version="1.0" encoding="utf-16"?>',
        )
    )
    if rng.random() < 0.1:
        entities = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
        begin += f'<!DOCTYPE x [<!ENTITY a0 "haha">{entities}<!ENTITY f SYSTEM "file:///etc/passwd">]>'
    objects = "".join(
        f"<object><name>{escaped(rng.choice(('c', 'd', *NAMES)))}</name><difficult>{number(0)}</difficult><bndbox>"
        f"<xmin>{number(1)}</xmin><ymin>{number(2)}</ymin><xmax>{number(20)}</xmax><ymax>{number(15)}</ymax></bndbox></object>"
        for _ in range(rng.choice((0, 1, 3)))
    )
    entity = rng.choice(("&a11;", "&f;", "&#0;", "&#x1b;")) if rng.random() < 0.05 else ""
    deep = "<a>" * 50_000 + "</a>" * 50_000 if rng.random() < 0.02 else ""
    text = (
        f"{begin}<annotation><filename>{escaped(name)}{entity}</filename><size><width>{number(32)}</width>"
        f"<height>{number(24)}</height></size>{objects}{deep}</annotation>"
    )
    return damaged(rng, text.encode()) if rng.random() < 0.2 else text.encode()
