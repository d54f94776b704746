"""The figures of a run: what lies where, in which colour, and that nothing fails or warns."""

import csv
import itertools

import cv2
import numpy as np
import pytest

from tests.helpers.pictures import color_count, extent, grey, near, read
from utils.errors import UserError
from utils.plots.draw import class_color, draw_boxes
from utils.plots.evaluation import plot_confusion_matrix, plot_metric_curve, plot_pr_curve
from utils.plots.feature_maps import feature_grid
from utils.plots.grid import plot_images
from utils.plots.labels import plot_labels
from utils.plots.runs import plot_benchmarks, plot_results
from utils.plots.text import printable

NAMES = {0: "person", 1: "红细胞", 2: "cost $x_1$"}
COLUMNS = (
    *("epoch", "train/box_loss", "train/obj_loss", "train/cls_loss", "metrics/precision", "metrics/recall"),
    *("metrics/mAP_0.5", "metrics/mAP_0.5:0.95", "val/box_loss", "val/obj_loss", "val/cls_loss"),
    *("x/lr0", "x/lr1", "x/lr2"),
)


# --- utils/plots/grid.py


def test_plot_images_places_boxes_in_their_cells(tmp_path):
    images = np.stack([grey(100, 200)] * 5)  # a grid of 2 rows and 3 columns
    targets = np.array([[4, 1, 0.5, 0.5, 0.4, 0.6], [1, 0, 0.25, 0.5, 0.2, 0.4]], np.float32)
    path = plot_images(images, targets, tmp_path / "batch.png", {0: "", 1: ""})
    grid = read(path)
    assert grid.shape == (200, 600, 3)
    assert extent(near(grid, class_color(1))) == (200 + 60, 100 + 20, 200 + 139, 100 + 79)
    assert extent(near(grid, class_color(0))) == (200 + 30, 30, 200 + 69, 69)
    assert (grid[100:, 400:] == 255).all(), "the sixth cell is empty"
    assert (images == 114).all()


def test_plot_images_is_at_most_1920_pixels_wide_and_shows_max_images(tmp_path):
    images = [grey(640, 640)] * 20  # of these 16, in 4 rows
    target = np.array([[3, 0, 0.5, 0.5, 0.5, 0.5], [18, 1, 0.5, 0.5, 0.5, 0.5]], np.float32)
    grid = read(plot_images(images, target, tmp_path / "a.png", {0: "", 1: ""}))
    assert grid.shape == (1920, 1920, 3)
    x1, y1, x2, y2 = extent(near(grid, class_color(0)))
    np.testing.assert_allclose([x1, y1, x2, y2], [1440 + 120, 120, 1440 + 360, 360], atol=2)
    assert not near(grid, class_color(1)).any()
    assert read(plot_images(images, None, tmp_path / "b.png", {}, max_images=2)).shape == (640, 1280, 3)


def test_plot_images_hides_unsure_predictions(tmp_path):
    targets = np.array([[0, 0, 0.5, 0.5, 0.5, 0.5], [0, 1, 0.5, 0.5, 0.8, 0.8]], np.float32)
    path = plot_images([grey(200, 200)], targets, tmp_path / "a.png", NAMES, scores=np.array([0.24, 0.26]))
    grid = read(path)
    assert not near(grid, class_color(0)).any()
    assert near(grid, class_color(1)).any()


def test_plot_images_writes_the_file_name_in_the_corner(tmp_path):
    images = [grey(200, 200), grey(200, 200)]
    titles = ["/data/图像/红 0001.jpg", "x" * 300 + ".jpg"]
    grid = read(plot_images(images, None, tmp_path / "a.png", NAMES, titles))
    assert near(grid[180:, :150], (40, 40, 40)).sum() > 100
    x1, _, x2, _ = extent(near(grid[:, 200:], (40, 40, 40)))
    assert x1 <= 1
    assert x2 < 200
    assert (grid[1:150, 1:200] == 114).all()


def test_plot_images_of_nothing(tmp_path):
    assert read(plot_images([], None, tmp_path / "a.png", NAMES)).min() == 255
    no_boxes = plot_images([grey(64, 64)], np.zeros((0, 6), np.float32), tmp_path / "b.png", NAMES, scores=np.zeros(0))
    assert (read(no_boxes)[1:, 1:] == 114).all()


# --- figures of a set and of a run


@pytest.mark.parametrize(("n", "nc"), [(0, 3), (1500, 85)])
def test_plot_labels(tmp_path, n, nc):
    rng = np.random.default_rng(0)
    labels = np.concatenate([rng.integers(0, nc, (n, 1)), rng.uniform(0.1, 0.9, (n, 4))], 1).astype(np.float32)
    path = plot_labels(labels, {i: NAMES.get(i, f"class {i}") for i in range(nc)}, tmp_path / "labels.jpg")
    image = read(path)
    assert path == tmp_path / "labels.jpg"
    assert image.shape == (1800, 2400, 3)
    assert color_count(image) > 20
    assert near(image[:900], class_color(0), 6).any() == (n > 0)


def test_plot_labels_bars_are_proportional_and_colored_by_class(tmp_path):
    labels = np.zeros((400, 5), np.float32)
    labels[:100, 0] = 1
    labels[:, 1:] = 0.5
    bars = read(plot_labels(labels, {0: "a", 1: "b"}, tmp_path / "labels.png"))[:1000]
    tall, short = (near(bars, class_color(c)).any(1).sum() for c in (0, 1))
    assert tall / short == pytest.approx(3, rel=0.02)


def write_results(path, rows: list[dict], padded: bool):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([f"{c:>23}" if padded else c for c in COLUMNS])
        for row in rows:
            writer.writerow([f"{row[c]:>23}" if padded else row[c] for c in COLUMNS])
    return path


def results_rows(n: int) -> list[dict]:
    return [{c: i if c == "epoch" else round(1 / (i + 2), 5) for c in COLUMNS} for i in range(n)]


@pytest.mark.parametrize(("n", "padded"), [(0, True), (1, False)])
def test_plot_results(tmp_path, n, padded):
    path = plot_results(write_results(tmp_path / "results.csv", results_rows(n), padded), tmp_path / "results.png")
    image = read(path)
    assert image.shape == (1200, 2800, 3)
    assert color_count(image) > 20
    assert near(image[:, 560:], (0x6A, 0xA8, 0xEC), 2).any() == (n > 0)  # right of the panel with the legend


def test_plot_results_leaves_gaps_at_nan(tmp_path):
    rows = results_rows(30)
    for row in rows[10:20]:
        row["val/cls_loss"] = "nan"
    image = read(plot_results(write_results(tmp_path / "results.csv", rows, True), tmp_path / "results.png"))
    panels = [near(image[600:, 560 * i : 560 * (i + 1)], (0xE6, 0x39, 0x3F)).any(0) for i in range(5)]
    columns = [panel.sum() for panel in panels]  # in how many pixel columns the smoothed line is seen
    assert min(columns) == columns[2] == pytest.approx(columns[1] * (1 - 11 / 29), rel=0.05)
    assert np.delete(columns, 2) == pytest.approx(columns[1], rel=0.01)


def test_plot_results_names_what_is_wrong_with_the_file(tmp_path):
    path = tmp_path / "results.csv"
    with pytest.raises(UserError, match="no such results file"):
        plot_results(path, tmp_path / "results.png")
    path.write_text("epoch,loss\n0,1\n")
    with pytest.raises(UserError, match="no column 'train/box_loss' in the header, found: epoch, loss"):
        plot_results(path, tmp_path / "results.png")
    path.write_text("")
    with pytest.raises(UserError, match="found: nothing"):
        plot_results(path, tmp_path / "results.png")
    rows = results_rows(3)
    rows[1]["val/obj_loss"] = "oops"
    with pytest.raises(UserError, match="results.csv, line 3: val/obj_loss is 'oops', not a number"):
        plot_results(write_results(path, rows, True), tmp_path / "results.png")
    del rows[1]
    write_results(path, rows, False)
    path.write_text(path.read_text() + "\n3,0.5,0.5\n")  # cut off while it was written
    with pytest.raises(UserError, match="line 5: train/cls_loss is '', not a number"):
        plot_results(path, tmp_path / "results.png")


@pytest.mark.parametrize("nc", [0, 3, 40])
def test_plot_curves(tmp_path, nc):
    grid = np.linspace(0, 1, 101)
    values = np.stack([0.5 + 0.4 * np.sin(grid * 3 + c) for c in range(nc)]) if nc else np.zeros((0, 101))
    classes = list(range(nc))
    pr = read(plot_pr_curve(grid, values, values.mean(1), tmp_path / "PR_curve.png", NAMES, classes))
    f1 = read(plot_metric_curve(grid, values, tmp_path / "F1_curve.png", NAMES, classes, "F1"))
    assert pr.shape == f1.shape == (1200, 1800, 3)
    assert color_count(pr) > 20
    # Up to 20 classes have their colours; of more of them the five best and worst are drawn, as many colours
    colors = [sum(bool(near(picture, class_color(i)).any()) for i in range(24)) for picture in (pr, f1)]
    assert colors == [min(nc, 10)] * 2


def test_of_many_classes_the_best_and_the_worst_are_drawn(tmp_path):
    """The five with the highest and the five with the lowest curves; none of those between."""
    grid = np.linspace(0, 1, 101)
    values = np.repeat(np.linspace(0.2, 0.9, 30)[:, None], 101, 1)
    image = read(plot_metric_curve(grid, values, tmp_path / "a.png", {}, list(range(30)), "F1"))
    black = near(image, (0, 0, 0))
    rows = np.nonzero(black[:, 200:1100].all(1))[0]
    column = image[rows.min() : rows.max(), 700].astype(int)
    heights = 1.01 * (1 - np.nonzero(np.ptp(column, axis=1) > 30)[0] / len(column))
    assert set(np.round(heights, 1)) <= {0.2, 0.3, 0.8, 0.9} and (heights > 0.78).any() and (heights < 0.32).any()


def test_curve_is_drawn_at_its_values(tmp_path):
    grid = np.linspace(0, 1, 101)
    image = read(plot_metric_curve(grid, np.full((1, 101), 0.5), tmp_path / "a.png", {0: "a"}, [0], "P"))
    black = near(image, (0, 0, 0))
    rows = np.nonzero(black[:, 200:1100].all(1))[0]
    top, bottom = rows.min(), rows.max()  # the frame of the axes, from 1.01 down to 0
    mean = rows[(rows > top + 10) & (rows < bottom - 10)].mean()
    assert (bottom - mean) / (bottom - top) == pytest.approx(0.5 / 1.01, abs=0.005)


def test_plot_confusion_matrix_of_many_classes(tmp_path):
    matrix = np.eye(121) * 9 + 1
    matrix[:, 0] = 0  # a class that does not occur
    path = plot_confusion_matrix(matrix, NAMES, tmp_path / "confusion_matrix.png")
    image = read(path)
    assert image.shape == (1800, 2100, 3)
    assert color_count(image) > 20
    with open(path.with_suffix(".csv"), encoding="utf-8-sig", newline="") as file:
        table = list(csv.reader(file))
    assert table[0][:3] == ["predicted \\ true", "person", "红细胞"] and table[0][-1] == table[-1][0] == "background"
    assert np.array_equal(np.array([row[1:] for row in table[1:]], int), matrix)


@pytest.mark.parametrize("name", ["a", "a" * 20])
def test_names_of_a_confusion_matrix_have_room_of_their_own(tmp_path, name):
    image = read(plot_confusion_matrix(np.eye(3), {0: name, 1: "b"}, tmp_path / "cm.png"))
    for picture in (image, image[::-1].transpose(1, 0, 2)):
        inked = (picture[:1400, :1000] < 150).all(2)
        frame = int(inked.mean(0).argmax())
        # from the left, or from below: the name of the axis, those of the classes, the matrix
        places = np.flatnonzero(inked[:, : frame + 1].any(0))
        parts = np.split(places, np.flatnonzero(np.diff(places) >= 8) + 1)
        assert len(parts) == 3, [part.tolist() for part in parts]
        assert places[0] >= 8


def test_confusion_matrix_columns_are_normalised(tmp_path):
    # Column 0: all right. Column 1: all taken for class 0. Background: all class 1.
    matrix = np.array([[70, 3, 0], [0, 0, 5], [0, 0, 0]])
    image = read(plot_confusion_matrix(matrix, {0: "a", 1: "b"}, tmp_path / "cm.png"))[:, :1850]
    full = near(image, (8, 48, 107), 1)  # the darkest of the colour map
    x1, y1, x2, y2 = extent(full)
    columns, rows = np.linspace(x1, x2, 4), np.linspace(y1, y1 + (x2 - x1), 4)
    assert y2 < rows[2] + 5, "nothing was taken for background"

    def is_full(row, column):
        inside = full[
            int(rows[row]) + 9 : int(rows[row + 1]) - 9, int(columns[column]) + 9 : int(columns[column + 1]) - 9
        ]
        return inside.mean() > 0.9

    found = [[is_full(row, column) for column in range(3)] for row in range(3)]
    assert found == [[True, True, False], [False, False, True], [False, False, False]]


def test_figures_take_names_of_any_language_and_length(tmp_path, capfd):
    names = {0: "红细胞 " * 40, 1: "$\\frac{1}{", 2: "🐈", 3: "", 4: "سيارة"}
    grid, values = np.linspace(0, 1, 11), np.full((5, 11), 0.5)
    plot_metric_curve(grid, values, tmp_path / "曲线.png", names, list(range(5)), "F1")
    plot_confusion_matrix(np.eye(6), names, tmp_path / "矩阵.png")
    plot_labels(np.array([[4, 0.5, 0.5, 0.2, 0.2]], np.float32), names, tmp_path / "标签.jpg")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["曲线.png", "矩阵.png", "矩阵.csv", "标签.jpg"])
    said, errors = capfd.readouterr()
    assert not errors and all(line.startswith("warning: no installed font has") for line in said.splitlines())


def test_names_in_any_language_are_drawn_with_a_font_that_has_them():
    """Each script has its own strokes, where a font with it is installed; without one there are boxes, and no error."""
    blank = np.full((60, 200, 3), 90, np.uint8)
    where = (np.array([[10, 30, 190, 55]]), np.array([0]))
    drawn = [draw_boxes(blank, *where, {0: name}) for name in ("кошка", "γάτα", "gatito")]
    assert all((one != other).any() for one, other in itertools.combinations(drawn, 2))
    assert printable("кошка γάτα") == "кошка γάτα"
    assert set(printable("猫")) <= {"猫", "□"}


def test_a_feature_grid_has_each_channel_in_its_own_range():
    ramp = np.arange(12, dtype=np.float32).reshape(3, 4)
    grid = feature_grid(np.stack([ramp, ramp * 100, np.zeros((3, 4), np.float32)]))
    cell = grid[:96, :128]
    np.testing.assert_array_equal(cell, grid[:96, 130:258])
    assert cell[0, 0].tolist() == [68, 1, 84] and cell[-1, -1].tolist() == [253, 231, 37]  # viridis from end to end
    assert (grid[:96, 260:] == cell[0, 0]).all()


def test_the_plot_takes_any_number_of_rows(tmp_path):
    rows = [("onnx", 0.34, 12.0, 7.5), ("openvino-int8", 0.33, 5.0, 2.7)]
    for count in range(3):
        assert cv2.imread(str(plot_benchmarks(rows[:count], tmp_path / f"{count}.png"))).shape[0] > 300
