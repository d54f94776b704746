"""Checkpoints: files of tensors and plain data, written so that a crash leaves the old file or the new one.

    save_checkpoint   {...}  → file
    read_checkpoint   file   → Checkpoint, ours or one that YOLOv5 or a fork of it has pickled

Files of YOLOv5 are pickles of whole module objects. They are read by utils/saved, where an inert record stands in for every
object: no class of theirs is imported, nothing of theirs is called.
"""

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from utils.download import download_file
from utils.errors import UserError, shown
from utils.files import replacing
from utils.saved.container import Saved, open_saved
from utils.saved.pickled import PickledObject
from utils.saved.schema import MOST_CLASSES, Entries, reading

FORMAT = 1


@dataclass
class Checkpoint:
    """What a checkpoint file holds. ``model`` are the weights to use: the EMA's where the file has one."""

    path: str
    model: dict[str, torch.Tensor]
    yaml: dict | None = None
    names: dict[int, str] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)  # the rest: optimizer, epoch, hyp, …


def save_checkpoint(path: str | Path, data: dict[str, Any]) -> None:
    """Write tensors and plain data to ``path`` in one step: a temporary file beside it, flushed to disk, then renamed.

    Raises UserError, with the old file untouched, where the disk is full or the folder can't be written.
    """
    path = Path(path)
    # Into memory first: torch.save reports a failing disk as a RuntimeError of its zip writer; a plain write says why.
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **data}, buffer)
    try:
        with replacing(path) as temporary, open(temporary, "wb") as f:
            f.write(buffer.getbuffer())
            f.flush()
            os.fsync(f.fileno())
    except OSError as e:
        raise UserError(f"{path}: could not be written ({e.strerror}); the checkpoint before it is untouched") from None


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of ours, of YOLOv5, of a fork of it, or a bare state_dict; runs no code that the file names.

    A missing file with the name of an official checkpoint is downloaded first. Raises UserError for a missing or damaged
    file, for one that is no checkpoint, and for one whose pickle calls code.
    """
    path = find_weights(path)
    saved = open_saved(path)
    # torch.save(model, path)
    tree = saved.tree if isinstance(saved.tree, dict) else {"model": saved.tree}
    with reading(path):
        if type(tree.get("format")) is int and tree["format"] == FORMAT:
            return _read_own(path, saved.plain(tree, objects=False))
        source = next((v for key in ("ema", "model") if _is_module(v := tree.get(key))), None)
        if source is not None:
            return _read_pickled(path, saved, source, tree)
        data = saved.plain(tree)
        tensors = data.get("state_dict", data.get("model", data))
        if isinstance(tensors, dict) and tensors and all(isinstance(v, torch.Tensor) for v in tensors.values()):
            return Checkpoint(str(path), {str(k).removeprefix("module."): v for k, v in tensors.items()})
    raise UserError(f"{shown(str(path))}: holds neither a model nor its weights (it holds {shown(list(tree))})")


def _read_own(path: Path, data: dict) -> Checkpoint:
    entries = Entries(data)
    # an average that is missing or empty is none
    weights = entries.tensors("model" if data.get("ema") in (None, {}) else "ema")
    return Checkpoint(str(path), weights, entries.description("yaml"), entries.class_names("names"), data)


# Pickles of YOLOv5 ------------------------------------------------------------------------------------------------------

# modules within each other, and all in all
MOST_DEEP, MOST_MODULES = 50, 50_000


def _is_module(found: Any) -> bool:
    return isinstance(found, PickledObject) and isinstance(found.get("_modules"), dict)


def _read_pickled(path: Path, saved: Saved, model: PickledObject, tree: dict) -> Checkpoint:
    # wrapped for several GPUs
    for _ in range(MOST_DEEP):
        if _is_module(inner := model.get("_modules").get("module")):
            model = inner
    yaml = saved.plain(model.get("yaml"))
    if not isinstance(yaml, dict):
        raise UserError(
            f"{shown(str(path))}: its model ({shown(model.pickled_name, 100)}) carries no YAML, so it can't be rebuilt here"
        )
    yaml = Entries({"yaml": yaml}).description("yaml")
    names = saved.plain(model.get("names"))
    if not isinstance(names, list | tuple | dict) or not names:
        names = list(range(Entries(yaml).whole("nc", least=1, most=MOST_CLASSES)))
    training = {k: v for k, v in tree.items() if isinstance(k, str) and isinstance(v, int | float | str | None)}
    return Checkpoint(
        str(path), _state_dict(saved, model), yaml, Entries({"names": names}).class_names("names"), training
    )


def _state_dict(saved: Saved, model: PickledObject) -> dict[str, torch.Tensor]:
    """What ``state_dict()`` of the pickled module would have given, in its order."""
    tensors: dict[str, torch.Tensor] = {}
    visited = 0

    def visit(module: PickledObject, prefix: str, depth: int) -> None:
        nonlocal visited
        visited += 1
        if depth > MOST_DEEP or visited > MOST_MODULES:
            raise UserError(
                f"{shown(str(saved.path))}: its modules hold each other without end; take another copy of the file"
            )
        hidden = module.get("_non_persistent_buffers_set")
        hidden = hidden if isinstance(hidden, set) else ()
        for kind in ("_parameters", "_buffers"):
            for name, value in _items(saved.plain(module.get(kind))):
                if isinstance(value, torch.Tensor) and name not in hidden:
                    tensors[prefix + name] = value
        for name, child in _items(module.get("_modules")):
            if isinstance(child, PickledObject):
                visit(child, f"{prefix}{name}.", depth + 1)

    visit(model, "", 0)
    return tensors


def _items(found: Any) -> list[tuple[str, Any]]:
    """The named things of a module."""
    return [(k, v) for k, v in found.items() if isinstance(k, str)] if isinstance(found, dict) else []


RELEASE = "https://github.com/ultralytics/yolov5/releases/download/v7.0"


RELEASE_VARIABLE = "YOLO_RELEASE_URL"  # environment: a mirror's folder, in place of the public one


OFFICIAL = [f"yolov5{size}{p6}.pt" for p6 in ("", "6") for size in "nsmlx"]


def find_weights(path: str | Path, release: str | None = None) -> Path:
    """``path`` where it is a file; else, where its name is an official one, that file, downloaded to ``path``.

    ``release``: the URL of the folder that holds them; default: YOLO_RELEASE_URL of the environment, or the public one.
    Raises UserError where there is no such checkpoint, or where the download fails: it names the URL and where to put
    the file.
    """
    path = Path(path)
    # false, too, for a path that the system can't take
    if os.path.exists(path):
        return path
    if path.name not in OFFICIAL:
        raise UserError(f"{shown(str(path))}: no such checkpoint; those fetched by name are {', '.join(OFFICIAL)}")
    base = release or os.environ.get(RELEASE_VARIABLE) or RELEASE
    return download_file(f"{base.rstrip('/')}/{path.name}", path)
