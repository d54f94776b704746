"""The columns of results.csv: what they are called, which of them a validation gives, how each is written and drawn.

A row is a mapping from their names to numbers; it becomes text where results.csv is written, and nowhere else.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from utils.metrics import fitness


@dataclass(frozen=True)
class Column:
    """A column of results.csv.

    ``validated``: a figure of a validation. ``form``: how its numbers are written. ``panel``: its place in results.png,
    from 0, row by row; a column without one is not drawn.
    """

    name: str
    validated: bool = False
    panel: int | None = None
    form: str = ".5g"


COLUMNS = (
    Column("epoch", form="d"),
    Column("train/box_loss", panel=0),
    Column("train/obj_loss", panel=1),
    Column("train/cls_loss", panel=2),
    Column("metrics/precision", validated=True, panel=3),
    Column("metrics/recall", validated=True, panel=4),
    Column("metrics/mAP_0.5", validated=True, panel=8),
    Column("metrics/mAP_0.5:0.95", validated=True, panel=9),
    Column("val/box_loss", validated=True, panel=5),
    Column("val/obj_loss", validated=True, panel=6),
    Column("val/cls_loss", validated=True, panel=7),
    Column("x/lr0"),
    Column("x/lr1"),
    Column("x/lr2"),
)
# behind them, where a training had a teacher
TAUGHT = Column("train/distill_loss")
NAMES = tuple(column.name for column in COLUMNS)
FIGURES = tuple(column.name for column in COLUMNS if column.validated)
PANELS = tuple(c.name for c in sorted((c for c in COLUMNS if c.panel is not None), key=lambda c: c.panel))


def make_row(
    epoch: int, losses: Iterable[float], figures: Iterable[float] | None, rates: Iterable[float]
) -> dict[str, float]:
    """The row of an epoch: mean ``losses``, ``figures`` of its validation, ``rates`` of learning, in the columns' order.

    ``losses`` are three, or four with what a teacher added. An epoch without a validation (None) has zeros for its figures.
    """
    figures = [0.0] * len(FIGURES) if figures is None else figures
    box, obj, cls, *taught = losses
    # checkpoints hold plain numbers, none of numpy
    row = dict(zip(NAMES, (epoch, *map(float, (box, obj, cls, *figures, *rates))), strict=True))
    return row | dict(zip([TAUGHT.name], map(float, taught), strict=False))


def columns_of(row: dict[str, float]) -> tuple[Column, ...]:
    """The columns that a row has cells for."""
    return (*COLUMNS, TAUGHT) if TAUGHT.name in row else COLUMNS


def write_cells(row: dict[str, float]) -> list[str]:
    """The cells of a row, as results.csv has them."""
    return [format(row[column.name], column.form) for column in columns_of(row)]


def read_cells(cells: Sequence[str]) -> dict[str, float]:
    """The row that ``write_cells`` made these cells of, its numbers as exact as they were written."""
    names = (*NAMES, TAUGHT.name) if len(cells) > len(NAMES) else NAMES
    return dict(zip(names, (int(cells[0]), *map(float, cells[1:])), strict=True))


def row_fitness(row: dict[str, float]) -> float:
    """The figure by which one training is better than another."""
    return fitness(row["metrics/mAP_0.5"], row["metrics/mAP_0.5:0.95"])
