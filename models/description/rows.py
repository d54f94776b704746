"""Rows of a model YAML: reading, checking, and what their words mean. Nothing in them is ever evaluated.

[from, number, module, args]          from: the layers it takes, -1 the one before
[from, number, module, args, name]    later rows may take it by its name
"""

import ast
import difflib
import math
import re
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from utils.errors import UserError, shown
from utils.yaml_file import FULL_WIDTH

# classes of a model
MOST_CLASSES = 100_000
# how often a row repeats its block, with the depth multiple; how many layers it takes; characters of an argument
MOST_REPEATS, MOST_SOURCES, MOST_ARGUMENT = 100, 100, 200


class UnknownBlock(UserError):
    """A row names a block that is not in the table: perhaps one of a plugin that isn't loaded."""


@dataclass
class Row:
    """One row [from, number, module, args] of a model YAML, and what became of it."""

    file: str
    index: int
    source: int | str | list[int | str]
    number: int
    block: str
    args: list
    shape: tuple[int, int, int] | None = None  # (channels, height, width) of its output at 640
    stride: float = 0.0
    parameters: int = 0
    rule: str = ""  # how its block was fed: see BLOCKS in models/yolo.py
    built_number: int = 1
    built_args: list = field(default_factory=list)
    maps: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # of a first row that gives several: by level
    named: set[int] = field(default_factory=set)  # places in `from` that were names
    notes: list[str] = field(default_factory=list)  # what to tell about how it was read

    def __str__(self) -> str:
        return shown(f"[{_as_yaml(self.source)}, {self.number}, {self.block}, {_as_yaml(self.args)}]")

    @property
    def place(self) -> str:
        """The file and this row, as every message about it begins."""
        return f"{self.file}, layer {self.index} {self}"

    def error(self, message: str) -> UserError:
        """A UserError that begins with the file and this row."""
        return UserError(f"{self.place}: {message}")

    @property
    def sources(self) -> list[int | str]:
        """`from` as a list, as it is written."""
        return self.source if isinstance(self.source, list) else [self.source]

    def source_indices(self) -> list[int | str]:
        """The layers this row takes its input from, counted from the start; -1 is the image, P4 a named backbone's level."""
        found = []
        for source in self.sources:
            if is_level(source):
                found.append(source)
                continue
            if not isinstance(source, int) or isinstance(source, bool):
                raise self.error(
                    f"`from` holds {shown(repr(source))}; it takes layer numbers, -1 for the layer before, or levels such as P4"
                )
            index = source if source >= 0 else self.index + source
            if index < -1 or (index == -1 and self.index > 0):
                raise self.error(f"`from` {source} reaches before the first layer; -1 is the layer before this one")
            if index >= self.index:
                there = f"layers 0 to {self.index - 1} are" if self.index else "layer 0 takes the image, by -1"
                raise self.error(
                    f"`from` {source} is not an earlier layer; {there}. Where a row was inserted or removed above, "
                    "every layer number behind it shifts"
                )
            found.append(index)
        return found

    def kept_sources(self) -> list[int]:
        """The earlier layers whose output must be kept for this row: all that it names otherwise than by -1."""
        pairs = zip(self.sources, self.source_indices(), strict=True)
        return [index for source, index in pairs if source != -1 and not is_level(source)]


def is_level(source: Any) -> bool:
    """Whether an entry of `from` names a level of a named backbone: P2 is the map at stride 4, P5 that at 32."""
    return isinstance(source, str) and re.fullmatch(r"P\d", source) is not None


def take(source: int | str | list, x: Any, outputs: list, levels: dict[str, Any]) -> Any:
    """What a layer with this `from` is fed: ``x`` of the layer before, kept ``outputs``, ``levels`` of a named backbone."""
    if isinstance(source, list):
        return [take(s, x, outputs, levels) for s in source]
    if isinstance(source, str):
        return levels[source]
    return x if source == -1 else outputs[source]


def _as_yaml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_as_yaml(v) for v in value)}]"
    return str(value)


def read_rows(cfg: dict, file: str) -> list[Row]:
    """The rows of backbone and head in order, names in their `from` replaced by the layers' numbers.

    Raises UserError for anything that isn't [from, number, module, args] or [from, number, module, args, name].
    """
    rows = []
    numbers: dict[str, int] = {}
    for section in ("backbone", "head"):
        entries = cfg[section]
        if section == "backbone" and isinstance(entries, str):
            rows.append(Row(file, 0, -1, 1, entries, []))
            continue
        if not isinstance(entries, list):
            or_name = ", or the name of a network" if section == "backbone" else ""
            raise UserError(f"{file}: {section} must be a list of rows [from, number, module, args]{or_name}")
        for entry in entries:
            place = f"{file}, layer {len(rows)} {shown(_as_yaml(entry))}"
            if typed := [c for c in _as_yaml(entry) if c in FULL_WIDTH]:
                raise UserError(f"{place}: type the full-width {typed[0]!r} in half width")
            if entry in ("...", ["..."], Ellipsis):
                raise UserError(
                    f"{place}: three dots stand for rows that a write-up leaves out; put them in their place"
                )
            if not isinstance(entry, list) or len(entry) not in (4, 5):
                found = f"this one has {len(entry)}" if isinstance(entry, list) else "in brackets"
                raise UserError(f"{place}: a row has four parts, [from, number, module, args]; {found}")
            source, number, block, args = entry[:4]
            if isinstance(source, list) and not 0 < len(source) <= MOST_SOURCES:
                raise UserError(f"{place}: `from` holds {len(source)} layers; it takes 1 to {MOST_SOURCES}")
            if not is_count(number):
                raise UserError(
                    f"{place}: number is {shown(repr(number))}; it says how often the block is repeated, a whole number of 1 "
                    "or more"
                )
            if not isinstance(block, str):
                raise UserError(f"{place}: module is {shown(repr(block))}; it must be a block's name")
            if not isinstance(args, list):
                raise UserError(
                    f"{place}: args is {shown(repr(args))}; it must be a list, [{shown(_as_yaml(args))}], or [] if there are "
                    "none"
                )
            row = Row(file, len(rows), source, number, block, args)
            row.source = _by_number(row, numbers)
            if len(entry) == 5:
                numbers[_new_name(row, entry[4], numbers)] = row.index
            rows.append(row)
    return rows


def _new_name(row: Row, name: Any, taken: dict[str, int]) -> str:
    """The name of a row, which no row before it has. Raises UserError."""
    if not isinstance(name, str) or not re.fullmatch(r"[^\W\d]\w*", name) or len(name) > MOST_ARGUMENT:
        raise row.error(f"its fifth part is {shown(repr(name))}; it is a name for the layer, such as low")
    if is_level(name):
        raise row.error(f"{name} can't be its name: it stands for a level of a backbone by name")
    if name in taken:
        raise row.error(f"the name {shown(name)} is that of layer {taken[name]}; each names one layer")
    return name


def _by_number(row: Row, numbers: dict[str, int]) -> Any:
    """The `from` of a row with the number of each layer that it takes by name."""

    def number(place: int, source: Any) -> Any:
        if not isinstance(source, str) or is_level(source):
            return source
        row.named.add(place)
        if source not in numbers:
            raise row.error(
                f"`from` holds {shown(repr(source))}; it takes layer numbers, -1 for the layer before, levels such as P4, or "
                f"names of earlier rows{nearest(source, list(numbers))}"
            )
        return numbers[source]

    return [number(i, s) for i, s in enumerate(row.source)] if isinstance(row.source, list) else number(0, row.source)


def is_count(value: object, most: float = math.inf) -> bool:
    """Whether a value of a YAML is a whole number above 0, and at most ``most``."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most


def is_size(value: object, most: float = math.inf) -> bool:
    """Whether a value of a YAML is a finite number above 0, and at most ``most``."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= most and value < math.inf


def listed(numbers: list) -> str:
    """«8, 16 and 32»."""
    words = [f"{n:g}" if isinstance(n, float) else str(n) for n in numbers]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def scale_channels(channels: int, width: float, divisor: int = 8) -> int:
    """Channels times the width multiple, rounded up to a multiple of ``divisor``."""
    return math.ceil(channels * width / divisor) * divisor


def scale_number(number: int, depth: float) -> int:
    """Repeats times the depth multiple, at least one; a single one stays."""
    return max(round(number * depth), 1) if number > 1 else number


def parse_arguments(row: Row, names: dict[str, Any] | None = None) -> tuple[list, dict]:
    """Positional and keyword arguments of a row: words are looked up in ``names`` or read as Python literals.

    ``key=value`` is a keyword argument, ``nn.SiLU()`` a module of torch.nn; other words (``nearest``) stay strings.
    """
    args, kwargs = [], {}
    for arg in row.args:
        if isinstance(arg, dict):  # {paper: True}
            kwargs |= {str(k): _parse_word(row, v, names or {}) for k, v in arg.items()}
        elif isinstance(arg, str) and arg.partition("=")[0].strip().isidentifier() and "=" in arg:
            key, _, value = arg.partition("=")
            kwargs[key.strip()] = _parse_word(row, value.strip(), names or {})
        elif kwargs:
            raise row.error(f"argument {shown(repr(arg))} follows a key=value argument; put it before")
        else:
            args.append(_parse_word(row, arg, names or {}))
    return args, kwargs


def _parse_word(row: Row, word: Any, names: dict[str, Any]) -> Any:
    if not isinstance(word, str):
        return word
    if word in names:
        return names[word]
    if len(word) > MOST_ARGUMENT:
        raise row.error(f"an argument is a text of {len(word):,} characters; none has more than {MOST_ARGUMENT}")
    if word.startswith(("nn.", "torch.nn.")):
        module = torch_module(word)
        if module is None:
            raise row.error(
                f"{shown(repr(word))} is no module of torch.nn with plain arguments, such as nn.SiLU() or nn.LeakyReLU(0.1)"
            )
        return module
    try:
        return ast.literal_eval(word)
    # all that it raises for what is no literal
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        pass
    if word.lower() in ("none", "true", "false"):
        raise row.error(f"{word!r} is written {word.capitalize()}")
    if "," in word:
        raise row.error(f"the argument {word!r} is one text; write its parts without quotes, [{word}]")
    return word


def torch_module(text: str) -> nn.Module | None:
    """``nn.LeakyReLU(0.1)`` → the module; None where the text isn't a torch.nn class with literal arguments that it takes."""
    if len(text) > MOST_ARGUMENT:
        return None
    try:
        call = ast.parse(text.strip().removeprefix("torch."), mode="eval").body
        name = call.func if isinstance(call, ast.Call) else call
        if not (isinstance(name, ast.Attribute) and isinstance(name.value, ast.Name) and name.value.id == "nn"):
            return None
        module = getattr(nn, name.attr, None)
        if not (isinstance(module, type) and issubclass(module, nn.Module)):
            return None
        args = [ast.literal_eval(a) for a in call.args] if isinstance(call, ast.Call) else []
        kwargs = {k.arg: ast.literal_eval(k.value) for k in call.keywords} if isinstance(call, ast.Call) else {}
        return module(*args, **kwargs)
    # a constructor may raise anything for arguments that it can't take, as may the parser for such a text
    except Exception:
        return None


def parse_activation(text: str | None, file: str) -> nn.Module | None:
    """The YAML's ``activation:``, such as nn.LeakyReLU(0.1) or nn.Mish(); None where it has none."""
    if text is None:
        return None
    module = torch_module(text) if isinstance(text, str) else None
    if module is None:
        raise UserError(
            f"{file}: activation {shown(repr(text))} is no module of torch.nn; write it as nn.SiLU() or nn.LeakyReLU(0.1)"
        )
    return module


def close_names(name: str, known: list[str]) -> list[str]:
    """Up to three of ``known`` that are nearly spelt like ``name``, the nearest first."""
    return difflib.get_close_matches(name, known, n=3, cutoff=0.5)


def nearest(name: str, known: list[str]) -> str:
    """«; did you mean X or Y?» for the known names closest to ``name``, or nothing."""
    close = close_names(name, known)
    return f"; did you mean {' or '.join(close)}?" if close else ""


CHECK_SIZE = 640  # every model is traced at this input size while it is built
