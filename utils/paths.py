"""Folders of runs."""

from pathlib import Path

from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]  # the project's folder


def new_run_folder(project: str | Path, name: str, exist_ok: bool = False) -> Path:
    """Make and return project/name, or project/name2, name3, … where it exists and ``exist_ok`` is not set."""
    first = Path(project) / name
    folder, number = first, 1
    try:
        while folder.exists() and not exist_ok:
            number += 1
            folder = first.with_name(f"{name}{number}")
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except OSError as e:
        raise UserError(
            f"{folder}: the run's folder can't be made ({e.strerror}); choose another --project or --name"
        ) from None
    return folder


def newest_weights(root: Path | None = None) -> Path:
    """The best.pt written last under runs/train. Raises UserError where there is none."""
    runs = (root or ROOT) / "runs" / "train"
    found = sorted(runs.glob("*/weights/best.pt"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise UserError(f"{runs}: holds no */weights/best.pt yet; train first, or name a checkpoint with --weights")
    return found[-1]
