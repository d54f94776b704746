"""The formats a model can be exported to."""

from collections.abc import Callable
from pathlib import Path

import torch

from engine.export.formats.coreml import CoreMLBackend, export_coreml
from engine.export.formats.ncnn import NcnnBackend, export_ncnn
from engine.export.formats.onnx import OnnxRuntimeBackend, OpenCVBackend, write_onnx
from engine.export.formats.openvino import OpenVINOBackend, export_openvino
from engine.export.formats.tensorrt import TensorRTBackend, export_engine
from engine.export.formats.tflite import TFLiteBackend, export_tflite
from engine.export.formats.torchscript import TorchScriptBackend, export_torchscript
from engine.export.settings import Format
from utils.errors import UserError


def open_backend(file: Path, device: torch.device, dnn: bool):
    """The backend for an exported file, by its name."""
    kinds = {
        ".torchscript": TorchScriptBackend,
        ".onnx": OpenCVBackend if dnn else OnnxRuntimeBackend,
        ".tflite": TFLiteBackend,
        ".mlpackage": CoreMLBackend,
        ".engine": TensorRTBackend,
        "_openvino_model": OpenVINOBackend,
        "_ncnn_model": NcnnBackend,
    }
    kind = next((backend for ending, backend in kinds.items() if file.name.endswith(ending)), None)
    if kind is None:
        raise UserError(f"{file}: no model that can be run; known are .pt and {' '.join(kinds)}")
    if dnn and kind is not OpenCVBackend:
        raise UserError(f"--dnn: runs ONNX files, and {file} is none; make one: export.py --include onnx")
    if not file.exists():
        raise UserError(f"{file}: no such file")
    return kind(file, device)


def _format(make: Callable, ending: str, flags: str) -> Format:
    return Format(make, ending, frozenset(flags.split()))


FORMATS = {
    "torchscript": _format(export_torchscript, ".torchscript", "dynamic half"),
    "onnx": _format(write_onnx, ".onnx", "dynamic nms half simplify"),
    "openvino": _format(export_openvino, "_openvino_model", "dynamic nms half int8 simplify"),
    "engine": _format(export_engine, ".engine", "dynamic nms half simplify"),
    "coreml": _format(export_coreml, ".mlpackage", "half"),
    "tflite": _format(export_tflite, ".tflite", ""),
    "ncnn": _format(export_ncnn, "_ncnn_model", "half"),
}


EXPORTED = (".torchscript", ".onnx", "_openvino_model", ".engine", ".mlpackage", ".tflite", "_ncnn_model")


def is_exported(path: str | Path) -> bool:
    """Whether a path names a model that export.py has written, rather than a checkpoint."""
    return Path(path).name.endswith(EXPORTED)
