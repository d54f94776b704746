"""Rows of results.csv are numbers until they are written, and columns stand in one table."""

import numpy as np

from engine.training.records import Records
from utils.plots.runs import plot_results
from utils.results import COLUMNS, FIGURES, NAMES, PANELS, TAUGHT, columns_of, make_row, read_cells, write_cells


def test_a_row_keeps_its_numbers_and_is_written_with_five_digits():
    row = make_row(3, [0.1, 1 / 3, 2e-7], [np.float64(2 / 3), 0.5, 0.4, 0.3, 1.0, float("nan"), 12345.678], [0.01] * 3)
    assert row["epoch"] == 3 and row["train/obj_loss"] == 1 / 3 and row["metrics/precision"] == 2 / 3
    assert {type(value) for value in row.values()} == {int, float}
    cells = write_cells(row)
    assert cells[:5] == ["3", "0.1", "0.33333", "2e-07", "0.66667"] and cells[9:11] == ["nan", "12346"]
    assert write_cells(read_cells(cells)) == cells


def test_an_epoch_without_validation_has_zeros():
    row = make_row(0, [1.0] * 3, None, [0.1] * 3)
    assert [row[name] for name in FIGURES] == [0.0] * 7


def test_what_a_teacher_adds_is_one_more_column_at_the_end(tmp_path):
    row = make_row(0, [0.1, 0.2, 0.3, 1 / 3], [0.5] * 7, [0.01] * 3)
    assert list(row) == [*NAMES, TAUGHT.name] == [column.name for column in columns_of(row)]
    assert {k: v for k, v in row.items() if k in NAMES} == make_row(0, [0.1, 0.2, 0.3], [0.5] * 7, [0.01] * 3)
    assert write_cells(row)[-2:] == ["0.01", "0.33333"] and write_cells(read_cells(write_cells(row))) == write_cells(
        row
    )
    records = Records(tmp_path, {0: "thing"}, plots=True)
    records.results([row])
    assert (tmp_path / "results.csv").read_text().splitlines()[0].endswith("x/lr2,train/distill_loss")
    # a viewer of the fourteen columns finds its own
    plot_results(tmp_path / "results.csv", tmp_path / "results.png")


def test_columns_are_told_apart():
    assert len(set(NAMES)) == len(COLUMNS) == 14
    assert set(FIGURES) == {name for name in NAMES if name.startswith(("metrics/", "val/"))}
    assert set(PANELS) == {name for name in NAMES if not name.startswith(("x/", "epoch"))}


def test_results_csv_has_a_line_for_every_row(tmp_path):
    rows = [make_row(i, [i / 7] * 3, None, [0.1] * 3) for i in range(3)]
    records = Records(tmp_path, {0: "thing"}, plots=False)
    records.results(rows)
    header, *lines = (tmp_path / "results.csv").read_text().splitlines()
    assert header.split(",") == list(NAMES)
    assert [read_cells(line.split(","))["train/box_loss"] for line in lines] == [0, 0.14286, 0.28571]
