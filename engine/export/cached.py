"""A checkpoint run by another runtime: --runtime onnx, openvino or auto.

run_by(runtime, checkpoint, device) → Runtime
    exported         once, into the user's cache, under the digest of all that the file depends on
    compare          with PyTorch, before it is first used (engine/export/verify.py)

choose_runtime       what auto stands for here
"""

import hashlib
import os
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch

from engine.export.formats.table import FORMATS
from engine.export.runtime import Runtime
from engine.export.settings import Settings
from engine.export.trust import cache_folder, digest_of_file, is_own, remember
from engine.export.verify import compare
from models.load import detector_from, saved_size
from models.plugins import PLUGINS
from utils.checkpoint import Checkpoint, read_checkpoint
from utils.data.images import fit_size
from utils.errors import UserError
from utils.extras import library_errors
from utils.paths import ROOT

TORCH, AUTO = "torch", "auto"
# what runs and what writes each of them, as packages; the fastest first, where none is said
PACKAGES = {"openvino": ("openvino", "onnx"), "onnx": ("onnxruntime", "onnx")}
# of a model whose file does not say
USUAL_SIZE = 640
# how far from PyTorch a file may be: pixels of a box, and of a score
MOST_PIXELS, MOST_SCORE = 0.5, 0.01


def choose_runtime(asked: str, device: torch.device, plain: bool) -> str:
    """--runtime → torch, onnx or openvino. ``auto`` is the fastest that is installed for a CPU, and torch on other devices and
    where the detector is not ``plain``: one checkpoint in float32."""
    if asked != AUTO:
        return asked
    if device.type != "cpu" or not plain:
        return TORCH
    return next((name for name, packages in PACKAGES.items() if all(map(find_spec, packages))), TORCH)


def run_by(runtime: str, weights: Path, device: torch.device) -> Runtime:
    """The detector of a checkpoint, run by ``runtime``, at any size and number of images.

    Raises UserError where a package is missing, where the model can't be exported, and where the file computes something else.
    """
    checkpoint = read_checkpoint(weights)
    file = _exported(runtime, checkpoint)
    found = Runtime(file, device)
    found.trained_size = saved_size(checkpoint)
    return found


def _exported(runtime: str, checkpoint: Checkpoint) -> Path:
    """The file in the cache."""
    weights = Path(checkpoint.path)
    try:
        folder = cache_folder() / "runtimes" / _key(runtime, weights)
        file = folder / f"model{FORMATS[runtime].suffix}"
        if file.exists() and is_own(file):
            return file
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch, file.name)
            print(f"--runtime {runtime}: {weights} is exported for it, once, to {file}")
            _write(runtime, checkpoint, made)
            shutil.rmtree(file, ignore_errors=True)
            os.replace(made, file)
    except OSError as e:
        where = e.filename or "the cache folder"
        raise UserError(f"--runtime {runtime}: {where} can't be written ({e.strerror}); leave --runtime out") from None
    return file


def _write(runtime: str, checkpoint: Checkpoint, file: Path) -> None:
    """Export a checkpoint to ``file``, and hold that against PyTorch."""
    weights, model = checkpoint.path, detector_from(checkpoint)
    size = fit_size(model.trained_size or USUAL_SIZE, int(model.stride.max()))
    settings = Settings(imgsz=(size, size), dynamic=True)
    with library_errors(f"--runtime {runtime}: {weights} can't be exported for it"):
        FORMATS[runtime].write(model, file, settings)
    remember(file)
    pixels, score = compare(model, file, settings)
    # not a number is not within either
    if not (pixels <= MOST_PIXELS and score <= MOST_SCORE):
        raise UserError(
            f"--runtime {runtime}: gives boxes of {weights} up to {pixels:.2g} px and scores up to {score:.2g} from those of "
            "PyTorch; leave --runtime out"
        )
    print(f"--runtime {runtime}: boxes within {pixels:.1g} px and scores within {score:.1g} of PyTorch's")


def _key(runtime: str, weights: Path) -> str:
    """A digest of a checkpoint, of the code that builds and exports it, blocks of one's own included, and of the packages."""
    code = [file for folder in ("models", "engine/export") for file in sorted((ROOT / folder).rglob("*.py"))]
    code += [Path(plugin.origin) for _, plugin in sorted(PLUGINS.items())]
    digests = [digest_of_file(file) for file in [weights, *code] if file.is_file()]
    versions = [_version(package) for package in ("torch", *PACKAGES[runtime])]
    return hashlib.sha256(" ".join([runtime, *versions, *digests]).encode()).hexdigest()[:32]


def _version(package: str) -> str:
    """Of an installed package; packages for CUDA have other names."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
