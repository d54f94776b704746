"""Folders of runs."""

import os
from pathlib import Path

from utils.errors import UserError, shown

ROOT = Path(__file__).resolve().parents[1]  # the project's folder


# of Linux and most other systems, in bytes: of a path, and of each of its parts
LONGEST_PATH, LONGEST_PART = 4095, 255


def fault_of_path(text: str) -> str:
    """Why no system can have a file of this name, in words; empty where it can. Of a URL, the parts may be long."""
    if "\0" in text:
        return "holds a NUL character"
    try:
        parts = text.encode().split(b"/")
    except UnicodeEncodeError:
        return "is not UTF-8 text; rename the file"
    if sum(map(len, parts)) + len(parts) - 1 > LONGEST_PATH:
        return f"is longer than the {LONGEST_PATH} bytes that a path can have"
    if "://" not in text and max(map(len, parts)) > LONGEST_PART:
        return f"has a part of more than the {LONGEST_PART} bytes that a name can have"
    return ""


def new_run_folder(project: str | Path, name: str, exist_ok: bool = False) -> Path:
    """Make and return project/name, or project/name2, name3, … where it exists and ``exist_ok`` is not set."""
    first = Path(project) / name
    folder, number = first, 1
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=exist_ok)
            return folder
        except OSError as e:
            # made by another run, perhaps just now
            if isinstance(e, FileExistsError) and not exist_ok and os.path.lexists(folder):
                number += 1
                folder = first.with_name(f"{first.name}{number}")
                continue
            raise UserError(
                f"{shown(str(folder))}: the run's folder can't be made ({e.strerror}); choose another --project or --name"
            ) from None


def newest_weights(root: Path | None = None) -> Path:
    """The best.pt written last under runs/train. Raises UserError where there is none."""
    runs = (root or ROOT) / "runs" / "train"
    found = sorted(runs.glob("*/weights/best.pt"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise UserError(f"{runs}: holds no */weights/best.pt yet; train first, or name a checkpoint with --weights")
    return found[-1]


def seen_from_here(path: Path) -> str:
    """A path as one would type it: relative to the current folder where it lies below that, so that what is passed on to
    others names no folder of this machine without need."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
