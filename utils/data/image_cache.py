"""Decoded and resized images kept in memory or on disk, so that epochs after the first need not decode them again."""

import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.data.dataset import resized_shape
from utils.data.labels import Annotation
from utils.device import available_memory
from utils.errors import UserError
from utils.files import replacing

Load = Callable[[str], tuple[np.ndarray, tuple[int, int]]]  # path → image [h, w, 3], native (h, w)


def cached(load: Load, annotations: list[Annotation], size: int, mode: str, folder: Path, name: str) -> Load:
    """``load``, answered from a cache of the images that ``annotations`` name, filled here.

    ``mode``: "ram", or "disk" for .npy files in ``folder``. Where memory or disk would not do, says so and returns
    ``load`` itself. ``name`` stands for the kind of images ("train", "val"). Raises UserError where the folder can't be
    written.
    """
    need = sum(round(h * w * (size / max(h, w)) ** 2) * 3 for h, w in (a.shape for a in annotations))
    if mode == "disk":
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UserError(f"--cache disk: {folder} can't be made ({e.strerror}); use --cache ram or none") from None
    free = shutil.disk_usage(folder).free if mode == "disk" else available_memory()
    if free is not None and need * 1.1 > free:
        place = "on disk" if mode == "disk" else "in memory"
        print(
            f"warning: --cache {mode} needs {need / 1e9:.1f} GB {place} for the {name} images, {free / 1e9:.1f} GB are "
            "free; they are decoded anew every time"
        )
        return load
    paths = [a.image for a in annotations]
    store = {path: str(folder / f"{Path(path).stem}-{_digest(path, size, name)}.npy") for path in paths}

    def kept(path: str, mapped: bool) -> np.ndarray | None:
        """What the cache has of an image, in memory or ``mapped``; None where there is nothing, or nothing that fits."""
        if not os.path.isfile(store[path]):
            return None
        try:
            image = np.load(store[path], mmap_mode="r" if mapped else None, allow_pickle=False)
        # truncated or not written by us
        except Exception:
            return None
        fits = image.dtype == np.uint8 and image.shape == (*resized_shape(shapes[path], size), 3)
        return image if fits else None

    def load_disk(path: str) -> tuple[np.ndarray, tuple[int, int]]:
        image = kept(path, mapped=False)
        return load(path) if image is None else (image, shapes[path])

    def fill_disk(path: str) -> None:
        if kept(path, mapped=True) is not None:
            return
        try:
            with replacing(Path(store[path])) as temporary:
                np.save(temporary, load(path)[0])
        except OSError as e:
            raise UserError(f"--cache disk: {folder} can't be written ({e.strerror}); free some space") from None

    shapes = {a.image: a.shape for a in annotations}
    images: dict[str, tuple[np.ndarray, tuple[int, int]]] = {}

    def fill_ram(path: str) -> None:
        images[path] = load(path)

    fill = fill_disk if mode == "disk" else fill_ram
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # threads suffice: decoding releases Python's lock
        for _ in tqdm(
            pool.map(fill, paths), total=len(paths), desc=f"caching {name} images ({need / 1e9:.1f} GB {mode})"
        ):
            pass
    return load_disk if mode == "disk" else images.__getitem__


def _digest(path: str, size: int, name: str) -> str:
    """A key that changes with the image, the size and the way of resizing."""
    stat = os.stat(path)
    text = repr((os.path.abspath(path), stat.st_size, stat.st_mtime_ns, size, name))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
