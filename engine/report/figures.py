"""The figures of a comparison as texts, for every table and page: which columns there are, and how each is written.

    columns(comparison) → Column …        those that some candidate has, in the order of comparison.csv
    written(column, candidate) → text     the cell; empty where it is not known

A figure has one text, whichever table it stands in.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from engine.comparison.record import DONE, END_TO_END, METRICS, MODEL, Candidate, Comparison, Latency

ACCURACY, SECONDS, SHARE = ".4f", ".0f", ".4f"


@dataclass(frozen=True)
class Column:
    """A column of comparison.csv.

    ``kind`` and ``words``: what its title is made of. ``better``: whether "high" or "low" figures are. ``of`` and ``part``:
    the column that this one says more of, and what: its "low" and "high" bound, its "p90". ``cost``: whether accuracy may be
    drawn over it.
    """

    key: str
    kind: str
    group: str
    form: str
    read: Callable[[Candidate], float | int | None]
    unit: str = ""
    better: str = ""
    of: str = ""
    part: str = ""
    cost: bool = False
    words: dict[str, str] = field(default_factory=dict)


def columns(comparison: Comparison) -> list[Column]:
    """The columns of figures that at least one candidate has."""
    made = [*_accuracy(), *_costs(), *_latencies(comparison), *_training(comparison), *_errors(comparison)]
    return [c for c in made if any(c.read(candidate) is not None for candidate in comparison.candidates)]


def written(column: Column, candidate: Candidate) -> str:
    """The cell of ``candidate`` in ``column``."""
    return write_figure(column.read(candidate), column.form)


def write_figure(value: float | int | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _accuracy() -> Iterator[Column]:
    for metric in METRICS:
        own = Column(metric, metric, "accuracy", ACCURACY, _estimate(metric, "mean"), better="high")
        yield own
        for end in ("low", "high"):
            key = f"{metric}_{end}"
            yield replace(own, key=key, read=_estimate(metric, end), better="", of=metric, part=end)


def _estimate(metric: str, name: str) -> Callable[[Candidate], float | None]:
    return lambda candidate: getattr(candidate.accuracy.get(metric), name, None)


def _costs() -> Iterator[Column]:
    for key, form, unit in (
        ("parameters", "d", ""),
        ("gflops", ".2f", ""),
        ("file_mb", ".2f", "MB"),
        ("inference_mb", ".0f", "MB"),
        ("training_mb", ".0f", "MB"),
    ):
        yield Column(key, key, "cost", form, _attribute(key), unit, better="low", cost=True)


def _attribute(name: str) -> Callable[[Candidate], float | int | None]:
    return lambda candidate: getattr(candidate, name)


def _latencies(comparison: Comparison) -> Iterator[Column]:
    there = {(t.part, t.runtime, t.batch): None for c in comparison.candidates for t in c.latencies}
    # from the image to the boxes first; runtimes in the order in which they were measured
    for part in (END_TO_END, MODEL):
        for _, runtime, batch in (found for found in there if found[0] == part):
            key, words = f"{part}_{runtime}_b{batch}", {"runtime": runtime, "batch": str(batch)}
            read = _latency(part, runtime, batch, "median_ms")
            own = Column(f"{key}_ms", "latency", part, ".2f", read, "ms", better="low", cost=True, words=words)
            yield own
            read = _latency(part, runtime, batch, "p90_ms")
            yield replace(own, key=f"{key}_p90_ms", read=read, better="", of=own.key, part="p90", cost=False)


def _latency(part: str, runtime: str, batch: int, name: str) -> Callable[[Candidate], float | None]:
    def read(candidate: Candidate) -> float | None:
        found: Iterator[Latency] = (
            t for t in candidate.latencies if (t.part, t.runtime, t.batch) == (part, runtime, batch)
        )
        return getattr(next(found, None), name, None)

    return read


def _training(comparison: Comparison) -> Iterator[Column]:
    rate = _attribute("images_per_second")
    yield Column("images_per_second", "images_per_second", "training", ".1f", rate, better="high")
    yield Column(
        "training_seconds", "training_seconds", "training", SECONDS, mean_seconds, "s", better="low", cost=True
    )
    for reached in sorted({text for c in comparison.candidates for text in c.seconds_to}):
        read = _entry("seconds_to", reached)
        words = {"map": reached}
        yield Column(f"seconds_to_{reached}", "seconds_to", "training", SECONDS, read, "s", better="low", words=words)


def mean_seconds(candidate: Candidate) -> float | None:
    """Of the trainings that are done."""
    found = [run.seconds for run in candidate.runs if run.status == DONE and run.seconds is not None]
    return sum(found) / len(found) if found else None


def _errors(comparison: Comparison) -> Iterator[Column]:
    for kind in {kind: None for c in comparison.candidates for kind in c.errors}:
        read = _entry("errors", kind)
        yield Column(f"error_{kind}", f"error.{kind}", "errors", SHARE, read, better="low", words={"kind": kind})


def _entry(name: str, key: str) -> Callable[[Candidate], float | None]:
    return lambda candidate: getattr(candidate, name).get(key)
