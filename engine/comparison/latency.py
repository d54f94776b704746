"""Latencies of all candidates, measured by turns: whatever the machine does meanwhile, it does to all of them.

    cells = [Cell(candidate, runtime, batch, detector, pictures, imgsz, device), ...]
    time_cells(cells, runs)      in rounds: each cell a few calls, then the next; every other round the other way round
    cell.latencies()             medians and 90th percentiles, end to end and of the model alone

End to end is from the files of the images to their boxes: read, decoded, letterboxed, through the model, suppressed. The first
candidate is there twice, and by what its two medians differ is the noise of the machine.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from engine.comparison.record import END_TO_END, MODEL, PARTS, Latency
from engine.detection.detector import Detector, load_detector
from engine.detection.pipeline import EVERYDAY, Pipeline
from engine.export.exporter import export_one
from engine.export.formats.table import variants
from engine.export.settings import Settings
from models.load import detector_from
from utils.checkpoint import read_checkpoint
from utils.data.images import fit_size, read_image, to_float
from utils.device import times_ms
from utils.errors import UserError, one_line

BATCHES = (1, 16)
ROUNDS = 5
WARM_UP = 2  # calls of a cell in each round before the clock starts
ITSELF = "(itself)"  # the name of the cell that is the first candidate once more


@dataclass
class Cell:
    """One candidate under one runtime with so many images a call, and the milliseconds of its calls so far, by part."""

    candidate: str
    runtime: str
    batch: int
    detector: Detector
    files: Sequence[str]
    imgsz: int
    device: torch.device
    milliseconds: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})
    why: str = ""

    def calls(self) -> dict[str, Callable[[], object]]:
        """What is timed."""
        stride = int(self.detector.stride.max())
        shape = self.detector.fixed_size or (fit_size(self.imgsz, stride),) * 2
        files = [self.files[i % len(self.files)] for i in range(self.batch)]
        pipeline = Pipeline(self.detector, self.device, EVERYDAY)
        pixels = to_float(pipeline.prepare([read_image(file) for file in files], shape).images, self.device)
        return {
            END_TO_END: lambda: pipeline.detect(pipeline.prepare([read_image(file) for file in files], shape)),
            MODEL: lambda: self.detector(pixels),
        }

    @torch.inference_mode()
    def time(self, calls: int) -> None:
        """So many calls of each part; where one fails, ``why`` from now on."""
        if self.why:
            return
        try:
            for part, call in self.calls().items():
                self.milliseconds[part] += times_ms(call, self.device, calls, WARM_UP)
        except UserError as e:
            self.why = one_line(e)

    def median(self, part: str) -> float:
        return statistics.median(self.milliseconds[part])

    def latencies(self, map50_95: float | None = None) -> list[Latency]:
        """Per image, of both parts."""
        place = (self.candidate, self.runtime, self.batch)
        if self.why or not self.milliseconds[MODEL]:
            return [Latency(*place, part, why=self.why or "not measured") for part in PARTS]
        ends = {part: float(np.percentile(times, 90)) for part, times in self.milliseconds.items()}
        return [
            Latency(*place[1:], part, self.median(part) / self.batch, ends[part] / self.batch, map50_95)
            for part in PARTS
        ]


def time_cells(cells: Sequence[Cell], runs: int, say: Callable[[str], None] = print) -> None:
    """``runs`` calls of each part of each cell, by turns."""
    rounds = min(ROUNDS, runs)
    for number in range(rounds):
        say(f"latency: round {number + 1} of {rounds}")
        # the calls that don't divide come in the first rounds
        calls = runs // rounds + (number < runs % rounds)
        for cell in cells if number % 2 == 0 else reversed(cells):
            cell.time(calls)


def noise_of(first: Cell, itself: Cell) -> float | None:
    """By what share the two medians of one candidate differ, of the part that differs more."""
    if first.why or itself.why:
        return None
    return max(abs(itself.median(part) / first.median(part) - 1) for part in PARTS)


def detector_of(
    weights: Path, runtime: str, batch: int, imgsz: int, folder: Path, device: torch.device, data: str
) -> tuple[Detector, Path, bool]:
    """A checkpoint under one of the names of ``variants()``, exported to ``folder`` with inputs of one shape; its file, and
    whether OpenCV runs it. Raises UserError where that can't be had here."""
    variant = variants()[runtime]
    place = folder / f"{runtime}-{batch}"
    place.mkdir(parents=True, exist_ok=True)
    model = detector_from(read_checkpoint(weights))
    side = fit_size(imgsz, int(model.stride.max()))
    settings = Settings((side, side), batch, int8=variant.int8, device=device, data=data)
    result = export_one(variant.format.name, model, place / weights.name, settings)
    if not result.ok:
        raise UserError(result.why)
    return load_detector(result.file, device, dnn=variant.dnn, trust=True), result.file, variant.dnn
