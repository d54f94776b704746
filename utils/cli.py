"""What the commands share: their flags, given on the command line or as keywords of ``run()``."""

import argparse


def merge_options(parser: argparse.ArgumentParser, options: dict) -> argparse.Namespace:
    """The parser's defaults with ``options`` over them. Raises TypeError for a name the command doesn't have."""
    defaults = vars(parser.parse_args([]))
    unknown = sorted(set(options) - set(defaults))
    if unknown:
        raise TypeError(f"no such option: {', '.join(unknown)}; there are {', '.join(sorted(defaults))}")
    return argparse.Namespace(**{**defaults, **options})
