"""The figures of a validation, and what is counted on the way to them."""

from dataclasses import dataclass, field

import numpy as np

from engine.evaluation.bootstrap import FIGURES, Intervals
from engine.evaluation.coco import NAMES, CocoFigures
from engine.evaluation.errors import ErrorFigures
from engine.evaluation.matches import ImageMatches, Matches
from utils.metrics import CONFIDENCE_GRID, APResult, PRCurve, ap_per_class


@dataclass
class Evaluation:
    """Figures of one validation. ``speed`` in ms per image: pre-processing, inference, NMS; ``loss``: box, obj, cls."""

    names: dict[int, str]
    images: int
    instances: int
    matches: Matches
    ap: APResult
    images_per_class: np.ndarray  # [nc]
    instances_per_class: np.ndarray  # [nc]
    speed: tuple[float, float, float]
    loss: np.ndarray = field(default_factory=lambda: np.zeros(3))
    confusion: np.ndarray | None = None
    # of the figures of FIGURES, where they were asked for
    intervals: Intervals | None = None
    # where they were asked for
    coco: CocoFigures | None = None
    errors: ErrorFigures | None = None

    @property
    def p(self) -> float:
        return _mean(self.ap.p)

    @property
    def r(self) -> float:
        return _mean(self.ap.r)

    @property
    def map50(self) -> float:
        return _mean(self.ap.ap[:, 0])

    @property
    def map75(self) -> float:
        return _mean(self.ap.ap[:, 5])

    @property
    def map50_95(self) -> float:
        return _mean(self.ap.ap)

    @property
    def class_maps(self) -> np.ndarray:
        """mAP50-95 of every class [nc]; of one that does not occur, the mean of the others."""
        maps = np.full(len(self.names), self.map50_95)
        maps[self.ap.classes] = self.ap.ap.mean(1)
        return maps

    HEADER = f"{'Class':>22}{'Images':>11}{'Instances':>11}{'P':>11}{'R':>11}{'mAP50':>11}{'mAP50-95':>11}"

    def table(self, verbose: bool = False) -> str:
        """The row of all classes, and with ``verbose`` one per class that occurs."""
        figures = (self.p, self.r, self.map50, self.map50_95)
        lines = [_row("all", self.images, self.instances, figures)]
        if verbose:
            ap = self.ap
            for i, c in enumerate(ap.classes):
                figures = (ap.p[i], ap.r[i], ap.ap[i, 0], ap.ap[i].mean())
                lines.append(_row(self.names[c], self.images_per_class[c], self.instances_per_class[c], figures))
        return "\n".join(lines)

    def cells(self) -> list[list[str]]:
        """The same as the cells of a CSV, with all classes: names of the columns, the row of all, one per class that occurs.

        Where there are intervals, each of FIGURES has two columns more, its ``_low`` and its ``_high``; they are empty for
        a class whose images were never drawn. COCO's figures stand behind them; empty is that of a size without labels.
        """
        ap, bounds = self.ap, self.intervals
        header = ["class", "images", "instances", "P", "R", *FIGURES]
        overall = ["all", self.images, self.instances, self.p, self.r, self.map50, self.map75, self.map50_95]
        rows = [header, overall]
        for i, c in enumerate(ap.classes):
            figures = (ap.p[i], ap.r[i], ap.ap[i, 0], ap.ap[i, 5], ap.ap[i].mean())
            rows.append([self.names[c], self.images_per_class[c], self.instances_per_class[c], *figures])
        if bounds is not None:
            header += [f"{figure}_{end}" for figure in FIGURES for end in ("low", "high")]
            for row, ends in zip(rows[1:], [bounds.overall, *bounds.per_class], strict=True):
                row += ends.ravel().tolist()
        if self.coco is not None:
            header += NAMES
            for row, figures in zip(rows[1:], [self.coco.overall, *self.coco.per_class[ap.classes]], strict=True):
                row += figures.tolist()
        return [[_cell(value) for value in row] for row in rows]

    def pr_curve(self) -> PRCurve:
        """Precision over recall as a mean over the classes that occur."""
        curves = self.ap.pr_curve
        mean = curves.mean(0) if len(curves) else np.zeros(len(CONFIDENCE_GRID))
        return PRCurve(CONFIDENCE_GRID, mean, self.map50)

    def curve_cells(self) -> list[list[str]]:
        """Precision over recall at an IoU of 0.5 as the cells of a CSV: of all classes, and of each that occurs."""
        header = ["recall", "all", *(self.names[c] for c in self.ap.classes)]
        overall = self.pr_curve()
        rows = np.vstack((overall.recall, overall.precision, self.ap.pr_curve)).T
        return [header, *([f"{value:.5g}" for value in row] for row in rows)]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0


def _cell(value: str | int | float) -> str:
    if not isinstance(value, float):
        return str(value)
    return "" if np.isnan(value) else f"{value:.5g}"


def _row(name: str, images: int, instances: int, figures: tuple) -> str:
    return f"{name:>22}{images:>11}{instances:>11}" + "".join(f"{v:>11.3g}" for v in figures)


class Tally:
    """What is counted while a set is evaluated, piece by piece; the pieces of several processes can be put together."""

    def __init__(self, nc: int):
        # batch number → what was found on each of its images
        self.pieces: dict[int, list[ImageMatches]] = {}
        self.images_per_class = np.zeros(nc, int)
        self.confusion = np.zeros((nc + 1, nc + 1))
        self.losses = np.zeros(3)
        self.clock = np.zeros(3)

    def add(self, others: list["Tally"]) -> "Tally":
        """Take in what other processes have counted; images are then in the order of the set again."""
        for other in others:
            self.pieces |= other.pieces
            for name in ("images_per_class", "confusion", "losses", "clock"):
                setattr(self, name, getattr(self, name) + getattr(other, name))
        self.pieces = dict(sorted(self.pieces.items()))
        return self


def evaluation_of(tally: Tally, names: dict[int, str]) -> Evaluation:
    matches = Matches.of(image for piece in tally.pieces.values() for image in piece)
    return Evaluation(
        names=names,
        images=len(matches.paths),
        instances=len(matches.label_cls),
        matches=matches,
        ap=ap_per_class(matches.hits, matches.conf, matches.cls, matches.label_cls),
        images_per_class=tally.images_per_class,
        instances_per_class=np.bincount(matches.label_cls.astype(int), minlength=len(names)),
        speed=tuple(tally.clock / len(matches.paths) * 1e3),
        loss=tally.losses / len(tally.pieces),
        confusion=tally.confusion,
    )
