"""Packages that only some features need: imported when they are used, asked for by name where they are missing."""

import importlib
from types import ModuleType

from utils.errors import UserError


def load_extra(module: str, purpose: str, package: str | None = None) -> ModuleType:
    """Import an optional package. Raises UserError with the line that installs it where it is missing.

    ``purpose`` begins the message: «--source screen». ``package`` is its name for pip where that is not ``module``.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(f"{purpose} needs a package that is not installed: pip install {package or module}") from None
