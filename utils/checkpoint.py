"""Checkpoints: files of tensors and plain data, written so that a crash leaves the old file or the new one.

    save_checkpoint   {...}  → file
    read_checkpoint   file   → Checkpoint, ours or one that YOLOv5 or a fork of it has pickled

Files of YOLOv5 are pickles of whole module objects. They are read by torch.load(weights_only=True) with an inert record
standing in for every class they name: no class of theirs is imported, nothing of theirs is called.
"""

import codecs
import io
import os
import pickletools
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from utils.download import download_file
from utils.errors import UserError
from utils.files import replacing

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
    data = _load(path)
    if not isinstance(data, dict):
        data = {"model": data}  # torch.save(model, path)
    if data.get("format") == FORMAT:
        return _read_own(path, data)
    source = next((data[key] for key in ("ema", "model") if isinstance(data.get(key), PickledObject)), None)
    if source is not None:
        return _read_pickled(path, source, data)
    tensors = data.get("state_dict", data.get("model", data))
    if isinstance(tensors, dict) and tensors and all(isinstance(v, torch.Tensor) for v in tensors.values()):
        return Checkpoint(str(path), {str(k).removeprefix("module."): v for k, v in tensors.items()})
    raise UserError(f"{path}: holds neither a model nor its weights (keys: {', '.join(map(str, list(data)[:8]))})")


def _read_own(path: Path, data: dict) -> Checkpoint:
    weights = data.get("ema") or data["model"]
    return Checkpoint(str(path), weights, data["yaml"], data["names"], data)


# Pickles of YOLOv5 ------------------------------------------------------------------------------------------------------


class PickledObject:
    """Stands for an object of a class that a pickle names: keeps its arguments and state, does nothing."""

    pickled_name = ""

    def __init__(self, *args, **kwargs):
        self.args = args
        self.state: Any = kwargs

    def __setstate__(self, state):
        self.state = state

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute of the object that was pickled."""
        return self.state.get(name, default) if isinstance(getattr(self, "state", None), dict) else default


# Modules of the standard library that occur in the records beside the weights …
HARMLESS = {"argparse", "pathlib", "datetime", "collections"}
# … and what makes plain data: sets, and the bytes of numpy arrays. PyTorch 2.4 has to be told so, later ones know it.
PLAIN = [set, bytearray, complex, codecs.encode]
PLAIN_NAMES = {
    "_codecs.encode",
    *(f"{m}.{n}" for m in ("builtins", "__builtin__") for n in ("set", "bytearray", "complex")),
}


def _stand_in(name: str) -> type[PickledObject]:
    """An inert class that torch.load will take for ``name``, module path and all."""
    module, _, cls = name.rpartition(".")
    return type(cls, (PickledObject,), {"__module__": module, "__qualname__": cls, "pickled_name": name})


def _globals_in(path: Path) -> set[str]:
    """The dotted names of everything a pickle would import, read from its opcodes without running any."""
    names = set()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.namelist() if m.endswith("data.pkl")]
            if not members or any(m.endswith("constants.pkl") for m in archive.namelist()):
                raise UserError(f"{path}: is no training checkpoint (a TorchScript or other archive)")
            if (bad := archive.testzip()) is not None:  # torch.load itself doesn't look at the check sums
                raise zipfile.BadZipFile(bad)
            streams = [io.BytesIO(archive.read(members[0]))]
    else:
        stream = io.BytesIO(path.read_bytes())  # the format before torch 1.6: four short pickles, then raw storage
        streams = [stream] * 4
    for stream in streams:
        strings = []
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "GLOBAL":
                names.add(argument.replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.add(".".join(strings[-2:]))
            elif isinstance(argument, str):
                strings.append(argument)
        if stream.tell() == len(stream.getbuffer()):
            break
    return names


def _load(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        names = _globals_in(path)
    except (ValueError, zipfile.BadZipFile, UnicodeDecodeError, KeyError, EOFError, OSError):
        raise UserError(f"{path}: is damaged or no checkpoint; take another copy of the file") from None
    stand_ins = []
    for name in sorted(names):
        root = name.partition(".")[0]
        if root in {"__builtin__", "builtins", "copy_reg", "__torch__"} or (
            root in sys.stdlib_module_names and root not in HARMLESS
        ):
            if name in PLAIN_NAMES:
                continue
            raise UserError(
                f"{path}: its pickle calls {name}, which is code and not weights; refused, and nothing was run"
            )
        known_to_torch = root == "torch" and not name.startswith("torch.nn.modules.")
        if not known_to_torch and name != "collections.OrderedDict":
            stand_ins.append(_stand_in(name))
    before = list(torch.serialization.get_safe_globals())
    torch.serialization.add_safe_globals([*stand_ins, *PLAIN])
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as e:
        if not zipfile.is_zipfile(path):
            raise UserError(
                f"{path}: holds whole objects in the format before PyTorch 1.6, which can't be read as plain data; "
                "save it anew with a later PyTorch where you trust the file"
            ) from None
        reason = str(e).partition("WeightsUnpickler error:")[2].strip() or str(e)
        raise UserError(f"{path}: cannot be read as weights: {reason.splitlines()[0]}") from None
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, OSError) as e:
        raise UserError(f"{path}: is damaged ({str(e).splitlines()[0]}); take another copy of the file") from None
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _read_pickled(path: Path, model: PickledObject, data: dict) -> Checkpoint:
    while isinstance(model.get("_modules", {}).get("module"), PickledObject):  # wrapped for several GPUs
        model = model.get("_modules")["module"]
    yaml = model.get("yaml")
    if not isinstance(yaml, dict):
        raise UserError(f"{path}: its model ({model.pickled_name}) carries no YAML, so it can't be rebuilt here")
    names = model.get("names") or [str(i) for i in range(yaml["nc"])]
    if not isinstance(names, dict):
        names = dict(enumerate(names))
    training = {k: v for k, v in data.items() if isinstance(v, int | float | str | None)}
    return Checkpoint(str(path), _state_dict(model), yaml, {int(k): str(v) for k, v in names.items()}, training)


def _state_dict(module: PickledObject, prefix: str = "") -> dict[str, torch.Tensor]:
    """What ``state_dict()`` of the pickled module would have given, in its order."""
    hidden = module.get("_non_persistent_buffers_set") or ()
    tensors = {}
    for kind in ("_parameters", "_buffers"):
        for name, value in (module.get(kind) or {}).items():
            if isinstance(value, torch.Tensor) and name not in hidden:
                tensors[prefix + name] = value.detach()
    for name, child in (module.get("_modules") or {}).items():
        if isinstance(child, PickledObject):
            tensors |= _state_dict(child, f"{prefix}{name}.")
    return tensors


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
    if path.exists():
        return path
    if path.name not in OFFICIAL:
        raise UserError(f"{path}: no such checkpoint; those fetched by name are {', '.join(OFFICIAL)}")
    base = release or os.environ.get(RELEASE_VARIABLE) or RELEASE
    return download_file(f"{base.rstrip('/')}/{path.name}", path)
