"""From annotations to single items.

    TrainSet[Key], EvalSet[index]  → Item      one image uint8 [h, w, 3] RGB with labels, letterboxed or augmented

What TrainSet gives is a function of the seed and the Key alone: any number of workers gives the same batches.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from utils.data.augment import (
    Canvas,
    Scene,
    copy_paste,
    mixup,
    mosaic4,
    mosaic9,
    random_affine,
    shift_colours,
    to_normalised,
    to_pixels,
)
from utils.data.images import ImageError, fit_size, letterbox, read_near
from utils.data.labels import Annotation


class Item(NamedTuple):
    """One image of a batch. ``native`` is the size (h, w) of the file; ``ratio`` and ``pad`` (x, y) lead from it here."""

    image: np.ndarray
    labels: np.ndarray  # [n, 5] class, x, y, w, h, normalised to ``image``
    path: str
    native: tuple[int, int]
    ratio: tuple[float, float]
    pad: tuple[float, float]
    key: "Key | None" = None  # of training images


def load_resized(path: str, size: int, training: bool) -> tuple[np.ndarray, tuple[int, int]]:
    """Read an image and bring its longer side to ``size``; also its own size (h, w).

    Training decodes large JPEGs at a part of their size and resizes bilinearly, for speed; validation decodes all, and
    shrinks by area, which does not alias.
    """
    try:
        image, native = read_near(path, size if training else None)
    except ImageError as e:
        raise ImageError(f"{path}: {e}") from None
    height, width = resized_shape(native, size)
    if image.shape[:2] != (height, width):
        how = cv2.INTER_LINEAR if training or size > max(native) else cv2.INTER_AREA
        image = cv2.resize(image, (width, height), interpolation=how)
    return image, native


def resized_shape(native: tuple[int, int], size: int) -> tuple[int, int]:
    """The (h, w) of an image of ``native`` (h, w) once its longer side is ``size``."""
    ratio = size / max(native)
    return math.ceil(native[0] * ratio), math.ceil(native[1] * ratio)


class Key(NamedTuple):
    """What names a training image: ``index`` in ``epoch``, whose mosaics take their other images from ``group``; () is all.

    Images of one batch whose group is the same are asked for together, so that each file is decoded once.
    """

    epoch: int
    index: int
    group: tuple[int, ...] = ()


class Drawn(NamedTuple):
    """Training images; ``images`` uint8 [b, h, w, 3] is the memory they lie in one after the other, if they do."""

    items: list[Item]
    images: torch.Tensor | None


class TrainSet(Dataset):
    """Augmented training images of ``size`` × ``size``; items are asked for by Key, or (epoch, index).

    ``rect_batch``: instead, images sorted by aspect ratio, in batches of so many of one shape each (a multiple of
    ``stride``), as they are or warped, without mosaics. ``load`` reads and resizes an image (see utils/data/image_cache.py);
    ``transform`` is one more augmentation, (image, labels, rng) → (image, labels), the last. ``mosaic_epochs``: the
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
        # whether images that are drawn in this process, and not in a loading one, go to memory that a GPU reads by itself
        self.pin = False
        if self.rect:
            aspects = np.array([a.shape[0] / a.shape[1] for a in annotations])
            order = np.argsort(aspects, kind="stable").tolist()
            self.annotations = [annotations[i] for i in order]
            self.shapes = batch_shapes(aspects[order].tolist(), size, rect_batch, stride, pad=0.0)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, key: Key | tuple[int, int]) -> Item:
        return self.__getitems__([Key(*key)]).items[0]

    def __getitems__(self, keys: list[Key]) -> Drawn:
        """The images of a batch, all of one shape."""
        scene, shape = cache(self.scene), (*self.shapes[keys[0].index], 3)
        # what a transform gives may have any size
        images = None if self.transform else empty_images((len(keys), *shape), self.pin)
        pictures = [np.empty(shape, np.uint8) for _ in keys] if images is None else images.numpy()
        items = [self.draw(key, scene, picture) for key, picture in zip(keys, pictures, strict=True)]
        return Drawn(items, images)

    def draw(self, key: Key, scene: Callable[[int], Scene], picture: np.ndarray) -> Item:
        """One image, drawn on ``picture`` uint8 [h, w, 3]. ``scene`` gives the image and the boxes of an index."""
        rng = np.random.default_rng((self.seed, key.epoch, key.index))
        hyp = self.hyp
        closed = self.mosaic_epochs is not None and key.epoch >= self.mosaic_epochs
        # drawn in any case: what follows in the sequence is then the same with and without mosaics
        if not self.rect and rng.random() < (0.0 if closed else hyp["mosaic"]):
            labels = random_affine(self.mosaic(key, scene, rng), picture, hyp, rng)
            if rng.random() < hyp["mixup"]:
                other, picture2 = key._replace(index=self.partners(key, 1, rng)[0]), np.empty_like(picture)
                labels2 = random_affine(self.mosaic(other, scene, rng), picture2, hyp, rng)
                mixup(picture, picture2, rng)
                labels = np.concatenate((labels, labels2))
        else:
            labels = random_affine(self.letterboxed(key.index, scene), picture, hyp, rng)
        shift_colours(picture, hyp["hsv_h"], hyp["hsv_s"], hyp["hsv_v"], rng)
        labels = to_normalised(labels, picture.shape[:2])
        if self.transform:
            picture, labels = self.transform(picture, labels, rng)
        annotation = self.annotations[key.index]
        return Item(picture, labels, annotation.image, annotation.shape, (1.0, 1.0), (0.0, 0.0), key)

    def scene(self, index: int) -> Scene:
        """The image with its longer side at ``size``, and its boxes in pixels."""
        annotation = self.annotations[index]
        image, _ = self.load(annotation.image)
        height, width = image.shape[:2]
        scene = Scene(image, to_pixels(annotation.labels, (width, height)))
        if annotation.segments:
            scene.points = np.concatenate(annotation.segments) * np.array([width, height], np.float32)
            scene.counts = np.array([len(s) for s in annotation.segments])
        return scene

    def letterboxed(self, index: int, scene: Callable[[int], Scene]) -> Canvas:
        """The image padded to its batch's shape, and its boxes in pixels."""
        found = scene(index)
        image, (rw, rh), (dw, dh) = letterbox(found.image, self.shapes[index], auto=False)
        ratio, pad = np.array([rw, rh], np.float32), np.array([dw, dh], np.float32)
        labels = np.concatenate((found.labels[:, :1], found.labels[:, 1:] * np.tile(ratio, 2) + np.tile(pad, 2)), 1)
        return Canvas.of(Scene(image, labels, found.points * ratio + pad, found.counts))

    def mosaic(self, key: Key, scene: Callable[[int], Scene], rng: np.random.Generator) -> Canvas:
        """Four or nine images side by side, with copies of objects pasted in."""
        nine = self.hyp["mosaic9"] and rng.random() < self.hyp["mosaic9"]
        tiles = [key.index, *self.partners(key, 8 if nine else 3, rng)]
        rng.shuffle(tiles)
        canvas = (mosaic9 if nine else mosaic4)([scene(i) for i in tiles], self.size, rng)
        return copy_paste(canvas, self.hyp["copy_paste"], rng)

    def partners(self, key: Key, count: int, rng: np.random.Generator) -> list[int]:
        """So many other images for a mosaic: different ones, where the group has enough of them."""
        if not key.group:
            return rng.integers(len(self), size=count).tolist()
        others = [i for i in key.group if i != key.index] or [key.index]
        return rng.choice(others, count, replace=len(others) < count).tolist()


def empty_images(shape: tuple[int, int, int, int], pin: bool) -> torch.Tensor:
    """Memory for images uint8 [b, h, w, 3] from where they need not be copied to another process, or to pinned memory."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8, pin_memory=pin)
    return torch.empty(shape, dtype=torch.uint8).share_memory_()


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
        labels = to_pixels(annotation.labels, (rw * resized[1], rh * resized[0]), (dw, dh))
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
