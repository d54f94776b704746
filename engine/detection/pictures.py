"""Pictures as a program has them (paths, URLs, arrays, PIL images) → arrays of one kind, and the shape they share."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from utils.data.images import ImageError, fit_size, read_image, to_uint8
from utils.download import is_url
from utils.errors import UserError
from utils.sources.sources import fetch


def read_images(ims: Any) -> tuple[list[np.ndarray], list[str]]:
    """One or several pictures of any kind → arrays uint8 [h, w, 3] RGB, and a file name for each.

    Raises UserError that names what can't be read.
    """
    ims = list(ims) if isinstance(ims, (list, tuple)) else [ims]
    if not ims:
        raise UserError("model(images): the list of images is empty")
    images, files = [], []
    for i, im in enumerate(ims):
        name = f"image{i}.jpg"
        if isinstance(im, (str, Path)):
            image, name = _read_file(str(im))
        elif isinstance(im, np.ndarray):
            image = _as_rgb(im, i)
        elif hasattr(im, "convert"):  # PIL, which need not be installed for the other kinds
            from PIL import ImageOps

            image = np.asarray(ImageOps.exif_transpose(im).convert("RGB"))
            name = Path(getattr(im, "filename", "") or name).with_suffix(".jpg").name
        else:
            raise UserError(
                f"model(images): image {i} is of type {type(im).__name__}; give a path, URL, array or PIL image"
            )
        images.append(np.ascontiguousarray(image))
        files.append(name)
    return images, files


def _read_file(path: str) -> tuple[np.ndarray, str]:
    try:
        if not is_url(path):
            return read_image(path), Path(path).with_suffix(".jpg").name
        with tempfile.TemporaryDirectory() as folder:
            file = fetch(path, folder)
            return read_image(file), file.with_suffix(".jpg").name
    except ImageError as e:
        raise UserError(f"{path}: {e}") from None


def _as_rgb(array: np.ndarray, i: int) -> np.ndarray:
    """An array of a picture in one of the usual layouts → uint8 [h, w, 3]."""
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise UserError(f"model(images): image {i} has the shape {array.shape}; [h, w, 3] was expected, RGB")
    channels = array[..., [0, 0, 0]] if array.shape[2] == 1 else array[..., :3]
    return to_uint8(channels)


def common_shape(images: list[np.ndarray], size: int | tuple[int, int], stride: int) -> tuple[int, int]:
    """The least (height, width) that pictures [h, w, 3] share: their longer sides at ``size``, rounded up to the stride.

    Raises UserError where the size is not positive.
    """
    longest = max(size) if isinstance(size, (tuple, list)) else size
    if longest < 1:
        raise UserError(f"model(images, size={size}): the size is a number of pixels")
    scaled = np.array([np.array(image.shape[:2]) * longest / max(image.shape[:2]) for image in images])
    height, width = (fit_size(side, stride) for side in scaled.max(0).round(6))
    return height, width
