"""How far something is: a bar on a terminal; in a log file or a pipe, one line when it is done.

for batch in track(loader, "checking"):
    …
"""

import sys
from collections.abc import Iterable
from typing import IO, Any

from tqdm import tqdm

# a bar of one width: the columns that stand before it stay where they are
FORMAT = "{l_bar}{bar:10}{r_bar}"


class Line(tqdm):
    """What a bar says when it is done, or has come to its end before that, in one line; nothing on the way."""

    def __init__(self, *args: Any, **more: Any):
        super().__init__(*args, **more, delay=float("inf"))
        # of no terminal, whatever COLUMNS in the environment says
        self.ncols = None

    def display(self, *_: Any, **__: Any) -> None:
        """Draw nothing."""

    def clear(self, *_: Any, **__: Any) -> None:
        """Nothing was drawn."""

    def close(self) -> None:
        was_open = not getattr(self, "disable", True)
        super().close()
        if was_open:
            self.fp.write(f"{self}\n")


def track(items: Iterable | None = None, description: str | None = None, hidden: bool = False, **more: Any) -> tqdm:
    """``items``, one by one, behind ``description`` and a bar on standard error; ``more`` is for tqdm: total, initial, unit."""
    kind = tqdm if is_live(sys.stderr) else Line
    return kind(items, desc=description, disable=hidden, bar_format=FORMAT, **more)


def is_live(stream: IO[str]) -> bool:
    """Whether a line that is written to a stream can be written anew: on a terminal, and in a notebook."""
    return stream.isatty() or type(stream).__module__.startswith("ipykernel.")
