"""Commands that run in the background while a test looks on."""

import subprocess
import time


def in_background(line: list[str], tmp_path) -> subprocess.Popen:
    """Start a command that writes to log.txt: nobody empties a pipe while we wait."""
    with open(tmp_path / "log.txt", "w") as log:
        return subprocess.Popen(line, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def ended(process: subprocess.Popen, tmp_path) -> str:
    """Wait for the end; returns what was said."""
    process.wait(240)
    return (tmp_path / "log.txt").read_text()


def wait_for_saves(process: subprocess.Popen, last, saves: int) -> None:
    """Return when last.pt has been written anew this many times, or the run has ended."""
    seen, stamps = None, 0
    deadline = time.time() + 120
    while stamps < saves and process.poll() is None and time.time() < deadline:
        stamp = last.stat().st_mtime_ns if last.exists() else None
        if stamp != seen:
            seen, stamps = stamp, stamps + 1
        time.sleep(0.005)
