"""Timing of a model and of its layers."""

from copy import deepcopy

import torch

from models.backbones.backbone import split_levels
from models.description.rows import take
from utils.device import describe_device, median_ms, normalising


def profile_model(model: torch.nn.Module, image: torch.Tensor, device: torch.device) -> str:
    """Forward (fused, eval) and forward + backward (training) times of one batch."""
    image = image.to(device).contiguous(memory_format=torch.channels_last)
    fused = deepcopy(model).fuse().to(device, memory_format=torch.channels_last)
    trained = deepcopy(model).train().to(device, memory_format=torch.channels_last)
    with torch.inference_mode():
        forward = median_ms(lambda: fused(image), device)
    with normalising():
        backward = median_ms(lambda: sum(m.mean() for m in trained(image)).backward(), device)
    b, _, h, w = image.shape
    return (
        f"profile of {model.name} on {describe_device(device)}, batch {b} of {h}×{w}, medians of 10: "
        f"forward {forward:.1f} ms (fused), forward + backward {backward:.1f} ms"
    )


def profile_layers(model: torch.nn.Module, image: torch.Tensor, device: torch.device) -> str:
    """Parameters, milliseconds and share of the whole of each layer, in eval mode, fused."""
    model = deepcopy(model).fuse().to(device, memory_format=torch.channels_last)
    x = image.to(device).contiguous(memory_format=torch.channels_last)
    outputs, levels, times = [], {}, []
    with torch.inference_mode():
        for layer in model.model:
            given = take(layer.f, x, outputs, levels)
            times.append(median_ms(lambda layer=layer, given=given: layer(given), device, repeats=5))
            x = layer(given)
            if layer.i == 0:
                levels, x = split_levels(layer, x)
            outputs.append(x)
    total = sum(times)
    lines = [f"{'layer':>5}  {'module':<32}{'params':>10}{'ms':>9}{'share':>8}"]
    for row, ms in zip(model.rows, times, strict=True):
        lines.append(f"{row.index:>5}  {row.block:<32}{row.parameters:>10}{ms:>9.2f}{ms / total:>8.1%}")
    return "\n".join([*lines, f"{'':>5}  {'total':<32}{'':>10}{total:>9.2f}"])
