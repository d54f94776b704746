"""The columns of comparison.csv that are figures: what each is called, how it is written for people, what belongs together.

columns(comparison, rows) → Column …   those that some row has a figure in, in the order of the page
written(column, row) → text            empty where it is not known
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from engine.comparison.record import END_TO_END, METRICS, MODEL, Comparison
from engine.comparison.tables import Row

ACCURACY = ".4f"


@dataclass(frozen=True)
class Column:
    """One of comparison.csv's, by its name there.

    ``kind`` and ``words``: what its title is made of. ``form``: how its figures are written. ``better``: whether "high" or
    "low" ones are. ``of`` and ``part``: the column that this one says more of, and what: its "low" or "high" bound, its "p90".
    ``cost``: whether accuracy may be drawn over it.
    """

    key: str
    kind: str
    group: str
    form: str
    unit: str = ""
    better: str = ""
    of: str = ""
    part: str = ""
    cost: bool = False
    words: dict[str, str] = field(default_factory=dict)


def columns(comparison: Comparison, rows: list[Row]) -> list[Column]:
    """The columns of ``rows`` with figures; each group of them stands together."""
    made = (
        *_accuracy(comparison.settings.metric),
        *_files(comparison),
        *_seeds(comparison),
        *_costs(),
        *_latencies(comparison),
        *_training(comparison),
        *_errors(comparison),
    )
    known = [column for column in made if any(row.get(column.key) is not None for row in rows)]
    return [replace(column, form=_finer(column, rows)) for column in known]


def _finer(column: Column, rows: list[Row]) -> str:
    """The form of a column, with two digits more where all its figures are below 1: GFLOPs of small pictures."""
    values = [row[column.key] for row in rows if row.get(column.key) is not None]
    return ".4f" if column.form == ".2f" and max(values) < 1 else column.form


def written(column: Column, row: Row) -> str:
    """The cell of ``row`` in ``column``."""
    return write_figure(row.get(column.key), column.form)


def write_figure(value: float | int | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _accuracy(judged_by: str) -> Iterator[Column]:
    for metric in METRICS:
        group = "accuracy" if metric in ("map50_95", "map50", judged_by) else "areas"
        yield Column(metric, metric, group, ACCURACY, better="high")
        for end in ("low", "high"):
            yield Column(f"{metric}_{end}", metric, group, ACCURACY, of=metric, part=end)


def _files(comparison: Comparison) -> Iterator[Column]:
    for runtime in {t.runtime: None for c in comparison.candidates for t in c.latencies}:
        key = f"{runtime}_map50_95"
        yield Column(key, "file_map", "files", ACCURACY, better="high", words={"runtime": runtime})


def _seeds(comparison: Comparison) -> Iterator[Column]:
    metric = comparison.settings.metric
    for seed in {run.seed: None for c in comparison.candidates for run in c.runs}:
        words = {"seed": "–" if seed is None else str(seed)}
        yield Column(f"{metric}_seed{seed}", "seed_figure", "seeds", ACCURACY, better="high", words=words)


def _costs() -> Iterator[Column]:
    for key, group, form, unit in (
        ("parameters", "cost", "d", ""),
        ("gflops", "cost", ".2f", ""),
        ("file_mb", "cost", ".2f", "MB"),
        ("inference_mb", "memory", ".0f", "MB"),
        ("training_mb", "memory", ".0f", "MB"),
    ):
        yield Column(key, key, group, form, unit, better="low", cost=True)


def _latencies(comparison: Comparison) -> Iterator[Column]:
    there = {(t.part, t.runtime, t.batch): None for c in comparison.candidates for t in c.latencies}
    # from the image to the boxes first; runtimes in the order in which they were measured
    for part in (END_TO_END, MODEL):
        for _, runtime, batch in (found for found in there if found[0] == part):
            key, words = f"{runtime}_batch{batch}_{part}", {"runtime": runtime, "batch": str(batch)}
            own = Column(f"{key}_ms", "latency", part, ".2f", "ms", better="low", cost=True, words=words)
            yield own
            yield replace(own, key=f"{key}_p90_ms", better="", of=own.key, part="p90", cost=False)


def _training(comparison: Comparison) -> Iterator[Column]:
    yield Column("images_per_second", "images_per_second", "training", ".1f", better="high")
    for level in {level: None for c in comparison.candidates for level in c.seconds_to}:
        words = {"map": level}
        yield Column(f"seconds_to_{level}", "seconds_to", "training", ".0f", "s", better="low", cost=True, words=words)


def _errors(comparison: Comparison) -> Iterator[Column]:
    for kind in {kind: None for c in comparison.candidates for kind in c.errors}:
        yield Column(f"error_{kind}", "error", "errors", ACCURACY, better="low", words={"kind": kind})
