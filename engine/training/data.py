"""The images and labels of a run: indexed once, and loaded batch by batch, each process its share."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
from torch.utils.data import DataLoader

from engine.recipe.progressive import Stage
from engine.training.options import TrainOptions
from utils.data.albument import make_transform
from utils.data.config import DataConfig, cache_path, index_split
from utils.data.dataset import EvalSet, TrainSet, load_resized, resized_shape
from utils.data.image_cache import cached
from utils.data.index import changed_labels, label_stamps, labels_digest
from utils.data.labels import Annotation
from utils.data.loader import EpochSampler, eval_loader, train_loader, worker_count
from utils.distributed import World
from utils.errors import UserError


@dataclass
class TrainingData:
    """What a run learns from and is measured on, at ``imgsz`` pixels; a stage of --progressive has a ``train_loader`` of
    its own."""

    config: DataConfig
    names: dict[int, str]
    train: list[Annotation]
    val: list[Annotation]
    imgsz: int
    train_loader: DataLoader
    val_loader: DataLoader

    def __post_init__(self):
        self.stamps = label_stamps(self.train)
        self.digest = labels_digest(self.train)

    def changed_labels(self) -> list[str]:
        """The label files that have changed since they were read."""
        return changed_labels(self.stamps)


def index_data(config: DataConfig, single_cls: bool) -> tuple[list[Annotation], list[Annotation]]:
    """Check every image and label of both splits. A training split without a single box is refused."""
    train, val = (index_split(config, split, single_cls) for split in ("train", "val"))
    if not train.instances:
        raise UserError(
            f"{config.file}: the training images have no boxes at all; check that the labels lie in labels/"
        )
    if shared := shared_images(train.annotations, val.annotations):
        print(
            f"warning: {config.file}: {shared} of the {len(val.annotations)} images of val are images of train, too: what is "
            "measured on them is how well they are remembered. `python data/convert.py split` makes splits that share none"
        )
    return train.annotations, val.annotations


def shared_images(train: list[Annotation], val: list[Annotation]) -> int:
    """How many images of ``val`` are in ``train``, too."""
    return len({os.path.abspath(a.image) for a in train} & {os.path.abspath(a.image) for a in val})


def build_loaders(
    options: TrainOptions,
    hyp: dict,
    config: DataConfig,
    train: list[Annotation],
    val: list[Annotation],
    imgsz: int,
    stride: int,
    world: World,
) -> tuple[DataLoader, DataLoader]:
    """Loaders of both splits, which give this process its share of every batch. ``stride``: the model's largest."""
    images = partial(_image_loader, options, config, imgsz, world)
    transform = make_transform(options.albumentations or None) if options.albumentations is not None else None
    load = images("train", train)
    trained = build_train_loader(options, hyp, train, imgsz, stride, world, load, transform)
    if not len(trained.batch_sampler):
        raise UserError(f"--quad: {len(train)} training images are too few for quads of four in every process")
    batch, pin = options.batch_size * 2, world.device.type == "cuda"
    val_set = EvalSet(val, imgsz, batch, max(stride, 32), load=images("val", val))
    return trained, eval_loader(val_set, batch, trained.num_workers, pin, world.rank, world.size)


def build_train_loader(
    options: TrainOptions,
    hyp: dict,
    train: list[Annotation],
    imgsz: int,
    stride: int,
    world: World,
    load: Callable,
    transform: Callable | None,
) -> DataLoader:
    """The batches to learn from; ``load`` gives images at ``imgsz``, ``transform`` is one more augmentation, see TrainSet."""
    batch = min(options.batch_size, max(len(train), 4 if options.quad else 1))
    train_set = TrainSet(
        train,
        imgsz,
        hyp,
        options.seed,
        rect_batch=batch if options.rect else 0,
        stride=stride,
        load=load,
        transform=transform,
        mosaic_epochs=mosaic_epochs(options, hyp),
    )
    multiple = 4 * world.size if options.quad else 1
    sampler = EpochSampler(len(train), batch, options.seed, world.rank, world.size, options.rect, multiple)
    workers = worker_count(options.workers, options.batch_size, world.local_size)
    return train_loader(train_set, sampler, workers, world.device.type == "cuda", options.quad)


def build_stage_loader(
    options: TrainOptions, data: TrainingData, full: DataLoader, stage: Stage, stride: int, world: World
) -> DataLoader:
    """The batches of a stage of --progressive; ``full`` are those of the run at its full size, whose images it takes."""
    images = full.dataset
    load = images.load if stage.imgsz == images.size else partial(load_smaller, load=images.load, size=stage.imgsz)
    options = replace(options, batch_size=stage.batch_size)
    return build_train_loader(options, stage.hyp, data.train, stage.imgsz, stride, world, load, images.transform)


def load_smaller(path: str, load: Callable, size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """What ``load`` gives, an image and the size (h, w) of its file, with the image's longer side at ``size``.

    It is shrunk from the full size of the run also where no cache holds that: so the pictures are the same with any --cache.
    """
    image, native = load(path)
    height, width = resized_shape(native, size)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), native


def mosaic_epochs(options: TrainOptions, hyp: dict) -> int | None:
    """How many epochs there are before close_mosaic sets in; None where it never does, or there is nothing to close."""
    closed = round(hyp["close_mosaic"])
    return max(options.epochs - closed, 0) if closed and hyp["mosaic"] and not options.rect else None


def _image_loader(
    options: TrainOptions, config: DataConfig, imgsz: int, world: World, split: str, annotations: list[Annotation]
) -> Callable:
    """Path → resized image, from a cache where --cache asks for one."""
    load = partial(load_resized, size=imgsz, training=split == "train")
    if not options.cache:
        return load
    # the first has filled its own memory before the others look at what is left
    copies = world.local_size - (0 if world.is_first else 1)
    folder = cache_path(config, split, ".images")
    with world.first_before_others():
        return cached(load, annotations, imgsz, options.cache, folder, split, max(copies, 1))
