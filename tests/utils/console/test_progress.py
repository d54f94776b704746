"""A bar on a terminal, a line in a log."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from tests.helpers.project import ROOT
from utils.console.progress import is_live, track

# what trainings do: a description that changes with every batch, and a reader that takes its time
LOOP = """
import sys, time
from utils.console.progress import track
print("heading")
bar = track(range(20), "loading", total=20, initial=0)
for i in bar:
    bar.set_description(f"{i:>3} 0.5")
    time.sleep(0.02)
    if i == int(sys.argv[1]):
        break
del bar
with track(None, "best.pt", total=2048, unit="B", unit_scale=True, unit_divisor=1024) as bar:
    bar.update(1024)
    bar.update(1024)
print("end", list(track("ab", hidden=True)))
"""


def looped(stop: int, **streams) -> subprocess.Popen:
    line = [sys.executable, "-c", f"import utils.errors\nutils.errors.exit_on_user_error(lambda: exec({LOOP!r}, {{}}))"]
    environment = os.environ | {"COLUMNS": "30", "PYTHONIOENCODING": "utf-8"}
    return subprocess.Popen([*line, str(stop)], cwd=ROOT, env=environment, **streams)


@pytest.mark.parametrize(("stop", "count", "share"), [(-1, "20/20", "100%"), (4, "4/20", " 20%")])
def test_a_log_has_one_line_of_each_in_the_order_of_what_is_printed(stop, count, share, tmp_path):
    """Whole, though COLUMNS would have it short; and so where it ended before its time."""
    with open(tmp_path / "log", "wb") as log:
        assert looped(stop, stdout=log, stderr=subprocess.STDOUT).wait(60) == 0
    text = (tmp_path / "log").read_bytes().decode()
    heading, line, download, end = text.split("\n")[:-1]
    assert (heading, end) == ("heading", "end ['a', 'b']") and "\r" not in text
    last = 19 if stop < 0 else stop
    assert re.fullmatch(rf"{last:>3} 0\.5: {share}\|.{{10}}\| {count} \[\d\d:\d\d<\S+, .*\]", line)
    assert download.startswith("best.pt: 100%|██████████| 2.00k/2.00k [")


def test_a_terminal_has_a_bar_that_is_drawn_anew():
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = looped(-1, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    drawn = b""
    # the end of a terminal is an error to read it
    try:
        while part := os.read(ours, 4096):
            drawn += part
    except OSError:
        pass
    os.close(ours)
    assert process.wait(60) == 0
    states = re.findall(r"\r +(\d+) 0\.5: +(\d+)%\|", drawn.decode())
    assert len(states) >= 20 and [int(i) for i, _ in states] == sorted(int(i) for i, _ in states)
    assert states[-1] == ("19", "100") and drawn.count(b"\n") == 2


def test_a_notebook_has_a_bar():
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    assert is_live(stream) and not is_live(io.StringIO())


def test_a_stop_half_way_is_one_line(capfd):
    with pytest.raises(KeyboardInterrupt):
        for i in track([0, 1, 2, 3], "going"):
            if i == 2:
                raise KeyboardInterrupt
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("going:  50%|") and " 2/4 [" in line
