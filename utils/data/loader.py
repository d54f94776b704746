"""From items to batches.

collate([Item, …])                        → Batch     images uint8 [b, 3, h, w], targets [n, 6]
EpochSampler                                          which images a batch has, and which of them are this process's
train_loader, eval_loader                             DataLoaders of these
"""

import math
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from utils.data.dataset import GROUP, LANES, Drawn, EvalSet, Item, Key, TrainSet
from utils.data.images import stack_images
from utils.device import usable_cores
from utils.errors import UserError


class Batch(NamedTuple):
    """Images uint8 [b, 3, h, w] in channels_last memory; targets float32 [n, 6]: image, class, x, y, w, h (0..1)."""

    images: torch.Tensor
    targets: torch.Tensor
    paths: list[str]
    natives: list[tuple[int, int]]
    ratios: list[tuple[float, float]]
    pads: list[tuple[float, float]]


def collate(items: list[Item], images: torch.Tensor | None = None) -> Batch:
    """Items of one shape → a batch. ``images`` uint8 [b, h, w, 3]: the memory that theirs lie in, if it is one."""
    images = stack_images([item.image for item in items]) if images is None else images.permute(0, 3, 1, 2)
    labels = np.concatenate([item.labels for item in items]).reshape(-1, 5)
    of = np.repeat(np.arange(len(items)), [len(item.labels) for item in items])
    targets = torch.from_numpy(np.column_stack((of, labels)).astype(np.float32))
    rest = [[getattr(item, name) for item in items] for name in ("path", "native", "ratio", "pad")]
    return Batch(images, targets, *rest)


def collate_drawn(drawn: Drawn, quad_seed: int | None = None) -> Batch:
    """Training images → a batch, with ``quad_seed`` one of quads."""
    return collate(*drawn) if quad_seed is None else collate_quad(drawn.items, quad_seed)


def collate_quad(items: list[Item], seed: int) -> Batch:
    """Groups of four items → a batch of a quarter as many images at twice the size.

    Of every group either all four side by side, or its first alone, enlarged: chosen at random, keyed as everything is.
    """
    quads = []
    for first, *others in (items[i : i + 4] for i in range(0, len(items), 4)):
        height, width = first.image.shape[:2]
        if np.random.default_rng((seed, first.key.epoch, first.key.index, 4)).random() < 0.5:
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
    """Batches of Keys, in an order that depends on (seed, epoch) alone.

    ``set_epoch`` names the epoch that the next iteration gives, and how many of its batches are done already.

    ``rank`` of ``processes``: every so many-th image of each batch, so that together they see the batches of one alone; a
    process that would have none of a small last batch takes its first image. ``fixed``: batches of neighbours, shuffled
    as wholes. ``multiple``: batches are cut to a multiple of so many images. ``weights`` [count], if set, are the odds
    by which images are drawn, with replacement.

    Mosaics are made within groups of GROUP images or some more, whatever process has them: of one batch, or, where it is
    smaller, of some that lie apart. So an image is not seen in one step alone.
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

    def __iter__(self) -> Iterator[list[Key]]:
        batches = self.batches()
        for number in range(self.skip, len(batches)):
            groups = groups_of(batches, number)
            keys = [Key(self.epoch, index, groups[i % len(groups)]) for i, index in enumerate(batches[number])]
            yield keys[self.rank :: self.processes] or keys[:1]

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


def groups_of(batches: list[list[int]], number: int) -> list[tuple[int, ...]]:
    """The groups of one of an epoch's batches, whose images belong to them in turn.

    That of a small one is filled up from the batches LANES, 2 × LANES … before or, at the beginning of an epoch, after it.
    """
    batch = batches[number]
    turns = len(batch) // GROUP
    if turns:
        return [tuple(batch[i::turns]) for i in range(turns)]
    group = list(batch)
    lane = [*range(number - LANES, -1, -LANES), *range(number + LANES, len(batches), LANES)]
    others = [*lane, *range(number + 1, len(batches)), *range(number)]
    for other in others:
        if len(group) >= GROUP:
            break
        group += [index for index in batches[other] if index not in group]
    return [tuple(group[: max(GROUP, len(batch))])]


def image_weights(annotations: list, class_maps: np.ndarray) -> np.ndarray:
    """The odds of every image: more with each box of a class that is rare, or still found badly (``class_maps``)."""
    counts = np.array([np.bincount(a.labels[:, 0].astype(int), minlength=len(class_maps)) for a in annotations])
    rarity = 1 / counts.sum(0).clip(1)
    weights = (counts * rarity / rarity.sum() * (1 - class_maps) ** 2).sum(1)
    # Images without boxes keep a small chance.
    return weights + weights.mean() * 1e-3 + 1e-12


def train_loader(dataset: TrainSet, sampler: EpochSampler, workers: int, pin: bool, quad: bool = False) -> DataLoader:
    """The batches of ``sampler``; ``loader.batch_sampler.set_epoch(epoch)`` before each epoch."""
    dataset.pin = pin
    together = partial(collate_drawn, quad_seed=dataset.seed if quad else None)
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
        # A loader draws a seed, which is not used here; without a generator it would advance torch's global state.
        generator=torch.Generator(),
        **kwargs,
    )


def _prepare_worker(_: int) -> None:
    cv2.setNumThreads(0)  # workers are the parallelism: threads within them only get in each other's way
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the main process ends its workers
    sys.excepthook = _report


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Of a loading process: a main process that ends while it takes over a batch is nothing to report."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


class WorkerDied(UserError):
    """A process that loads images has died."""


@contextmanager
def watching_workers() -> Iterator[None]:
    """Raise WorkerDied for what the death of a loading process looks like in the process that uses its batches.

    Usually that is told by a signal handler, wherever the main process is just then; where it was taking over a batch,
    the connection breaks first.

    Where processes are not forked, each that loads images imports the script that was started. One without a guard begins
    all over in it, and gets as far as here: that process ends without a word, and the first one says what to do.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as e:
        if isinstance(e, RuntimeError) and "bootstrapping phase" in str(e):
            raise SystemExit(1) from None
        if isinstance(e, RuntimeError) and "DataLoader worker" not in str(e):
            raise
        if multiprocessing.get_start_method() != "fork" and "killed by signal" not in str(e):
            raise WorkerDied(
                "a process that loads images has died: the script that was started must call run() below "
                '`if __name__ == "__main__":`; where it does so, memory ran out: try fewer --workers'
            ) from None
        raise WorkerDied("a process that loads images has died (out of memory? try fewer --workers)") from None


def worker_count(asked: int, batch_size: int, processes: int = 1) -> int:
    """Workers that make sense: no more than asked for, than there are cores to a process, and than images in a batch."""
    return min(asked, max(usable_cores() // processes, 1), batch_size if batch_size > 1 else 0)
