"""Labels of one image: what its file says, row by row, and what is wrong with it."""

import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from utils.errors import MOST_SAID, shown
from utils.files import why_unreadable

MOST_BYTES = 16 << 20  # of a label file: hundreds of thousands of boxes
ROUNDING = 1e-3  # label tools round: so far outside 0..1 a coordinate is clipped, beyond it is a fault


@dataclass
class Annotation:
    """One usable image and its labels."""

    image: str  # path as it was listed
    shape: tuple[int, int]  # height, width in pixels, upright (after EXIF orientation)
    labels: np.ndarray  # float32 [n, 5]: class, x, y, w, h as fractions of the image size
    segments: list[np.ndarray]  # n polygons, float32 [k, 2], if the label file holds polygons, else empty


@dataclass
class Fault:
    """Something wrong with a file, and what was done about it."""

    kind: str  # "image refused", "class", "coordinate", … : what the counts are per
    file: str
    line: int | None  # 1-based; None for the file as a whole
    detail: str

    def __str__(self) -> str:
        place = shown(self.file, MOST_SAID)
        return f"{place}: {self.detail}" if self.line is None else f"{place} line {self.line}: {self.detail}"


def label_path(image_path: str | Path) -> Path:
    """The label file of an image: its last folder named ``images`` becomes ``labels``, its suffix .txt.

    An image under no such folder has its labels beside it; so has one that lies beside its .txt, where the folder of
    labels doesn't exist: the set may stand in a folder that only happens to be called so.
    """
    return Path(label_file(image_path))


def label_file(image_path: str | Path) -> str:
    """The same as text, which takes a third of the time: a large set asks for it once an image at every start."""
    folder, name = os.path.split(image_path)
    labels, beside = _label_folders(folder)
    file = f"{os.path.splitext(name)[0]}.txt"
    if not os.path.isdir(labels or ".") and os.path.lexists(other := os.path.join(beside, file)):
        return other
    return os.path.join(labels, file)


@lru_cache(maxsize=4096)
def _label_folders(folder: str) -> tuple[str, str]:
    """Where the labels of a folder's images are looked for, and that folder itself; the folder that we are in is ""."""
    folders = list(Path(folder).parts)
    beside = os.path.join("", *folders)
    if "images" in folders:
        folders[-1 - folders[::-1].index("images")] = "labels"
    return os.path.join("", *folders), beside


class LabelError(Exception):
    """A label file that can't be read; the message is the short reason, without the path."""


def read_label_text(file: Path) -> str | None:
    """The text of a label file; None where there is none.

    Raises LabelError with the reason for one that can't be read, UnicodeDecodeError where it is not UTF-8.
    """
    if not os.path.lexists(file):
        return None
    if reason := why_unreadable(file, "label file", MOST_BYTES):
        raise LabelError(reason)
    try:
        return file.read_text(encoding="utf-8")
    except OSError as e:
        raise LabelError(e.strerror or str(e)) from None


class _RowError(Exception):
    def __init__(self, kind: str, detail: str):
        self.kind, self.detail = kind, detail


def parse_label_text(text: str, nc: int, file: str = "") -> tuple[np.ndarray, list[np.ndarray], list[Fault]]:
    """Read the text of a label file: rows ``class x y w h``, or polygons ``class x1 y1 x2 y2 x3 y3 …``.

    A polygon has three or more points; its box is its extent. If there is one polygon, every row has a segment: that of
    a plain box is its corners. Faulty rows are left out, each with a Fault that names ``file`` and the line.

    Returns labels float32 [n, 5], segments (n arrays float32 [k, 2], or none), faults.
    """
    rows: list[tuple[float, ...]] = []
    faults = []
    first_line: dict[tuple[float, ...], int] = {}
    for line, content in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        columns = content.split()
        if not columns:
            continue
        try:
            row = _parse_row(columns, nc)
            if row in first_line:
                raise _RowError("duplicate row", f"the same as line {first_line[row]}")
        except _RowError as e:
            faults.append(Fault(e.kind, file, line, f"{e.detail}; line skipped"))
            continue
        first_line[row] = line
        rows.append(row)

    labels = np.array([(row[0], *_box(row)) for row in rows], np.float32).reshape(-1, 5)
    has_polygon = any(len(row) > 5 for row in rows)
    segments = [_polygon(row) for row in rows] if has_polygon else []
    return labels, segments, faults


def _parse_row(columns: list[str], nc: int) -> tuple[float, ...]:
    """The numbers of one row, coordinates clipped to 0..1. Raises _RowError."""
    if len(columns) != 5 and (len(columns) < 7 or len(columns) % 2 == 0):
        hint = " (is the last one a saved confidence?)" if len(columns) == 6 else ""
        raise _RowError(
            "column count",
            f"{len(columns)} columns{hint}, expected `class x y w h`, or `class x1 y1 x2 y2 x3 y3 …` for a polygon",
        )
    cls, *coordinates = map(_number, columns)
    if cls != int(cls):
        raise _RowError("class", f"class {shown(columns[0], 20)} is not an integer")
    if not 0 <= cls < nc:
        raise _RowError("class", f"class {shown(columns[0], 20)}, but nc is {nc}")

    for i, value in enumerate(coordinates):
        if not -ROUNDING <= value <= 1 + ROUNDING:
            name = "xywh"[i] if len(columns) == 5 else f"{'xy'[i % 2]}{i // 2 + 1}"
            raise _RowError(
                "coordinate", f"{name} is {shown(columns[i + 1], 20)}, outside 0..1 (fractions of the image size)"
            )
    row = (cls, *(min(max(value, 0.0), 1.0) for value in coordinates))
    width, height = _box(row)[2:]
    if width <= 0 or height <= 0:
        raise _RowError("box size", f"a box of width {width:g} and height {height:g}")
    return row


def _number(column: str) -> float:
    try:
        value = float(column)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _RowError("not a number", f"'{shown(column, 20)}' is not a number")
    return value


def _box(row: tuple[float, ...]) -> tuple[float, float, float, float]:
    """x, y, w, h of a row."""
    if len(row) == 5:
        return row[1:]
    xs, ys = row[1::2], row[2::2]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def _polygon(row: tuple[float, ...]) -> np.ndarray:
    """Points [k, 2] of a row; of a box its corners."""
    if len(row) > 5:
        return np.array(row[1:], np.float32).reshape(-1, 2)
    x, y, w, h = row[1:]
    left, right, top, bottom = x - w / 2, x + w / 2, y - h / 2, y + h / 2
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32)


def text_line(detection: list[float], native: tuple[int, int], with_conf: bool) -> str:
    """One line of a label file: class x y w h, normalised, and the confidence if asked for."""
    x1, y1, x2, y2, conf, cls = detection
    height, width = native
    box = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    figures = (*box, conf) if with_conf else box
    return f"{int(cls)} " + " ".join(f"{v:.6g}" for v in figures) + "\n"
