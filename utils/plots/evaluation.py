"""Curves of one evaluation, and its confusion matrix."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import ScaledTranslation

from utils.plots.figure import class_ticks, new_figure, plot_color, save_figure, show_names, shown_name

NAME_GAP = 4  # points between a matrix and the names of its rows and columns
MAX_NAMED = 20  # classes told apart by colour in one plot
ENDS = 5  # of more than these, so many of the best and as many of the worst are drawn


def plot_pr_curve(
    recall_grid: np.ndarray,
    precision: np.ndarray,
    ap50: np.ndarray,
    path: str | Path,
    names: dict[int, str],
    classes: Sequence[int],
) -> Path:
    """Precision over recall at IoU 0.5 (PR_curve.png), one line per class and their mean.

    recall_grid: [k]. precision: [nc_present, k]. ap50: [nc_present]. classes: the class indices of these rows.
    """
    labels = [f"{shown_name(names, c, 24)} {ap:.3f}" for c, ap in zip(classes, ap50, strict=True)]
    mean = f"all classes {np.mean(ap50):.3f} mAP@0.5" if len(classes) else "no classes"
    return _plot_curves(recall_grid, precision, path, classes, labels, ap50, mean, "recall", "precision")


def plot_metric_curve(
    conf_grid: np.ndarray,
    values: np.ndarray,
    path: str | Path,
    names: dict[int, str],
    classes: Sequence[int],
    ylabel: str,
) -> Path:
    """A metric over the confidence threshold (F1_, P_, R_curve.png), one line per class and their mean.

    conf_grid: [k]. values: [nc_present, k]. classes: the class indices of these rows. ylabel: name of the metric.
    """
    best = np.max(values, 1) if len(classes) else np.zeros(0)
    labels = [f"{shown_name(names, c, 24)} {value:.2f}" for c, value in zip(classes, best, strict=True)]
    mean = "no classes"
    if len(classes):
        curve = np.mean(values, 0)
        mean = f"all classes {curve.max():.2f} at {conf_grid[curve.argmax()]:.2f}"
    return _plot_curves(conf_grid, values, path, classes, labels, np.mean(values, 1), mean, "confidence", ylabel)


def _plot_curves(
    x: np.ndarray,
    curves: np.ndarray,
    path: str | Path,
    classes: Sequence[int],
    labels: list[str],
    merits: np.ndarray,
    mean_label: str,
    xlabel: str,
    ylabel: str,
) -> Path:
    figure = new_figure(9, 6)
    axes = figure.subplots()
    mean = np.mean(curves, 0) if len(classes) else np.full(len(x), np.nan)
    axes.plot(x, mean, linewidth=3, color="black", label=mean_label, zorder=3)
    if len(classes) <= MAX_NAMED:
        for c, curve, label in zip(classes, curves, labels, strict=True):
            axes.plot(x, curve, linewidth=1.2, color=plot_color(c), label=label)
    else:
        ranked = np.argsort(-np.asarray(merits), kind="stable")
        ends = [(f"best {ENDS} of {len(classes)}", ranked[:ENDS], "-"), (f"worst {ENDS}", ranked[-ENDS:], "--")]
        for number, (title, chosen, style) in enumerate(ends):
            # a line of the legend without a curve
            axes.plot([], [], " ", label=title)
            for place, i in enumerate(chosen):
                color = plot_color(number * ENDS + place)
                axes.plot(x, curves[i], style, linewidth=1.2, color=color, label=labels[i])
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 1), ylim=(0, 1.01), title=f"{ylabel} over {xlabel}")
    axes.grid(alpha=0.25)
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False, fontsize=9)
    show_names(legend.get_texts())
    return save_figure(figure, path)


def plot_confusion_matrix(matrix: np.ndarray, names: dict[int, str], path: str | Path) -> Path:
    """Which class is predicted for which, as a share of each true class (confusion_matrix.png).

    matrix: [nc + 1, nc + 1] counts; rows are predicted, columns true classes, the last of both is the background. The counts
    stand beside it, in a .csv of the same name.
    """
    matrix = np.asarray(matrix, np.float64)
    nc = len(matrix) - 1
    shares = matrix / np.maximum(matrix.sum(0, keepdims=True), 1e-9)
    figure = new_figure(10.5, 9)
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(picture, ax=axes, shrink=0.6, label="share of the true class")
    axes.set(xlabel="true", ylabel="predicted", title="Confusion matrix, columns normalised")

    shown = [*class_ticks(nc), nc]
    labels = [shown_name(names, i, 20) for i in shown[:-1]] + ["background"]
    font_size = float(np.clip(440 / len(matrix), 4.5, 11))
    _name_cells(axes, shown, labels, font_size)
    if nc < 30:
        _write_shares(axes, shares)
    _write_counts(matrix, names, Path(path).with_suffix(".csv"))
    return save_figure(figure, path)


def plot_errors(gains: dict[str, float], counts: dict[str, int], path: str | Path) -> Path:
    """What AP50 would gain without each kind of error (errors.png): a bar per kind, with how often it occurs."""
    figure = new_figure(8, 0.8 + 0.42 * len(gains))
    axes = figure.subplots()
    kinds = list(gains)
    bars = axes.barh(kinds, list(gains.values()), color=[plot_color(i) for i in range(len(kinds))])
    axes.bar_label(bars, [f"{gain:.3f}  ({counts[kind]:,})" for kind, gain in gains.items()], padding=4, fontsize=9)
    axes.set(xlabel="mAP50 gained without these errors (how many there are)", title="Kinds of errors")
    axes.set_xlim(0, max(1.25 * max(gains.values()), 0.01))
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.25)
    return save_figure(figure, path)


def _write_counts(matrix: np.ndarray, names: dict[int, str], path: Path) -> None:
    """The counts as a table with the names of the classes; whole numbers."""
    words = [*(names.get(i, str(i)) for i in range(len(matrix) - 1)), "background"]
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["predicted \\ true", *words])
        writer.writerows([word, *map(int, row)] for word, row in zip(words, matrix, strict=True))


def _name_cells(axes: Axes, shown: Sequence[int], labels: list[str], font_size: float) -> None:
    """Write names below and beside a matrix at the columns and rows ``shown``. They are no ticks: with 80 classes the
    whole picture would take half as long again."""
    axes.set_xticks([])
    axes.set_yticks([])
    inches = axes.figure.dpi_scale_trans
    below = axes.get_xaxis_transform() + ScaledTranslation(0, -NAME_GAP / 72, inches)
    beside = axes.get_yaxis_transform() + ScaledTranslation(-NAME_GAP / 72, 0, inches)
    # their room is that up to the names of the axes, which come beyond them
    look = {"fontsize": font_size, "in_layout": False}
    for place, label in zip(shown, labels, strict=True):
        axes.text(place, 0, label, transform=below, rotation=90, ha="center", va="top", **look)
        axes.text(0, place, label, transform=beside, ha="right", va="center", **look)
    show_names(axes.texts)
    renderer = FigureCanvasAgg(axes.figure).get_renderer()
    longest = max(text.get_window_extent(renderer).width for text in axes.texts[1::2]) * 72 / axes.figure.dpi
    for axis in (axes.xaxis, axes.yaxis):
        axis.labelpad = longest + 2 * NAME_GAP


def _write_shares(axes: Axes, shares: np.ndarray) -> None:
    """Write each share of at least 0.01, rounded, into its cell, and lines between the cells."""
    font_size = min(180 / len(shares), 12)
    for row, column in np.argwhere(shares >= 0.005):
        share = shares[row, column]
        color = "white" if share > 0.5 else "black"
        axes.text(column, row, f"{share:.2f}", ha="center", va="center", color=color, fontsize=font_size)
    between = np.arange(len(shares) - 1) + 0.5
    axes.set_xticks(between, minor=True)
    axes.set_yticks(between, minor=True)
    axes.tick_params(which="minor", length=0)
    axes.grid(which="minor", color="0.85", linewidth=0.5)
