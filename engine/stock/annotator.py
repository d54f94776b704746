"""Drawing as programs written for YOLOv5 call for it, over utils/plots/draw.py: boxes with any text in any language."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from utils.files import free_path
from utils.plots.crops import crop_box
from utils.plots.draw import PALETTE, class_color, draw_frame, draw_tag, save_image

Color = tuple[int, int, int]


class Colors:
    """``colors(5)`` gives the RGB colour of class 5, ``colors(5, bgr=True)`` the same for OpenCV."""

    n = len(PALETTE)
    palette = list(PALETTE)

    def __call__(self, i: int, bgr: bool = False) -> Color:
        return class_color(i)[::-1] if bgr else class_color(i)


colors = Colors()


class Annotator:
    """Draws boxes and texts into ``im``, uint8 [h, w, 3] of either colour order, or a PIL image (RGB).

    Colours are in the order of the image. ``line_width`` in pixels; None scales it with the image. ``font``, ``font_size``,
    ``pil`` and ``example`` are taken and not needed: the font is one that is installed and has the characters of the text.
    """

    def __init__(
        self,
        im: Any,
        line_width: int | None = None,
        font_size: int | None = None,
        font: str = "",
        pil: bool = False,
        example: str = "",
    ):
        self.im = np.array(im) if not isinstance(im, np.ndarray) or not im.flags.writeable else im
        self.lw = line_width or max(round(sum(self.im.shape[:2]) / 2 * 0.003), 2)
        self.text_size = font_size or max(10, 5 + 4 * self.lw)

    def box_label(
        self, box: Sequence[float], label: str = "", color: Color = (128, 128, 128), txt_color: Color = (255, 255, 255)
    ) -> None:
        """Draw a box x1 y1 x2 y2 in pixels, and ``label`` on it. The text is black or white, what reads better."""
        height, width = self.im.shape[:2]
        limits = [width, height, width, height]
        corners = np.array([float(v) for v in box][:4]).clip(0, limits).round().astype(int)
        draw_frame(self.im, corners, self.lw, tuple(color))
        if label:
            left, top = corners[:2] - self.lw // 2
            draw_tag(self.im, str(label), int(left), int(top), self.text_size, tuple(color), above=True)

    def rectangle(
        self, xy: Sequence[float], fill: Color | None = None, outline: Color | None = None, width: int = 1
    ) -> None:
        """Draw a rectangle x1 y1 x2 y2, filled or not."""
        x1, y1, x2, y2 = (int(v) for v in xy)
        if fill is not None:
            cv2.rectangle(self.im, (x1, y1), (x2, y2), tuple(fill), -1)
        if outline is not None:
            cv2.rectangle(self.im, (x1, y1), (x2, y2), tuple(outline), width)

    def text(
        self,
        xy: Sequence[float],
        text: str,
        txt_color: Color = (255, 255, 255),
        anchor: str = "top",
        box_style: bool = False,
    ) -> None:
        """Write ``text`` on a tag of a colour that ``txt_color`` reads well on; ``xy`` is its corner at ``anchor``."""
        tag = (0, 0, 0) if sum(txt_color) > 382 else (255, 255, 255)
        draw_tag(self.im, str(text), int(xy[0]), int(xy[1]), self.text_size, tag, above=anchor == "bottom")

    def result(self) -> np.ndarray:
        """The image, as it is drawn."""
        return self.im


def plot_one_box(
    x: Sequence[float],
    im: np.ndarray,
    color: Color | None = None,
    label: str | None = None,
    line_thickness: int | None = None,
) -> None:
    """Draw one box x1 y1 x2 y2 into ``im``, as releases before 6 had it."""
    Annotator(im, line_thickness).box_label(x, label or "", tuple(color or (128, 128, 128)))


def save_one_box(
    xyxy: Sequence[float] | torch.Tensor,
    im: np.ndarray,
    file: str | Path = "im.jpg",
    gain: float = 1.02,
    pad: int = 10,
    square: bool = False,
    BGR: bool = False,
    save: bool = True,
) -> np.ndarray:
    """Cut a box, ``gain`` times as large and ``pad`` pixels more, out of ``im`` [h, w, 3] BGR; returns the part.

    It is returned in BGR with ``BGR``, else in RGB. ``save`` writes it to ``file``, or file2 … where that exists.
    """
    part = crop_box(im, xyxy, gain, pad, square)
    rgb = np.ascontiguousarray(part[..., ::-1])
    if save and part.size:
        file = Path(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_image(free_path(file.with_suffix(".jpg")), rgb)
    return part if BGR else rgb
