"""The formats a model can be exported to: a row of FORMATS each, and a file of this folder, which is loaded when it is used.

The file holds

    write(model, file, settings) -> Path     settings: engine.export.settings.Settings
    Reader(file, device)                     runs the file: ``metadata`` as read_values gives it, ``shape`` of the input that
                                             it declares (None: a side left open; () where it says nothing), ``run(images)``
                                             ``on_cpu`` says why it runs on the CPU whatever ``device`` is, or is empty
    OpenCVReader(file, device)               the same by OpenCV, where the row says ``dnn``

The table itself needs no package: commands say in --help what is in it.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from engine.export.trust import files_of
from utils.errors import UserError
from utils.files import require_file

if TYPE_CHECKING:
    import torch

    from engine.export.settings import Settings
    from models.yolo import DetectionModel

SHOWN_FLAGS = ("dynamic", "nms", "half")  # in --help; the others name their formats themselves


@dataclass(frozen=True)
class Format:
    """``suffix`` follows the checkpoint's stem, ``packages`` pip install, ``flags`` change what the file computes.

    ``folder``: it is a folder of files. ``program``: running a file can do whatever a program can. ``dnn``: OpenCV runs it,
    too. ``checkpoint``: it is read as one, by utils/checkpoint.py. ``module``: the name of its file in engine/export/formats/,
    where it is not ``name``.
    """

    name: str
    suffix: str
    packages: str = ""
    flags: tuple[str, ...] = ()
    folder: bool = False
    program: bool = False
    dnn: bool = False
    checkpoint: bool = False
    module: str = ""

    def load(self) -> ModuleType:
        """The file that writes and reads it."""
        return importlib.import_module(f"engine.export.formats.{self.module or self.name}")

    def write(self, model: "DetectionModel", file: Path, settings: "Settings") -> Path:
        """Write ``model``, which stays as it is, to ``file``. Raises UserError where a package is missing."""
        return self.load().write(model, file, settings)


FORMATS = {
    kind.name: kind
    for kind in (
        Format("torchscript", ".torchscript", "", ("dynamic", "half"), program=True),
        Format("onnx", ".onnx", "onnx onnxruntime", ("dynamic", "nms", "half", "simplify"), dnn=True),
        Format(
            "openvino",
            "_openvino_model",
            "openvino onnx, int8: nncf",
            ("dynamic", "nms", "half", "int8", "simplify"),
            folder=True,
        ),
        Format(
            "engine",
            ".engine",
            "tensorrt onnx",
            ("dynamic", "nms", "half", "simplify"),
            program=True,
            module="tensorrt",
        ),
        Format("coreml", ".mlpackage", "coremltools", ("half",), folder=True),
        Format("tflite", ".tflite", "litert-torch"),
        Format("ncnn", "_ncnn_model", "pnnx ncnn", ("half",), folder=True),
        Format("stock", "_stock.pt", checkpoint=True),
    )
}


def format_of(path: str | Path) -> Format | None:
    """The format of a file, by its name; None for a checkpoint, and where export.py does not write such files."""
    found = (kind for kind in FORMATS.values() if not kind.checkpoint)
    return next((kind for kind in found if Path(path).name.endswith(kind.suffix)), None)


def is_exported(path: str | Path) -> bool:
    """Whether a path names a model that export.py has written, rather than a checkpoint."""
    return format_of(path) is not None


def require_exported(file: Path, dnn: bool) -> Format:
    """The format of a file or folder that can be run; with ``dnn`` by OpenCV.

    Raises UserError where it is missing, of no known format, or holds anything but regular files.
    """
    kind = format_of(file)
    if kind is None:
        known = " ".join(kind.suffix for kind in FORMATS.values() if not kind.checkpoint)
        raise UserError(f"{file}: no model that can be run; known are .pt and {known}")
    if dnn and not kind.dnn:
        raise UserError(f"--dnn: runs ONNX files, and {file} is not one; make it: export.py --include onnx")
    if kind.folder and file.is_file():
        raise UserError(f"{file}: is a file, and what export.py writes as {kind.name} is a folder")
    if not kind.folder:
        require_file(file, "model file")
    files_of(file)
    return kind


def open_reader(file: Path, device: "torch.device", dnn: bool):
    """The reader of an exported file, by its name; with ``dnn`` that of OpenCV. Raises UserError as require_exported."""
    module = require_exported(file, dnn).load()
    return (module.OpenCVReader if dnn else module.Reader)(file, device)


@dataclass(frozen=True)
class Variant:
    """A format in one of the ways it can be had: in ``int8``, or run by OpenCV (``dnn``)."""

    format: Format
    int8: bool = False
    dnn: bool = False


def variants() -> dict[str, Variant]:
    """Every format but checkpoints, each followed by its other ways: onnx-dnn, openvino-int8."""
    found = {}
    for name, kind in FORMATS.items():
        if kind.checkpoint:
            continue
        found[name] = Variant(kind)
        if kind.dnn:
            found[f"{name}-dnn"] = Variant(kind, dnn=True)
        if "int8" in kind.flags:
            found[f"{name}-int8"] = Variant(kind, int8=True)
    return found


def describe_formats() -> str:
    """The table of --help: a line per format, with the file it makes of best.pt."""
    rows = [("--include", "file", "pip install", "flags (--…)")]
    for kind in FORMATS.values():
        folder = "/" if kind.folder else ""
        flags = " ".join(flag for flag in SHOWN_FLAGS if flag in kind.flags)
        rows.append((kind.name, f"best{kind.suffix}{folder}", kind.packages, flags))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(map(str.rstrip, lines))
