"""Checkpoints by name: ``yolov5s.pt`` that is not here is fetched from its public release."""

import os
from pathlib import Path

from utils.download import download_file
from utils.errors import UserError

RELEASE = "https://github.com/ultralytics/yolov5/releases/download/v7.0"
RELEASE_VARIABLE = "YOLO_RELEASE_URL"  # environment: a mirror's folder, in place of the public one
OFFICIAL = [f"yolov5{size}{p6}.pt" for p6 in ("", "6") for size in "nsmlx"]


def find_weights(path: str | Path, release: str | None = None) -> Path:
    """``path`` where it is a file; else, where its name is an official one, that file, downloaded to ``path``.

    ``release``: the URL of the folder that holds them; default: YOLO_RELEASE_URL of the environment, or the public one.
    Raises UserError where there is no such checkpoint, or where the download fails: it names the URL and where to put
    the file.
    """
    path = Path(path)
    if path.exists():
        return path
    if path.name not in OFFICIAL:
        raise UserError(f"{path}: no such checkpoint; those fetched by name are {', '.join(OFFICIAL)}")
    base = release or os.environ.get(RELEASE_VARIABLE) or RELEASE
    return download_file(f"{base.rstrip('/')}/{path.name}", path)
