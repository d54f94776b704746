"""What was saved, held against what it has to be: each owner of a state checks its own entries, by Entries.

with reading(path):                     what does not fit becomes one line that names the file
    epoch = Entries(saved).whole("epoch")
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from utils.errors import UserError, shown

# of a detector, and characters of the name of one
MOST_CLASSES, MOST_LETTERS = 100_000, 1000


class Unfit(UserError):
    """An entry is not what it has to be. The message does not name the file; ``reading`` does."""


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Name the file where something in it does not fit."""
    try:
        yield
    except Unfit as e:
        raise UserError(
            f"{shown(str(path))}: {e}; it is damaged or was changed: take another copy of the file"
        ) from None


class Entries:
    """The entries of a saved mapping, each asked for by what it has to be. Raises Unfit where it is not."""

    def __init__(self, saved: Any, within: str = ""):
        self.within = f"{within}." if within else ""
        if not isinstance(saved, Mapping):
            raise Unfit(f"{within or 'what it holds'} is {shown(saved, 60)}, not entries by name")
        self.saved = saved

    def found(self, key: str) -> Any:
        """The value of an entry, whatever it is."""
        if key not in self.saved:
            raise Unfit(f"{self.within}{key} is missing")
        return self.saved[key]

    def unfit(self, key: str, expected: str) -> Unfit:
        """What to raise for a value that is not as ``expected``."""
        value = self.saved[key]
        # to write out a tensor takes its time
        found = f"a tensor of {_size(value.shape)}" if isinstance(value, torch.Tensor) else shown(value, 60)
        return Unfit(f"{self.within}{key} is {found}, not {expected}")

    def whole(self, key: str, least: int = 0, most: int = 2**53) -> int:
        value = self.found(key)
        if type(value) is not int or not least <= value <= most:
            raise self.unfit(key, f"a whole number from {least} to {most:,}")
        return value

    def number(self, key: str, least: float = -math.inf, finite: bool = True) -> float:
        value = self.found(key)
        sound = isinstance(value, int | float) and not isinstance(value, bool)
        if not sound or (finite and not (math.isfinite(value) and value >= least)):
            raise self.unfit(key, "a number")
        return value

    def text(self, key: str) -> str:
        value = self.found(key)
        if not isinstance(value, str) or len(value) > MOST_LETTERS:
            raise self.unfit(key, "a text")
        return value

    def mapping(self, key: str) -> dict:
        value = self.found(key)
        if not isinstance(value, dict) or not all(isinstance(k, str) for k in value):
            raise self.unfit(key, "entries by name")
        return value

    def description(self, key: str) -> dict:
        """What a YAML file may hold: entries by name, of texts, numbers, lists and further entries."""
        value = _as_in_yaml(self.found(key))
        if not isinstance(value, dict):
            raise self.unfit(key, "what a YAML file may hold")
        return value

    def rows(self, key: str) -> list:
        value = self.found(key)
        if not isinstance(value, list):
            raise self.unfit(key, "a list")
        return value

    def class_names(self, key: str) -> dict[int, str]:
        """Names of classes, in a list or by their numbers from 0: {number: name}."""
        value = self.found(key)
        names = dict(enumerate(value)) if isinstance(value, list | tuple) else value
        if not isinstance(names, dict) or not 0 < len(names) <= MOST_CLASSES or set(names) != set(range(len(names))):
            raise self.unfit(key, f"1 to {MOST_CLASSES:,} names of classes, numbered from 0")
        for name in names.values():
            if not isinstance(name, str | int | float) or len(str(name)) > MOST_LETTERS:
                raise Unfit(f"the name of a class is {shown(name, 60)}, not a short text")
        return {number: str(names[number]) for number in range(len(names))}

    def tensor(self, key: str, shape: tuple[int, ...], finite: bool = True) -> torch.Tensor:
        """Numbers with a fraction, of that shape, and finite unless they need not be."""
        value = self.found(key)
        if not isinstance(value, torch.Tensor) or value.shape != shape or not value.is_floating_point():
            raise self.unfit(key, f"a tensor of {_size(shape)} numbers")
        if finite and not value.isfinite().all():
            raise Unfit(f"{self.within}{key} holds numbers that are not finite")
        return value

    def tensors(self, key: str) -> dict[str, torch.Tensor]:
        """Tensors by their names, one at least."""
        value = self.found(key)
        sound = isinstance(value, dict) and value and all(isinstance(k, str) for k in value)
        if not sound or not all(isinstance(v, torch.Tensor) for v in value.values()):
            raise self.unfit(key, "tensors by name")
        return value


def misfits(given: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> list[str]:
    """The names of ``given`` tensors that can't stand in for ``wanted`` ones, for their shape, their kind or numbers that are
    not finite, and of those that are missing or too many."""

    def fits(name: str) -> bool:
        a, b = given[name], wanted[name]
        return a.shape == b.shape and a.is_floating_point() == b.is_floating_point() and _is_sound(a)

    return [k for k in wanted if k not in given or not fits(k)] + [k for k in given if k not in wanted]


def _as_in_yaml(value: Any) -> Any:
    """``value`` with its tuples as lists. Raises Unfit for what no YAML file holds."""
    if isinstance(value, dict):
        return {_as_in_yaml(k): _as_in_yaml(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_as_in_yaml(part) for part in value]
    if value is not None and not isinstance(value, str | int | float):
        raise Unfit(f"its YAML holds a {shown(type(value).__name__)}, which no YAML file does")
    return value


def _is_sound(tensor: torch.Tensor) -> bool:
    return not tensor.is_complex() and (not tensor.is_floating_point() or bool(tensor.isfinite().all()))


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "1"
