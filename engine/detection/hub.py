"""Detectors for torch.hub (hubconf.py): a checkpoint, an exported file, or a YAML → AutoShape or the bare model."""

from pathlib import Path

import torch
from torch import nn

from engine.detection.autoshape import AutoShape
from engine.detection.detector import load_detector
from engine.export.formats.table import is_exported
from models.load import detector_from, load_backbone, transfer_weights
from models.yolo import DetectionModel
from utils.checkpoint import read_checkpoint
from utils.device import select_device
from utils.errors import UserError


def load_hub_model(
    weights: str | Path,
    pretrained: bool = True,
    channels: int = 3,
    classes: int | None = None,
    autoshape: bool = True,
    device: str | torch.device | None = None,
    trust: bool = False,
) -> nn.Module:
    """The detector of a checkpoint (fetched, where its name is official) or exported file, or of the YAML ``weights`` names.

    ``pretrained`` off: the model of the YAML with the checkpoint's name, with initial weights. ``classes`` and
    ``channels`` other than the checkpoint's: a new model with all weights that fit. ``autoshape`` off: the bare
    DetectionModel, not fused, to train on or to take apart. ``trust`` runs exported files of others: see load_detector.
    """
    weights = Path(weights)
    place = device if isinstance(device, torch.device) else select_device(device or "")
    if is_exported(weights):
        if not (autoshape and pretrained) or classes is not None or channels != 3:
            raise UserError(
                f"{weights}: an exported file runs as it is; for other classes or channels load its checkpoint"
            )
        return AutoShape(load_detector(weights, place, trust=trust))
    if weights.suffix in {".yaml", ".yml"} or not pretrained:
        model = DetectionModel(str(weights.with_suffix(".yaml")), ch=channels, nc=classes)
    elif autoshape and classes is None and channels == 3:
        return AutoShape(load_detector(weights, place, settled=False)).to(place)
    else:
        checkpoint = read_checkpoint(weights)
        model = detector_from(checkpoint)
        if (classes or model.nc, channels) != (model.nc, model.yaml["ch"]):
            model = DetectionModel(checkpoint.yaml | {"yaml_file": str(weights)}, ch=channels, nc=classes)
            print(transfer_weights(model, checkpoint))
    return _placed(model, place, autoshape)


def load_hub_backbone(
    name: str,
    cfg: str = "yolov5s.yaml",
    weights: str = "",
    classes: int = 80,
    autoshape: bool = True,
    device: str | torch.device | None = None,
) -> nn.Module:
    """A network of torchvision or timm as the backbone of ``cfg``, the rest with initial weights.

    ``weights`` of the backbone: "imagenet" (downloaded once), a file, or none. Raises UserError for an unknown name.
    """
    place = device if isinstance(device, torch.device) else select_device(device or "")
    model = DetectionModel(cfg, nc=classes, backbone=name)
    if weights:
        print(load_backbone(model, weights))
    return _placed(model, place, autoshape)


def _placed(model: DetectionModel, place: torch.device, autoshape: bool) -> nn.Module:
    model = model.to(place, memory_format=torch.channels_last)
    return AutoShape(model.fuse()) if autoshape else model
