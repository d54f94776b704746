"""Decoded and resized images kept in memory or on disk, so that epochs after the first need not decode them again.

cached(load, …) → load, RamImages or DiskImages    which go to loading processes as they are, forked or spawned
"""

import hashlib
import multiprocessing
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from utils.console.progress import track
from utils.data.dataset import resized_shape
from utils.data.labels import Annotation
from utils.device import available_memory
from utils.errors import UserError
from utils.files import replacing

# counts up where the same file comes out of ``load`` otherwise than before: what older versions kept is then not taken
VERSION = 2

Load = Callable[[str], tuple[np.ndarray, tuple[int, int]]]  # path → image [h, w, 3], native (h, w)


def cached(
    load: Load, annotations: list[Annotation], size: int, mode: str, folder: Path, name: str, copies: int = 1
) -> Load:
    """``load``, answered from a cache of the images that ``annotations`` name, filled here.

    ``mode``: "ram", or "disk" for .npy files in ``folder``. Where memory or disk would not do, says so and returns
    ``load`` itself. ``name`` stands for the kind of images ("train", "val"). ``copies``: how many processes of this machine
    are about to fill a memory of their own. Raises UserError where the folder can't be written.
    """
    need = sum(round(h * w * (size / max(h, w)) ** 2) * 3 for h, w in (a.shape for a in annotations))
    need *= copies if mode == "ram" else 1
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
    cache = DiskImages(load, annotations, size, folder, name) if mode == "disk" else RamImages(load, annotations, size)
    paths = [a.image for a in annotations]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # threads suffice: decoding releases Python's lock
        filled = pool.map(cache.fill, paths)
        for _ in track(filled, f"caching {name} images ({need / 1e9:.1f} GB {mode})", total=len(paths), unit="image"):
            pass
    return cache


class RamImages:
    """``load``, answered from one tensor that holds all images, one after the other.

    The processes that load images share it. Forked ones see the same memory, and write nothing to it, not even counts of
    references, for which pages would be copied; spawned ones get a handle of shared memory.
    """

    def __init__(self, load: Load, annotations: list[Annotation], size: int):
        self.load = load
        self.places: dict[str, slice] = {}
        self.shapes: dict[str, tuple[tuple[int, int, int], tuple[int, int]]] = {}  # of those that are filled in
        end = 0
        for annotation in annotations:
            # sides are rounded up, and the last bit of a product may be one too many
            height, width = (int(side * size / max(annotation.shape)) + 2 for side in annotation.shape)
            self.places[annotation.image] = slice(end, end + height * width * 3)
            end += height * width * 3
        self.pixels = torch.empty(end, dtype=torch.uint8)
        if multiprocessing.get_start_method() != "fork":
            self.pixels.share_memory_()

    def __call__(self, path: str) -> tuple[np.ndarray, tuple[int, int]]:
        if path not in self.shapes:
            return self.load(path)
        (height, width, channels), native = self.shapes[path]
        pixels = self.pixels[self.places[path]][: height * width * channels]
        return pixels.view(height, width, channels).numpy(), native

    def fill(self, path: str) -> None:
        """Take an image in; one that has grown since its labels were indexed is read each time it is asked for."""
        image, native = self.load(path)
        place = self.pixels[self.places[path]]
        if image.size <= len(place):
            place[: image.size] = torch.from_numpy(image).flatten()
            self.shapes[path] = image.shape, native


class DiskImages:
    """``load``, answered from .npy files in ``folder``, of which those that are damaged or another's are written anew."""

    def __init__(self, load: Load, annotations: list[Annotation], size: int, folder: Path, name: str):
        self.load = load
        self.size = size
        self.folder = folder
        self.shapes = {a.image: a.shape for a in annotations}
        self.files = {path: str(folder / f"{Path(path).stem}-{_digest(path, size, name)}.npy") for path in self.shapes}

    def __call__(self, path: str) -> tuple[np.ndarray, tuple[int, int]]:
        image = self._kept(path, mapped=False)
        return self.load(path) if image is None else (image, self.shapes[path])

    def fill(self, path: str) -> None:
        """Write an image's file unless it is there. Raises UserError where the folder can't be written."""
        if self._kept(path, mapped=True) is not None:
            return
        try:
            with replacing(Path(self.files[path])) as temporary:
                np.save(temporary, self.load(path)[0])
        except OSError as e:
            raise UserError(f"--cache disk: {self.folder} can't be written ({e.strerror}); free some space") from None

    def _kept(self, path: str, mapped: bool) -> np.ndarray | None:
        """What its file has of an image, in memory or ``mapped``; None where there is nothing, or nothing that fits."""
        if not os.path.isfile(self.files[path]):
            return None
        try:
            image = np.load(self.files[path], mmap_mode="r" if mapped else None, allow_pickle=False)
        # truncated or not written by us
        except Exception:
            return None
        fits = image.dtype == np.uint8 and image.shape == (*resized_shape(self.shapes[path], self.size), 3)
        return image if fits else None


def _digest(path: str, size: int, name: str) -> str:
    """A key that changes with the image, the size and the way of resizing."""
    stat = os.stat(path)
    text = repr((VERSION, os.path.abspath(path), stat.st_size, stat.st_mtime_ns, size, name))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
