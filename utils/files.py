"""Files that are there whole or not at all, and names for them that are not taken."""

import itertools
import os
import shutil
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file or folder beside ``path`` that takes its place once the block has ended well.

    After an error or an interruption nothing is left of it, and what was at ``path`` before is untouched.
    Raises OSError rather than to put a file in the place of a folder.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")  # its suffix last: some libraries go by it
    try:
        yield temporary
        if temporary.is_dir():
            remove(path)  # only files are replaced in one step
        os.replace(temporary, path)
    finally:
        remove(temporary)


def remove(path: Path) -> None:
    """Delete a file, or a folder with all that is in it; nothing where there is neither."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def unique_name(stem: str, taken: Container[str], suffix: str = "") -> str:
    """``stem`` and ``suffix``, numbered where that is among the names ``taken``: a.jpg, a-2.jpg, a-3.jpg."""
    numbers = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    return next(name for number in numbers if (name := f"{stem}{number}{suffix}") not in taken)
