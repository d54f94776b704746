"""Boxes cut out of pictures."""

import re
from pathlib import Path

import numpy as np

from utils.plots.draw import save_image


def crop_box(image: np.ndarray, box: list[float]) -> np.ndarray:
    """The part of an image [h, w, 3] in a box x1 y1 x2 y2, with a little of what surrounds it."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box
    margin_x, margin_y = (x2 - x1) * 0.01 + 5, (y2 - y1) * 0.01 + 5
    left, top = max(int(x1 - margin_x), 0), max(int(y1 - margin_y), 0)
    right, bottom = min(int(x2 + margin_x) + 1, width), min(int(y2 + margin_y) + 1, height)
    return np.ascontiguousarray(image[top:bottom, left:right])


def save_crop(folder: Path, name: str, stem: str, crop: np.ndarray) -> Path:
    """Write a crop of class ``name`` to folder/name/stem.jpg; returns the path."""
    folder = folder / re.sub(r'[\\/:*?"<>|]', "_", name)
    folder.mkdir(parents=True, exist_ok=True)
    return save_image(folder / f"{stem}.jpg", crop)
