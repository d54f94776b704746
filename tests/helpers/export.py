"""Exports of a model that finds something, and pictures in which it does."""

import pytest
import torch

import export
import val
from models.yolo import DetectionModel, read_model_yaml

PACKAGES = {  # format → what exports it, what runs it
    "torchscript": [],
    "onnx": ["onnx", "onnxruntime"],
    "openvino": ["onnx", "openvino"],
    "ncnn": ["pnnx", "ncnn"],
    "tflite": ["litert_torch", "ai_edge_litert"],
}


def images(batch: int, height: int, width: int) -> torch.Tensor:
    """Coloured clouds: smooth, so that deep layers see differences that white noise would average out."""
    coarse = torch.rand(batch, 3, height // 16, width // 16, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")


def lively(cfg: str, nc: int = 3) -> DetectionModel:
    """A model that finds something in noise: BatchNorms have seen some, and the head's logits spread around zero."""
    torch.manual_seed(0)
    description = read_model_yaml(cfg)[0]
    model = DetectionModel(description | {"depth_multiple": 0.33, "width_multiple": 0.25}, nc=nc)
    noise = images(6, 128, 192)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
        model(noise)
        for norm in norms:
            norm.running_var.clamp_(min=0.1)  # a channel that hardly varies would blow up rounding errors
        maps = model.eval()(noise)[1]
        for conv, raw in zip(model.detect.m, maps, strict=True):
            conv.weight *= 0.5 / raw.std((0, 2, 3)).mean()
            conv.bias.zero_()
    model.names = {i: f"name {i}" for i in range(nc)}
    return model


def export_quietly(weights, *formats, **options):
    """Export at 128 px; skips the test where a package is missing."""
    for name in formats:
        for package in PACKAGES[name]:
            pytest.importorskip(package)
    results = export.run(weights=str(weights), include=list(formats), **{"imgsz": [128], **options})
    assert [r.why for r in results] == [""] * len(formats)
    return results


def validate(weights, data, tmp_path, **options):
    """What val.run finds with ``options``."""
    base = {"weights": [str(weights)], "data": str(data), "batch_size": 4, "workers": 0, "device": "cpu"}
    return val.run(**{**base, "project": str(tmp_path / "runs"), **options})
