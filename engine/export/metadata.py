"""What travels with an exported model: its class names, stride, input size and kind, as plain values.

ONNX and TensorFlow Lite keep texts, TorchScript and the others JSON or YAML; all come back the same from ``read_values``,
which believes none of them.
"""

import ast
import json
import zipfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

from models.yolo import DetectionModel
from utils.errors import UserError, shown
from utils.extras import library_errors
from utils.yaml_file import read_yaml

# characters of a value, or bytes of all of them
MOST_TEXT = 1 << 20
MOST_CLASSES = 10_000
MOST_STRIDE = 1024
MOST_SIDE = 8192
# of a batch of images: 128 of 640 × 640, one of 7,000 × 7,000
MOST_PIXELS = 128 * 640 * 640


def describe(model: DetectionModel, imgsz: tuple[int, int], batch: int, dynamic: bool, nms: bool) -> dict:
    """The metadata of an export. ``imgsz`` is height, width; with ``dynamic`` it and ``batch`` are only examples."""
    return {
        "task": "detect",
        "stride": int(model.stride.max()),
        "names": dict(model.names),
        "imgsz": list(imgsz),
        "batch": batch,
        "dynamic": dynamic,
        "nms": nms,
    }


def read_values(file: str | Path, data: Any) -> dict:
    """Metadata as ``describe`` made it, from a mapping whose values may be texts; other keys are passed over.

    Files of YOLOv5's own export, which say ``names`` and ``stride`` only, are read as well.
    Raises UserError where the class names are missing, and for a value that can't be.
    """
    if not isinstance(data, dict):
        raise UserError(f"{file}: its metadata are {shown(data)}; export the model anew by export.py")
    values = {key: _plain(data[key]) for key in RULES if data.get(key) is not None}
    if not isinstance(values.get("names"), dict | list) or not values["names"]:
        raise UserError(f"{file}: carries no class names; export the model anew by export.py")
    for key, value in values.items():
        read, rule = RULES[key]
        values[key] = read(value)
        if values[key] is None:
            raise UserError(f"{file}: its metadata say `{key}: {shown(value)}`; {rule}; export the model anew")
    values = {"stride": 32, "dynamic": "imgsz" not in values, "nms": False, "batch": 1} | values
    if not values["dynamic"] and "imgsz" not in values:
        raise UserError(f"{file}: its metadata say `dynamic: False` and no imgsz; export the model anew")
    pixels = values["batch"] * prod(values.get("imgsz", ()))
    if not values["dynamic"] and pixels > MOST_PIXELS:
        raise UserError(
            f"{file}: its metadata say batches of {values['batch']} images of {shown(values['imgsz'])}; "
            f"at most {MOST_PIXELS:,} pixels are taken at a time: export it with a smaller --batch-size or --imgsz"
        )
    return values


def _plain(value: Any) -> Any:
    """The value that a text writes down; what is none stays as it is."""
    if not isinstance(value, str) or len(value) > MOST_TEXT:
        return value
    # the last two: nested too deep; TypeError: {{}: 0}
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def _integer(least: int, most: int) -> Callable[[Any], int | None]:
    def read(value: Any) -> int | None:
        whole = type(value) is int or (type(value) is float and value.is_integer())
        return int(value) if whole and least <= value <= most else None

    return read


def _flag(value: Any) -> bool | None:
    return value if type(value) is bool else None


def _size(value: Any) -> list[int] | None:
    sides = [_integer(1, MOST_SIDE)(side) for side in value] if isinstance(value, list | tuple) else []
    return sides if len(sides) == 2 and None not in sides else None


def _names(value: dict | list) -> dict[int, str] | None:
    pairs = dict(value if isinstance(value, dict) else enumerate(value))
    # JSON has texts as its keys
    numbers = [int(key) if isinstance(key, str) and key.isdecimal() and len(key) < 9 else key for key in pairs]
    plain = all(isinstance(name, str | int | float) for name in pairs.values())
    if not plain or len(pairs) > MOST_CLASSES or numbers != list(range(len(pairs))):
        return None
    return dict(enumerate(map(shown, pairs.values())))


RULES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "task": (lambda value: value if value == "detect" else None, "only detectors (task: detect) are run here"),
    "stride": (_integer(1, MOST_STRIDE), f"a stride is a whole number from 1 to {MOST_STRIDE}"),
    "names": (_names, f"names are texts, numbered from 0 on, at most {MOST_CLASSES:,}"),
    "imgsz": (_size, f"a size is height and width in pixels, at most {MOST_SIDE}"),
    "batch": (_integer(1, MOST_PIXELS), "a batch has 1 image or more"),
    "dynamic": (_flag, "it is True or False"),
    "nms": (_flag, "it is True or False"),
}


def read_json(file: Path, text: str | bytes) -> dict:
    """Metadata from a JSON text that is part of ``file``."""
    if len(text) > MOST_TEXT:
        raise UserError(f"{file}: its metadata have {len(text):,} characters; export the model anew by export.py")
    with library_errors(f"{file}: its metadata are no JSON"):
        data = json.loads(text)
    return read_values(file, data)


def read_yaml_beside(file: Path) -> dict:
    """Metadata from a YAML file, or from the only one in a folder."""
    found = [file] if file.is_file() else sorted(file.glob("*.yaml"))
    if not found:
        raise UserError(f"{file}: the YAML with its class names, which export.py wrote there, is missing")
    return read_values(found[0], read_yaml(found[0], "metadata file"))


def append_zip(file: Path, data: dict) -> None:
    """Metadata at the end of a TensorFlow Lite file, where its readers allow an archive of further files."""
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("metadata.json", json.dumps(data, ensure_ascii=False))


def read_zip(file: Path) -> dict:
    """Metadata that ``append_zip`` wrote."""
    with library_errors(f"{file}: its metadata can't be read"):
        if not zipfile.is_zipfile(file):
            return read_values(file, {})
        with zipfile.ZipFile(file) as archive, archive.open(archive.namelist()[0]) as member:
            text = member.read(MOST_TEXT + 1)
    return read_json(file, text)
