"""Who is at work in a study: one compare.py, and its trainings, which may outlive it where it is killed.

A lock is held through an open file, and let go by the system with the last process that has it. A training is given that of
its run: the next start of the study sees whether one is left, and asks it to stop. On Windows there are no such locks.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from utils.errors import UserError

try:
    import fcntl
except ImportError:
    fcntl = None


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Raises UserError where another compare.py is at work in ``folder``."""
    with open(folder / "study.lock", "a", encoding="utf-8") as file:
        if not _lock(file):
            raise UserError(
                f"{folder}: another compare.py is at work on this study; wait for it, or choose another --name"
            )
        yield


def run_lock(path: Path) -> IO[str]:
    """The open lock of a run, for its process to inherit. A training of the run that is left of an earlier start is asked
    to stop, and waited for: it saves first."""
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115, it is handed on
    if not _lock(file):
        file.seek(0)
        number = file.read().strip()
        print(f"{path.stem}: a training is left of an earlier start; it is asked to save and stop")
        if number.isdecimal():
            # its number is its own as long as it holds the lock
            with suppress(OSError):
                os.kill(int(number), signal.SIGTERM)
        while not _lock(file):
            time.sleep(0.1)
    return file


def note_holder(file: IO[str], process: int) -> None:
    """Write down who is to be asked."""
    file.seek(0)
    file.truncate()
    file.write(str(process))
    file.flush()


def _lock(file: IO[str]) -> bool:
    """Whether the lock is this process's now."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
