"""The model that a run trains: built or taken up again, and which of its parts learn."""

import argparse
from copy import deepcopy
from typing import Any

import torch

from models.load import described_model, detector_from, load_backbone, transfer_weights
from models.yolo import DetectionModel
from utils.checkpoint import Checkpoint, read_checkpoint
from utils.errors import UserError


def build_model(options: argparse.Namespace, names: dict[int, str], hyp: dict[str, Any]) -> DetectionModel:
    """The model of --cfg, or of the checkpoint where no --cfg is given, with what fits of --weights.

    --backbone puts a network by name in the place of its backbone, --backbone-weights gives that one pretrained weights.
    """
    checkpoint = read_checkpoint(options.weights) if options.weights else None
    changes = {"nc": len(names), "anchors": round(hyp["anchors"]) or None, "size": options.size}
    changes["backbone"] = options.backbone
    if checkpoint and not options.cfg:
        model = described_model(checkpoint, **changes)
    else:
        default = "yolov5s.yaml" if options.backbone else "yolov5s_EfficientNetV2.yaml"
        model = DetectionModel(options.cfg or default, **changes)
    model.names = names
    for warning in model.warnings:
        print(f"warning: {warning}")
    print(model.summary())
    if checkpoint:
        print(transfer_weights(model, checkpoint))
    if options.backbone_weights:
        print(load_backbone(model, options.backbone_weights))
    return model


def rebuild_model(checkpoint: Checkpoint, names: dict[int, str], data_file: str) -> DetectionModel:
    """The model of an unfinished run. Raises UserError where the data has other classes by now."""
    model = detector_from(checkpoint)
    if list(model.names.values()) != list(names.values()):
        raise UserError(f"{data_file}: its classes are no longer those of {checkpoint.path}")
    return model


def freeze_layers(model: DetectionModel, layers: list[int | str]) -> None:
    """Exclude layers from learning: [10] the first ten, [3, 5, 7] these three, [0] none, ["backbone"] its backbone.

    BatchNorm goes on counting. Raises UserError for a layer the model doesn't have.
    """
    count = len(model.model)
    said = f"--freeze {' '.join(map(str, layers))}"
    if layers == ["backbone"]:
        layers = [len(model.backbone)]
    if not all(isinstance(i, int) for i in layers):
        raise UserError(f"{said}: takes numbers of layers, or the word backbone alone")
    frozen = list(range(layers[0])) if len(layers) == 1 else layers
    if min([*layers, *frozen]) < 0 or max([0, *frozen]) >= count:
        raise UserError(f"{said}: {model.name} has layers 0 to {count - 1}")
    if len(set(frozen)) == count:
        raise UserError(f"{said}: that is all layers of {model.name}, and nothing would learn")
    for i in frozen:
        model.model[i].requires_grad_(False)


def idle_parameters(model: DetectionModel, imgsz: int) -> list[str]:
    """Names of the parameters that would learn, but that no gradient reaches: layers nothing uses, or a part of a block
    that its forward leaves out. Found by a step on a copy of the model, with two blank images."""
    copy = deepcopy(model).train()
    maps = copy(torch.zeros(2, model.yaml["ch"], imgsz, imgsz, device=next(model.parameters()).device))
    sum(m.sum() for m in maps).backward()
    return [name for name, p in copy.named_parameters() if p.requires_grad and p.grad is None]


def set_drop_path(model: torch.nn.Module, rate: float) -> None:
    """Let the stochastic depth of the blocks that have it grow linearly from 0 to ``rate`` with depth (1603.09382).

    Raises UserError where no block has it. Knows ours, torchvision's (StochasticDepth) and timm's (drop_prob).
    """
    drops = [m for m in model.modules() if type(m).__name__ in ("DropPath", "StochasticDepth")]
    if not drops:
        raise UserError(f"--drop-path {rate}: no block of {model.name} has stochastic depth; leave the flag out")
    for i, drop in enumerate(drops):
        setattr(drop, "p" if hasattr(drop, "p") else "drop_prob", rate * i / max(len(drops) - 1, 1))


def scaled_at_random(images: torch.Tensor, stride: int, rng) -> torch.Tensor:
    """A batch [b, c, h, w] resized by a random factor of 0.5 to 1.5, its sides rounded up to multiples of ``stride``."""
    factor = rng.uniform(0.5, 1.5)
    size = [max(-(-int(side * factor) // stride), 1) * stride for side in images.shape[2:]]
    if size == list(images.shape[2:]):
        return images
    return torch.nn.functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
