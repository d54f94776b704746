"""Pretrained weights for a named backbone: the library's own for ImageNet, or those of a file.

    load_pretrained(backbone, "imagenet")         downloaded once, into torch.hub's folder
    load_pretrained(backbone, "weights.pth")      a classifier's, a detector's or a checkpoint's tensors

A file must have every tensor of the backbone: half a pretrained network would train, and badly. Tensors are matched by
name, behind any prefix; where a file names them otherwise, by their order.
"""

import hashlib
import math
import os
import re
from pathlib import Path

import torch
from torch import nn

from utils.checkpoint import Checkpoint, read_checkpoint
from utils.download import download_file
from utils.errors import UserError
from utils.files import require_file
from utils.saved.container import most_bytes
from utils.saved.schema import Entries, reading

Tensors = dict[str, torch.Tensor]


def load_pretrained(backbone: nn.Module, source: str | Path) -> str:
    """Load weights into ``backbone``, a Backbone of models/backbones/backbone.py; returns what was loaded, in words.

    ``source``: "imagenet", or a file.
    Raises UserError where they can't be had, or aren't those of this network.
    """
    if str(source) == "imagenet":
        path, normalization = _imagenet_file(backbone.name)
    else:
        path, normalization = Path(source), None
    tensors, normalization_of_file = _read_tensors(path)
    needed = _without_counters(backbone.net.state_dict())
    matched, how = _match(needed, _without_counters(tensors), path, backbone.name)
    backbone.net.load_state_dict(matched, strict=False)
    if normalization := normalization or normalization_of_file:
        backbone.normalize(**normalization)
    return f"{backbone.name}: {len(matched)} of {len(needed)} backbone tensors loaded from {path}, matched by {how}"


# The libraries' own weights ---------------------------------------------------------------------------------------------


def _imagenet_file(name: str) -> tuple[Path, dict]:
    """The file with a library's best weights for ImageNet, downloaded if need be, and the normalisation they expect."""
    library, architecture = name.split("/", 1)
    url, file, mean, std = (_timm_source if library == "timm" else _torchvision_source)(architecture)
    path = Path(torch.hub.get_dir()) / "checkpoints" / file
    try:
        download_file(url, path)
    except UserError as e:
        raise UserError(f"{e}; or give another file of these weights as --backbone-weights FILE") from None
    _check_hash(path)
    return path, {"mean": mean, "std": std}


def _torchvision_source(architecture: str) -> tuple[str, str, list, list]:
    from torchvision.models import get_model_weights

    weights = get_model_weights(architecture).DEFAULT
    preset = weights.transforms()
    return weights.url, weights.url.rpartition("/")[2], preset.mean, preset.std


def _timm_source(architecture: str) -> tuple[str, str, list, list]:
    import timm

    cfg = timm.get_pretrained_cfg(architecture)
    if cfg is not None and cfg.hf_hub_id:
        site = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        file = f"{cfg.hf_hub_id.replace('/', '_')}.safetensors"
        return f"{site}/{cfg.hf_hub_id}/resolve/main/model.safetensors", file, cfg.mean, cfg.std
    if cfg is not None and cfg.url:
        return cfg.url, cfg.url.rpartition("/")[2], cfg.mean, cfg.std
    raise UserError(f"timm has no pretrained weights for {architecture}; give a file: --backbone-weights FILE")


def _check_hash(path: Path) -> None:
    """The files of torch.hub carry the beginning of their SHA-256 in the name: resnet18-f37072fd.pth."""
    announced = re.search(r"-([0-9a-f]{8,})\.[a-z]+$", path.name)
    if announced:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if not found.startswith(announced.group(1)):
            raise UserError(
                f"{path}: is damaged: its SHA-256 begins with {found[:8]}; delete it, and it is loaded anew"
            )


# Files ------------------------------------------------------------------------------------------------------------------


def _read_tensors(path: Path) -> tuple[Tensors, dict | None]:
    """The tensors of a file, and the normalisation of the named backbone that its description may hold."""
    if path.suffix != ".safetensors":
        checkpoint = read_checkpoint(path)
        return checkpoint.model, saved_normalization(checkpoint)
    require_file(path, "checkpoint", most_bytes())
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise UserError(f"{path}: to read this format: pip install safetensors") from None
    try:
        return load_file(path), None
    except SafetensorError as e:
        raise UserError(f"{path}: is damaged or no safetensors file ({e}); take another copy of it") from None


def saved_normalization(checkpoint: Checkpoint) -> dict[str, list[float]] | None:
    """The mean and std of the input that a checkpoint's named backbone expects; None where it has none."""
    found = (checkpoint.yaml or {}).get("normalize")
    if found is None:
        return None
    with reading(checkpoint.path):
        entries = Entries(found, "normalize")
        for key, least in (("mean", -math.inf), ("std", 1e-9)):
            channels = Entries(dict(zip("rgb", entries.rows(key), strict=False)), key)
            if len(entries.rows(key)) != 3 or not all(channels.number(c, least) is not None for c in "rgb"):
                raise entries.unfit(key, "three numbers")
    return {key: entries.rows(key) for key in ("mean", "std")}


def _without_counters(tensors: Tensors) -> Tensors:
    """All but BatchNorm's counts of batches, which old files lack and nothing needs."""
    return {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}


def _match(needed: Tensors, given: Tensors, path: Path, name: str) -> tuple[Tensors, str]:
    """For each tensor of a network the one of the file, and how they were matched."""
    by_name = max((_by_name(needed, given, prefix) for prefix in _prefixes(needed, given)), key=len, default={})
    if len(by_name) == len(needed):
        return by_name, "name"
    if by_order := _by_order(needed, given):
        return by_order, f"order (its {next(iter(given))} is {next(iter(needed))}, and so on)"
    missing = next(k for k in needed if k not in by_name)
    raise UserError(
        f"{path}: these are not the weights of {name}: {len(by_name)} of {len(needed)} of its tensors are there "
        f"(not {missing}, {'×'.join(map(str, needed[missing].shape))})"
    )


def _plain(key: str) -> str:
    """timm writes layers.0 as layers_0 where it gives features only."""
    return key.replace(".", "_")


def _prefixes(needed: Tensors, given: Tensors) -> set[str]:
    """What may stand before the names of a network in a file: the classifier's has nothing, a detector's backbone.body."""
    first = _plain(next(iter(needed)))
    return {_plain(key)[: -len(first)] for key in given if _plain(key).endswith(first)}


def _by_name(needed: Tensors, given: Tensors, prefix: str) -> Tensors:
    plain = {_plain(key): value for key, value in given.items()}
    pairs = ((key, plain.get(prefix + _plain(key))) for key in needed)
    return {key: value for key, value in pairs if value is not None and value.shape == needed[key].shape}


def _by_order(needed: Tensors, given: Tensors) -> Tensors:
    """The first tensors of the file, if each is of the shape and kind (weight, bias, …) of the network's; else nothing."""
    if len(given) < len(needed):
        return {}
    pairs = list(zip(needed.items(), given.items(), strict=False))
    same = all(a.shape == b.shape and _kind(k) == _kind(other) for (k, a), (other, b) in pairs)
    return {key: value for (key, _), (_, value) in pairs} if same else {}


def _kind(key: str) -> str:
    return key.rpartition(".")[2]
