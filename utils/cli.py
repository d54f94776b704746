"""How the commands declare their flags, and the flags that several of them have.

The options of a command are a frozen dataclass. Each of its fields is declared by ``flag``, which says all there is to know
of it; the parser, ``--help``, the check of ranges and the keywords of ``run()`` read nothing else.

    @dataclass(frozen=True)
    class TrainOptions(RunFolder, Device, Options):
        epochs: int = flag(100, "passes over the images (default: %(default)s)", "learning", at_least=1)

    TrainOptions.parser(__doc__)      the parser of the command line, whose words become keywords
    TrainOptions.of({"epochs": 3})    the options of keywords, the others at their defaults
    replace(options, epochs=3)        a changed copy, checked again (dataclasses.replace)

No module of numbers is imported here: ``--help`` answers at once.
"""

import argparse
import difflib
import math
import multiprocessing
import os
import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from inspect import get_annotations
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, NoReturn, Union, get_args, get_origin, get_type_hints

from utils.errors import MOST_QUOTED, UserError, one_line, shown
from utils.paths import ROOT, fault_of_path

# The groups of --help, in their order.
TOPICS = ("model", "data", "learning", "augmentation", "detection", "export", "measuring", "speed", "output")
# Above these a number is a slip of the fingers: of anything that is counted one by one; of images, which lie in memory
# side by side; of processes; and of boxes in an image.
MOST, MOST_IMAGES, MOST_WORKERS, MOST_BOXES = 10**6, 2**16, 2**10, 10**6


@dataclass(frozen=True)
class Flag:
    """What is known of a flag beside its name and type, which are those of its field."""

    default: Any
    help: str
    topic: str
    # an argument of the command line by its place, without --name
    positional: bool = False
    # further spellings beside --name
    spellings: tuple[str, ...] = ()
    # how a word of the command line is read, where the type of the field doesn't say
    read: Callable[[str], Any] | None = None
    choices: Collection[str] | None = None
    # what a choice is called
    noun: str = "choice"
    # what the flag stands for when it is given without a value; None where it needs one
    alone: Any = None
    metavar: str | None = None
    # the range of a number, or of each of several
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    # values outside the range that have a meaning of their own
    apart: tuple = ()
    # what to do instead, for the message about a value out of range
    remedy: str = ""

    def check(self, name: str, value: Any, hint: Any) -> None:
        """Raises UserError where a value is not of the type ``hint`` or can't be read by the system, lies outside the
        range, or is not among the choices."""
        said = name if self.positional else f"--{name}"
        if not _fits(value, hint):
            raise UserError(f"{said} {shown(repr(value))}: must be {_in_words(hint)}")
        several = isinstance(value, list | tuple)
        if several and not value and self.default != []:
            raise UserError(f"{said}: is empty; give a value, or leave it out")
        for v in value if several else [value]:
            if v is None or isinstance(v, bool) or v is self.default or v in self.apart:
                continue
            if isinstance(v, str | os.PathLike):
                self._check_text(said, os.fspath(v))
            else:
                self._check_number(said, v)

    def _check_text(self, said: str, text: str) -> None:
        if not text and "" not in (self.default, self.alone):
            raise UserError(f"{said}: is empty; give a value, or leave it out")
        if self.choices and text and text not in self.choices:
            raise UserError(f"{said} {shown(text)}: no such {self.noun}; there are {' '.join(self.choices)}")
        if fault := fault_of_path(text):
            raise UserError(f"{said} {shown(text)}: {fault}")

    def _check_number(self, said: str, v: float) -> None:
        if isinstance(v, float) and not math.isfinite(v):
            raise UserError(f"{said} {v}: must be a finite number")
        if (self.at_least, self.at_most) == (0, 1):
            require_share(said, v)
        elif self.at_least is not None and v < self.at_least:
            raise UserError(f"{said} {shown(v)}: must be {self.at_least} or more")
        elif self.at_most is not None and v > self.at_most:
            raise UserError(f"{said} {shown(v)}: must be {self.at_most} or less")
        if self.above is not None and not v > self.above:
            raise UserError(f"{said} {shown(v)}: must be above {self.above}{self.remedy and f'; {self.remedy}'}")


def flag(default: Any, help: str, topic: str, **more: Any) -> Any:
    """A field of a command's options, see Flag. A list as the default is copied for every instance."""
    declared = Flag(default, help, topic, **more)
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"flag": declared})
    return field(default=default, metadata={"flag": declared})


def with_default(group: type, name: str, default: Any, **changes: Any) -> Any:
    """The field ``name`` of a shared group of flags as it is declared there, with another default and other ``changes``."""
    declared = vars(next(f for f in fields(group) if f.name == name).metadata["flag"])
    return flag(**{**declared, "default": default, **changes})


@dataclass(frozen=True)
class Options:
    """What a command was asked for: made once, checked as it is made, and never changed."""

    # flags of YOLOv5's command that this one doesn't have, as they are spelt with dashes: why, and what to use instead
    ABSENT: ClassVar[dict[str, str]] = {}

    def __post_init__(self):
        for name, declared, hint in self.flags():
            declared.check(name.replace("_", "-"), getattr(self, name), hint)

    @classmethod
    def flags(cls) -> Iterator[tuple[str, Flag, Any]]:
        """(name of the field, declaration, type) of every flag, by topics: of each, the command's own before shared ones."""
        hints, own = get_type_hints(cls), get_annotations(cls)
        declared = [(f.name, f.metadata["flag"], hints[f.name]) for f in fields(cls)]
        return iter(sorted(declared, key=lambda entry: (TOPICS.index(entry[1].topic), entry[0] not in own)))

    @classmethod
    def parser(cls, description: str | None) -> argparse.ArgumentParser:
        """The parser of the command line, with a group of --help for every topic."""
        places = [
            f"{name} [{name} ...]" if hint == list[str] else name for name, f, hint in cls.flags() if f.positional
        ]
        usage = " ".join(["%(prog)s", *places, "[flags]"])
        parser = _Parser(usage=usage, description=description, formatter_class=_Help)
        parser.absent = cls.ABSENT
        groups: dict[str, argparse._ArgumentGroup] = {}
        for name, declared, hint in cls.flags():
            if declared.topic not in groups:
                groups[declared.topic] = parser.add_argument_group(declared.topic)
            spellings = [f"--{name.replace('_', '-')}", *declared.spellings]
            said = {"dest": name, "default": declared.default, "help": declared.help}
            if declared.positional:
                spellings = [said.pop("dest")]
            if hint is bool:
                groups[declared.topic].add_argument(*spellings, action="store_true", **said)
                continue
            kind, several = _type_of_words(hint)
            metavar = declared.metavar or {int: "N", float: "X"}.get(kind)
            said |= {"type": declared.read or kind, "choices": declared.choices, "metavar": metavar}
            if declared.alone is not None:
                said |= {"nargs": "?", "const": declared.alone}
            elif several:
                said["nargs"] = "+"
            groups[declared.topic].add_argument(*spellings, **said)
        return parser

    @classmethod
    def of(cls, given: dict[str, Any]):
        """The options of keywords. Where several values may be given, one may be given as it is: weights="yolov5s.pt".

        Raises TypeError for a name the command doesn't have, UserError for one that YOLOv5's has, with what to use
        instead, and for bad values.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(given) - known):
            for name in unknown:
                if reason := cls.ABSENT.get(name.replace("_", "-")):
                    raise UserError(f"{name}: {reason}")
            raise TypeError(f"no such option: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        several = {name for name, _, hint in cls.flags() if _type_of_words(hint)[1]}
        return cls(**{name: _as_list(value) if name in several else value for name, value in given.items()})

    def with_saved(self, saved: dict[str, Any], file: str | Path, **changes: Any):
        """A copy with what another run has saved of its options in ``file``, see ``as_data``, and ``changes`` over that.

        Names that this release doesn't know are left out. Raises UserError, naming the file, for values that can't be.
        """
        known = {f.name for f in fields(self)}
        try:
            return replace(self, **{name: value for name, value in saved.items() if name in known} | changes)
        except UserError as e:
            raise UserError(f"{shown(str(file))}: holds the settings of a run that can't have been one: {e}") from None

    def as_words(self, *names: str) -> list[str]:
        """The words of a command line that stand for the flags ``names``, or for all, where they are not at their defaults."""
        words = []
        for name, declared, _ in self.flags():
            value = getattr(self, name)
            if (names and name not in names) or declared.positional or value == declared.default:
                continue
            alone = value is True or value == declared.alone
            values = [] if alone else value if isinstance(value, list | tuple) else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
        return words

    def as_data(self) -> dict[str, Any]:
        """The options as plain data, for YAML and checkpoints."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in vars(self).items()}


class _Help(argparse.HelpFormatter):
    """--help for a terminal of any width: the description's lines stay lines, and no name is cut at its hyphens."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = ([line] if len(line) <= width else _wrap(line, width) for line in text.strip().splitlines())
        return "\n".join(part for parts in lines for part in parts)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return _wrap(text, width)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """The spellings of a flag, and once what follows it."""
        if len(action.option_strings) < 2 or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, action.metavar or action.dest.upper())
        return f"{', '.join(action.option_strings)} {value}"


def _wrap(text: str, width: int) -> list[str]:
    indent = "    " if text.startswith("python ") else ""
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False) or [""]


class _Parser(argparse.ArgumentParser):
    # see Options
    absent: dict[str, str]

    def parse_known_args(self, args=None, namespace=None):
        """As argparse's. Raises UserError, with what to use instead, for a flag of YOLOv5 that the command doesn't have."""
        known, rest = super().parse_known_args(args, namespace)
        for word in rest:
            said = word.partition("=")[0]
            if word.startswith("--") and (reason := self.absent.get(said[2:].replace("_", "-"))):
                raise UserError(f"{said}: {reason}")
        return known, rest

    def given(self, args: Sequence[str] | None = None) -> dict[str, Any]:
        """The flags that a command line has, by the names of their fields; those left to their defaults are not among them."""
        left = object()
        found = self.parse_args(args, argparse.Namespace(**{action.dest: left for action in self._actions}))
        return {name: value for name, value in vars(found).items() if value is not left}

    def error(self, message: str) -> NoReturn:
        """Says what is wrong in one line of bounded length, whatever the words of the command line hold; exits with 2."""
        if message.startswith("unrecognized arguments"):
            message += f"; {self._nearest(message)}"
        super().error(one_line(UserError(message)))

    def _nearest(self, message: str) -> str:
        """What to do about words that are no flags."""
        words = [word.partition("=")[0][:MOST_QUOTED] for word in message.split() if word.startswith("--")]
        known = [spelling for action in self._actions for spelling in action.option_strings]
        close = difflib.get_close_matches(words[0], known, 1, cutoff=0.7) if words else []
        return f"did you mean {close[0]}?" if close else "--help lists the flags"


def _type_of_words(hint: Any) -> tuple[type, bool]:
    """(the type that a word of the command line is read as, whether several words may follow) of a field's type."""
    if get_origin(hint) in (Union, UnionType):
        hint = next(kind for kind in get_args(hint) if kind not in (NoneType, bool))
    return (get_args(hint)[0], True) if get_origin(hint) is list else (hint, False)


def _as_list(value: Any) -> Any:
    """What stands for several values: a single one as a list of it. None and truth values remain."""
    if isinstance(value, tuple):
        return list(value)
    return value if value is None or isinstance(value, list | bool) else [value]


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type of a flag. Whole numbers are numbers, truth values are not; paths are texts."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, kind) for kind in get_args(hint))
    if get_origin(hint) is list:
        return isinstance(value, list | tuple) and all(_fits(v, get_args(hint)[0]) for v in value)
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, (str, os.PathLike) if hint is str else hint)


def _in_words(hint: Any) -> str:
    """What a value of that type is called."""
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_in_words, get_args(hint)))
    if get_origin(hint) is list:
        return f"a list, each of it {_in_words(get_args(hint)[0])}"
    return {int: "a whole number", float: "a number", str: "a text", bool: "True or False", NoneType: "None"}[hint]


def require_share(said: str, value: float) -> None:
    """Raises UserError where the value of a flag, ``said`` as a user writes it, does not lie between 0 and 1."""
    if not 0 <= value <= 1:
        raise UserError(f"{said} {shown(value)}: must lie between 0 and 1")


# Groups of flags that several commands have ------------------------------------------------------------------------------


def default_folder(command: str) -> str:
    """Where a command's runs are, unless --project says otherwise."""
    return str(ROOT / "runs" / command)


@dataclass(frozen=True)
class RunFolder(Options):
    """Where the results go. Every command has a --project of its own: ``project: str = project_flag("train")``."""

    name: str = flag("exp", "name of the run in --project (default: %(default)s)", "output")
    exist_ok: bool = flag(False, "write into an existing run's folder instead of numbering a new one", "output")

    def __post_init__(self):
        super().__post_init__()
        name = Path(self.name)
        if not name.parts or name.is_absolute() or ".." in name.parts:
            raise UserError(f"--name {shown(str(name))}: must lie in the folder that --project names; change that one")


def project_flag(command: str) -> Any:
    """--project, which is runs/``command`` by default."""
    return flag(default_folder(command), f"folder of the runs (default: runs/{command})", "output")


@dataclass(frozen=True)
class Plugins(Options):
    """Blocks of the user's own."""

    plugins: list[str] = flag([], "Python files with blocks of your own (docs/add-a-block.md)", "model")


# of a device, which programs may give as a number
INDEX = {"at_least": 0, "at_most": 2**10}


@dataclass(frozen=True)
class Device(Options):
    """What computes."""

    device: str | int = flag("", "cpu, mps, or a CUDA index such as 0; default: the best there is", "speed", **INDEX)


@dataclass(frozen=True)
class CpuUnlessAsked(Options):
    """What computes, for commands whose results depend on it."""

    device: str | int = flag("cpu", "cpu, or a CUDA index such as 0 (default: %(default)s)", "speed", **INDEX)


# Where processes are spawned and not forked (Windows, macOS), each imports PyTorch anew: seconds, and memory of its own. The
# first of the methods is the system's usual one.
DEFAULT_WORKERS = 8 if multiprocessing.get_all_start_methods()[0] == "fork" else 4


@dataclass(frozen=True)
class Workers(Options):
    """Processes that load images."""

    workers: int = flag(
        DEFAULT_WORKERS,
        "processes that load images, at most one per core (default: %(default)s)",
        "speed",
        at_least=0,
        at_most=MOST_WORKERS,
    )


@dataclass(frozen=True)
class BackboneFlags(Options):
    """A network by name in the place of a YAML's backbone, and another size."""

    size: str | None = flag(
        None, "depth and width of this size in place of those of the model YAML", "model", choices=tuple("nsmlx")
    )
    backbone: str = flag(
        "", "put this network of torchvision or timm in the place of the backbone", "model", metavar="NAME"
    )


SIZE = {"spellings": ("--img", "--img-size"), "at_least": 1, "at_most": 2**14}


@dataclass(frozen=True)
class SquareImages(Options):
    """One size for both sides."""

    imgsz: int = flag(640, "image size in pixels (default: %(default)s)", "data", **SIZE)


@dataclass(frozen=True)
class Images(Options):
    """One size, or a height and a width."""

    imgsz: list[int] = flag([640], "size, or height width (default: 640)", "data", **SIZE)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return tuple(self.imgsz * 2 if len(self.imgsz) == 1 else self.imgsz)

    def __post_init__(self):
        super().__post_init__()
        if len(self.imgsz) not in (1, 2):
            raise UserError(f"--imgsz {shown(' '.join(map(str, self.imgsz)))}: give one size, or height and width")


@dataclass(frozen=True)
class BoxThresholds(Options):
    """Which boxes are kept."""

    conf_thres: float = flag(
        0.25, "least confidence of a box (default: %(default)s)", "detection", at_least=0, at_most=1
    )
    iou_thres: float = flag(
        0.45, "overlap above which the weaker box goes (default: %(default)s)", "detection", at_least=0, at_most=1
    )


@dataclass(frozen=True)
class Detector(Options):
    """What finds the boxes: checkpoints or an exported file, and how it is run."""

    weights: list[str] | None = flag(None, "checkpoint or exported file; several checkpoints: an ensemble", "model")
    half: bool = flag(
        False, "compute in float16, on a CPU in bfloat16 (checkpoints; an exported file has its own precision)", "speed"
    )
    runtime: str = flag(
        "torch",
        "what runs a checkpoint: it is exported once, and compared; auto: the fastest installed, on a CPU (default: torch)",
        "speed",
        choices=("torch", "onnx", "openvino", "auto"),
    )
    dnn: bool = flag(False, "run ONNX by OpenCV instead of ONNX Runtime", "speed")
    trust: bool = flag(False, "run TorchScript and TensorRT files of others: they are programs", "model")
    augment: bool = flag(False, "test-time augmentation: three scales and a flip", "detection")
    save_txt: bool = flag(False, "write boxes to labels/*.txt", "output")
    save_conf: bool = flag(False, "with --save-txt: the confidence, too", "output")
    save_json: bool = flag(False, "write boxes to predictions.json, in COCO's results format", "output")
