"""Boxes cut out of pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from utils.boxes import xywh2xyxy, xyxy2xywh
from utils.files import free_path, safe_name, unique_name
from utils.plots.draw import MOST_JPEG, save_image


def crop_box(
    image: np.ndarray, box: Sequence[float] | torch.Tensor, gain: float = 1.02, pad: int = 10, square: bool = False
) -> np.ndarray:
    """The part of an image [h, w, 3] in a box x1 y1 x2 y2, ``gain`` times as large and ``pad`` pixels more, as YOLOv5 cuts it.

    ``square``: as wide as high, before that. Empty where the box lies outside.
    """
    centre = xyxy2xywh(torch.as_tensor(box, dtype=torch.float32).reshape(1, -1)[:, :4])
    if square:
        centre[:, 2:] = centre[:, 2:].max()
    centre[:, 2:] = centre[:, 2:] * gain + pad
    height, width = image.shape[:2]
    left, top, right, bottom = (int(v) for v in xywh2xyxy(centre)[0])
    return np.ascontiguousarray(
        image[max(top, 0) : max(min(bottom, height), 0), max(left, 0) : max(min(right, width), 0)]
    )


def crop_folders(names: dict[int, str]) -> dict[int, str]:
    """For each class the name of a folder for its crops: its own, changed where that can be no folder or is another's."""
    folders: dict[str, str] = {}
    # names that stay as they are come first, so that no other takes theirs
    for name in sorted(names.values(), key=lambda name: safe_name(name) != name):
        if name not in folders:
            folders[name] = unique_name(safe_name(name), folders.values())
    return {index: folders[name] for index, name in names.items()}


def save_crop(folder: Path, stem: str, crop: np.ndarray, numbered: bool = False) -> Path:
    """Write a crop to folder/stem.jpg, or .png where it is too large for that; returns the path.

    ``numbered``: stem2, stem3, … where there is a file of that name, which stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}{'.jpg' if max(crop.shape) <= MOST_JPEG else '.png'}"
    return save_image(free_path(path) if numbered else path, crop)
