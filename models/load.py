"""Models from checkpoints: for inference, and as a start for training."""

from pathlib import Path
from typing import Any

import torch

from models.backbones.backbone import Backbone
from models.backbones.pretrained import load_pretrained, saved_normalization
from models.description.rows import UnknownBlock
from models.yolo import DetectionModel
from utils.checkpoint import Checkpoint
from utils.errors import UserError, shown
from utils.saved.schema import MOST_LETTERS, misfits

# of a side: a file that says more of its training is not believed
MOST_PIXELS = 100_000


def use_half(model: DetectionModel, dtype: torch.dtype = torch.float16) -> None:
    """Let the layers of ``model`` compute in ``dtype``, in place, and the head in float32: a coordinate near 640 would be
    half a pixel off in float16. What goes in and comes out stays float32."""
    *layers, head = model.model
    for layer in layers:
        layer.to(dtype)
    layers[0].register_forward_pre_hook(lambda _, inputs: inputs[0].to(dtype))
    head.register_forward_pre_hook(lambda _, inputs: ([x.float() for x in inputs[0]],))


def described_model(checkpoint: Checkpoint, **changes) -> DetectionModel:
    """The model a checkpoint describes, with fresh weights; ``changes`` are arguments of DetectionModel."""
    if checkpoint.yaml is None:
        raise UserError(
            f"{checkpoint.path}: holds weights without their model YAML; "
            "give it to train.py as --weights beside a --cfg, or use a checkpoint of a detector"
        )
    file = checkpoint.yaml.get("yaml_file")
    known = isinstance(file, str) and 0 < len(file) < MOST_LETTERS and file.isprintable()
    try:
        return DetectionModel(checkpoint.yaml | {"yaml_file": file if known else checkpoint.path}, **changes)
    except UnknownBlock as e:
        plugins = _saved_option(checkpoint, "plugins")
        named = isinstance(plugins, list) and plugins
        files = f" Yes, with {shown(' '.join(map(shown, plugins)))}: give that file here, too." if named else ""
        raise UserError(f"{checkpoint.path}: {e}. Was it trained with --plugins?{files}") from None
    except UserError as e:
        named = str(e).startswith(str(checkpoint.path))
        raise e if named else UserError(f"{checkpoint.path}: its model can't be built: {e}") from None


def detector_from(checkpoint: Checkpoint) -> DetectionModel:
    """The model a checkpoint describes, with its weights, in eval mode and float32."""
    model = described_model(checkpoint, nc=len(checkpoint.names))
    wanted = model.state_dict()
    given = {k: v for k, v in checkpoint.model.items() if not k.endswith("anchor_grid")}  # kept by early releases
    if wrong := misfits(given, wanted):
        raise UserError(
            f"{checkpoint.path}: {len(wrong)} of its tensors do not fit the model its YAML describes (first: "
            f"{shown(wrong[0])}); was it trained with blocks of another definition, or is it damaged?"
        )
    model.load_state_dict(given)
    model.names = checkpoint.names
    model.trained_size = saved_size(checkpoint)
    return model.eval()


def saved_size(checkpoint: Checkpoint) -> int | None:
    """The longer side in pixels that a checkpoint was trained at; None where the file doesn't say."""
    size = _saved_option(checkpoint, "imgsz")
    return size if type(size) is int and 0 < size <= MOST_PIXELS else None


def _saved_option(checkpoint: Checkpoint, name: str) -> Any:
    """An option of the training that made the checkpoint, whatever the file says there; None where it doesn't say."""
    args = checkpoint.training.get("args")
    return args.get(name) if isinstance(args, dict) else None


def transfer_weights(model: DetectionModel, checkpoint: Checkpoint) -> str:
    """Copy every tensor of ``checkpoint`` whose name and shape ``model`` knows; returns what was done, in words.

    Raises UserError where nothing fits.
    """
    own = model.state_dict()
    fitting = {k: v for k, v in checkpoint.model.items() if k in own and v.shape == own[k].shape}
    if unsound := set(misfits(fitting, own)) & fitting.keys():
        raise UserError(f"{checkpoint.path}: {shown(min(unsound))} holds no finite numbers; take another checkpoint")
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
    if normalize := saved_normalization(checkpoint):
        model.model[0].normalize(**normalize)
        model.yaml |= model.model[0].description()
