"""Drawing on images: class colours, boxes with labels, and writing the result to a file."""

from pathlib import Path

import cv2
import numpy as np

from utils.errors import UserError
from utils.plots.text import printable, text_mask

# Far apart in OKLab for usual eyes and for those that confuse red and green (deuteranopia and protanopia as simulated by
# Machado et al., 2009), none near white, black or grey; the first seven are those of Okabe and Ito.
# fmt: off
PALETTE = (
    (213, 94, 0), (0, 114, 178), (0, 158, 115), (230, 159, 0),
    (204, 121, 167), (86, 180, 233), (240, 228, 66), (120, 0, 15),
    (0, 60, 120), (0, 0, 255), (135, 210, 165), (90, 135, 255),
    (45, 60, 180), (90, 210, 225), (105, 30, 75), (15, 105, 240),
    (120, 180, 120), (195, 210, 105), (105, 150, 225), (60, 75, 210),
    (75, 195, 180), (150, 195, 105), (180, 150, 60), (60, 0, 165),
)
# fmt: on


MOST_JPEG = 65_500  # pixels of a side, that the encoder of JPEG takes


def class_color(index: int) -> tuple[int, int, int]:
    """RGB colour of a class, the same in every picture; repeats after ``len(PALETTE)`` classes."""
    return PALETTE[int(index) % len(PALETTE)]


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    classes: np.ndarray,
    names: dict[int, str],
    scores: np.ndarray | None = None,
    line_width: int | None = None,
    labels: list[str] | None = None,
) -> np.ndarray:
    """Return a copy of ``image`` with boxes and, on each, a tag such as «person 0.87».

    image: uint8 [h, w, 3] RGB. boxes: [m, 4] x1 y1 x2 y2 in pixels, clipped to the image. classes: [m].
    scores: [m]; boxes are drawn from the least to the most confident, so that the surest lie on top.
    line_width: in pixels; None scales it with the image. labels: [m] texts in place of name and score; "" for no tag.
    """
    image = image.copy()
    height, width = image.shape[:2]
    if line_width is None:
        line_width = round(0.0035 * (height * width) ** 0.5)
    line_width = max(line_width, 1)
    text_size = max(10, 5 + 4 * line_width)
    corners = np.asarray(boxes, np.float64).reshape(-1, 4).clip(0, [width, height, width, height]).round().astype(int)

    order = range(len(corners)) if scores is None else np.argsort(scores, kind="stable")
    for i in order:
        draw_frame(image, corners[i], line_width, class_color(classes[i]))
    taken = corners
    for i in order:  # after all frames, whose lines would cross the text
        if labels is not None:
            label = labels[i]
        else:
            label = f"{names.get(int(classes[i]), int(classes[i]))}" + ("" if scores is None else f" {scores[i]:.2f}")
        if label:
            size = tag_size(label, text_size)
            x, y = free_place(corners[i], size, line_width // 2, np.delete(taken, i, 0), (height, width))
            draw_tag(image, label, x, y, text_size, class_color(classes[i]))
            taken = np.vstack([taken, [x, y, x + size[0], y + size[1]]])
    return image


def free_place(
    box: np.ndarray, size: tuple[int, int], edge: int, others: np.ndarray, shape: tuple[int, int]
) -> tuple[int, int]:
    """Where the tag of a box hides least: its top left corner, for a tag of ``size`` (width, height).

    Above the box where nothing is there, else below or beside it. ``others``: boxes and tags [n, 4] that are drawn; ``edge``
    is half of the line, ``shape`` (h, w) that of the image, in which the tag has to lie.
    """
    (x1, y1, x2, y2), (width, height) = box, size
    most_x, most_y = max(shape[1] - width, 0), max(shape[0] - height, 0)
    left, right = min(max(x1 - edge, 0), most_x), min(max(x2 + edge - width, 0), most_x)
    top, above, below = min(max(y1 - edge, 0), most_y), y1 - edge - height, y2 + edge
    places = [(left, above), (left, below), (right, above), (right, below), (x2 + edge, top), (x1 - edge - width, top)]
    # within the box last, which a box as large as the image leaves as the only one
    places = [(x, y) for x, y in places if 0 <= x <= most_x and 0 <= y <= most_y] + [(left, top)]
    corners = np.array(places)
    hidden = np.minimum(corners[:, None] + size, others[None, :, 2:]) - np.maximum(
        corners[:, None], others[None, :, :2]
    )
    # what lies on the box itself hides what it is drawn for
    own = np.minimum(corners + size, [x2, y2]) - np.maximum(corners, [x1, y1])
    cost = hidden.clip(0).prod(2).sum(1) + 2 * own.clip(0).prod(1)
    x, y = corners[cost.argmin()]
    return int(x), int(y)


def tag_size(text: str, size: int) -> tuple[int, int]:
    """(width, height) in pixels of the tag that ``draw_tag`` makes of ``text``."""
    ink = text_mask(printable(text), size)
    return ink.shape[1] + 2 * max(2, size // 4), ink.shape[0]


def draw_frame(image: np.ndarray, box: np.ndarray, line_width: int, color: tuple[int, int, int]) -> None:
    """Draw a frame whose line is centred on the edges of ``box`` (integers x1 y1 x2 y2).

    Four filled strips: cv2.rectangle rounds the corners of thick lines and is off by half a pixel for even widths.
    """
    outside = line_width // 2
    inside = line_width - outside
    x1, y1, x2, y2 = box
    left, top, right, bottom = max(x1 - outside, 0), max(y1 - outside, 0), x2 + outside, y2 + outside
    image[top : y1 + inside, left:right] = color
    image[max(y2 - inside, 0) : bottom, left:right] = color
    image[top:bottom, left : x1 + inside] = color
    image[top:bottom, max(x2 - inside, 0) : right] = color


def draw_tag(
    image: np.ndarray, text: str, x: int, y: int, size: int, color: tuple[int, int, int], above: bool = False
) -> None:
    """Write ``text`` on a filled tag into ``image`` (uint8 [h, w, 3]), in place.

    (x, y) is the tag's top left corner, or its bottom left one where ``above``; the tag is moved as far as needed to
    lie inside the image. ``size`` is the height of the font in pixels. The text is black or white, what reads better.
    """
    ink = text_mask(printable(text), size)
    margin = max(2, size // 4)
    height, width = image.shape[:2]
    tag_height, tag_width = min(ink.shape[0], height), min(ink.shape[1] + 2 * margin, width)
    if above:
        y = y - tag_height if y >= tag_height else y
    x, y = min(max(x, 0), width - tag_width), min(max(y, 0), height - tag_height)
    tag = image[y : y + tag_height, x : x + tag_width]
    tag[:] = color

    written = tag[:, margin : margin + ink.shape[1]]
    opacity = ink[: written.shape[0], : written.shape[1], None] / 255
    written[:] = (written * (1 - opacity) + np.array(_contrasting(color)) * opacity).round().astype(np.uint8)


def _contrasting(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever reads better on ``color``, by the relative luminance of WCAG."""
    channel = np.array(color) / 255
    linear = np.where(channel <= 0.04045, channel / 12.92, ((channel + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    # Contrast by the formula is equal at 0.18, but on saturated colours white reads better than the formula says.
    return (255, 255, 255) if luminance < 0.30 else (0, 0, 0)


def save_image(path: str | Path, image: np.ndarray, png_level: int | None = None) -> Path:
    """Write an RGB image (uint8 [h, w, 3]) in the format its suffix names; return the path.

    ``png_level`` 0..9: how hard a PNG is compressed, OpenCV's fast way where it is not said.

    Raises UserError when the suffix names no image format or the file cannot be written.
    """
    path = Path(path)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    try:
        # imencode and write_bytes: cv2.imwrite fails on non-ASCII paths on Windows, and without an exception.
        # to other formats OpenCV would say that they have no such thing
        is_png = path.suffix.lower() == ".png"
        flags = [cv2.IMWRITE_PNG_COMPRESSION, png_level] if is_png and png_level is not None else []
        encoded, data = cv2.imencode(path.suffix, bgr, flags)
    except cv2.error:
        encoded = False
    if not encoded:
        raise UserError(f"{path}: cannot write an image as '{path.suffix}'; use .jpg or .png")
    try:
        path.write_bytes(data.tobytes())
    except OSError as e:
        raise UserError(f"{path}: cannot write the image: {e.strerror or e}") from None
    return path
