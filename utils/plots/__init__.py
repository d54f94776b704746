"""A door: what programs written for YOLOv5 import from utils.plots.

Imported when a name is asked for: the files of this room are used by all that draws, also by what this leads to.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name not in ("Annotator", "colors", "plot_one_box", "save_one_box"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from engine.stock import annotator

    return getattr(annotator, name)
