"""Files that can be read, files that are there whole or not at all, and names for them that are not taken."""

import csv
import functools
import itertools
import os
import platform
import re
import shutil
import stat
import threading
import time
import zlib
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.errors import UserError, shown


def require_file(path: str | Path, what: str, most: int | None = None) -> Path:
    """``path``, which is a regular file of at most ``most`` bytes; ``what`` names its role in the messages.

    Raises UserError for anything else, before a byte is read: where there is nothing, for a folder, for a pipe, device or
    socket, which may never end, and for a path that the system can't take; and for a pointer of Git LFS.
    """
    if reason := why_unreadable(path, what, most):
        raise UserError(f"{shown(str(path))}: {reason}")
    return Path(path)


def why_unreadable(path: str | Path, what: str, most: int | None = None) -> str:
    """The reason for which ``require_file`` refuses ``path``, empty where it doesn't: for files that are passed over."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return f"no such {what}"
    # ValueError: a NUL byte or half a surrogate pair within the path
    except (OSError, ValueError) as e:
        return f"can't be a {what}: {getattr(e, 'strerror', None) or e}"
    if stat.S_ISDIR(found.st_mode):
        return f"is a folder, a {what} was expected"
    if not stat.S_ISREG(found.st_mode):
        return f"is a pipe, device or socket; a {what} is a regular file"
    if most is not None and found.st_size > most:
        return f"has {found.st_size:,} bytes; a {what} of more than {most:,} bytes is not read"
    if found.st_size in POINTER_SIZES and _begins_with(path, POINTER):
        return "is a Git LFS pointer, which stands for a file that was not fetched: run git lfs pull in its repository"
    return ""


# what Git leaves in the place of a large file that it was not told to fetch
POINTER, POINTER_SIZES = b"version https://git-lfs", range(100, 300)


def _begins_with(path: str | Path, words: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(words)) == words
    # whoever reads it will say so
    except OSError:
        return False


def read_text(path: str | Path, what: str, most: int) -> str:
    """The text of a file that ``require_file`` lets pass. Raises UserError where it can't be read, or goes on behind the
    ``most`` bytes that its size is within (files of /proc say 0), and UnicodeDecodeError where it is not UTF-8."""
    try:
        with open(require_file(path, what, most), "rb") as file:
            data = file.read(most + 1)
    except OSError as e:
        raise UserError(f"{shown(str(path))}: can't be read: {e.strerror}") from None
    if len(data) > most:
        raise UserError(f"{shown(str(path))}: a {what} of more than {most:,} bytes is not read")
    return data.decode("utf-8-sig")


# folders that need not be looked through again
_cleared: set[Path] = set()
_clearing = threading.Lock()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file or folder beside ``path`` that takes its place once the block has ended well.

    After an error or an interruption nothing is left of it, and what was at ``path`` before is untouched. What processes
    that were killed have left of theirs in that folder goes first. Raises OSError rather than to put a file in the place
    of a folder.
    """
    clear_leftovers(path.parent)
    # its suffix last: some libraries go by it
    temporary = path.with_name(f".{system()}-{os.getpid()}.{path.name}")
    try:
        yield temporary
        if temporary.is_dir():
            remove(path)  # only files are replaced in one step
        _move(temporary, path)
    finally:
        remove(temporary)


@functools.cache
def system() -> str:
    """What tells this machine, or this container on it, from others that may write to the same folder: 8 digits."""
    processes = Path("/proc/self/ns/pid")
    return f"{zlib.crc32(f'{platform.node()} {processes.exists() and processes.stat().st_ino}'.encode()):08x}"


def clear_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes of this system that are no more; once for each folder."""
    with _clearing:
        if folder in _cleared:
            return
        _cleared.add(folder)
        with suppress(OSError):
            for file in folder.iterdir():
                # of a number that this process has been given, too: it has written nothing here yet
                found = re.match(rf"\.{system()}-(\d{{1,9}})\.", file.name)
                if found and (int(found[1]) == os.getpid() or not is_running(int(found[1]))):
                    remove(file)


def is_running(process: int) -> bool:
    """Whether there is a process of this number; always, where the system can't be asked without touching it."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _move(temporary: Path, path: Path) -> None:
    """os.replace, tried for two seconds: Windows replaces no file that another program, such as a scanner, is reading."""
    for pause in (0.1, 0.4, 1.5):
        try:
            os.replace(temporary, path)
            return
        except PermissionError:
            time.sleep(pause)
    os.replace(temporary, path)


def write_table(path: Path, rows: Iterable[Iterable]) -> bool:
    """Put a CSV of ``rows`` in the place of ``path``. False, and one line, where another program keeps it open.

    On Windows a spreadsheet does. Whoever has all rows writes them the next time.
    """
    try:
        with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as f:
            csv.writer(f).writerows(rows)
    except PermissionError as e:
        print(f"note: {path} can't be replaced now ({e.strerror}; is it open in another program?); close it there")
        return False
    return True


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


def free_path(path: Path, sep: str = "") -> Path:
    """``path``, or where there is something the first of path2, path3, … that is free: a2.jpg; ``sep`` before the number."""
    stem, suffix = (path.name, "") if path.is_dir() else (path.stem, path.suffix)
    found, number = path, 1
    while os.path.lexists(found):
        number += 1
        found = path.with_name(f"{stem}{sep}{number}{suffix}")
    return found


# bytes of a name: what file systems take, 255, less a number, a suffix, and what marks a temporary file
MOST_NAME = 200
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def short_name(text: str) -> str:
    """The beginning of ``text`` that can be part of a file's name."""
    return os.fsencode(text)[:MOST_NAME].decode(errors="ignore") if len(os.fsencode(text)) > MOST_NAME else text


def safe_name(text: str) -> str:
    """``text`` as the name of one file or folder, on every system; itself where it is one."""
    name = "".join("_" if c in '\\/:*?"<>|' or not c.isprintable() else c for c in text)
    name = short_name(name).rstrip(". ")
    return f"_{name}" if not name or RESERVED.fullmatch(name) else name
