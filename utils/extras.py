"""What is imported only when it is used: packages that some features need, and stock's names for what stands elsewhere."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from utils.errors import UserError, shown


def load_extra(module: str, purpose: str, package: str | None = None) -> ModuleType:
    """Import an optional package. Raises UserError with the line that installs it where it is missing.

    ``purpose`` begins the message: «--source screen». ``package`` is its name for pip where that is not ``module``.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(f"{purpose} needs a package that is not installed: pip install {package or module}") from None


@contextmanager
def library_errors(message: str) -> Iterator[None]:
    """What a library raises within the block becomes a UserError: ``message``, and the first line of what it says.

    For libraries that read what users give them: their exceptions have no common base but Exception.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        why = next((line for line in str(e).splitlines() if line.strip()), type(e).__name__)
        raise UserError(f"{message}: {shown(why.strip(), 400)}") from None


def handed_on(module: str, names: dict[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module that hands on ``names`` {name: module it stands in}, each imported when it is asked for.

    Programs written for stock find these names there.
    """

    def hand_on(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(importlib.import_module(names[name]), name)

    return hand_on
