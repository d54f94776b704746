"""What travels with an exported model: its class names, stride, input size and kind, as plain values.

ONNX and TensorFlow Lite keep texts, TorchScript and the others JSON or YAML; all come back the same from ``read_values``.
"""

import ast
import json
import zipfile
from pathlib import Path

from models.yolo import DetectionModel
from utils.errors import UserError
from utils.yaml_file import read_yaml


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


def read_values(file: str | Path, data: dict) -> dict:
    """Metadata as ``describe`` made it, from a mapping whose values may be texts; unknown keys stay as they are.

    Files of YOLOv5's own export, which say ``names`` and ``stride`` only, are read as well.
    Raises UserError where the class names are missing.
    """
    values = {}
    for key, value in data.items():
        try:
            values[key] = ast.literal_eval(value) if isinstance(value, str) else value
        except (ValueError, SyntaxError):
            values[key] = value
    names = values.get("names")
    if not isinstance(names, dict | list) or not names:
        raise UserError(f"{file}: carries no class names; export the model anew by export.py")
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    values["names"] = {int(key): str(name) for key, name in pairs}
    return {"stride": 32, "dynamic": "imgsz" not in values, "nms": False} | values


def read_yaml_beside(file: Path) -> dict:
    """Metadata from a YAML file, or from the only one in a folder."""
    found = [file] if file.is_file() else sorted(file.glob("*.yaml"))
    if not found:
        raise UserError(f"{file}: the YAML with its class names, which export.py wrote there, is missing")
    return read_values(file, read_yaml(found[0], "metadata file"))


def append_zip(file: Path, data: dict) -> None:
    """Metadata at the end of a TensorFlow Lite file, where its readers allow an archive of further files."""
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("metadata.json", json.dumps(data, ensure_ascii=False))


def read_zip(file: Path) -> dict:
    """Metadata that ``append_zip`` wrote."""
    if not zipfile.is_zipfile(file):
        return read_values(file, {})
    with zipfile.ZipFile(file) as archive:
        return read_values(file, json.loads(archive.read(archive.namelist()[0])))


def read_onnx_properties(file: Path) -> dict[str, str]:
    """The metadata_props of an ONNX file, without the package onnx.

    The file is a protobuf message of (field number, wire type, value) records; metadata_props is field 14 of it, each a
    message of two texts: field 1 the key, field 2 the value.
    """
    properties = {}
    for number, record in _records(memoryview(file.read_bytes())):
        if number == 14:
            entry = {field: bytes(text).decode("utf-8", "replace") for field, text in _records(record)}
            properties[entry.get(1, "")] = entry.get(2, "")
    return properties


def _records(data: memoryview):
    """(field number, bytes) of the length-delimited records of a protobuf message; others are passed over."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 2:
            length, at = _varint(data, at)
            yield tag >> 3, data[at : at + length]
            at += length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            return


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    return value, at
