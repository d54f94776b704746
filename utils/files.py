"""Files that are there whole or not at all."""

import os
import shutil
from collections.abc import Iterator
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
            _remove(path)  # only files are replaced in one step
        os.replace(temporary, path)
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
