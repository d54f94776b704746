"""The tables of a comparison: on the screen, comparison.csv, comparison.md and comparison.tex.

A row is a mapping from the names of columns to numbers and texts, made once by ``rows``; every table shows these.
"""

from collections.abc import Sequence
from pathlib import Path

from engine.comparison.pick import figure, latency_of, more_seeds, points
from engine.comparison.record import DONE, METRICS, MODEL, NO_DIFFERENCE, TOO_FEW, Candidate, Comparison, Pair
from engine.evaluation.latex import escaped, tabular
from utils.files import replacing, write_table

Row = dict[str, str | int | float | bool | None]
HEADINGS = {"map50_95": "mAP50-95", "map50": "mAP50", "map75": "mAP75"}
HEADINGS |= {f"ap_{size}": f"AP {size}" for size in ("small", "medium", "large")}


def rows(comparison: Comparison) -> list[Row]:
    """All figures, a row for each candidate: the best first, as far as that is known."""
    metric = comparison.settings.metric
    best = next(iter(comparison.pairs), None)
    pairs = {(p.first, p.second): p for p in comparison.pairs}
    found = []
    for c in ordered(comparison):
        row: Row = {"candidate": c.name, "seeds": sum(run.status == DONE for run in c.runs)}
        for name in METRICS:
            estimate = c.accuracy.get(name)
            row[name] = estimate and estimate.mean
            row[f"{name}_low"], row[f"{name}_high"] = (estimate.low, estimate.high) if estimate else (None, None)
        pair = pairs.get((best.first, c.name)) if best else None
        row["behind_best"] = 0.0 if best and c.name == best.first else pair and pair.difference
        row |= {f"behind_best_{key}": pair and getattr(pair, key) for key in ("low", "high", "p_holm", "verdict")}
        row |= {"parameters": c.parameters, "gflops": c.gflops, "file_mb": c.file_mb}
        for t in c.latencies:
            row[f"{t.runtime}_batch{t.batch}_{t.part}_ms"] = t.median_ms
            row[f"{t.runtime}_batch{t.batch}_{t.part}_p90_ms"] = t.p90_ms
            row[f"{t.runtime}_map50_95"] = t.map50_95
        row |= {name: getattr(c, name) for name in ("inference_mb", "training_mb", "images_per_second", "on_front")}
        row |= {f"seconds_to_{level}": seconds for level, seconds in c.seconds_to.items()}
        row |= {f"error_{kind}": cost for kind, cost in c.errors.items()}
        for run in c.runs:
            row[f"{metric}_seed{run.seed}"] = getattr(run, metric)
        row["failed"] = "; ".join(run.message for run in c.runs if run.message) or c.message
        found.append(row)
    return found


def ordered(comparison: Comparison) -> list[Candidate]:
    """The candidates, the most accurate first; those of unknown accuracy behind them, in the order they were named in."""
    metric = comparison.settings.metric
    return sorted(comparison.candidates, key=lambda c: -c.accuracy[metric].mean if metric in c.accuracy else 1)


def write_csv(comparison: Comparison, path: Path) -> None:
    """All columns that any row has; empty where there is no figure."""
    found = rows(comparison)
    columns = list(dict.fromkeys(name for row in found for name in row))
    write_table(path, [columns, *([_cell(row.get(name)) for name in columns] for row in found)])


def _cell(value: str | int | float | bool | None) -> str:
    """As exact as comparison.json has it."""
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


# For people -------------------------------------------------------------------------------------------------------------


def headings(comparison: Comparison) -> list[str]:
    """Those of ``shown_rows``."""
    metric, data = comparison.settings.metric, comparison.data
    return [
        "candidate",
        "seeds",
        HEADINGS[metric],
        "95 % interval",
        "parameters",
        f"GFLOPs at {data.imgsz}" if data.imgsz else "GFLOPs",
        "ms, file to boxes",
        "ms, model",
        "ms, model, of 16",
        "verdict",
    ]


def shown_rows(comparison: Comparison) -> list[list[str]]:
    """What people read first: the cells of a row for each candidate."""
    metric, runtimes = comparison.settings.metric, comparison.settings.runtimes
    best = next(iter(comparison.pairs), None)
    pairs = {(p.first, p.second): p for p in comparison.pairs}
    found = []
    for c in ordered(comparison):
        estimate = c.accuracy.get(metric)
        times = latency_of(c, runtimes), latency_of(c, runtimes, part=MODEL), latency_of(c, runtimes, 16, MODEL)
        interval = f"{estimate.low:.4f} to {estimate.high:.4f}" if estimate and estimate.low is not None else "-"
        found.append(
            [
                c.name,
                str(sum(run.status == DONE for run in c.runs)),
                f"{estimate.mean:.4f}" if estimate else "-",
                interval,
                f"{c.parameters:,}" if c.parameters is not None else "-",
                f"{c.gflops:.2f}" if c.gflops is not None else "-",
                *(f"{t.median_ms:.2f}" if t else "-" for t in times),
                _verdict(c.name, best, pairs.get((best.first, c.name)) if best else None) or c.message or "-",
            ]
        )
    return found


def _verdict(name: str, best: Pair | None, pair: Pair | None) -> str:
    if pair:
        words = {NO_DIFFERENCE: "no difference shown", TOO_FEW: "too few seeds"}
        return words.get(pair.verdict, f"behind {pair.first}")
    if best and name == best.first:
        return "ahead" if best.verdict != TOO_FEW else "too few seeds"
    return ""


def notes(comparison: Comparison) -> list[str]:
    """What is said below a table: on what, on which machine, differences, the pick."""
    m, data, settings = comparison.machine, comparison.data, comparison.settings
    trained = f"; {settings.epochs} epochs, seeds {', '.join(map(str, settings.seeds))}" if settings.seeds else ""
    said = [
        f"data: {data.file}, {data.val_images} validation images at {data.imgsz} px{trained}",
        f"machine: {m.name}, {m.device}, PyTorch {m.torch}; latencies are medians, in ms per image, under "
        f"{settings.runtimes[0]}; a candidate against itself differs by "
        f"{'an unknown share' if m.noise is None else f'{m.noise:.1%}'}",
    ]
    for pair in comparison.pairs:
        # all pairs are on the page
        if pair.low is not None and pair.first == comparison.pairs[0].first:
            shown = {NO_DIFFERENCE: "no difference shown", TOO_FEW: "too few seeds to name a winner"}
            more = f"; {more_seeds(pair)}" if pair.verdict == NO_DIFFERENCE else ""
            verdict = shown.get(pair.verdict, f"{getattr(pair, pair.verdict, '')} is better")
            said.append(
                f"{pair.first} less {pair.second}: {points(pair)}, p {pair.p_holm:.2g} corrected: {verdict}{more}"
            )
    for c in comparison.candidates:
        said += [f"{c.name}, {t.runtime}, batch {t.batch}: {t.why}" for t in c.latencies if t.why and t.part == MODEL]
        said += [f"{c.name}, seed {run.seed}: failed: {run.message}" for run in c.runs if run.message]
    if comparison.pick:
        limits = ", ".join(
            f"--{name.replace('_', '-')} {figure(most)}" for name, most in comparison.pick.constraints.items()
        )
        said.append(f"the pick{f' within {limits}' if limits else ''}: {pick_line(comparison)}")
        said += [f"{name} is out: {why}" for name, why in comparison.pick.left_out.items()]
    return said


def pick_line(comparison: Comparison) -> str:
    """The pick in words."""
    pick = comparison.pick
    if pick.best is None:
        return f"none: {pick.open}"
    return f"{pick.best}{f', then {pick.second}' if pick.second else ''}: {pick.open}"


def screen(comparison: Comparison) -> str:
    """The table and the notes for a terminal."""
    lines = [headings(comparison), *shown_rows(comparison)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = [_aligned(line, widths) for line in lines]
    return "\n".join([*table, "", *notes(comparison)])


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """The first and the last cell to the left, numbers to the right."""
    ends = (0, len(cells) - 1)
    placed = (c.ljust(w) if i in ends else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
    return "  ".join(placed).rstrip()


def markdown(comparison: Comparison) -> str:
    """The table and the notes for a README."""
    head = headings(comparison)
    sides = ["---" if i in (0, len(head) - 1) else "---:" for i in range(len(head))]
    lines = [head, sides, *([_for_markdown(cell) for cell in row] for row in shown_rows(comparison))]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    said = "\n".join(f"- {_for_markdown(note)}" for note in notes(comparison))
    return f"# {_for_markdown(comparison.title)}\n\n{table}\n\n{said}\n\n```bash\n{comparison.command}\n```\n"


def _for_markdown(text: str) -> str:
    """A text that is shown as it is: no markup, no HTML."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in " ".join(text.split()))


def latex(comparison: Comparison) -> str:
    """The table for a paper; it needs the package booktabs."""
    head, *found = [list(map(escaped, cells)) for cells in (headings(comparison), *shown_rows(comparison))]
    return tabular(head, found)


def write_tables(comparison: Comparison, folder: Path) -> None:
    """comparison.csv, .md and .tex in a study's folder."""
    write_csv(comparison, folder / "comparison.csv")
    for name, text in (("comparison.md", markdown(comparison)), ("comparison.tex", latex(comparison))):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
