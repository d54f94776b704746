"""Curves of whole runs: results, validations side by side, studies, searches, benchmarks."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from utils.errors import UserError, shown
from utils.files import read_text
from utils.metrics import PRCurve
from utils.plots.figure import new_figure, plot_color, save_figure, shortened, show_names
from utils.plots.text import printable
from utils.results import PANELS

# of a CSV that is read: a million epochs
MOST_BYTES = 2**27


def plot_results(csv_path: str | Path, png_path: str | Path) -> Path:
    """Losses and metrics over the epochs, from results.csv; values that are nan leave gaps.

    Raises UserError when the file or a column is missing, or a value is not a number.
    """
    columns = _read_columns(Path(csv_path), ("epoch", *PANELS))
    figure = new_figure(14, 6)
    for axes, name in zip(figure.subplots(2, 5, sharex=True).flat, PANELS, strict=True):
        values = columns[name]
        axes.plot(columns["epoch"], values, ".-", markersize=5, linewidth=0.8, color="#6aa8ec", label="value")
        axes.plot(columns["epoch"], _smoothed(values), linewidth=2, color="#e6393f", label="smoothed")
        axes.set_title(name, fontsize=11)
        axes.grid(alpha=0.25)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        if axes.get_subplotspec().is_last_row():
            axes.set_xlabel("epoch")
    figure.axes[0].legend(fontsize=9)
    return save_figure(figure, png_path)


def _read_columns(path: Path, wanted: Iterable[str]) -> dict[str, np.ndarray]:
    """The wanted columns of a CSV file of numbers, float64 [rows] each; names and values may be padded with spaces."""
    try:
        reader = csv.reader(io.StringIO(read_text(path, "results file", MOST_BYTES), newline=""))
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as e:
        raise UserError(f"{path}: is not a CSV of text: {e}") from None
    header = rows[0][1] if rows else []
    columns = {}
    for name in wanted:
        if name not in header:
            found = shown(", ".join(header) or "nothing")
            raise UserError(f"{path}: no column '{name}' in the header, found: {found}")
        index = header.index(name)
        columns[name] = np.array([_number(path, line, name, row[index : index + 1]) for line, row in rows[1:]], float)
    return columns


def _number(path: Path, line: int, name: str, cell: list[str]) -> float:
    """The value of a cell, given as a list that is empty where the line is too short."""
    try:
        return float("".join(cell))
    except ValueError:
        found = shown("".join(cell))
        raise UserError(f"{path}, line {line}: {name} is '{found}', not a number; mend the line") from None


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Gaussian-weighted straight line through each value's neighbours, [n] → [n]; nan takes no part and stays nan.

    A line and not an average: that would bend off at both ends, where all neighbours lie on one side.
    """
    known = np.isfinite(values)
    y = np.where(known, values, 0)
    distance = np.arange(len(values)) - np.arange(len(values))[:, None]
    weight = np.exp(-0.5 * (distance / max(len(values) / 50, 1.5)) ** 2) * known
    w, wx, wxx = weight.sum(1), (weight * distance).sum(1), (weight * distance**2).sum(1)
    spread = w * wxx - wx**2
    line = (wxx * (weight @ y) - wx * ((weight * distance) @ y)) / np.where(spread > 1e-9, spread, 1)
    return np.where(known, np.where(spread > 1e-9, line, y), np.nan)


def read_pr_curves(folders: Sequence[str | Path]) -> dict[str, PRCurve]:
    """The curves of validations that were run with --save-csv, by the names of their folders, or by their paths where two
    have the same name. Raises UserError where a folder has none, or its files are damaged."""
    curves = {}
    for folder in map(Path, folders):
        if not os.path.exists(folder / "PR_curve.csv"):
            raise UserError(f"{shown(str(folder))}: has no PR_curve.csv; validate that model with --save-csv first")
        recall, precision = _read_columns(folder / "PR_curve.csv", ("recall", "all")).values()
        overall = _read_columns(folder / "metrics.csv", ("mAP50",))["mAP50"]
        for file, values in (("metrics.csv", overall), ("PR_curve.csv", recall), ("PR_curve.csv", precision)):
            if not len(values) or not np.all((values >= 0) & (values <= 1)):
                raise UserError(f"{folder / file}: holds no figures between 0 and 1; validate that model again")
        label = folder.name if folder.name and folder.name not in curves else folder.as_posix()
        curves[label] = PRCurve(recall, precision, float(overall[0]))
    return curves


def plot_pr_runs(curves: dict[str, PRCurve], path: str | Path) -> Path:
    """PR_runs.png: precision over recall of several validations, a line for each."""
    figure = new_figure(9, 6)
    axes = figure.subplots()
    for i, (name, curve) in enumerate(curves.items()):
        label = f"{shortened(printable(name), 40)} {curve.map50:.3f} mAP@0.5"
        axes.plot(curve.recall, curve.precision, color=plot_color(i), linewidth=2, label=label)
    axes.set(
        xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01), title="Precision over recall, all classes"
    )
    axes.grid(alpha=0.25)
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False, fontsize=9)
    show_names(legend.get_texts())
    return save_figure(figure, path)


def plot_study(curves: dict[str, np.ndarray], path: str | Path) -> Path:
    """study.png: accuracy over image size, and over milliseconds, a line per checkpoint.

    ``curves``: name → rows of size, P, R, mAP50, mAP50-95, then milliseconds of pre-processing, inference and NMS.
    """
    figure = new_figure(14, 6)
    by_size, by_time = figure.subplots(1, 2, sharey=True)
    for i, (name, rows) in enumerate(curves.items()):
        for axes, x in ((by_size, rows[:, 0]), (by_time, rows[:, 5:8].sum(1))):
            axes.plot(x, rows[:, 4], "o-", color=plot_color(i), label=shortened(printable(name), 40))
        for size, x, y in zip(rows[:, 0], rows[:, 5:8].sum(1), rows[:, 4], strict=True):
            by_time.annotate(f"{size:.0f}", (x, y), textcoords="offset points", xytext=(4, -12), fontsize=8)
    by_size.set(xlabel="image size (px)", ylabel="mAP50-95", title="Accuracy by image size")
    by_time.set(xlabel="ms per image", title="Accuracy by time (image sizes at the points)")
    for axes in (by_size, by_time):
        axes.grid(alpha=0.3)
        axes.legend()
    return save_figure(figure, path)


def plot_evolution(values: dict[str, np.ndarray], fitness: np.ndarray, path: str | Path) -> Path:
    """Fitness over every hyper-parameter that was tried: ``values`` name → [n], ``fitness`` [n]; the best is marked."""
    columns = 5
    rows = -(-len(values) // columns)
    figure = new_figure(3 * columns, 2.4 * rows)
    best = int(fitness.argmax())
    for i, (name, tried) in enumerate(values.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.scatter(tried, fitness, c=np.arange(len(fitness)), cmap="viridis", s=12)
        axes.plot(tried[best], fitness[best], "k+", markersize=14)
        axes.set_title(f"{name} = {tried[best]:.3g}", fontsize=9)
        axes.tick_params(labelsize=7)
    return save_figure(figure, path)


def plot_benchmarks(rows: list[tuple[str, float, float, float]], path: str | Path) -> Path:
    """benchmarks.png: accuracy, latency and size, a bar per format with its figure on it.

    ``rows``: name, mAP50-95, milliseconds per image, megabytes.
    """
    figure = new_figure(14, 2 + 0.5 * len(rows))
    names = [printable(name) for name, *_ in rows]
    colors = [plot_color(i) for i in range(len(rows))]
    panels = (("mAP50-95", "{:.4f}"), ("ms per image (median)", "{:.1f}"), ("MB", "{:.1f}"))
    for i, (axes, (title, form)) in enumerate(zip(figure.subplots(1, 3, sharey=True), panels, strict=True), 1):
        bars = axes.barh(names, [row[i] for row in rows], color=colors)
        axes.bar_label(bars, fmt=form, padding=3)
        axes.set(title=title)
        axes.set_xlim(0, 1.25 * max([row[i] for row in rows], default=0) or 1)
        axes.grid(alpha=0.3, axis="x")
    axes.invert_yaxis()  # shared: the first format is on top everywhere
    return save_figure(figure, path)
