"""Figures of a training and an evaluation, as image files: batches, labels, loss curves, PR curves, confusion matrix.

Every function draws on a Figure of its own (no pyplot state), takes class names in any language and returns the path
written; save_image names the file in a UserError where it cannot be written.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from utils.draw import class_color, draw_boxes, draw_tag, font_for, printable, save_image
from utils.errors import UserError

DPI = 200
MAX_TICKS = 100  # more names cannot be read
MAX_SIDE = 1920  # of a grid of images, in pixels
MIN_SCORE = 0.25  # predictions below it would cover the image
MAX_NAMED = 20  # classes told apart by colour in one plot

RESULT_PANELS = (
    "train/box_loss",
    "train/obj_loss",
    "train/cls_loss",
    "metrics/precision",
    "metrics/recall",
    "val/box_loss",
    "val/obj_loss",
    "val/cls_loss",
    "metrics/mAP_0.5",
    "metrics/mAP_0.5:0.95",
)


def plot_images(
    images: np.ndarray | Sequence[np.ndarray],
    targets: np.ndarray | None,
    path: str | Path,
    names: dict[int, str],
    titles: list[str] | None = None,
    scores: np.ndarray | None = None,
    max_images: int = 16,
) -> Path:
    """A grid of the batch's first images with their boxes; its longer side is at most 1920 pixels.

    images: uint8 [b, h, w, 3] RGB. targets: float32 [n, 6] = image index in the batch, class, x, y, w, h, normalised
    by h and w. titles: the file of each image; its stem goes into a corner. scores: [n]; boxes below 0.25 are hidden.
    """
    images = images[:max_images]
    if len(images) == 0:
        images = [np.full((320, 320, 3), 255, np.uint8)]
    targets = np.zeros((0, 6), np.float32) if targets is None else np.asarray(targets).reshape(-1, 6)
    if scores is not None:
        scores = np.asarray(scores)
        targets, scores = targets[scores >= MIN_SCORE], scores[scores >= MIN_SCORE]

    height, width = images[0].shape[:2]
    columns = int(np.ceil(len(images) ** 0.5))
    rows = int(np.ceil(len(images) / columns))
    scale = min(1.0, MAX_SIDE / max(rows * height, columns * width))
    height, width = max(int(height * scale), 1), max(int(width * scale), 1)

    grid = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for i, image in enumerate(images):
        cell = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) if scale < 1 else image
        mine = targets[:, 0] == i
        x, y, w, h = (targets[mine, 2:6] * [width, height, width, height]).T
        boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
        cell = draw_boxes(cell, boxes, targets[mine, 1], names, None if scores is None else scores[mine])
        if titles is not None:
            _draw_title(cell, Path(titles[i]).stem)
        cell[0, :] = cell[:, 0] = 255  # a white line between neighbours
        row, column = divmod(i, columns)
        grid[row * height : (row + 1) * height, column * width : (column + 1) * width] = cell
    return save_image(path, grid)


def _draw_title(cell: np.ndarray, title: str) -> None:
    """Write the title in the lower left corner: labels of boxes crowd the upper edge."""
    size = max(10, cell.shape[0] // 40)
    longest = max(int(0.9 * cell.shape[1] / (0.6 * size)), 8)  # a letter is about 0.6 sizes wide
    draw_tag(cell, _shortened(title, longest), 1, cell.shape[0], size, (40, 40, 40))


def plot_labels(labels: np.ndarray, names: dict[int, str], path: str | Path) -> Path:
    """Statistics of a data set's boxes: instances per class, shapes overlaid, and where the centres and the sizes lie.

    labels: float32 [n, 5] = class, x, y, w, h, normalised.
    """
    labels = np.asarray(labels, np.float32).reshape(-1, 5)
    classes = labels[:, 0].astype(int)
    figure = _new_figure(12, 9)
    panels = figure.subplot_mosaic([["counts"] * 3, ["shapes", "centres", "sizes"]])

    _plot_class_counts(panels["counts"], classes, names)
    # Evenly over the data set: neighbours in it are often frames of one scene.
    chosen = np.linspace(0, len(labels) - 1, min(len(labels), 1000)).astype(int)
    _plot_box_shapes(panels["shapes"], labels[chosen, 3:5], classes[chosen])
    _plot_density(panels["centres"], labels[:, 1], labels[:, 2], "x", "y", "centres")
    panels["centres"].invert_yaxis()  # as in the image: y grows downwards
    _plot_density(panels["sizes"], labels[:, 3], labels[:, 4], "width", "height", "sizes")
    return _save(figure, path)


def _plot_class_counts(axes: Axes, classes: np.ndarray, names: dict[int, str]) -> None:
    nc = max([*names, *classes.tolist(), 0]) + 1
    counts = np.bincount(classes, minlength=nc)
    bars = axes.bar(range(nc), counts, color=[_color(i) for i in range(nc)], width=0.8)
    axes.set(title=f"{len(classes):,} instances", ylabel="instances", xlim=(-0.6, nc - 0.4))
    axes.set_ylim(0, 1.15 * max(counts.max(), 1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)

    shown = _ticks(nc)
    labels = [_name(names, i, 20) for i in shown]
    font_size = float(np.clip(480 / nc, 5, 10))
    upright = nc * max(len(label) for label in labels) > 80  # side by side they would touch
    axes.set_xticks(shown, labels, rotation=90 if upright else 0, fontsize=font_size)
    _show_names(axes.get_xticklabels())
    if nc <= MAX_TICKS:  # one frequent class makes the others' bars too low to be read
        axes.bar_label(bars, [f"{n:,}" for n in counts], fontsize=font_size, padding=3, rotation=90 if nc > 20 else 0)


def _plot_box_shapes(axes: Axes, wh: np.ndarray, classes: np.ndarray) -> None:
    order = np.argsort(-wh.prod(1), kind="stable")  # small ones on top
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
    outlines = 0.5 + wh[order, None, :] * corners
    colors = [(*_color(c), 0.5) for c in classes[order]]
    axes.add_collection(PolyCollection(outlines, facecolors="none", edgecolors=colors, linewidths=0.6))
    axes.set(title="shapes", xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], aspect="equal")


def _plot_density(axes: Axes, x: np.ndarray, y: np.ndarray, xlabel: str, ylabel: str, title: str) -> None:
    counts, x_edges, y_edges = np.histogram2d(x, y, bins=50, range=[[0, 1], [0, 1]])
    # The root keeps rare places visible beside crowded ones.
    axes.pcolormesh(x_edges, y_edges, np.sqrt(counts.T), cmap="Blues", vmin=0, vmax=max(np.sqrt(counts.max()), 1))
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title, aspect="equal")


def plot_results(csv_path: str | Path, png_path: str | Path) -> Path:
    """Losses and metrics over the epochs, from results.csv; values that are nan leave gaps.

    Raises UserError when the file or a column is missing, or a value is not a number.
    """
    columns = _read_columns(Path(csv_path), ("epoch", *RESULT_PANELS))
    figure = _new_figure(14, 6)
    for axes, name in zip(figure.subplots(2, 5, sharex=True).flat, RESULT_PANELS, strict=True):
        values = columns[name]
        axes.plot(columns["epoch"], values, ".-", markersize=5, linewidth=0.8, color="#6aa8ec", label="value")
        axes.plot(columns["epoch"], _smoothed(values), linewidth=2, color="#e6393f", label="smoothed")
        axes.set_title(name, fontsize=11)
        axes.grid(alpha=0.25)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        if axes.get_subplotspec().is_last_row():
            axes.set_xlabel("epoch")
    figure.axes[0].legend(fontsize=9)
    return _save(figure, png_path)


def _read_columns(path: Path, wanted: Iterable[str]) -> dict[str, np.ndarray]:
    """The wanted columns of a CSV file of numbers, float64 [rows] each; names and values may be padded with spaces."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except FileNotFoundError:
        raise UserError(f"{path}: no such results file") from None
    header = rows[0][1] if rows else []
    columns = {}
    for name in wanted:
        if name not in header:
            raise UserError(f"{path}: no column '{name}' in the header, found: {', '.join(header) or 'nothing'}")
        index = header.index(name)
        columns[name] = np.array([_number(path, line, name, row[index : index + 1]) for line, row in rows[1:]], float)
    return columns


def _number(path: Path, line: int, name: str, cell: list[str]) -> float:
    """The value of a cell, given as a list that is empty where the line is too short."""
    try:
        return float("".join(cell))
    except ValueError:
        raise UserError(f"{path}, line {line}: {name} is '{''.join(cell)}', not a number; mend the line") from None


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
    labels = [f"{_name(names, c, 24)} {ap:.3f}" for c, ap in zip(classes, ap50, strict=True)]
    mean = f"all classes {np.mean(ap50):.3f} mAP@0.5" if len(classes) else "no classes"
    return _plot_curves(recall_grid, precision, path, classes, labels, mean, "recall", "precision")


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
    labels = [_name(names, c, 24) for c in classes]
    mean = "no classes"
    if len(classes):
        curve = np.mean(values, 0)
        mean = f"all classes {curve.max():.2f} at {conf_grid[curve.argmax()]:.2f}"
    return _plot_curves(conf_grid, values, path, classes, labels, mean, "confidence", ylabel)


def _plot_curves(
    x: np.ndarray,
    curves: np.ndarray,
    path: str | Path,
    classes: Sequence[int],
    labels: list[str],
    mean_label: str,
    xlabel: str,
    ylabel: str,
) -> Path:
    figure = _new_figure(9, 6)
    axes = figure.subplots()
    mean = np.mean(curves, 0) if len(classes) else np.full(len(x), np.nan)
    axes.plot(x, mean, linewidth=3, color="black", label=mean_label, zorder=3)
    for c, curve, label in zip(classes, curves, labels, strict=True):
        if len(classes) <= MAX_NAMED:
            axes.plot(x, curve, linewidth=1.2, color=_color(c), label=label)
        else:
            axes.plot(x, curve, linewidth=0.8, color="0.75")
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 1), ylim=(0, 1.01), title=f"{ylabel} over {xlabel}")
    axes.grid(alpha=0.25)
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False, fontsize=9)
    _show_names(legend.get_texts())
    return _save(figure, path)


def plot_study(curves: dict[str, np.ndarray], path: str | Path) -> Path:
    """study.png: accuracy over image size, and over milliseconds, a line per checkpoint.

    ``curves``: name → rows of size, P, R, mAP50, mAP50-95, then milliseconds of pre-processing, inference and NMS.
    """
    figure = _new_figure(14, 6)
    by_size, by_time = figure.subplots(1, 2, sharey=True)
    for i, (name, rows) in enumerate(curves.items()):
        for axes, x in ((by_size, rows[:, 0]), (by_time, rows[:, 5:8].sum(1))):
            axes.plot(x, rows[:, 4], "o-", color=_color(i), label=_shortened(printable(name), 40))
        for size, x, y in zip(rows[:, 0], rows[:, 5:8].sum(1), rows[:, 4], strict=True):
            by_time.annotate(f"{size:.0f}", (x, y), textcoords="offset points", xytext=(4, -12), fontsize=8)
    by_size.set(xlabel="image size (px)", ylabel="mAP50-95", title="Accuracy by image size")
    by_time.set(xlabel="ms per image", title="Accuracy by time (image sizes at the points)")
    for axes in (by_size, by_time):
        axes.grid(alpha=0.3)
        axes.legend()
    return _save(figure, path)


def plot_evolution(values: dict[str, np.ndarray], fitness: np.ndarray, path: str | Path) -> Path:
    """Fitness over every hyper-parameter that was tried: ``values`` name → [n], ``fitness`` [n]; the best is marked."""
    columns = 5
    rows = -(-len(values) // columns)
    figure = _new_figure(3 * columns, 2.4 * rows)
    best = int(fitness.argmax())
    for i, (name, tried) in enumerate(values.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.scatter(tried, fitness, c=np.arange(len(fitness)), cmap="viridis", s=12)
        axes.plot(tried[best], fitness[best], "k+", markersize=14)
        axes.set_title(f"{name} = {tried[best]:.3g}", fontsize=9)
        axes.tick_params(labelsize=7)
    return _save(figure, path)


def plot_benchmarks(rows: list[tuple[str, float, float, float]], path: str | Path) -> Path:
    """benchmarks.png: accuracy, latency and size, a bar per format with its figure on it.

    ``rows``: name, mAP50-95, milliseconds per image, megabytes.
    """
    figure = _new_figure(14, 2 + 0.5 * len(rows))
    names = [printable(name) for name, *_ in rows]
    colors = [_color(i) for i in range(len(rows))]
    panels = (("mAP50-95", "{:.4f}"), ("ms per image (median)", "{:.1f}"), ("MB", "{:.1f}"))
    for i, (axes, (title, form)) in enumerate(zip(figure.subplots(1, 3, sharey=True), panels, strict=True), 1):
        bars = axes.barh(names, [row[i] for row in rows], color=colors)
        axes.bar_label(bars, fmt=form, padding=3)
        axes.set(title=title)
        axes.set_xlim(0, 1.25 * max([row[i] for row in rows], default=0) or 1)
        axes.grid(alpha=0.3, axis="x")
    axes.invert_yaxis()  # shared: the first format is on top everywhere
    return _save(figure, path)


def plot_confusion_matrix(matrix: np.ndarray, names: dict[int, str], path: str | Path) -> Path:
    """Which class is predicted for which, as a share of each true class (confusion_matrix.png).

    matrix: [nc + 1, nc + 1] counts; rows are predicted, columns true classes, the last of both is the background.
    """
    matrix = np.asarray(matrix, np.float64)
    nc = len(matrix) - 1
    shares = matrix / np.maximum(matrix.sum(0, keepdims=True), 1e-9)
    figure = _new_figure(10.5, 9)
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(picture, ax=axes, shrink=0.6, label="share of the true class")
    axes.set(xlabel="true", ylabel="predicted", title="Confusion matrix, columns normalised")

    shown = [*_ticks(nc), nc]
    labels = [_name(names, i, 20) for i in shown[:-1]] + ["background"]
    font_size = float(np.clip(440 / len(matrix), 4.5, 11))
    axes.set_xticks(shown, labels, rotation=90, fontsize=font_size)
    axes.set_yticks(shown, labels, fontsize=font_size)
    _show_names([*axes.get_xticklabels(), *axes.get_yticklabels()])
    if nc < 30:
        _write_shares(axes, shares)
    return _save(figure, path)


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


def _new_figure(width: float, height: float) -> Figure:
    """A figure of width × height inches at DPI."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    return figure


def _ticks(nc: int) -> range:
    """The classes to name on an axis: all, or evenly spaced ones."""
    return range(0, nc, -(-nc // MAX_TICKS))


def _color(index: int) -> tuple[float, float, float]:
    """class_color for matplotlib."""
    red, green, blue = class_color(index)
    return red / 255, green / 255, blue / 255


def _name(names: dict[int, str], index: int, longest: int) -> str:
    return printable(_shortened(str(names.get(int(index), index)), longest))


def _shortened(text: str, longest: int) -> str:
    """``text`` with its middle left out where it has more than ``longest`` characters: file names differ at the end."""
    if len(text) <= longest:
        return text
    end = (longest - 1) // 2
    return f"{text[: longest - 1 - end]}…{text[len(text) - end :]}"


def _show_names(texts: Iterable[Text]) -> None:
    """Give each text a font that has its glyphs, and take its dollar signs for what they are."""
    for text in texts:
        text.get_fontproperties().set_file(font_for(text.get_text()))
        text.set_parse_math(False)


def _save(figure: Figure, path: str | Path) -> Path:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return save_image(path, np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]))
