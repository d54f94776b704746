"""What the page shows, as plain data: a comparison with each of its figures written, and its pictures made small."""

from base64 import b64encode
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engine.comparison import tables
from engine.comparison.pick import latency_of
from engine.comparison.record import (
    DONE,
    FAILED,
    FINISHED,
    FIRST,
    RUNNING,
    SECOND,
    Box,
    Candidate,
    Comparison,
    Pair,
    Picture,
    Run,
)
from engine.report.figures import ACCURACY, Column, columns, write_figure, written
from utils.data.images import ImageError, read_image
from utils.errors import MOST_SAID, shown
from utils.plots.draw import PALETTE

# between two loads of the page while the comparison goes on
RELOAD_SECONDS = 10
# of the points of one curve and of all; of the boxes of one model on one picture and of all
MOST_POINTS, ALL_POINTS, MOST_BOXES, ALL_BOXES = 150, 20_000, 100, 16_000
# of the boxes: the least that can be asked for on the page
LEAST_CONFIDENCE = 0.25
DIFFERENCE, P_VALUE = "+.4f", ".2g"


def content(comparison: Comparison, folder: Path, side: int, quality: int) -> dict[str, Any]:
    """The page's data; what others have named is such that it can be shown (utils.errors.shown).

    Pictures are read from ``folder`` where their paths are relative, and written as JPEG of that ``quality`` with no side
    longer than ``side`` pixels; one that can't be read any more is left out.
    """
    rows = {row["candidate"]: row for row in tables.rows(comparison)}
    found = columns(comparison, list(rows.values()))
    places = {candidate.name: i for i, candidate in enumerate(comparison.candidates)}
    boxes = min(MOST_BOXES, ALL_BOXES // max(1, len(comparison.pictures) * len(places)))
    points = min(MOST_POINTS, ALL_POINTS // max(1, sum(len(candidate.runs) for candidate in comparison.candidates)))
    return {
        "title": shown(comparison.title),
        "created": _minute(comparison.created),
        "updated": _minute(comparison.updated or comparison.created),
        "command": comparison.command,
        "stage": comparison.stage,
        "reload": RELOAD_SECONDS,
        "progress": _progress(comparison),
        "data": asdict(comparison.data) | {"names": None, "file": shown(comparison.data.file)},
        "settings": asdict(comparison.settings) | {"train": shown(" ".join(comparison.settings.train), MOST_SAID)},
        "machine": asdict(comparison.machine) | {"noise": write_figure(comparison.machine.noise, ".1%")},
        "columns": [_column(column, found) for column in found],
        "candidates": [
            _candidate(c, found, rows[c.name], comparison.settings.metric, points) for c in comparison.candidates
        ],
        "pairs": [
            p for pair in comparison.pairs for p in _pairs(pair, places) if pair.metric == comparison.settings.metric
        ],
        "pick": _pick(comparison, places),
        "confidence": LEAST_CONFIDENCE,
        "classes": [shown(name) for name in comparison.data.names],
        "colors": ["#" + bytes(color).hex() for color in PALETTE],
        "pictures": [
            _picture(picture, jpeg, places, boxes)
            for picture in comparison.pictures
            if (jpeg := _jpeg(folder / picture.file, side, quality))
        ],
    }


def _minute(time: str) -> str:
    """2026-01-05T09:12:44+00:00 → 2026-01-05 09:12"""
    return shown(time[:16].replace("T", " "))


def _column(column: Column, found: list[Column]) -> dict[str, Any]:
    said = {name: getattr(column, name) for name in ("key", "kind", "group", "unit", "better", "of", "cost", "words")}
    more = {other.part: other.key for other in found if other.of == column.key}
    bounds = [more["low"], more["high"]] if {"low", "high"} <= set(more) else None
    return said | {"bounds": bounds, "p90": more.get("p90")}


def _candidate(candidate: Candidate, found: list[Column], row: tables.Row, metric: str, points: int) -> dict:
    why = {(t.part, t.runtime, str(t.batch)): t.why for t in candidate.latencies}
    cells = {
        column.key: [
            written(column, row),
            row.get(column.key),
            shown(why.get((column.group, column.words.get("runtime"), column.words.get("batch")), ""), MOST_SAID),
        ]
        for column in found
    }
    return {
        "name": shown(candidate.name),
        "message": shown(candidate.message, MOST_SAID),
        "front": bool(candidate.on_front),
        "cells": cells,
        "runs": [_run(run, metric, points) for run in candidate.runs],
    }


def _run(run: Run, metric: str, most: int) -> dict[str, Any]:
    # evenly thinned out, the last point kept
    points = run.curve[::-1][:: max(1, -(-len(run.curve) // max(most, 2)))][::-1]
    return {
        "seed": run.seed,
        "status": run.status,
        "message": shown(run.message, MOST_SAID),
        "epochs": run.epochs_done,
        "seconds": run.seconds,
        "figure": write_figure(getattr(run, metric), ACCURACY),
        "curve": [
            [p.epoch, p.seconds and round(p.seconds, 1), round(p.map50, 4), round(p.map50_95, 4)] for p in points
        ],
        "command": run.command,
    }


def _progress(comparison: Comparison) -> dict[str, Any]:
    runs = [run for candidate in comparison.candidates for run in candidate.runs]
    over = sum(run.status in (DONE, FAILED) for run in runs)
    epochs = max(comparison.settings.epochs, 1)
    share = sum(1 if run.status in (DONE, FAILED) else min(run.epochs_done / epochs, 1) for run in runs) / max(
        len(runs), 1
    )
    return {"done": over, "total": len(runs), "share": round(share, 4), "left": seconds_left(comparison)}


def seconds_left(comparison: Comparison) -> float | None:
    """How long the trainings that are not over will take, as many at once as run now; None where nothing tells.

    A candidate's epochs take as long as those of its runs have taken; where it has none, as long as others' on average.
    """
    if comparison.stage == FINISHED:
        return None
    paces = {c.name: pace for c in comparison.candidates if (pace := _seconds_per_epoch(c)) is not None}
    if not paces:
        return None
    usual, total, running = sum(paces.values()) / len(paces), 0.0, 0
    for candidate in comparison.candidates:
        for run in candidate.runs:
            if run.status not in (DONE, FAILED):
                total += paces.get(candidate.name, usual) * max(comparison.settings.epochs - run.epochs_done, 0)
                running += run.status == RUNNING
    return total / max(running, 1)


def _seconds_per_epoch(candidate: Candidate) -> float | None:
    timed = [run for run in candidate.runs if run.seconds and run.epochs_done]
    return sum(run.seconds for run in timed) / sum(run.epochs_done for run in timed) if timed else None


def _pairs(pair: Pair, places: dict[str, int]) -> list[dict[str, Any]]:
    """The pair as it stands and the other way round, so that any candidate can be what the others are held against."""
    if pair.first not in places or pair.second not in places:
        return []
    less = {FIRST: SECOND, SECOND: FIRST}
    minus = [None if value is None else -value for value in (pair.difference, pair.high, pair.low)]
    return [
        _pair(places[pair.first], places[pair.second], pair.difference, pair.low, pair.high, pair, pair.verdict),
        _pair(places[pair.second], places[pair.first], *minus, pair, less.get(pair.verdict, pair.verdict)),
    ]


def _pair(
    first: int, second: int, difference: float, low: float | None, high: float | None, pair: Pair, verdict: str
) -> dict:
    # no minus before a zero
    cells = {
        name: [write_figure(v and v + 0.0, DIFFERENCE), v]
        for name, v in (("difference", difference), ("low", low), ("high", high))
    }
    cells["p_holm"] = [write_figure(pair.p_holm, P_VALUE), pair.p_holm]
    return {"first": first, "second": second, "cells": cells, "verdict": verdict, "seeds_more": pair.seeds_more}


def _pick(comparison: Comparison, places: dict[str, int]) -> dict[str, Any] | None:
    pick = comparison.pick
    if pick is None:
        return None
    flags = [["--" + name.replace("_", "-"), _typed(most)] for name, most in pick.constraints.items()]
    out = [
        [places[name], shown(why, MOST_SAID), _excess(comparison, name)]
        for name, why in pick.left_out.items()
        if name in places
    ]
    best, second = (places.get(name) for name in (pick.best, pick.second))
    return {"constraints": flags, "best": best, "second": second, "left_out": out}


def _typed(number: float) -> str:
    """3e6 → 3000000, as one types it."""
    return f"{number:.15g}"


def _excess(comparison: Comparison, name: str) -> list[str] | None:
    """What of a candidate is more than was asked for, for words in any language: kind, figure, unit, limit."""
    candidate = comparison.candidate(name)
    latency = latency_of(candidate, comparison.settings.runtimes)
    have = {
        "max_latency": ("end_to_end", latency and latency.median_ms, ".2f", "ms"),
        "max_params": ("parameters", candidate.parameters, "d", ""),
        "max_gflops": ("gflops", candidate.gflops, ".2f", ""),
    }
    for flag, most in comparison.pick.constraints.items():
        kind, value, form, unit = have.get(flag, ("", None, "", ""))
        if value is not None and value > most:
            return [kind, write_figure(value, form), unit, _typed(most)]
    return None


def _jpeg(file: Path, side: int, quality: int) -> bytes | None:
    """The picture as JPEG; None where its file is gone, or no picture any more."""
    try:
        image = read_image(file)
    except ImageError:
        return None
    factor = min(1, side / max(image.shape[:2]))
    if factor < 1:
        size = [max(1, round(edge * factor)) for edge in (image.shape[1], image.shape[0])]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    bgr = np.ascontiguousarray(image[..., ::-1])
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _picture(picture: Picture, jpeg: bytes, places: dict[str, int], most: int) -> dict[str, Any]:
    found = [None if name not in picture.boxes else _boxes(picture.boxes[name], most) for name in places]
    return {
        "file": shown(Path(picture.file).name),
        "width": picture.width,
        "height": picture.height,
        "jpeg": b64encode(jpeg).decode(),
        "labels": _boxes(picture.labels, MOST_BOXES),
        "boxes": found,
    }


def _boxes(boxes: tuple[Box, ...], most: int) -> list[list[float]]:
    """The surest of them, x1 y1 x2 y2 to a tenth of a pixel, confidence to a hundredth, class."""
    sure = sorted((box for box in boxes if box[4] >= LEAST_CONFIDENCE), key=lambda box: -box[4])[:most]
    return [[*(round(v, 1) for v in box[:4]), round(box[4], 2), box[5]] for box in sure]
