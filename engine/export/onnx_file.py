"""What an ONNX file says of itself, read without any package, and whether it can be what it says.

read_onnx(file)    → OnnxFile, its properties and the shape of its input

The file is a protobuf message: records of (field number, wire type, value). Libraries take much of it on trust and crash, or
read other files that it names; so its structure is checked here before one of them sees it.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from utils.errors import UserError, shown

# kind of message → its fields that are messages which matter here, and their kinds
FIELDS = {
    "model": {7: "graph", 14: "property", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 11: "input", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
# bytes of an element, by a tensor's data_type
ITEM_SIZES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 14: 8, 15: 16, 16: 2}
OP_TYPE = 4
DIMS, DATA_TYPE, RAW_DATA, EXTERNAL_DATA, DATA_LOCATION = 1, 2, 9, 13, 14
MOST_RECORDS, MOST_DEPTH, MOST_BYTES = 1_000_000, 40, 2 << 30
# bytes of a property: the names of ten thousand classes take less
MOST_TEXT = 1 << 20


@dataclass
class OnnxFile:
    """``properties`` its metadata_props; ``shape`` of its first input, None where a side is open, () where it has none;
    ``loop`` the kind of a node that repeats others, "" where no one does."""

    properties: dict[str, str]
    shape: tuple[int | None, ...]
    loop: str = ""


class _Damaged(Exception):
    """What is wrong with a file."""


def read_onnx(file: Path) -> OnnxFile:
    """Raises UserError where the file is no sound ONNX, or keeps its weights in other files."""
    try:
        size = file.stat().st_size
        if not 0 < size <= MOST_BYTES:
            raise _Damaged(f"it has {size:,} bytes")
        with open(file, "rb") as f:
            return _read_model(memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)))
    except (_Damaged, OSError) as e:
        raise UserError(f"{file}: can't be read as ONNX: {getattr(e, 'strerror', None) or e}") from None


def _read_model(data: memoryview) -> OnnxFile:
    """Go through all messages, those within others too."""
    model = OnnxFile({}, ())
    rest, count, graphs, inputs = [("model", data, 0)], 0, 0, []
    while rest:
        kind, message, depth = rest.pop()
        if depth > MOST_DEPTH:
            raise _Damaged(f"it is nested more than {MOST_DEPTH} deep")
        if kind == "property":
            texts = {field: _text(value) for field, value in _records(message) if isinstance(value, memoryview)}
            model.properties[texts.get(1, "")] = texts.get(2, "")
        elif kind == "input":
            inputs += [message] if depth == 2 else []
        elif kind == "tensor":
            count += _check_tensor(message)
        else:
            graphs += kind == "graph"
            for field, value in _records(message):
                count += 1
                if kind == "node" and field == OP_TYPE and value in (b"Loop", b"Scan"):
                    model.loop = _text(_message(value))
                if within := FIELDS[kind].get(field):
                    rest.append((within, _message(value), depth + 1))
        if count > MOST_RECORDS:
            raise _Damaged(f"it has more than {MOST_RECORDS:,} records")
    if not graphs:
        raise _Damaged("it holds no graph")
    # the last that was put on the pile came off it first
    model.shape = _input_shape(inputs[-1]) if inputs else ()
    return model


def _check_tensor(data: memoryview) -> int:
    """The number of its records. Raises _Damaged where its values are elsewhere, or not as many as it announces."""
    dims, data_type, raw, count = [], 0, None, 0
    for field, value in _records(data):
        count += 1
        if field == EXTERNAL_DATA or (field == DATA_LOCATION and value):
            raise _Damaged("its weights are in another file, and only those within it are read")
        if field == DIMS:
            dims += [value] if isinstance(value, int) else _packed(value)
        elif field == DATA_TYPE:
            data_type = value
        elif field == RAW_DATA:
            raw = _message(value)
        if len(dims) > 64:
            raise _Damaged("a tensor in it has more than 64 dimensions")
    elements = prod(dims)
    if any(side < 0 for side in map(_signed, dims)) or elements > 4 * len(data):
        raise _Damaged(f"a tensor in it is {shown(dims)} and holds {len(data)} bytes")
    if raw is not None and data_type in ITEM_SIZES and len(raw) != elements * ITEM_SIZES[data_type]:
        raise _Damaged(f"a tensor in it is {shown(dims)} and holds {len(raw)} bytes")
    return count


def _input_shape(data: memoryview) -> tuple[int | None, ...]:
    """The sides of a ValueInfoProto: its type, tensor type, shape, dimensions, and their values."""
    for field in (2, 1, 2):
        found = [value for number, value in _records(data) if number == field]
        if not found:
            return ()
        data = _message(found[-1])
    sides = (_message(value) for number, value in _records(data) if number == 1)
    values = (dict(_records(side)).get(1) for side in sides)
    return tuple(_signed(value) if isinstance(value, int) else None for value in values)


def _records(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of a message: a whole number, or the bytes of all other kinds."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind, field = tag & 7, tag >> 3
        if not field:
            raise _Damaged("a record of no field")
        if kind == 0:
            value, at = _varint(data, at)
            yield field, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise _Damaged(f"a record of the unknown kind {kind}")
        if at + length > len(data):
            raise _Damaged("a record goes beyond its end")
        yield field, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at == len(data):
            raise _Damaged("it ends within a number")
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise _Damaged("a number of more than 64 bits")


def _packed(data: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(data) and len(values) <= 64:
        value, at = _varint(data, at)
        values.append(value)
    return values


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _Damaged("a number where a message belongs")
    return value


def _text(value: memoryview) -> str:
    if len(value) > MOST_TEXT:
        raise _Damaged(f"a text of {len(value):,} bytes")
    return bytes(value).decode("utf-8", "replace")
