"""comparison.json of a study's folder: all that a comparison has found so far, for the tables, the page and the next start.

    write_record(path, comparison)     whole or not at all
    read_record(path)                  checked: UserError that names the file and the entry

What is not known yet is None, or empty where there may be several; each stage of a comparison fills in more. Accuracies are
shares, 0 to 1; times are in seconds where they are not called ms; latencies are in ms per image; sizes are in 10⁶ bytes.
Imports no torch.
"""

import dataclasses
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from utils.errors import UserError, shown
from utils.files import read_text, replacing

FORMAT = 1
FILE = "comparison.json"
MOST_BYTES = 2**28
# of a run
WAITING, RUNNING, DONE, FAILED = STATES = ("waiting", "running", "done", "failed")
# of a comparison
TRAINING, MEASURING, FINISHED = STAGES = ("training", "measuring", "finished")
# what is timed: from the file of an image to its boxes, or the model alone
END_TO_END, MODEL = PARTS = ("end_to_end", "model")
# of a pair: which of the two is shown to be better; that neither is; that there are too few seeds to name one
FIRST, SECOND, NO_DIFFERENCE, TOO_FEW = VERDICTS = ("first", "second", "no_difference", "too_few_seeds")
# the names of figures of accuracy, which are fields of Run and keys of Candidate.accuracy
METRICS = ("map50_95", "map50", "map75", "ap_small", "ap_medium", "ap_large")

Box = tuple[float, float, float, float, float, int]  # x1 y1 x2 y2 in pixels of the picture, confidence, class


@dataclass(frozen=True)
class Machine:
    """Where it was measured. ``noise``: by what share the latency of a candidate, measured against itself, differs.
    ``measured``: a digest of what the measures are of; where it is the same, they are not taken again."""

    name: str = ""
    cores: int | None = None
    threads: int | None = None
    os: str = ""
    python: str = ""
    torch: str = ""
    torchvision: str = ""
    opencv: str = ""
    device: str = ""
    # of what ran candidates beside PyTorch: {name: version}
    runtimes: dict[str, str] = field(default_factory=dict)
    noise: float | None = None
    measured: str = ""


@dataclass(frozen=True)
class Data:
    """What was learned from and looked at."""

    file: str = ""
    names: tuple[str, ...] = ()
    train_images: int | None = None
    val_images: int | None = None
    imgsz: int | None = None


@dataclass(frozen=True)
class Settings:
    """What all candidates have in common. ``train``: the words of train.py beside those of a candidate and of a seed."""

    epochs: int = 0
    seeds: tuple[int, ...] = ()
    metric: str = "map50_95"
    batch_size: int | None = None
    runtimes: tuple[str, ...] = ("pytorch",)
    runs: int | None = None
    train: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """Of a training's curve: after ``epoch`` epochs, ``seconds`` into it."""

    epoch: int
    seconds: float | None
    map50: float
    map50_95: float


@dataclass(frozen=True)
class Run:
    """One training, or one finished file. ``folder`` and ``weights`` are relative to the study's folder where they lie in
    it; ``message``: the last line of the error of a failed one; ``command``: what repeats it, to be typed."""

    seed: int | None = None
    folder: str = ""
    status: str = WAITING
    message: str = ""
    epochs_done: int = 0
    seconds: float | None = None
    map50_95: float | None = None
    map50: float | None = None
    map75: float | None = None
    ap_small: float | None = None
    ap_medium: float | None = None
    ap_large: float | None = None
    curve: tuple[Point, ...] = ()
    weights: str = ""
    command: str = ""


@dataclass(frozen=True)
class Latency:
    """Of one file under one runtime: ms per image, median and 90th percentile, or ``why`` there are none; and the accuracy
    of that very file, which an export may change."""

    runtime: str
    batch: int
    part: str
    median_ms: float | None = None
    p90_ms: float | None = None
    map50_95: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Estimate:
    """Of all seeds together: the mean and its 95 % interval, over images and seeds; no interval below two seeds."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Candidate:
    """One of those that are compared. ``source``: {flag: value} of train.py (cfg, backbone, size), or {"weights": file}.

    ``inference_mb`` and ``training_mb``: peak memory. ``images_per_second``: of training. ``seconds_to``: {mAP50-95, as
    text: median seconds of training until it was reached}. ``errors``: {kind of error: how much AP it costs}.
    ``on_front``: whether none is both faster and more accurate.
    """

    name: str
    source: dict[str, str] = field(default_factory=dict)
    parameters: int | None = None
    gflops: float | None = None
    file_mb: float | None = None
    latencies: tuple[Latency, ...] = ()
    inference_mb: float | None = None
    training_mb: float | None = None
    images_per_second: float | None = None
    runs: tuple[Run, ...] = ()
    accuracy: dict[str, Estimate] = field(default_factory=dict)
    seconds_to: dict[str, float | None] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    on_front: bool | None = None
    # why it could not be measured
    message: str = ""


@dataclass(frozen=True)
class Pair:
    """Two candidates by their names: ``difference`` is the accuracy of the first less that of the second, with its 95 %
    interval over images and seeds; ``p`` is two-sided, ``p_holm`` corrected for all pairs; ``verdict`` goes by that one.
    ``seeds_more``: how many seeds more of each would show a difference of .005; None where no number of seeds would, or
    nothing is known of it."""

    first: str
    second: str
    metric: str
    difference: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    verdict: str = TOO_FEW
    seeds_more: int | None = None


@dataclass(frozen=True)
class Pick:
    """The best that keeps within ``constraints`` {flag: most}, the next, and in words what the data leave ``open``.

    None as ``best``: none fits.
    """

    constraints: dict[str, float] = field(default_factory=dict)
    best: str | None = None
    second: str | None = None
    open: str = ""
    # {candidate: why it does not fit}
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """One validation image: its file, its size, what is labelled in it and what each candidate's first run finds."""

    file: str
    width: int
    height: int
    labels: tuple[Box, ...] = ()
    boxes: dict[str, tuple[Box, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """All of it. ``created`` and ``updated`` are in ISO 8601; ``command`` is the one to be typed again."""

    title: str
    created: str
    command: str
    format: int = FORMAT
    updated: str = ""
    stage: str = TRAINING
    machine: Machine = field(default_factory=Machine)
    data: Data = field(default_factory=Data)
    settings: Settings = field(default_factory=Settings)
    candidates: tuple[Candidate, ...] = ()
    pairs: tuple[Pair, ...] = ()
    pick: Pick | None = None
    pictures: tuple[Picture, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether a run has."""
        return any(run.status == FAILED for c in self.candidates for run in c.runs)

    def candidate(self, name: str) -> Candidate:
        """The one of that name. Raises KeyError where there is none."""
        return {c.name: c for c in self.candidates}[name]


# fields that are one of a few words
WORDS = {"status": STATES, "stage": STAGES, "part": PARTS, "verdict": VERDICTS, "metric": METRICS}


def write_record(path: Path, comparison: Comparison) -> None:
    """Write ``comparison`` as JSON, whole or not at all."""
    with replacing(path) as temporary:
        text = json.dumps(dataclasses.asdict(comparison), ensure_ascii=False, indent=1, allow_nan=False)
        temporary.write_text(f"{text}\n", encoding="utf-8")


def read_record(path: Path) -> Comparison:
    """What ``write_record`` has written. Raises UserError where the file is anything else."""
    name = shown(str(path))
    try:
        found = json.loads(read_text(path, "record of a comparison", MOST_BYTES))
    # RecursionError: brackets within one another without end
    except (ValueError, RecursionError) as e:
        raise UserError(f"{name}: not the JSON of a comparison ({shown(str(e))}); delete it to begin anew") from None
    if isinstance(found, dict) and found.get("format") != FORMAT:
        raise UserError(
            f"{name}: format {shown(found.get('format'))}, this release reads {FORMAT}; delete it to begin anew"
        )
    try:
        return _read(Comparison, found, "")
    except ValueError as e:
        raise UserError(f"{name}: {e}; it is damaged or was changed: delete it to begin anew") from None


def _read(kind: Any, value: Any, place: str) -> Any:
    """``value`` as a ``kind``: a dataclass, a tuple, a mapping from texts, a plain type or a union of these.

    Raises ValueError that names the ``place`` of what does not fit.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in parts:
            return None
        return _read(next(part for part in parts if part is not NoneType), value, place)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        if unknown := set(value) - set(hints):
            raise ValueError(f"{place or 'it'} has the unknown entry {shown(min(unknown))}")
        read = {key: _read(hints[key], v, f"{place}.{key}".lstrip(".")) for key, v in value.items()}
        for key in WORDS.keys() & read.keys():
            if read[key] not in WORDS[key]:
                raise ValueError(
                    f"{place}.{key} is {shown(read[key], 60)}, not one of {' '.join(WORDS[key])}".lstrip(".")
                )
        try:
            return kind(**read)
        except TypeError as e:
            raise ValueError(f"{place or 'it'} lacks an entry ({shown(str(e).partition(': ')[2])})") from None
    if origin is tuple and isinstance(value, list):
        kinds = [parts[0]] * len(value) if parts[-1] is ... else parts
        if len(kinds) == len(value):
            return tuple(_read(k, v, f"{place}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    elif origin is dict and isinstance(value, dict):
        return {key: _read(parts[1], v, f"{place}.{key}") for key, v in value.items()}
    elif kind is float:
        # Python's JSON has numbers that are none, and whole ones of any length
        if type(value) in (int, float) and abs(value) <= sys.float_info.max:
            return float(value)
    elif origin is None and type(value) is kind:
        return value
    raise ValueError(f"{place or 'it'} is {shown(value, 60)}, not {_in_words(kind)}")


def _in_words(kind: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", tuple: "a list"}
    return words.get(get_origin(kind) or kind, "entries by name")
