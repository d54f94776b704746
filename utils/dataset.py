"""From annotations to batches.

    TrainSet[(epoch, index)], EvalSet[index]  → Item      one image uint8 [h, w, 3] RGB with labels, letterboxed or augmented
    collate([Item, …])                        → Batch     images uint8 [b, 3, h, w], targets [n, 6]
    EpochSampler                                          which images a batch has, and which of them are this process's
    train_loader, eval_loader                             DataLoaders of these

What TrainSet gives is a function of (seed, epoch, index) alone: any number of workers gives the same batches.
"""

import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from utils.augment import (
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
from utils.errors import UserError
from utils.images import ImageError, letterbox, read_image
from utils.labels import Annotation


class Item(NamedTuple):
    """One image of a batch. ``native`` is the size (h, w) of the file; ``ratio`` and ``pad`` (x, y) lead from it here."""

    image: np.ndarray
    labels: np.ndarray  # [n, 5] class, x, y, w, h, normalised to ``image``
    path: str
    native: tuple[int, int]
    ratio: tuple[float, float]
    pad: tuple[float, float]
    key: tuple[int, int] = (0, 0)  # epoch and index, of training images


class Batch(NamedTuple):
    """Images uint8 [b, 3, h, w] in channels_last memory; targets float32 [n, 6]: image, class, x, y, w, h (0..1)."""

    images: torch.Tensor
    targets: torch.Tensor
    paths: list[str]
    natives: list[tuple[int, int]]
    ratios: list[tuple[float, float]]
    pads: list[tuple[float, float]]


def load_resized(path: str, size: int, training: bool) -> tuple[np.ndarray, tuple[int, int]]:
    """Read an image and bring its longer side to ``size``; also its own size (h, w).

    Training resizes bilinearly, for speed; validation shrinks by area, which does not alias.
    """
    try:
        image = read_image(path)
    except ImageError as e:
        raise ImageError(f"{path}: {e}") from None
    height, width = image.shape[:2]
    ratio = size / max(height, width)
    if ratio != 1:
        how = cv2.INTER_LINEAR if training or ratio > 1 else cv2.INTER_AREA
        image = cv2.resize(image, (math.ceil(width * ratio), math.ceil(height * ratio)), interpolation=how)
    return image, (height, width)


class TrainSet(Dataset):
    """Augmented training images of ``size`` × ``size``; items are asked for by (epoch, index).

    ``rect_batch``: instead, images sorted by aspect ratio, in batches of so many of one shape each (a multiple of
    ``stride``), as they are or warped, without mosaics. ``load`` reads and resizes an image (see utils/image_cache.py);
    ``transform`` is one more augmentation, (image, labels, rng) → (image, labels), before the flips.
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
    ):
        self.annotations = annotations
        self.size = size
        self.hyp = hyp
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
        if not self.rect and rng.random() < hyp["mosaic"]:
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
        shape = tuple(math.ceil(side * size / stride + pad) * stride for side in (height, width))
        shapes += [shape] * len(group)
    return shapes


def collate(items: list[Item]) -> Batch:
    """Items of one shape → a batch."""
    images = torch.from_numpy(np.stack([item.image for item in items])).permute(0, 3, 1, 2)
    numbered = [
        np.column_stack((np.full(len(item.labels), i, np.float32), item.labels)) for i, item in enumerate(items)
    ]
    targets = torch.from_numpy(np.concatenate(numbered).astype(np.float32).reshape(-1, 6))
    rest = [[getattr(item, name) for item in items] for name in ("path", "native", "ratio", "pad")]
    return Batch(images, targets, *rest)


def collate_quad(items: list[Item], seed: int) -> Batch:
    """Groups of four items → a batch of a quarter as many images at twice the size.

    Of every group either all four side by side, or its first alone, enlarged: chosen at random, keyed as everything is.
    """
    quads = []
    for first, *others in (items[i : i + 4] for i in range(0, len(items), 4)):
        height, width = first.image.shape[:2]
        if np.random.default_rng((seed, *first.key, 4)).random() < 0.5:
            image = cv2.resize(first.image, (width * 2, height * 2), interpolation=cv2.INTER_LINEAR)
            quads.append(first._replace(image=image))
            continue
        a, b, c, d = (item.image for item in (first, *others))
        image = np.concatenate((np.concatenate((a, b), 1), np.concatenate((c, d), 1)))
        labels = [
            item.labels * np.array([1, 0.5, 0.5, 0.5, 0.5], np.float32) + np.array([0, x, y, 0, 0], np.float32)
            for item, x, y in zip((first, *others), (0, 0.5, 0, 0.5), (0, 0, 0.5, 0.5), strict=True)
        ]
        quads.append(first._replace(image=image, labels=np.concatenate(labels)))
    return collate(quads)


class EpochSampler:
    """Batches of (epoch, index), in an order that depends on (seed, epoch) alone.

    ``set_epoch`` names the epoch that the next iteration gives, and how many of its batches are done already.

    ``rank`` of ``processes``: every so many-th image of each batch, so that together they see the batches of one alone; a
    process that would have none of a small last batch takes its first image. ``fixed``: batches of neighbours, shuffled
    as wholes. ``multiple``: batches are cut to a multiple of so many images. ``weights`` [count], if set, are the odds
    by which images are drawn, with replacement.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
        fixed: bool = False,
        multiple: int = 1,
    ):
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.processes = rank, processes
        self.fixed = fixed
        self.multiple = multiple
        self.weights: np.ndarray | None = None
        self.epoch = 0
        self.skip = 0

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        self.epoch, self.skip = epoch, skip

    def __len__(self) -> int:
        return math.ceil((self.count - self.count % self.multiple) / self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self.batches()[self.skip :]:
            mine = batch[self.rank :: self.processes] or batch[:1]
            yield [(self.epoch, index) for index in mine]

    def batches(self) -> list[list[int]]:
        """The indices of all images of the epoch, batch by batch."""
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.weights is not None:
            order = rng.choice(self.count, self.count, p=self.weights / self.weights.sum())
        else:
            order = np.arange(self.count) if self.fixed else rng.permutation(self.count)
        end = self.count - self.count % self.multiple
        batches = [order[i : min(i + self.batch_size, end)].tolist() for i in range(0, end, self.batch_size)]
        if self.fixed:
            rng.shuffle(batches)
        return batches


def train_loader(dataset: TrainSet, sampler: EpochSampler, workers: int, pin: bool, quad: bool = False) -> DataLoader:
    """The batches of ``sampler``; ``loader.batch_sampler.set_epoch(epoch)`` before each epoch."""
    together = partial(collate_quad, seed=dataset.seed) if quad else collate
    return _loader(dataset, workers, pin, together, batch_sampler=sampler, persistent_workers=workers > 0)


def eval_loader(
    dataset: EvalSet, batch_size: int, workers: int, pin: bool, rank: int = 0, processes: int = 1
) -> DataLoader:
    """The images in the order of ``dataset``, once. Several processes cut each batch into as many pieces and take turns."""
    piece = math.ceil(batch_size / processes)
    batches = []
    for start in range(0, len(dataset), batch_size):
        batch = range(start, min(start + batch_size, len(dataset)))
        batches += [list(batch[i : i + piece]) for i in range(0, len(batch), piece)]
    batches = batches[rank::processes]
    return _loader(dataset, workers, pin, collate, batch_sampler=batches, persistent_workers=workers > 0)


def _loader(dataset: Dataset, workers: int, pin: bool, together: Callable, **kwargs) -> DataLoader:
    return DataLoader(
        dataset,
        num_workers=workers,
        collate_fn=together,
        pin_memory=pin,
        worker_init_fn=_prepare_worker,
        generator=torch.Generator(),  # a loader draws a seed that nobody uses; not from the state that a run saves
        **kwargs,
    )


def _prepare_worker(_: int) -> None:
    cv2.setNumThreads(0)  # workers are the parallelism: threads within them only get in each other's way
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the main process ends its workers


class WorkerDied(UserError):
    """A process that loads images is gone."""


@contextmanager
def watching_workers() -> Iterator[None]:
    """Raise WorkerDied for what the death of a loading process looks like in the process that uses its batches.

    Usually that is told by a signal handler, wherever the main process is just then; where it was taking over a batch,
    the connection breaks first.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as e:
        if isinstance(e, RuntimeError) and "DataLoader worker" not in str(e):
            raise
        raise WorkerDied("a process that loads images has died (out of memory? try fewer --workers)") from None


def worker_count(asked: int, batch_size: int, processes: int = 1) -> int:
    """Workers that make sense: no more than asked for, than there are cores to a process, and than images in a batch."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(asked, max(cores // processes, 1), batch_size if batch_size > 1 else 0)
