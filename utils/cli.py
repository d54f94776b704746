"""What the commands share: their flags, given on the command line or as keywords of ``run()``."""

import argparse

from utils.errors import UserError


def merge_options(parser: argparse.ArgumentParser, options: dict) -> argparse.Namespace:
    """The parser's defaults with ``options`` over them. Raises TypeError for a name the command doesn't have."""
    defaults = vars(parser.parse_args([]))
    unknown = sorted(set(options) - set(defaults))
    if unknown:
        raise TypeError(f"no such option: {', '.join(unknown)}; there are {', '.join(sorted(defaults))}")
    return argparse.Namespace(**{**defaults, **options})


def require_share(flag: str, value: float) -> None:
    """Raises UserError where the value of a flag does not lie between 0 and 1."""
    if not 0 <= value <= 1:
        raise UserError(f"--{flag} {value}: must lie between 0 and 1")


def require_at_least(flag: str, value: int, minimum: int) -> None:
    """Raises UserError where the value of a flag is less than ``minimum``."""
    if value < minimum:
        raise UserError(f"--{flag} {value}: must be {minimum} or more")
