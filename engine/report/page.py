"""The page of a comparison: one HTML file that needs no network, no server and no other file.

    write_page(comparison, file)

Its parts lie in template/: page.html, page.css, the scripts and texts.json with every text in both languages. File and class
names are anybody's: they go in as JSON in a script element of another type, in which nothing can end the element, and the
scripts put them into the page as text alone. A content security policy forbids all but the page's own script and style.
"""

import json
import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

from engine.comparison.record import FINISHED, Comparison
from engine.report.content import RELOAD_SECONDS, content
from utils.files import replacing

TEMPLATE = Path(__file__).parent / "template"
SCRIPTS = ("dom.js", "charts.js", "sections.js", "tables.js", "pairs.js", "pictures.js", "page.js")
MOST_BYTES = 2_000_000
# (longest side in pixels, quality) of the pictures: the first with which the page keeps within MOST_BYTES
PICTURES = ((640, 82), (480, 78), (360, 70), (240, 60), (120, 50))
POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; base-uri 'none'; form-action 'none'"
)


def write_page(comparison: Comparison, file: Path) -> None:
    """Write the page of ``comparison``, whole or not at all, in less than 2 MB wherever smaller pictures can do that.

    While the comparison is not finished, the page loads itself anew every few seconds. Pictures with relative paths are
    looked for beside ``file``.
    """
    for side, quality in PICTURES:
        page = make_page(comparison, content(comparison, file.parent, side, quality)).encode()
        if len(page) < MOST_BYTES:
            break
    with replacing(file) as temporary:
        temporary.write_bytes(page)


def make_page(comparison: Comparison, data: dict[str, Any]) -> str:
    """The HTML that shows ``data``."""
    # the files make one script, which one hash allows
    script = "\n".join(_part(name) for name in SCRIPTS)
    style = _part("page.css")
    parts = {
        "policy": POLICY.format(script=_digest(script), style=_digest(style)),
        "refresh": "" if comparison.stage == FINISHED else f'<meta http-equiv="refresh" content="{RELOAD_SECONDS}">',
        "style": style,
        "script": script,
        "texts": embedded(json.loads(_part("texts.json"))),
        "content": embedded(data),
    }
    # in one pass: what is put in is not looked through again
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _part("page.html"))


def embedded(data: Any) -> str:
    """``data`` as JSON that can stand in a script element: it holds no character that HTML or JavaScript gives a meaning."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    # half a surrogate pair, which a file name may hold, is not UTF-8
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)


def _part(name: str) -> str:
    return (TEMPLATE / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()
