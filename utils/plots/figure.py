"""What all pictures drawn by matplotlib share: the figure, colours, names in any language, and writing.

Every function that draws has a Figure of its own (no pyplot state) and returns the path written; save_image names the file
in a UserError where it cannot be written.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from utils.plots.draw import class_color, save_image
from utils.plots.text import fonts_for, open_font, printable

DPI = 200
MAX_TICKS = 100  # more names cannot be read


def new_figure(width: float, height: float) -> Figure:
    """A figure of width × height inches at DPI."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    return figure


def class_ticks(nc: int) -> range:
    """The classes to name on an axis: all, or evenly spaced ones."""
    return range(0, nc, -(-nc // MAX_TICKS))


def plot_color(index: int) -> tuple[float, float, float]:
    """class_color for matplotlib."""
    red, green, blue = class_color(index)
    return red / 255, green / 255, blue / 255


def shown_name(names: dict[int, str], index: int, longest: int) -> str:
    return printable(shortened(str(names.get(int(index), index)), longest))


def shortened(text: str, longest: int) -> str:
    """``text`` with its middle left out where it has more than ``longest`` characters: file names differ at the end."""
    if len(text) <= longest:
        return text
    end = (longest - 1) // 2
    return f"{text[: longest - 1 - end]}…{text[len(text) - end :]}"


def show_names(texts: Iterable[Text]) -> None:
    """Give each text the fonts that have its glyphs, and take its dollar signs for what they are."""
    for text in texts:
        text.get_fontproperties().set_family([open_font(path).family_name for path in fonts_for(text.get_text())])
        text.set_parse_math(False)


def save_figure(figure: Figure, path: str | Path) -> Path:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    # lines and areas of one colour: half as large as OpenCV's fast way makes them
    return save_image(path, np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]), png_level=6)
