"""Detectors from checkpoints: for inference, alone or several together, and as a start for training."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from engine.runtime import Runtime, is_exported
from models.backbones.backbone import Backbone
from models.backbones.pretrained import load_pretrained
from models.description.rows import UnknownBlock
from models.yolo import DetectionModel
from utils.checkpoint import Checkpoint, read_checkpoint
from utils.errors import UserError


class Ensemble(nn.Module):
    """Several detectors of the same classes: their boxes side by side, for the suppression to merge."""

    def __init__(self, models: Sequence[DetectionModel]):
        super().__init__()
        self.members = nn.ModuleList(models)
        self.names = models[0].names
        self.nc = models[0].nc
        self.trained_size = models[0].trained_size
        self.stride = max((m.stride for m in models), key=lambda stride: stride.max())

    def forward(self, x: torch.Tensor, augment: bool = False):
        return torch.cat([member(x, augment=augment)[0] for member in self.members], 1), None


def load_detector(
    weights: str | Path | Sequence[str | Path], device: torch.device, half: bool = False, dnn: bool = False
) -> DetectionModel | Ensemble | Runtime:
    """One detector from a checkpoint or an exported file, or an ensemble of checkpoints, ready for inference.

    ``half``: see use_half; ``dnn`` runs an ONNX file by OpenCV. Attributes: ``names`` {index: name}, ``nc``, ``stride``.
    Raises UserError for files that are no detectors.
    """
    paths = [weights] if isinstance(weights, str | Path) else list(weights)
    exported = [path for path in paths if is_exported(path)]
    if exported:
        if len(paths) > 1:
            raise UserError(f"{exported[0]}: an ensemble is made of checkpoints (.pt); give an exported file alone")
        if half:
            raise UserError(
                f"--half: the precision of {exported[0]} was settled when it was exported; leave --half out"
            )
        return Runtime(exported[0], device, dnn)
    if dnn:
        raise UserError(f"--dnn: runs ONNX files, and {paths[0]} is none; make one: export.py --include onnx")
    models = []
    for path in paths:
        model = detector_from(read_checkpoint(path)).fuse()
        models.append(model.to(device, memory_format=torch.channels_last))
        if half:
            use_half(models[-1])
    if len({tuple(m.names.values()) for m in models}) > 1:
        raise UserError(f"--weights {' '.join(map(str, paths))}: the models of an ensemble must have the same classes")
    return models[0] if len(models) == 1 else Ensemble(models)


def use_half(model: DetectionModel) -> None:
    """Let the layers of ``model`` compute in float16, in place, and the head in float32: a coordinate near 640 would be
    half a pixel off in float16. What goes in and comes out stays float32."""
    *layers, head = model.model
    for layer in layers:
        layer.half()
    layers[0].register_forward_pre_hook(lambda _, inputs: inputs[0].half())
    head.register_forward_pre_hook(lambda _, inputs: ([x.float() for x in inputs[0]],))


def described_model(checkpoint: Checkpoint, **changes) -> DetectionModel:
    """The model a checkpoint describes, with fresh weights; ``changes`` are arguments of DetectionModel."""
    if checkpoint.yaml is None:
        raise UserError(
            f"{checkpoint.path}: holds weights without their model YAML; "
            "give it to train.py as --weights beside a --cfg, or use a checkpoint of a detector"
        )
    description = checkpoint.yaml | {"yaml_file": checkpoint.yaml.get("yaml_file", checkpoint.path)}
    try:
        return DetectionModel(description, **changes)
    except UnknownBlock as e:
        plugins = (checkpoint.training.get("args") or {}).get("plugins") or []
        files = f" Yes, with {' '.join(plugins)}: give that file here, too." if plugins else ""
        raise UserError(f"{checkpoint.path}: {e}. Was it trained with --plugins?{files}") from None


def detector_from(checkpoint: Checkpoint) -> DetectionModel:
    """The model a checkpoint describes, with its weights, in eval mode and float32."""
    model = described_model(checkpoint, nc=len(checkpoint.names))
    wanted = model.state_dict()
    given = {k: v for k, v in checkpoint.model.items() if not k.endswith("anchor_grid")}  # kept by early releases
    wrong = [k for k in wanted if k not in given or given[k].shape != wanted[k].shape] + [
        k for k in given if k not in wanted
    ]
    if wrong:
        raise UserError(
            f"{checkpoint.path}: {len(wrong)} of its tensors do not fit the model its YAML describes (first: {wrong[0]}); "
            "was it trained with blocks of another definition?"
        )
    model.load_state_dict(given)
    model.names = checkpoint.names
    model.trained_size = (checkpoint.training.get("args") or {}).get("imgsz")  # None where the file doesn't say
    return model.eval()


def transfer_weights(model: DetectionModel, checkpoint: Checkpoint) -> str:
    """Copy every tensor of ``checkpoint`` whose name and shape ``model`` knows; returns what was done, in words.

    Raises UserError where nothing fits.
    """
    own = model.state_dict()
    fitting = {k: v for k, v in checkpoint.model.items() if k in own and v.shape == own[k].shape}
    if not fitting:
        raise UserError(
            f"{checkpoint.path}: none of its {len(checkpoint.model)} tensors fits {model.yaml_file}; check --cfg"
        )
    model.load_state_dict(fitting, strict=False)
    backbone = {f"model.{k}" for k in model.backbone.state_dict()}
    if isinstance(model.model[0], Backbone) and backbone <= fitting.keys():
        _expect_input_of(model, checkpoint)
    groups = {"backbone": backbone, "head": own.keys() - backbone}
    said = ", ".join(f"{name}: {len(fitting.keys() & keys)} of {len(keys)}" for name, keys in groups.items())
    return f"transferred {len(fitting)} of {len(own)} tensors from {checkpoint.path} ({said})"


def load_backbone(model: DetectionModel, source: str | Path) -> str:
    """Give the named backbone of ``model`` pretrained weights; returns what was done, in words."""
    if not isinstance(model.model[0], Backbone):
        raise UserError(
            f"--backbone-weights {source}: {model.yaml_file} describes its backbone by rows; choose a network by name with "
            "--backbone, or start from a detector's checkpoint with --weights"
        )
    said = load_pretrained(model.model[0], source)
    model.yaml |= model.model[0].description()
    return said


def _expect_input_of(model: DetectionModel, checkpoint: Checkpoint) -> None:
    """The normalisation goes with the weights that were trained with it."""
    if normalize := (checkpoint.yaml or {}).get("normalize"):
        model.model[0].normalize(**normalize)
        model.yaml |= model.model[0].description()
