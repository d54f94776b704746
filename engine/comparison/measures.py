"""What candidates cost, measured alone, once nothing is trained any more: latency, memory, and how fast they learn.

machine_of(device, runtimes)      where it is measured
measure(contenders, ...)          the measures of each, by name, and the noise of the machine
"""

import hashlib
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import torch
import torchvision

from engine.comparison.accuracy import Accuracy, file_digest
from engine.comparison.latency import BATCHES, ITSELF, Cell, detector_of, noise_of, time_cells
from engine.comparison.memory import inference, measure_apart, training
from engine.comparison.options import PYTORCH, CompareOptions
from engine.comparison.record import PARTS, Latency, Machine
from engine.detection.detector import load_detector
from engine.export.formats.table import format_of, variants
from engine.training.options import TrainOptions
from utils.device import describe_device, processor_name
from utils.errors import UserError, one_line


@dataclass(frozen=True)
class Contender:
    """A candidate with the file that is measured, a folder for its exports, and how it is trained, where it is."""

    name: str
    weights: Path
    exports: Path
    train: TrainOptions | None = None
    # its accuracy, None where the weights have learnt nothing
    map50_95: float | None = None


def machine_of(device: torch.device, runtimes: Sequence[str]) -> Machine:
    """This machine, without its measures."""
    packages = {name.split(":")[0] for runtime in runtimes if runtime in variants() for name in _packages(runtime)}
    return Machine(
        name=processor_name(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        os=platform.platform(),
        python=platform.python_version(),
        torch=torch.__version__,
        torchvision=torchvision.__version__,
        opencv=cv2.__version__,
        device=describe_device(device),
        runtimes={name: found for name in sorted(packages) if (found := _version(name))},
    )


def _packages(runtime: str) -> list[str]:
    return variants()[runtime].format.packages.replace(",", "").split()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def key_of(contenders: Sequence[Contender], options: CompareOptions, machine: Machine) -> str:
    """A digest of all that the measures depend on."""
    files = [(c.name, file_digest(c.weights)) for c in contenders]
    here = {name: value for name, value in vars(machine).items() if name not in ("noise", "measured")}
    what = (files, options.runtimes, options.runs, options.imgsz, options.batch_size, here)
    return hashlib.sha256(repr(what).encode()).hexdigest()[:32]


def measure(
    contenders: Sequence[Contender], options: CompareOptions, accuracy: Accuracy, files: Sequence[str]
) -> tuple[dict[str, dict[str, Any]], float | None]:
    """{candidate: fields of Candidate}, and by what share a candidate differs from itself. ``files``: images to be read.

    What can't be had here is told in the row of its latency; what ends a process of its own, in the candidate's message.
    """
    found: dict[str, dict[str, Any]] = {c.name: {"message": ""} for c in contenders}
    for c in contenders:
        found[c.name]["file_mb"] = size_of(c.weights) / 1e6
        _note(found[c.name], lambda c=c: _memory(c, options), ("inference_mb",))
        if c.train:
            _note(found[c.name], lambda c=c: measure_apart(training, c.train), ("training_mb", "images_per_second"))
    cells, missing, accuracies = _cells(contenders, options, accuracy, files)
    own = [cell for cell in cells if cell.candidate != ITSELF]
    time_cells(cells, options.runs)
    for c in contenders:
        timed = [cell.latencies(accuracies.get((c.name, cell.runtime))) for cell in own if cell.candidate == c.name]
        found[c.name]["latencies"] = (*(latency for parts in timed for latency in parts), *missing[c.name])
    itself = next((cell for cell in cells if cell.candidate == ITSELF), None)
    return found, noise_of(own[0], itself) if itself else None


def size_of(path: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


def _note(into: dict[str, Any], call: Callable[[], tuple], names: tuple[str, ...]) -> None:
    """The results of a measurement under their names, or why there are none."""
    try:
        into |= dict(zip(names, call(), strict=True))
    except UserError as e:
        into["message"] = one_line(e)


def _memory(c: Contender, options: CompareOptions) -> tuple[float | None]:
    device = str(options.device).split(",")[0]
    return (measure_apart(inference, str(c.weights), options.imgsz, device, options.plugins, options.trust),)


def _cells(
    contenders: Sequence[Contender], options: CompareOptions, accuracy: Accuracy, files: Sequence[str]
) -> tuple[list[Cell], dict[str, list[Latency]], dict[tuple[str, str], float]]:
    """All that is timed, the first candidate once more at the end; rows for what can't be; and the accuracy of each file."""
    cells, missing, accuracies = [], {c.name: [] for c in contenders}, {}
    device = accuracy.device
    for c in contenders:
        exported = format_of(c.weights)
        for runtime in [exported.name] if exported else options.runtimes:
            for batch in BATCHES:
                try:
                    if exported or runtime == PYTORCH:
                        detector, file, dnn = load_detector(c.weights, device, trust=options.trust), c.weights, False
                    else:
                        data = str(accuracy.config.file)
                        detector, file, dnn = detector_of(
                            c.weights, runtime, batch, options.imgsz, c.exports, device, data
                        )
                    if c.map50_95 is not None and batch == BATCHES[0]:
                        own = file == c.weights
                        accuracies[c.name, runtime] = c.map50_95 if own else accuracy.evaluate(file, dnn=dnn).map50_95
                    cells.append(Cell(c.name, runtime, batch, detector, files, options.imgsz, device))
                except UserError as e:
                    missing[c.name] += [Latency(runtime, batch, part, why=one_line(e)) for part in PARTS]
    if cells:
        first = cells[0]
        detector = (
            load_detector(contenders[0].weights, device, trust=True) if first.runtime == PYTORCH else first.detector
        )
        cells.append(Cell(ITSELF, first.runtime, first.batch, detector, files, options.imgsz, device))
    return cells, missing, accuracies
