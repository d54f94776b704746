"""From annotations to single items.

    TrainSet[(epoch, index)], EvalSet[index]  → Item      one image uint8 [h, w, 3] RGB with labels, letterboxed or augmented

What TrainSet gives is a function of (seed, epoch, index) alone: any number of workers gives the same batches.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
from torch.utils.data import Dataset

from utils.data.augment import (
    Scene,
    copy_paste,
    mixup,
    mosaic4,
    mosaic9,
    random_affine,
    random_flips,
    shift_colours,
    to_normalised,
    to_pixels,
)
from utils.data.images import ImageError, fit_size, letterbox, read_image
from utils.data.labels import Annotation


class Item(NamedTuple):
    """One image of a batch. ``native`` is the size (h, w) of the file; ``ratio`` and ``pad`` (x, y) lead from it here."""

    image: np.ndarray
    labels: np.ndarray  # [n, 5] class, x, y, w, h, normalised to ``image``
    path: str
    native: tuple[int, int]
    ratio: tuple[float, float]
    pad: tuple[float, float]
    key: tuple[int, int] = (0, 0)  # epoch and index, of training images


def load_resized(path: str, size: int, training: bool) -> tuple[np.ndarray, tuple[int, int]]:
    """Read an image and bring its longer side to ``size``; also its own size (h, w).

    Training resizes bilinearly, for speed; validation shrinks by area, which does not alias.
    """
    try:
        image = read_image(path)
    except ImageError as e:
        raise ImageError(f"{path}: {e}") from None
    native = image.shape[:2]
    height, width = resized_shape(native, size)
    if size != max(native):
        how = cv2.INTER_LINEAR if training or size > max(native) else cv2.INTER_AREA
        image = cv2.resize(image, (width, height), interpolation=how)
    return image, native


def resized_shape(native: tuple[int, int], size: int) -> tuple[int, int]:
    """The (h, w) of an image of ``native`` (h, w) once its longer side is ``size``."""
    ratio = size / max(native)
    return math.ceil(native[0] * ratio), math.ceil(native[1] * ratio)


class TrainSet(Dataset):
    """Augmented training images of ``size`` × ``size``; items are asked for by (epoch, index).

    ``rect_batch``: instead, images sorted by aspect ratio, in batches of so many of one shape each (a multiple of
    ``stride``), as they are or warped, without mosaics. ``load`` reads and resizes an image (see utils/data/image_cache.py);
    ``transform`` is one more augmentation, (image, labels, rng) → (image, labels), before the flips. ``mosaic_epochs``: the
    epochs from that one on are as with a ``mosaic`` of 0; None: there is none such.
    """

    def __init__(
        self,
        annotations: list[Annotation],
        size: int,
        hyp: dict,
        seed: int = 0,
        rect_batch: int = 0,
        stride: int = 32,
        load: Callable | None = None,
        transform: Callable | None = None,
        mosaic_epochs: int | None = None,
    ):
        self.annotations = annotations
        self.size = size
        self.hyp = hyp
        self.mosaic_epochs = mosaic_epochs
        self.seed = seed
        self.rect = rect_batch > 0
        self.shapes = [(size, size)] * len(annotations)
        self.load = load or partial(load_resized, size=size, training=True)
        self.transform = transform
        if self.rect:
            aspects = np.array([a.shape[0] / a.shape[1] for a in annotations])
            order = np.argsort(aspects, kind="stable").tolist()
            self.annotations = [annotations[i] for i in order]
            self.shapes = batch_shapes(aspects[order].tolist(), size, rect_batch, stride, pad=0.0)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        hyp = self.hyp
        closed = self.mosaic_epochs is not None and epoch >= self.mosaic_epochs
        # drawn in any case: what follows in the sequence is then the same with and without mosaics
        if not self.rect and rng.random() < (0.0 if closed else hyp["mosaic"]):
            scene = self.mosaic(index, rng)
            if rng.random() < hyp["mixup"]:
                scene = mixup(scene, self.mosaic(int(rng.integers(len(self))), rng), rng)
        else:
            scene = random_affine(self.letterboxed(index), self.shapes[index], hyp, rng)
        image = shift_colours(scene.image, hyp["hsv_h"], hyp["hsv_s"], hyp["hsv_v"], rng)
        labels = to_normalised(scene.labels, image.shape[:2])
        if self.transform:
            image, labels = self.transform(image, labels, rng)
        image, labels = random_flips(image, labels, hyp["flipud"], hyp["fliplr"], rng)
        annotation = self.annotations[index]
        return Item(image, labels, annotation.image, annotation.shape, (1.0, 1.0), (0.0, 0.0), key)

    def scene(self, index: int) -> Scene:
        """The image with its longer side at ``size``, and its boxes in pixels."""
        annotation = self.annotations[index]
        image, _ = self.load(annotation.image)
        height, width = image.shape[:2]
        return Scene(image, *to_pixels(annotation.labels, annotation.segments, (width, height), (0, 0)))

    def letterboxed(self, index: int) -> Scene:
        """The image padded to its batch's shape, and its boxes in pixels."""
        scene = self.scene(index)
        image, (rw, rh), (dw, dh) = letterbox(scene.image, self.shapes[index], auto=False)
        labels = scene.labels * np.array([1, rw, rh, rw, rh], np.float32) + np.array([0, dw, dh, dw, dh], np.float32)
        segments = [s * np.array([rw, rh], np.float32) + np.array([dw, dh], np.float32) for s in scene.segments]
        return Scene(image, labels, segments)

    def mosaic(self, index: int, rng: np.random.Generator) -> Scene:
        """Four or nine images side by side, copy-pasted and warped to ``size`` × ``size``."""
        nine = self.hyp["mosaic9"] and rng.random() < self.hyp["mosaic9"]
        tiles = [index, *rng.integers(len(self), size=8 if nine else 3).tolist()]
        rng.shuffle(tiles)
        scene = (mosaic9 if nine else mosaic4)([self.scene(i) for i in tiles], self.size, rng)
        scene = copy_paste(scene, self.hyp["copy_paste"], rng)
        return random_affine(scene, (self.size, self.size), self.hyp, rng)


class EvalSet(Dataset):
    """Images as they are, letterboxed. ``rect``: sorted by aspect ratio, so that each batch is padded as little as can be.

    With ``shape`` (h, w) every image gets exactly that one.
    """

    def __init__(
        self,
        annotations: list[Annotation],
        size: int,
        batch_size: int,
        stride: int = 32,
        rect: bool = True,
        pad: float = 0.5,
        load: Callable | None = None,
        shape: tuple[int, int] | None = None,
    ):
        self.size = size
        self.load = load or partial(load_resized, size=size, training=False)
        self.annotations = annotations
        self.shapes = [shape or (size, size)] * len(annotations)
        if rect and shape is None:
            aspects = [a.shape[0] / a.shape[1] for a in annotations]
            # not a stable sort: which of many equal aspects share a batch decides its padding, and stock sorts like this
            order = np.argsort(aspects).tolist()
            self.annotations = [annotations[i] for i in order]
            self.shapes = batch_shapes([aspects[i] for i in order], size, batch_size, stride, pad)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Item:
        annotation = self.annotations[index]
        image, native = self.load(annotation.image)
        resized = image.shape[:2]
        image, (rw, rh), (dw, dh) = letterbox(image, self.shapes[index], auto=False, scaleup=False)
        labels, _ = to_pixels(annotation.labels, [], (rw * resized[1], rh * resized[0]), (dw, dh))
        ratio = (rw * resized[1] / native[1], rh * resized[0] / native[0])
        return Item(image, to_normalised(labels, image.shape[:2]), annotation.image, native, ratio, (dw, dh))


def batch_shapes(aspects: list[float], size: int, batch_size: int, stride: int, pad: float) -> list[tuple[int, int]]:
    """The letterbox shape (h, w) of every image, one per batch, given aspect ratios (h / w) in rising order."""
    shapes = []
    for start in range(0, len(aspects), batch_size):
        group = aspects[start : start + batch_size]
        if group[-1] < 1:
            height, width = group[-1], 1.0
        elif group[0] > 1:
            height, width = 1.0, 1 / group[0]
        else:
            height, width = 1.0, 1.0
        shape = tuple(fit_size(side * size + pad * stride, stride) for side in (height, width))
        shapes += [shape] * len(group)
    return shapes
