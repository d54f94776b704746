"""Boxes cut out of pictures."""

from pathlib import Path

import numpy as np

from utils.files import safe_name, unique_name
from utils.plots.draw import MOST_JPEG, save_image


def crop_box(image: np.ndarray, box: list[float]) -> np.ndarray:
    """The part of an image [h, w, 3] in a box x1 y1 x2 y2, with a little of what surrounds it."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box
    margin_x, margin_y = (x2 - x1) * 0.01 + 5, (y2 - y1) * 0.01 + 5
    left, top = max(int(x1 - margin_x), 0), max(int(y1 - margin_y), 0)
    right, bottom = min(int(x2 + margin_x) + 1, width), min(int(y2 + margin_y) + 1, height)
    return np.ascontiguousarray(image[top:bottom, left:right])


def crop_folders(names: dict[int, str]) -> dict[int, str]:
    """For each class the name of a folder for its crops: its own, changed where that can be no folder or is another's."""
    folders: dict[str, str] = {}
    # names that stay as they are come first, so that no other takes theirs
    for name in sorted(names.values(), key=lambda name: safe_name(name) != name):
        if name not in folders:
            folders[name] = unique_name(safe_name(name), folders.values())
    return {index: folders[name] for index, name in names.items()}


def save_crop(folder: Path, stem: str, crop: np.ndarray) -> Path:
    """Write a crop to folder/stem.jpg, or .png where it is too large for that; returns the path."""
    folder.mkdir(parents=True, exist_ok=True)
    suffix = ".jpg" if max(crop.shape) <= MOST_JPEG else ".png"
    return save_image(folder / f"{stem}{suffix}", crop)
