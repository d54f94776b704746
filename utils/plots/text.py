"""Text in any language: which installed font has each character, and a line of text as a mask of ink.

A line may need several fonts: a Chinese one without Latin letters for a name, DejaVu Sans for the score behind it.
"""

import itertools
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

# matplotlib is imported where it is needed: what draws no text starts without it
if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font

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
SUBSTITUTE = "□"  # for what no font has


@lru_cache(maxsize=1024)
def text_mask(text: str, size: int) -> np.ndarray:
    """One line of printable text as opacity, uint8 [1.25·size, w]; the baseline depends on the size alone."""
    pieces = [_run_mask(path, "".join(c), size) for path, c in itertools.groupby(text, key=font_of)]
    mask = np.hstack(pieces) if pieces else np.zeros((round(1.25 * size), 0), np.uint8)
    mask.flags.writeable = False
    return mask


def _run_mask(path: str, text: str, size: int) -> np.ndarray:
    """The same of text that one font has."""
    font = open_font(path)
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
    return mask


def printable(text: str) -> str:
    """``text`` on one line, with every character that no font has replaced by «□»: it draws without a warning."""
    text = " ".join(text.split())
    missing = frozenset(c for c in text if not _has(font_of(c), c))
    if missing:
        _tell(missing)
    return "".join(SUBSTITUTE if c in missing else c for c in text)


@lru_cache(maxsize=64)
def _tell(missing: frozenset[str]) -> None:
    """Say it, once for the same characters."""
    shown = " ".join(sorted(missing)[:8])
    print(
        f"warning: no installed font has {shown.encode('unicode_escape').decode() if not shown.isprintable() else shown}; "
        f"drawn as {SUBSTITUTE}. A font for Chinese: apt install fonts-wqy-microhei"
    )


def fonts_for(text: str) -> list[str]:
    """Paths of the fonts that ``text`` needs, DejaVu Sans first."""
    return list(dict.fromkeys([dejavu(), *map(font_of, text)]))


@lru_cache(maxsize=4096)
def font_of(character: str) -> str:
    """Path of a font with that character: matplotlib's DejaVu Sans, else one that is installed; DejaVu where none has it."""
    if _has(dejavu(), character) or character.isspace():
        return dejavu()
    return next((path for path in _installed_fonts() if _has(path, character)), dejavu())


def _has(path: str, character: str) -> bool:
    try:
        return open_font(path).get_char_index(ord(character)) > 0 or character.isspace()
    # uninstalled since matplotlib listed it, or not readable
    except (OSError, RuntimeError):
        return False


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
def dejavu() -> str:
    """The path of the font that comes with matplotlib."""
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@lru_cache(maxsize=256)
def open_font(path: str) -> "FT2Font":
    """A font file. Raises OSError or RuntimeError where it can't be read."""
    from matplotlib.ft2font import FT2Font

    return FT2Font(path)
