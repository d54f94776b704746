"""What benchmarks.py does: one checkpoint in every format, each measured in size, accuracy and latency."""

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from engine.detection.detector import load_detector
from engine.evaluation.evaluator import evaluate
from engine.export.exporter import export_one
from engine.export.formats.table import variants
from engine.export.settings import Settings
from engine.studies.options import BenchmarkOptions
from models.load import detector_from
from models.plugins import load_plugins
from utils.checkpoint import read_checkpoint
from utils.cli import DEFAULT_WORKERS
from utils.data.config import index_split, prepare_data, read_data_yaml
from utils.data.dataset import EvalSet
from utils.data.images import fit_size
from utils.data.loader import eval_loader, worker_count
from utils.device import describe_device, median_ms, select_device
from utils.errors import UserError, one_line
from utils.paths import new_run_folder, newest_weights
from utils.plots.runs import plot_benchmarks

WARM_UP = 5  # calls before the clock starts


@dataclass
class Row:
    """One line of the table; ``why`` there are no figures, where there are none."""

    format: str
    megabytes: float = 0.0
    map50_95: float = 0.0
    milliseconds: float = 0.0
    why: str = ""


def benchmark(options: BenchmarkOptions) -> list[Row]:
    """Export, validate and time every format of --include; those that can't be had here are skipped, with the reason."""
    weights, device = Path(options.weights or newest_weights()), select_device(options.device)
    load_plugins(options.plugins)
    model = detector_from(read_checkpoint(weights))
    config = prepare_data(read_data_yaml(options.data), ["val"])
    if config.nc != model.nc:
        raise UserError(
            f"{weights} knows {model.nc} classes, {config.file} has {config.nc}; name its own data by --data"
        )
    side = fit_size(options.imgsz, int(model.stride.max()))
    shape, batch = (side, side), options.batch_size
    dataset = EvalSet(index_split(config, "val").annotations, side, batch, shape=shape)
    loader = eval_loader(dataset, batch, worker_count(DEFAULT_WORKERS, batch), device.type == "cuda")
    settings = Settings(imgsz=shape, batch=batch, half=options.half, data=str(config.file), device=device)
    folder = new_run_folder(options.project, options.name, options.exist_ok)
    print(f"{weights} at {side}×{side}, batches of {batch}, on {describe_device(device)}")
    rows = []
    for name in options.include:
        rows.append(measure(name, model, weights, folder, settings, loader, options.runs))
        print(line(rows[-1]))
    print(f"\n{table(rows)}")
    write_csv(rows, folder / "benchmarks.csv")
    measured = [(r.format, r.map50_95, r.milliseconds, r.megabytes) for r in rows if not r.why]
    plot_benchmarks(measured, folder / "benchmarks.png")
    print(f"results are in {folder}")
    return rows


def measure(
    name: str, model: torch.nn.Module, weights: Path, folder: Path, settings: Settings, loader: DataLoader, runs: int
) -> Row:
    """Export to ``folder``, validate over ``loader``, time ``runs`` calls."""
    row = Row(name)
    try:
        if name == "pytorch":
            row.megabytes = weights.stat().st_size / 1e6
            detector = load_detector(weights, settings.device, half=settings.half)
        else:
            variant = variants()[name]
            # OpenVINO's int8 replaces float16; the others have no int8 to offer
            settings = replace(settings, int8=variant.int8, half=settings.half and not variant.int8)
            result = export_one(variant.format.name, model, folder / weights.name, settings)
            if not result.ok:
                raise UserError(result.why)
            row.megabytes = result.megabytes
            detector = load_detector(result.file, settings.device, dnn=variant.dnn, trust=True)
        evaluation = evaluate(detector, loader, settings.device, model.names, progress=None)
        row.map50_95 = evaluation.map50_95
        row.milliseconds = latency(detector, settings.images(model), runs)
    except UserError as e:
        row.why = one_line(e)
    return row


@torch.inference_mode()
def latency(detector: Callable[[torch.Tensor], object], images: torch.Tensor, runs: int) -> float:
    """Milliseconds per image: the median of ``runs`` calls of a batch [b, ch, h, w], after some that don't count."""
    return median_ms(lambda: detector(images), images.device, runs, WARM_UP) / len(images)


def line(row: Row) -> str:
    """One line of the table."""
    if row.why:
        return f"{row.format:<16}skipped: {row.why}"
    return f"{row.format:<16}{row.megabytes:>8.1f}{row.map50_95:>11.4f}{row.milliseconds:>14.2f}"


def table(rows: list[Row]) -> str:
    """All lines, under their heading."""
    return "\n".join([f"{'format':<16}{'MB':>8}{'mAP50-95':>11}{'ms per image':>14}", *map(line, rows)])


def write_csv(rows: list[Row], path: Path) -> None:
    """The figures as they were measured, a line per format, and why one was skipped."""
    with open(path, "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerow(["format", "MB", "mAP50-95", "ms_per_image", "skipped"])
        for r in rows:
            figures = ["", "", ""] if r.why else [f"{r.megabytes:.3f}", f"{r.map50_95:.5f}", f"{r.milliseconds:.3f}"]
            writer.writerow([r.format, *figures, r.why])
