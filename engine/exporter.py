"""Exports: one function per format, each a model in and a file out.

export_onnx      ONNX, by the TorchScript exporter of torch.onnx: it needs no extra package and has known opsets
"""

import importlib
import os
import warnings
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch

from engine.export_graph import ExportGraph
from models.yolo import DetectionModel
from utils.errors import UserError

OPSETS = range(11, 21)  # NonMaxSuppression and Resize as PyTorch means them begin at 11; PyTorch's exporter ends at 20


def export_onnx(
    model: DetectionModel,
    file: str | Path,
    imgsz: tuple[int, int] = (640, 640),
    batch: int = 1,
    opset: int = 17,
    dynamic: bool = False,
    nms: bool = False,
    conf_thres: float = 0.25,
    iou_thres: float = 0.45,
    max_det: int = 300,
    half: bool = False,
    maps: bool = False,
    simplify: bool = False,
) -> Path:
    """Write ``model``, fused or not, as ONNX; it stays as it is. Returns the path.

    Input ``images`` [batch, ch, h, w], float32, 0..1; output ``output0``, see ExportGraph for ``nms``, ``half`` and
    ``maps`` (outputs ``map0``, ``map1``, …). ``imgsz`` is (height, width), multiples of the model's stride. With
    ``dynamic`` batch, height and width may differ at run time. ``simplify`` runs onnxslim over the file.
    Raises UserError for sizes and opsets that can't be, and where the package onnx is missing.
    """
    onnx = require("onnx", "onnx")
    if opset not in OPSETS:
        raise UserError(f"--opset {opset}: give {OPSETS[0]} to {OPSETS[-1]}")
    check_size(model, imgsz)
    graph = ExportGraph(model, nms, conf_thres, iou_thres, max_det, maps, half).eval()
    images = example_images(model, imgsz, batch)
    names = ["output0"] + [f"map{i}" for i in range(len(model.stride)) if maps]
    axes = {"images": {0: "batch", 2: "height", 3: "width"}, "output0": {0: "batch"} if nms else {0: "batch", 1: "n"}}
    axes |= {name: {0: "batch", 2: f"{name}_height", 3: f"{name}_width"} for name in names[1:]}
    with replacing(Path(file)) as temporary:
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # about the newer exporter, and about shapes that tracing takes as constants
            torch.onnx.export(
                graph,
                (images,),
                str(temporary),
                opset_version=opset,
                input_names=["images"],
                output_names=names,
                dynamic_axes=axes if dynamic else None,
                dynamo=False,
            )
        graph = onnx.load(str(temporary))
        if simplify:
            graph = require("onnxslim", "onnxslim").slim(graph)
        described = metadata(model, imgsz, batch, dynamic, nms)
        onnx.helper.set_model_props(graph, {key: str(value) for key, value in described.items()})
        onnx.save(graph, str(temporary))
    return Path(file)


def metadata(model: DetectionModel, imgsz: tuple[int, int], batch: int, dynamic: bool, nms: bool) -> dict:
    """What travels in every format: plain values, to be had without the model."""
    return {
        "task": "detect",
        "stride": int(model.stride.max()),
        "names": dict(model.names),
        "imgsz": list(imgsz),
        "batch": batch,
        "dynamic": dynamic,
        "nms": nms,
    }


def check_size(model: DetectionModel, imgsz: tuple[int, int]) -> None:
    """Raises UserError for a size that the strides don't divide."""
    stride = int(model.stride.max())
    if any(side < stride or side % stride for side in imgsz):
        raise UserError(f"--imgsz {imgsz[0]} {imgsz[1]}: must be multiples of the model's largest stride, {stride}")


def example_images(model: DetectionModel, imgsz: tuple[int, int], batch: int) -> torch.Tensor:
    """Reproducible noise of the input's shape, on the model's device."""
    noise = torch.rand(batch, model.yaml["ch"], *imgsz, generator=torch.Generator().manual_seed(0))
    return noise.to(next(model.parameters()).device)


@contextmanager
def replacing(file: Path):
    """A temporary path beside ``file`` that takes its place once the block has ended well."""
    temporary = file.with_name(f".{file.stem}.{os.getpid()}{file.suffix}")
    try:
        yield temporary
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def require(module: str, package: str) -> ModuleType:
    """Import an optional package. Raises UserError that names the pip line where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(f"this needs the package {package}: pip install {package}") from None
