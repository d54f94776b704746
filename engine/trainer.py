"""Training: the stock recipe, in plain sight.

Trainer(options).run()
    set_up             data, model, optimiser
    for each epoch     train_epoch → validate → log → save
    finish             the best checkpoint, validated once more and drawn
"""

import argparse
import csv
import random
import time
from collections.abc import Callable
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from engine.detector import detector_from, transfer_weights
from engine.evaluator import Evaluation, Recorder, evaluate, plot_evaluation
from engine.resume import StopSignal, capture, find_resumable, restore
from models.yolo import DetectionModel
from utils.anchors import fit_anchors
from utils.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from utils.cli import require_at_least, require_share
from utils.data_yaml import index_split, prepare_data, read_data_yaml
from utils.dataset import Batch, EvalSet, TrainSet, eval_loader, train_loader, worker_count
from utils.device import describe_device, select_device
from utils.ema import ModelEMA
from utils.errors import UserError, one_line
from utils.hyp import read_hyp
from utils.images import ImageError
from utils.labels import Index
from utils.loss import DetectionLoss, scale_gains
from utils.metrics import fitness
from utils.optimizer import Schedule, build_optimizer, finite
from utils.paths import new_run_folder
from utils.plots import plot_images, plot_labels, plot_results
from utils.yaml_file import write_yaml

T = TypeVar("T")
GRADIENT_NORM = 10.0
RESULT_COLUMNS = (
    "epoch train/box_loss train/obj_loss train/cls_loss metrics/precision metrics/recall metrics/mAP_0.5 "
    "metrics/mAP_0.5:0.95 val/box_loss val/obj_loss val/cls_loss x/lr0 x/lr1 x/lr2"
).split()


class Trainer:
    """One training run. ``options`` are those of train.py."""

    def __init__(self, options: argparse.Namespace):
        resumed = None
        if options.resume:
            path, resumed = find_resumable(options.resume)
            present = {"device": options.device, "workers": options.workers}  # these do not change what is learnt
            options = argparse.Namespace(**{**vars(options), **resumed.training["args"], **present})
        self.options = options
        for flag, minimum in (("epochs", 1), ("batch_size", 1), ("imgsz", 32), ("workers", 0), ("patience", 0)):
            require_at_least(flag.replace("_", "-"), getattr(options, flag), minimum)
        self.device = select_device(options.device)
        self.amp = self.device.type == "cuda"
        self.hyp = resumed.training["hyp"] if resumed else self.read_hyp()
        self.data = prepare_data(read_data_yaml(options.data))
        self.names = {0: "object"} if options.single_cls else self.data.names
        seed_everything(options.seed)
        self.model = self.rebuild_model(resumed) if resumed else self.build_model()
        self.imgsz = fit_size(options.imgsz, int(self.model.stride.max()))
        self.train_index, self.val_index = self.index_data()
        if not resumed and not options.noautoanchor:
            fit_anchors(self.model.detect, self.train_index.annotations, self.imgsz, self.hyp["anchor_t"], options.seed)
        self.folder = path.parents[1] if resumed else new_run_folder(options.project, options.name, options.exist_ok)
        self.weights = self.folder / "weights"
        self.weights.mkdir(exist_ok=True)

        self.epoch, self.batches_done = 0, 0  # where the run stands
        self.mean_losses = torch.zeros(3, device=self.device)  # box, obj, cls, of this epoch so far
        self.last_update = -1  # the step after which the weights last changed
        self.best_fitness, self.best_epoch = -1.0, 0
        self.results: list[list[str]] = []  # the rows of results.csv
        self.saved_at = time.time()
        self.stop = StopSignal()
        self.set_up()
        if resumed:
            restore(self, resumed.training)
            print(f"resuming {path} at epoch {self.epoch}, batch {self.batches_done}")
        else:
            self.record_settings()

    # Setting up -----------------------------------------------------------------------------------------------------

    def read_hyp(self) -> dict:
        """The hyper-parameters of --hyp, with the label smoothing of the flag where it is given."""
        smoothing = self.options.label_smoothing
        require_share("label-smoothing", smoothing)
        hyp = read_hyp(self.options.hyp)
        return hyp | {"label_smoothing": smoothing} if smoothing else hyp

    def build_model(self) -> DetectionModel:
        """The model of --cfg, or of the checkpoint where no --cfg is given, with what fits of --weights."""
        options, nc = self.options, len(self.names)
        checkpoint = read_checkpoint(options.weights) if options.weights else None
        cfg = options.cfg or (checkpoint.yaml if checkpoint else "yolov5s_EfficientNetV2.yaml")
        if cfg is None:
            raise UserError(f"{options.weights}: holds weights without their model YAML; name the model with --cfg")
        if isinstance(cfg, dict):
            cfg = cfg | {"yaml_file": cfg.get("yaml_file", options.weights)}
        anchors = round(self.hyp["anchors"]) or None
        model = DetectionModel(cfg, nc=nc, anchors=anchors)
        model.names = self.names
        print(model.summary())
        if checkpoint:
            print(transfer_weights(model, checkpoint))
        return model.to(self.device, memory_format=torch.channels_last)

    def rebuild_model(self, checkpoint: Checkpoint) -> DetectionModel:
        """The model of an unfinished run."""
        model = detector_from(checkpoint)
        if list(model.names.values()) != list(self.names.values()):
            raise UserError(f"{self.data.file}: its classes are no longer those of {checkpoint.path}")
        return model.to(self.device, memory_format=torch.channels_last)

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
        options, hyp, model, detect = self.options, self.hyp, self.model, self.model.detect
        workers = worker_count(options.workers, options.batch_size)
        pin = self.device.type == "cuda"
        train_set = TrainSet(self.train_index.annotations, self.imgsz, hyp, options.seed)
        self.train_loader = train_loader(train_set, options.batch_size, workers, pin)
        stride = max(int(model.stride.max()), 32)
        val_set = EvalSet(self.val_index.annotations, self.imgsz, options.batch_size * 2, stride)
        self.val_loader = eval_loader(val_set, options.batch_size * 2, workers, pin)
        self.schedule = Schedule(hyp, options.epochs, len(self.train_loader), options.batch_size, options.cos_lr)
        freeze_layers(model, options.freeze)
        self.optimizer = build_optimizer(model, hyp, options.batch_size, self.schedule.accumulate, options.optimizer)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp)
        self.ema = ModelEMA(model)
        self.loss = DetectionLoss(detect.anchors, detect.nc, scale_gains(hyp, detect.nl, detect.nc, self.imgsz))

    def record_settings(self) -> None:
        """What the run was asked for, and a picture of its labels."""
        write_yaml(self.folder / "opt.yaml", self.arguments())
        write_yaml(self.folder / "hyp.yaml", self.hyp)
        labels = np.concatenate([a.labels for a in self.train_index.annotations])
        plot_labels(labels, self.names, self.folder / "labels.jpg")

    def arguments(self) -> dict:
        """The options as plain data."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in vars(self.options).items() if k != "resume"}

    # Training -------------------------------------------------------------------------------------------------------

    def run(self) -> Path:
        """Train all epochs; returns the folder of the run."""
        options = self.options
        started = time.time()
        print(
            f"training {self.model.name} on {describe_device(self.device)}: {len(self.train_index.annotations)} images at "
            f"{self.imgsz} px, {options.epochs} epochs, batch {options.batch_size}, {self.train_loader.num_workers} workers; "
            f"results in {self.folder}"
        )
        with self.stop:
            while self.epoch < options.epochs and not self.out_of_patience():
                self.guarded(self.train_epoch)
                evaluation = self.guarded(self.validate)
                self.log(evaluation)
                score = fitness(evaluation.map50, evaluation.map50_95)
                if is_best := score > self.best_fitness:
                    self.best_fitness, self.best_epoch = score, self.epoch
                self.epoch, self.batches_done = self.epoch + 1, 0
                self.save(is_best)
                self.leave_if_asked()
        if self.out_of_patience():
            print(f"no better epoch since {self.best_epoch}: stopped early by --patience {options.patience}")
        hours = (time.time() - started) / 3600
        print(f"{self.epoch} epochs completed, {hours:.3f} hours; the best was epoch {self.best_epoch}")
        self.finish()
        return self.folder

    def out_of_patience(self) -> bool:
        """Whether --patience epochs have passed without a better one."""
        return 0 < self.options.patience <= self.epoch - 1 - self.best_epoch

    def train_epoch(self) -> None:
        """One pass over the images, or over what a resumed run has left of it."""
        model, optimizer = self.model.train(), self.optimizer
        if not self.batches_done:
            self.mean_losses.zero_()
        self.train_loader.batch_sampler.set_epoch(self.epoch, self.batches_done)
        print("".join(f"{word:>11}" for word in "Epoch GPU_mem box_loss obj_loss cls_loss Instances Size".split()))
        total = len(self.train_loader)
        bar = tqdm(self.train_loader, total=total, initial=self.batches_done, bar_format="{l_bar}{bar:10}{r_bar}")
        for batch in bar:
            step = self.epoch * total + self.batches_done
            accumulate = self.schedule.apply(optimizer, step)
            images = batch.images.to(self.device, non_blocking=True).float() / 255
            targets = batch.targets.to(self.device)

            with torch.amp.autocast(self.device.type, enabled=self.amp):
                maps = model(images)
            loss, items = self.loss(maps, targets)
            if not finite(loss):
                raise UserError(
                    f"epoch {self.epoch}, batch {self.batches_done}: the loss is {loss.item()}; "
                    f"lower lr0 in {self.options.hyp}, or check the labels; {self.last_words()}"
                )
            self.scaler.scale(loss).backward()

            if step - self.last_update >= accumulate:
                self.update_weights()
                self.last_update = step
            if step < 3:
                self.draw_batch(step, batch)
            self.mean_losses = (self.mean_losses * self.batches_done + items) / (self.batches_done + 1)
            self.batches_done += 1
            bar.set_description(self.progress(batch))
            self.save_if_due()
            self.leave_if_asked()

    def guarded(self, stage: Callable[[], T]) -> T:
        """Run a stage of an epoch; what goes wrong in loading images becomes one line that says how to go on.

        An image that is gone shows between two steps, where all can be saved. The death of a loading process is reported
        from a signal handler, half-way through a step too: there the run goes on from its last checkpoint.
        """
        try:
            return stage()
        except ImageError as e:
            self.save()
            raise UserError(f"an image can no longer be read: {one_line(e)}; {self.last_words()}") from None
        except RuntimeError as e:
            if "DataLoader worker" not in str(e):
                raise
            raise UserError(
                f"a process that loads images has died (out of memory? try fewer --workers); {self.last_words()}"
            ) from None

    def update_weights(self) -> None:
        """One optimiser step on what has accumulated, and the average after it."""
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.ema.update(self.model)

    def validate(self) -> Evaluation:
        """The averaged model on the validation images."""
        model = deepcopy(self.ema.model).fuse()
        evaluation = evaluate(model, self.val_loader, self.device, self.names, loss=self.loss)
        print(evaluation.table())
        return evaluation

    def progress(self, batch: Batch) -> str:
        """The left part of the progress bar."""
        reserved = torch.cuda.memory_reserved(self.device) / 1e9 if self.device.type == "cuda" else 0
        box, obj, cls = self.mean_losses.tolist()
        place = f"{self.epoch}/{self.options.epochs - 1}"
        return (
            f"{place:>11}{f'{reserved:.3g}G':>11}{box:>11.4g}{obj:>11.4g}{cls:>11.4g}"
            f"{len(batch.targets):>11}{batch.images.shape[-1]:>11}"
        )

    # Records --------------------------------------------------------------------------------------------------------

    def draw_batch(self, number: int, batch: Batch) -> None:
        """One of the first batches, as the model sees it."""
        images = batch.images.permute(0, 2, 3, 1).contiguous().numpy()
        titles = [Path(p).name for p in batch.paths]
        plot_images(images, batch.targets.numpy(), self.folder / f"train_batch{number}.jpg", self.names, titles)

    def log(self, evaluation: Evaluation) -> None:
        """A row of results.csv. The file is written whole, so that a resumed run has no row twice."""
        figures = [evaluation.p, evaluation.r, evaluation.map50, evaluation.map50_95]
        rates = [group["lr"] for group in self.optimizer.param_groups]
        losses = self.mean_losses.tolist()
        self.results.append([str(self.epoch), *(f"{v:.5g}" for v in (*losses, *figures, *evaluation.loss, *rates))])
        with open(self.folder / "results.csv", "w", newline="", encoding="utf-8") as f:
            csv.writer(f).writerows([RESULT_COLUMNS, *self.results])

    def save(self, is_best: bool = False) -> None:
        """last.pt, from which the run can go on; and best.pt, the same, where this epoch is the best."""
        data = {
            **capture(self),
            "yaml": self.model.yaml | {"yaml_file": self.model.yaml_file},
            "names": self.names,
            "hyp": self.hyp,
            "args": self.arguments(),
            "date": datetime.now().isoformat(timespec="seconds"),
        }
        save_checkpoint(self.weights / "last.pt", data)
        if is_best:
            save_checkpoint(self.weights / "best.pt", data)
        period = self.options.save_period
        if period > 0 and not self.batches_done and self.epoch % period == 0:
            save_checkpoint(self.weights / f"epoch{self.epoch - 1}.pt", data)
        self.saved_at = time.time()

    def save_if_due(self) -> None:
        """Within an epoch: every --save-minutes."""
        minutes = self.options.save_minutes
        if minutes and time.time() - self.saved_at >= minutes * 60:
            self.save()

    def leave_if_asked(self) -> None:
        """After Ctrl-C or SIGTERM: save, say how to go on, and exit as the signal would."""
        if self.stop.received:
            if self.batches_done:  # between epochs it has just been done
                self.save()
            print(f"\nstopped; {self.last_words()}", flush=True)
            raise SystemExit(128 + self.stop.received)

    def last_words(self) -> str:
        """How to go on."""
        last = self.weights / "last.pt"
        return f"go on with: python train.py --resume {last}" if last.exists() else "nothing was saved yet"

    def finish(self) -> None:
        """Reduce the checkpoints to what inference needs, validate the best once more, draw everything."""
        for name in ("last.pt", "best.pt"):
            strip_checkpoint(self.weights / name)
        plot_results(self.folder / "results.csv", self.folder / "results.png")
        best = self.weights / "best.pt"
        print(f"validating {best}")
        model = detector_from(read_checkpoint(best)).fuse().to(self.device, memory_format=torch.channels_last)
        print(model.summary(fused=True))
        recorder = Recorder(self.folder, self.names)
        evaluation = evaluate(model, self.val_loader, self.device, self.names, recorder=recorder)
        print(evaluation.table(verbose=True))
        plot_evaluation(evaluation, self.folder)
        print(f"results are in {self.folder}; next: python detect.py --weights {best} --imgsz {self.imgsz}")


def seed_everything(seed: int) -> None:
    """Seed what draws from global state: the initial weights and stochastic depth (augmentation has its own generators)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def freeze_layers(model: DetectionModel, layers: list[int]) -> None:
    """Exclude layers from learning: [10] the first ten, [3, 5, 7] these three, [0] none. BatchNorm goes on counting.

    Raises UserError for a layer the model doesn't have.
    """
    frozen = list(range(layers[0])) if len(layers) == 1 else layers
    count = len(model.model)
    said = f"--freeze {' '.join(map(str, layers))}"
    if min([*layers, *frozen]) < 0 or max([0, *frozen]) >= count:
        raise UserError(f"{said}: {model.name} has layers 0 to {count - 1}")
    if len(set(frozen)) == count:
        raise UserError(f"{said}: that is all layers of {model.name}, and nothing would learn")
    for i in frozen:
        model.model[i].requires_grad_(False)


def fit_size(size: int, stride: int) -> int:
    """The image size, raised to a multiple of the largest stride."""
    fitted = -(-size // stride) * stride
    if fitted != size:
        print(f"warning: --imgsz {size} is no multiple of the largest stride {stride}; {fitted} is used")
    return fitted


def strip_checkpoint(path: Path) -> None:
    """Leave the averaged weights in half precision and what describes them: the file to keep and to share."""
    data = read_checkpoint(path).training
    if "optimizer" not in data:
        return  # done already
    weights = {k: v.half() if v.is_floating_point() else v for k, v in data["ema"].items()}
    kept = {
        k: data[k] for k in ("yaml", "names", "epoch", "best_fitness", "best_epoch", "hyp", "args", "date", "results")
    }
    save_checkpoint(path, {**kept, "model": weights})
