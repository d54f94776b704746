"""Drawing on images: class colours, boxes with labels, text in any language, and writing the result to a file."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font

from utils.errors import UserError

# Chosen to lie far apart in OKLab, none near white, black or grey; the first eight also look well together.
# fmt: off
PALETTE = (
    (230, 57, 63), (31, 119, 224), (47, 179, 68), (255, 159, 28),
    (142, 68, 214), (18, 181, 176), (240, 82, 180), (242, 210, 27),
    (225, 180, 255), (135, 60, 105), (0, 105, 60), (150, 90, 0),
    (150, 255, 195), (150, 255, 30), (225, 135, 150), (120, 180, 255),
    (165, 165, 75), (75, 45, 225), (75, 75, 150), (165, 0, 150),
    (165, 120, 195), (0, 240, 255), (225, 120, 255), (195, 15, 105),
)
# fmt: on

# Families with Chinese glyphs as Linux, Windows and macOS call them, sans-serif first.
CJK_FAMILIES = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Noto Sans CJK",
    "Source Han Sans",
    "Microsoft YaHei",
    "PingFang",
    "Hiragino Sans GB",
    "WenQuanYi",
    "SimHei",
    "Heiti",
    "STHeiti",
    "Droid Sans Fallback",
    "Arial Unicode",
    "Noto Serif CJK",
    "SimSun",
)


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
        _draw_frame(image, corners[i], line_width, class_color(classes[i]))
    for i in order:  # after all frames, whose lines would cross the text
        if labels is not None:
            label = labels[i]
        else:
            label = f"{names.get(int(classes[i]), int(classes[i]))}" + ("" if scores is None else f" {scores[i]:.2f}")
        if label:
            left, top = corners[i, :2] - line_width // 2
            draw_tag(image, label, left, top, text_size, class_color(classes[i]), above=True)
    return image


def _draw_frame(image: np.ndarray, box: np.ndarray, line_width: int, color: tuple[int, int, int]) -> None:
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
    ink = _text_mask(printable(text), size)
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


@lru_cache(maxsize=1024)
def _text_mask(text: str, size: int) -> np.ndarray:
    """One line of printable text as opacity, uint8 [1.25·size, w]; the baseline depends on the size alone."""
    font = _open_font(font_for(text))
    font.set_size(size, 72)
    font.set_text(text, 0.0)
    font.draw_glyphs_to_bitmap(antialiased=True)
    ink = np.asarray(font.get_image())
    mask = np.zeros((round(1.25 * size), ink.shape[1]), np.uint8)
    # The bitmap ends one pixel of padding below the lowest glyph. Accents and descenders too tall for the line are cut.
    first_row = round(0.96 * size) - (ink.shape[0] - 1 - round(font.get_descent() / 64))
    ink = ink[max(-first_row, 0) :]
    first_row = max(first_row, 0)
    visible = min(ink.shape[0], mask.shape[0] - first_row)
    mask[first_row : first_row + visible] = ink[:visible]
    mask.flags.writeable = False
    return mask


def printable(text: str) -> str:
    """``text`` on one line, with every character that its font lacks replaced by «□»: it draws without a warning."""
    text = " ".join(text.split())
    font = _open_font(font_for(text))
    substitute = "□" if font.get_char_index(ord("□")) else "?"
    shown = "".join(c if font.get_char_index(ord(c)) else substitute for c in text)
    # Without the replaced characters another font may be the best one, with other gaps.
    return text if shown == text else printable(shown)


def font_for(text: str) -> str:
    """Path of a font for ``text``: matplotlib's DejaVu Sans, or the installed one with most of its glyphs."""
    font = _open_font(_dejavu())
    special = frozenset(c for c in text if not c.isascii() and not c.isspace())
    return _dejavu() if all(font.get_char_index(ord(c)) for c in special) else _font_with(special)


@lru_cache(maxsize=256)
def _font_with(characters: frozenset[str]) -> str:
    """Path of the installed font with the most of these characters, DejaVu Sans where none has more."""
    best, best_found = "", -1
    for path in (_dejavu(), *_installed_fonts()):
        try:
            font = FT2Font(path)
        except (OSError, RuntimeError):  # uninstalled since matplotlib listed it, or not readable
            continue
        # Digits and Latin letters stand beside the name in the same label.
        if not all(font.get_char_index(ord(c)) for c in "Az09.?"):
            continue
        found = sum(font.get_char_index(ord(c)) > 0 for c in characters)
        if found > best_found:
            best, best_found = path, found
        if best_found == len(characters):
            break
    return best


def _installed_fonts() -> Iterator[str]:
    """Paths of the system's fonts: known Chinese families first, then upright ones of normal weight."""
    # Here and not above: importing it looks through the system's fonts, which takes long the first time.
    from matplotlib.font_manager import fontManager, weight_dict

    def rank(entry) -> tuple:
        family = next((i for i, name in enumerate(CJK_FAMILIES) if entry.name.startswith(name)), len(CJK_FAMILIES))
        weight = weight_dict.get(entry.weight, entry.weight)
        return family, entry.style != "normal", abs(int(weight) - 400), entry.name, entry.fname

    for entry in sorted(fontManager.ttflist, key=rank):
        # These two kinds have a "glyph" for every character, a placeholder or nothing at all.
        if not entry.name.lstrip(".").startswith(("Last Resort", "LastResort", "Adobe Blank")):
            yield entry.fname


@lru_cache(maxsize=1)
def _dejavu() -> str:
    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@lru_cache(maxsize=32)
def _open_font(path: str) -> FT2Font:
    return FT2Font(path)


def save_image(path: str | Path, image: np.ndarray) -> Path:
    """Write an RGB image (uint8 [h, w, 3]) in the format its suffix names; return the path.

    Raises UserError when the suffix names no image format or the file cannot be written.
    """
    path = Path(path)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    try:
        # imencode and write_bytes: cv2.imwrite fails on non-ASCII paths on Windows, and without an exception.
        encoded, data = cv2.imencode(path.suffix, bgr)
    except cv2.error:
        encoded = False
    if not encoded:
        raise UserError(f"{path}: cannot write an image as '{path.suffix}'; use .jpg or .png")
    try:
        path.write_bytes(data.tobytes())
    except OSError as e:
        raise UserError(f"{path}: cannot write the image: {e.strerror or e}") from None
    return path
