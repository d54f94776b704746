"""Which exported files are this user's own: their SHA-256 digests, one a line of a text file in the user's cache folder.

remember(file)    after export.py has written it
is_own(file)      before it is run: whether that export.py was this user's, on this machine

TorchScript and TensorRT files are programs, which are run where they are one's own, or upon --trust. Files of the other
formats are data; those of others are tried out first (engine/export/trial.py). Imports no torch.
"""

import contextlib
import hashlib
import itertools
import os
import stat
import sys
from pathlib import Path

from utils.errors import UserError, shown
from utils.files import require_file

# of a model: one file, or all of a folder
MOST_BYTES = 4 << 30
MOST_FILES = 100


def files_of(path: Path) -> list[Path]:
    """The files of an exported model, which is one file or a folder of them, sorted.

    Raises UserError where it is missing, or is or holds anything but regular files, too many or too large.
    """
    if not path.is_dir():
        return [require_file(path, "model file", MOST_BYTES)]
    found = itertools.islice(path.rglob("*"), 2 * MOST_FILES)
    files = sorted(require_file(file, "file of a model", MOST_BYTES) for file in found if not file.is_dir())
    if not 0 < len(files) <= MOST_FILES:
        raise UserError(
            f"{shown(str(path))}: holds {len(files) or 'no'} files; an exported model has 1 to {MOST_FILES}"
        )
    return files


def is_own(path: Path) -> bool:
    """Whether this user's export.py has written the file or folder as it is now."""
    return _digest(path) in _known()


def remember(path: Path) -> None:
    """Add the digest of a file or folder to the user's list; says so where that can't be done, and goes on."""
    digest = _digest(path)
    if digest in _known():
        return
    try:
        file = _list_file()
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # one write at the end of the file: lines of two processes don't mix
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, f"{digest}\n".encode())
        finally:
            os.close(handle)
    except OSError as e:
        print(
            f"note: {e.filename or 'the cache folder'}: can't be written ({e.strerror}); running {path} needs --trust"
        )


def _known() -> set[str]:
    """The digests on the list; none where others could have written it."""
    with contextlib.suppress(OSError):
        file = _list_file()
        found = file.stat()
        others = sys.platform != "win32" and (
            found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        )
        if stat.S_ISREG(found.st_mode) and not others:
            return set(file.read_text(errors="replace").split())
    return set()


def cache_folder() -> Path:
    """The project's own, in the user's cache. Raises OSError where this user has no such folder."""
    given = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    folder = Path(given) if os.path.isabs(given) else Path(os.path.expanduser("~"), ".cache")
    if not folder.is_absolute():
        raise OSError(0, "this account has no home folder", "~/.cache")
    return folder / "yolov5-apart"


def _list_file() -> Path:
    """Where the list is. Raises OSError as cache_folder does."""
    return cache_folder() / "exports.sha256"


def _digest(path: Path) -> str:
    """The digest of a file; of a folder that of the names and digests of what is in it."""
    if not path.is_dir():
        return digest_of_file(path)
    lines = (f"{digest_of_file(file)} {file.relative_to(path).as_posix()}\n" for file in files_of(path))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def digest_of_file(file: Path) -> str:
    """The SHA-256 digest of a file. Raises UserError where it can't be read."""
    digest = hashlib.sha256()
    try:
        with open(file, "rb") as f:
            while piece := f.read(1 << 20):
                digest.update(piece)
    except OSError as e:
        raise UserError(f"{shown(str(file))}: this model file can't be read: {e.strerror}") from None
    return digest.hexdigest()
