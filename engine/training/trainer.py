"""Training: the stock recipe, in plain sight.

Trainer(options).run()
    set_up             data, model, optimiser
    for each epoch     train_epoch → validate → log → save
    finish             the best checkpoint, validated once more and drawn

Several processes started by torchrun do the same in step (utils/distributed.py); the first one keeps the records.
"""

import argparse
import math
import random
import time
from collections.abc import Callable
from copy import deepcopy
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from engine.evaluation.evaluator import evaluate
from engine.evaluation.figures import Evaluation
from engine.recipe.anchors import fit_anchors
from engine.recipe.autobatch import find_batch_size
from engine.recipe.ema import ModelEMA
from engine.recipe.image_size import scaled_at_random
from engine.recipe.optimizer import Schedule, build_optimizer
from engine.recipe.parameters import freeze_layers, idle_parameters, set_drop_path
from engine.training.model import build_model, rebuild_model
from engine.training.options import DEFAULT_BATCH, check_options, read_run_hyp
from engine.training.records import Records, Silent
from engine.training.resume import continued_options, find_restarted, find_resumable
from engine.training.signals import StopSignal
from engine.training.state import capture, restore
from models.plugins import load_plugins
from utils.checkpoint import read_checkpoint
from utils.data.albument import make_transform
from utils.data.config import cache_path, index_split, prepare_data, read_data_yaml
from utils.data.dataset import EvalSet, TrainSet, load_resized
from utils.data.image_cache import cached
from utils.data.images import ImageError, fit_size, to_float
from utils.data.index import Index, changed_labels, label_stamps, labels_digest
from utils.data.loader import (
    Batch,
    EpochSampler,
    WorkerDied,
    eval_loader,
    image_weights,
    train_loader,
    watching_workers,
    worker_count,
)
from utils.device import describe_device, select_device
from utils.distributed import PeerLost, World
from utils.errors import UserError, one_line
from utils.loss.detection import DetectionLoss, scale_gains
from utils.metrics import fitness
from utils.paths import new_run_folder

T = TypeVar("T")
GRADIENT_NORM = 10.0


class Diverged(UserError):
    """The loss or a gradient is no number any more."""


class Trainer:
    """One training run. ``options`` are those of train.py; ``hyp`` replaces the file that they name.

    Without ``keep_records`` it leaves no files: for trainings that are a step of something larger.
    """

    def __init__(self, options: argparse.Namespace, hyp: dict | None = None, keep_records: bool = True):
        self.device = select_device(options.device)
        self.world = World.join(self.device)
        path, resumed = self.find_unfinished(options)
        if resumed:
            options = continued_options(options, resumed)
        options.plugins = load_plugins(options.plugins)
        self.options = options
        check_options(options, self.world)
        self.amp = self.device.type == "cuda"
        self.hyp = resumed.training["hyp"] if resumed else hyp or read_run_hyp(options)
        with self.world.first_before_others():
            self.data = prepare_data(read_data_yaml(options.data))
        self.names = {0: "object"} if options.single_cls else self.data.names
        torch.manual_seed(options.seed)  # of the initial weights
        build = partial(build_model, options, self.names, self.hyp)
        model = rebuild_model(resumed, self.names, self.data.file) if resumed else build()
        self.model = model.to(self.device, memory_format=torch.channels_last)
        if options.drop_path is not None:
            set_drop_path(model, options.drop_path)
        self.imgsz = fit_size(options.imgsz, int(model.stride.max()))
        if options.batch_size == -1:
            options.batch_size = self.choose_batch_size()
        with self.world.first_before_others():
            self.train_index, self.val_index = self.index_data()
        self.label_stamps = label_stamps(self.train_index.annotations)
        self.labels_digest = labels_digest(self.train_index.annotations)
        if not resumed and not options.noautoanchor and self.world.is_first:
            fit_anchors(model.detect, self.train_index.annotations, self.imgsz, self.hyp["anchor_t"], options.seed)
        if resumed or not keep_records:
            self.folder = path.parents[1] if resumed else Path(options.project)
        else:
            self.folder = self.world.from_first(
                partial(new_run_folder, options.project, options.name, options.exist_ok)
            )
        self.weights = self.folder / "weights"
        keep_records = keep_records and self.world.is_first
        self.records = Records(self.folder, self.names, not options.noplots) if keep_records else Silent()

        self.epoch, self.batches_done = 0, 0  # where the run stands
        self.mean_losses = torch.zeros(3, device=self.device)  # box, obj, cls, of this epoch so far
        self.last_update = -1  # the step after which the weights last changed
        self.best_fitness, self.best_epoch = -1.0, 0
        self.class_maps = np.zeros(len(self.names))  # mAP50-95 of each class at the last validation
        self.results: list[list[str]] = []  # the rows of results.csv
        self.saved_at = time.time()
        self.stop = StopSignal(patient=self.world.size > 1)
        self.set_up()
        if resumed:
            restore(self, resumed.training)
            if resumed.training.get("labels") != self.labels_digest:
                print(f"warning: the training labels of {self.data.file} are not those that this run began with")
            print(f"resuming {path} at epoch {self.epoch}, batch {self.batches_done}")
        else:
            self.records.start(self.arguments(), self.hyp, self.train_index.annotations)

    # Setting up -----------------------------------------------------------------------------------------------------

    def find_unfinished(self, options: argparse.Namespace) -> tuple:
        """The checkpoint to go on from and what it holds, or two None: that of --resume, or of a restart by torchrun."""
        if options.resume:
            return find_resumable(options.resume)
        own = find_restarted(options, self.world.launch) if self.world.restarted else None
        return find_resumable(own) if own else (None, None)

    def choose_batch_size(self) -> int:
        """--batch-size -1: what fits a CUDA device's memory."""
        if self.device.type != "cuda":
            print(f"--batch-size -1 measures the memory of a CUDA device; on {self.device.type} it is {DEFAULT_BATCH}")
            return DEFAULT_BATCH
        found = find_batch_size(self.model, self.imgsz, self.device, self.amp)
        found = max(found // 4 * 4, 4) if self.options.quad else found
        print(f"--batch-size -1: {found} images fit the memory of {describe_device(self.device)}")
        return found

    def index_data(self) -> tuple[Index, Index]:
        """Check every image and label of both splits. A training split without a single box is refused."""
        train, val = (index_split(self.data, split) for split in ("train", "val"))
        if self.options.single_cls:
            for annotation in train.annotations + val.annotations:
                annotation.labels[:, 0] = 0
        if not train.instances:
            raise UserError(
                f"{self.data.file}: the training images have no boxes at all; check that the labels lie in labels/"
            )
        return train, val

    def set_up(self) -> None:
        """Loaders, optimiser, average and loss."""
        options, hyp, model, detect, world = self.options, self.hyp, self.model, self.model.detect, self.world
        self.set_up_loaders()
        self.schedule = Schedule(hyp, options.epochs, len(self.train_loader), options.batch_size, options.cos_lr)
        freeze_layers(model, options.freeze)
        accumulate, slow = self.schedule.accumulate, {"slow": model.backbone, "factor": options.backbone_lr}
        self.optimizer = build_optimizer(model, hyp, options.batch_size, accumulate, options.optimizer, **slow)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp)
        self.ema = ModelEMA(world.copy_first(model))
        idle = idle_parameters(model, self.imgsz) if world.size > 1 else []
        if idle and world.is_first:
            print(f"note: {len(idle)} parameters do not learn, since no gradient reaches them; the first: {idle[0]}")
        if options.sync_bn:
            model = self.model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.parallel = world.wrap(model, bool(idle))
        gains = scale_gains(hyp, detect.nl, detect.nc, self.imgsz)
        self.loss = DetectionLoss(detect.anchors, detect.nc, gains, world.sum, world.size)
        self.val_loss = DetectionLoss(detect.anchors, detect.nc, gains)  # every process has batches of its own there

    def set_up_loaders(self) -> None:
        """Both splits, each process with its share of them."""
        options, world, train, val = self.options, self.world, self.train_index.annotations, self.val_index.annotations
        stride, pin = int(self.model.stride.max()), self.device.type == "cuda"
        workers = worker_count(options.workers, options.batch_size, world.local_size)
        batch = min(options.batch_size, max(len(train), 4 if options.quad else 1))
        transform = make_transform(options.albumentations or None) if options.albumentations is not None else None
        train_set = TrainSet(
            train,
            self.imgsz,
            self.hyp,
            options.seed,
            rect_batch=batch if options.rect else 0,
            stride=stride,
            load=self.image_loader("train", True),
            transform=transform,
        )
        multiple = 4 * world.size if options.quad else 1
        sampler = EpochSampler(len(train), batch, options.seed, world.rank, world.size, options.rect, multiple)
        if not len(sampler):
            raise UserError(f"--quad: {len(train)} training images are too few for quads of four in every process")
        self.train_loader = train_loader(train_set, sampler, workers, pin, options.quad)
        load = self.image_loader("val", False)
        val_set = EvalSet(val, self.imgsz, options.batch_size * 2, max(stride, 32), load=load)
        self.val_loader = eval_loader(val_set, options.batch_size * 2, workers, pin, world.rank, world.size)

    def image_loader(self, split: str, training: bool) -> Callable:
        """Path → resized image, from a cache where --cache asks for one."""
        load = partial(load_resized, size=self.imgsz, training=training)
        if not self.options.cache:
            return load
        index = self.train_index if training else self.val_index
        folder = cache_path(self.data, split, ".images")
        with self.world.first_before_others():
            return cached(load, index.annotations, self.imgsz, self.options.cache, folder, split)

    def arguments(self) -> dict:
        """The options as plain data."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in vars(self.options).items() if k != "resume"}

    # Training -------------------------------------------------------------------------------------------------------

    def run(self) -> Path:
        """Train all epochs; returns the folder of the run."""
        started = time.time()
        images, processes = len(self.train_index.annotations), self.world.size
        print(
            f"training {self.model.name} on {describe_device(self.device)}"
            f"{f' × {processes} processes' if processes > 1 else ''}: {images} images at {self.imgsz} px, "
            f"{self.options.epochs} epochs, batch {self.options.batch_size}, {self.train_loader.num_workers} workers; "
            f"results in {self.folder}"
        )
        self.fit()
        if self.out_of_patience():
            print(f"no better epoch since {self.best_epoch}: stopped early by --patience {self.options.patience}")
        hours = (time.time() - started) / 3600
        print(f"{self.epoch} epochs completed, {hours:.3f} hours; the best was epoch {self.best_epoch}")
        self.guarded(self.finish)
        self.world.leave()
        return self.folder

    def fit(self) -> None:
        """All epochs that are left."""
        options = self.options
        with self.stop:
            while not self.done():
                self.guarded(self.train_epoch)
                last = self.epoch == options.epochs - 1
                evaluation = self.guarded(self.validate) if last or not options.noval else None
                is_best = evaluation is not None and self.judge(evaluation)
                self.log(evaluation)
                self.epoch, self.batches_done = self.epoch + 1, 0
                if not options.nosave or self.done():
                    self.save(is_best)
                self.leave_if_asked()

    def done(self) -> bool:
        return self.epoch >= self.options.epochs or self.out_of_patience()

    def out_of_patience(self) -> bool:
        """Whether --patience epochs have passed without a better one; without validation nobody knows."""
        options = self.options
        return not options.noval and 0 < options.patience <= self.epoch - 1 - self.best_epoch

    def judge(self, evaluation: Evaluation) -> bool:
        """Note the figures of an epoch; whether it is the best so far."""
        self.class_maps = evaluation.class_maps
        score = fitness(evaluation.map50, evaluation.map50_95)
        is_best = score > self.best_fitness
        if is_best:
            self.best_fitness, self.best_epoch = score, self.epoch
        return is_best

    def train_epoch(self) -> None:
        """One pass over the images, or over what a resumed run has left of it."""
        model, optimizer = self.parallel.train(), self.optimizer
        self.check_labels()
        if not self.batches_done:
            self.mean_losses.zero_()
        sampler = self.train_loader.batch_sampler
        sampler.set_epoch(self.epoch, self.batches_done)
        if self.options.image_weights:
            sampler.weights = image_weights(self.train_loader.dataset.annotations, self.class_maps)
        print("".join(f"{word:>11}" for word in "Epoch GPU_mem box_loss obj_loss cls_loss Instances Size".split()))
        total = len(self.train_loader)
        bar = tqdm(
            self.train_loader,
            total=total,
            initial=self.batches_done,
            bar_format="{l_bar}{bar:10}{r_bar}",
            disable=not self.world.is_first,
        )
        for batch in bar:
            step = self.epoch * total + self.batches_done
            accumulate = self.schedule.apply(optimizer, step)
            rng = seed_step(self.options.seed, step, self.world.rank)
            images = to_float(batch.images, self.device)
            targets = batch.targets.to(self.device)
            if self.options.multi_scale:
                images = scaled_at_random(images, int(self.model.stride.max()), rng)

            with torch.amp.autocast(self.device.type, enabled=self.amp):
                maps = model(images)
            loss, items = self.loss(maps, targets)
            self.require_finite("loss", items.sum())
            self.scaler.scale(loss * 4 if self.options.quad else loss).backward()

            if step - self.last_update >= accumulate:
                self.update_weights()
                self.last_update = step
            if self.epoch == 0:
                self.records.batch(self.batches_done, batch)
            self.mean_losses = (self.mean_losses * self.batches_done + items) / (self.batches_done + 1)
            self.batches_done += 1
            bar.set_description(self.progress(batch, images.shape[-1]))
            self.save_if_due()
            self.leave_if_asked()

    def guarded(self, stage: Callable[[], T]) -> T:
        """Run a stage of an epoch; what goes wrong around it becomes one line that says how to go on.

        An image that is gone shows between two steps, where all can be saved. The death of a loading process is reported
        from a signal handler, half-way through a step too, and that of another process of the run in the middle of one:
        there the run goes on from its last checkpoint.
        """
        try:
            with watching_workers():
                return stage()
        except ImageError as e:
            self.save()
            raise UserError(f"an image can no longer be read: {one_line(e)}; {self.last_words()}") from None
        except (RuntimeError, WorkerDied, PeerLost) as e:
            if isinstance(e, RuntimeError):
                e = self.world.lost(e)
            if not isinstance(e, UserError):
                raise
            raise type(e)(f"{e}; {self.last_words()}") from None

    def update_weights(self) -> None:
        """One optimiser step on what has accumulated, and the average after it."""
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        if (
            not self.amp or self.scaler.get_scale() < 1
        ):  # above that the scaler skips the step and tries a smaller scale
            self.require_finite("gradient", norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.ema.update(self.model)

    def require_finite(self, what: str, value: torch.Tensor) -> None:
        """Stop before a number that is none reaches the weights."""
        if not math.isfinite(value.item()):
            raise Diverged(
                f"epoch {self.epoch}, batch {self.batches_done}: the {what} is {value.item()}; "
                f"lower lr0 in {self.options.hyp}, or check the labels; {self.last_words()}"
            )

    def check_labels(self) -> None:
        """Labels are read once. Raises UserError where a file has changed since, instead of training on old ones."""
        if self.world.is_first and (changed := changed_labels(self.label_stamps)):
            self.save()
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise UserError(
                f"{changed[0]}{more}: changed since the labels were read; resume to train on with the new labels, or put "
                f"the old ones back; {self.last_words()}"
            )

    def validate(self) -> Evaluation:
        """The averaged model on the validation images."""
        model = deepcopy(self.world.copy_first(self.ema.model)).fuse()
        evaluation = evaluate(model, self.val_loader, self.device, self.names, loss=self.val_loss, world=self.world)
        print(evaluation.table())
        return evaluation

    def progress(self, batch: Batch, size: int) -> str:
        """The left part of the progress bar."""
        reserved = torch.cuda.memory_reserved(self.device) / 1e9 if self.device.type == "cuda" else 0
        box, obj, cls = self.mean_losses.tolist()
        place = f"{self.epoch}/{self.options.epochs - 1}"
        memory = f"{reserved:.3g}G"
        return f"{place:>11}{memory:>11}{box:>11.4g}{obj:>11.4g}{cls:>11.4g}{len(batch.targets):>11}{size:>11}"

    # Records --------------------------------------------------------------------------------------------------------

    def log(self, evaluation: Evaluation | None) -> None:
        """A row of results.csv; zeros where the epoch was not validated."""
        figures = [0.0] * 7
        if evaluation:
            figures = [evaluation.p, evaluation.r, evaluation.map50, evaluation.map50_95, *evaluation.loss]
        rates = [group["lr"] for group in self.optimizer.param_groups[:3]]  # those of --backbone-lr follow from these
        losses = self.mean_losses.tolist()
        self.results.append([str(self.epoch), *(f"{v:.5g}" for v in (*losses, *figures, *rates))])
        self.records.results(self.results)

    def save(self, is_best: bool = False) -> None:
        """last.pt, from which the run can go on; best.pt, the same, where this epoch is the best; those of --save-period."""
        data = {
            **capture(self),
            "yaml": self.model.yaml | {"yaml_file": self.model.yaml_file},
            "names": self.names,
            "hyp": self.hyp,
            "args": self.arguments(),
            "labels": self.labels_digest,
            "launch": self.world.launch,
            "date": datetime.now().isoformat(timespec="seconds"),
        }
        names = ["last.pt", "best.pt"] if is_best else ["last.pt"]
        period = self.options.save_period
        if period > 0 and not self.batches_done and self.epoch and self.epoch % period == 0:
            names.append(f"epoch{self.epoch - 1}.pt")
        self.records.checkpoints(data, names)
        self.saved_at = time.time()

    def save_if_due(self) -> None:
        """Within an epoch: every --save-minutes."""
        minutes = self.options.save_minutes
        if minutes and time.time() - self.saved_at >= minutes * 60:
            self.save()

    def leave_if_asked(self) -> None:
        """After Ctrl-C or SIGTERM: save, say how to go on, and exit as the signal would."""
        if self.world.any(bool(self.stop.received)):
            if self.batches_done or self.options.nosave:  # between epochs it has just been done
                self.save()
            self.world.any(False)  # nobody leaves before all is saved
            print(f"\nstopped; {self.last_words()}", flush=True)
            self.world.leave()
            raise SystemExit(128 + (self.stop.received or 15))

    def last_words(self) -> str:
        """How to go on."""
        last = self.weights / "last.pt"
        return f"go on with: python train.py --resume {last}" if last.exists() else "nothing was saved yet"

    def finish(self) -> None:
        """Reduce the checkpoints to what inference needs, validate the best once more, draw everything."""
        self.records.strip()
        model = self.ema.model
        best, last = self.weights / "best.pt", self.weights / "last.pt"
        weights = best if best.exists() else last
        print(f"validating {weights}")
        if self.world.is_first:
            model.load_state_dict(read_checkpoint(weights).model)
        model = self.world.copy_first(model).fuse()
        print(model.summary(fused=True))
        evaluation = evaluate(
            model, self.val_loader, self.device, self.names, recorder=self.records.recorder(), world=self.world
        )
        print(evaluation.table(verbose=True))
        self.records.curves(evaluation)
        print(f"results are in {self.folder}; next: python detect.py --weights {weights} --imgsz {self.imgsz}")


def seed_step(*key: int) -> np.random.Generator:
    """Seed what blocks draw from global state, such as stochastic depth; returns one more generator for ``key``.

    Done anew for every (seed, step, rank): so there is no random state that a checkpoint would have to carry.
    """
    torch_seed, python_seed = (int(n) for n in np.random.SeedSequence(key).generate_state(2))
    random.seed(python_seed)
    np.random.seed(python_seed)
    torch.manual_seed(torch_seed)
    return np.random.default_rng(key)
