"""The model that a run trains: built or taken up again, and which of its parts learn."""

from pathlib import Path
from typing import Any

from engine.training.options import TrainOptions
from models.load import described_model, load_backbone, transfer_weights
from models.yolo import DetectionModel
from utils.checkpoint import Checkpoint, read_checkpoint
from utils.errors import UserError


def build_model(options: TrainOptions, names: dict[int, str], hyp: dict[str, Any]) -> DetectionModel:
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


def require_classes(checkpoint: Checkpoint, names: dict[int, str], data_file: str | Path) -> None:
    """Raises UserError where the data of a run that goes on has other classes by now."""
    if list(checkpoint.names.values()) != list(names.values()):
        raise UserError(f"{data_file}: its classes are no longer those of {checkpoint.path}")
