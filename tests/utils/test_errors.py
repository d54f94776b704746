"""What a message shows of what was read."""

import os
import subprocess
import sys

from tests.helpers.project import ROOT
from utils.errors import UserError, one_line, shown


def test_a_message_is_short_and_controls_no_terminal():
    assert shown("best.pt") == "best.pt"
    assert shown("\x1b[2J\x00\n\udc80") == "\\x1b[2J\\x00\\n\\udc80"
    assert len(shown("x" * 10_000)) == 200 and shown("x" * 10_000).endswith("…")
    assert len(one_line(UserError("y" * 10_000))) == 2000
    assert one_line(UserError("two\nlines \x07")) == "two lines \\x07"


def test_objects_are_shown_however_deep_and_large():
    deep, wide = [], dict.fromkeys(range(1000), "z" * 1000)
    for _ in range(100_000):
        deep = [deep]
    assert len(shown(deep)) <= 200 and len(shown(wide)) <= 200
    itself = []
    itself.append(itself)
    assert shown(itself).startswith("[[")
    assert shown(10**5000) == "a huge int"


def test_letters_that_an_output_lacks_end_nothing():
    """As on Windows, where what is sent to a file has the encoding of its country."""
    code = (
        "from utils.errors import UserError, exit_on_user_error\n"
        "def run():\n    print('\u732b \u00d7 2')\n    raise UserError('\u72d7')\nexit_on_user_error(run)"
    )
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, env=environment)
    assert (done.returncode, done.stdout.strip()) == (2, rb"\u732b \xd7 2") and b"error: \\u72d7" in done.stderr
