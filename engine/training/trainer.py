"""Training: the stock recipe, in plain sight.

Trainer(set_up(options)).run()
    for each epoch      train_epoch → validate → log → save
        for each batch  Learner.step: images, targets → loss → gradients → weights
    finish              the best checkpoint, validated once more and drawn

Several processes started by torchrun do the same in step (utils/distributed.py); the first one keeps the records.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import torch
from tqdm import tqdm

from engine.detection.compilation import any_number, compile_errors
from engine.evaluation.evaluator import evaluate
from engine.evaluation.figures import Evaluation
from engine.recipe.image_size import scaled_at_random
from engine.recipe.optimizer import learning_rates
from engine.recipe.progressive import stage_at, stage_line, stage_table
from engine.training.data import build_stage_loader
from engine.training.learner import Diverged, seed_step
from engine.training.options import CODE, PRESENT
from engine.training.records import in_half
from engine.training.setup import Run, build_loss, saved_arguments
from engine.training.signals import Stopped, StopSignal, stopping_at_once
from models.fuse import settle
from models.load import use_half
from utils.checkpoint import read_checkpoint
from utils.console.neighbours import turn
from utils.console.progress import track
from utils.console.typed import command_line
from utils.data.config import source_of
from utils.data.images import ImageError, to_float
from utils.data.loader import Batch, WorkerDied, image_weights, watching_workers
from utils.device import OutOfMemory, describe_device, normalising
from utils.distributed import PeerLost
from utils.errors import UserError, one_line
from utils.metrics import fitness
from utils.results import make_row
from utils.saved.schema import misfits

T = TypeVar("T")


class Trainer:
    """Trains a run from where its state stands to its end; what it is made of is handed in, see setup.py."""

    def __init__(self, run: Run):
        self.options, self.hyp, self.world = run.options, run.hyp, run.world
        self.data, self.learner, self.val_loss = run.data, run.learner, run.val_loss
        self.records, self.folder, self.state = run.records, run.folder, run.state
        self.stages, self.drops = run.stages, run.drops
        # of the whole run, and the stage of --progressive whose batches the data has now
        self.full_loader, self.stage = run.data.train_loader, None
        # the batches of an epoch that loading processes have begun on, and its number
        self.begun: tuple[int, Iterator[Batch]] | None = None
        self.stop = StopSignal(patient=self.world.size > 1)
        # whether the first batch is behind us, at which --compile makes its code
        self.compiled = False
        # by a clock that nobody sets
        self.saved_at = time.monotonic()

    @property
    def weights(self) -> Path:
        """Where the checkpoints lie."""
        return self.folder / "weights"

    def run(self) -> Path:
        """Train all epochs; returns the folder of the run."""
        started = time.monotonic()
        processes, data, options = self.world.size, self.data, self.options
        print(
            f"training {self.learner.model.name} on {describe_device(self.world.device)}"
            f"{f' × {processes} processes' if processes > 1 else ''}: {len(data.train)} images at {data.imgsz} px, "
            f"{options.epochs} epochs, batch {options.batch_size}, {data.train_loader.num_workers} workers; "
            f"results in {self.folder}"
        )
        if options.progressive:
            print(stage_table(self.stages))
        with stopping_at_once(self.last_words):
            self.fit()
            state = self.state
            if self.out_of_patience():
                print(f"no better epoch since {state.best_epoch}: stopped early by --patience {options.patience}")
            hours = (time.monotonic() - started) / 3600
            print(f"{state.epoch} epochs completed, {hours:.3f} hours; the best was epoch {state.best_epoch}")
            self.guarded(self.finish)
        self.world.leave()
        return self.folder

    def fit(self) -> None:
        """All epochs that are left."""
        options, state = self.options, self.state
        with self.stop:
            while not self.done():
                self.guarded(self.train_epoch)
                last = state.epoch == options.epochs - 1
                evaluation = self.guarded(self.validate) if last or not options.noval else None
                is_best = evaluation is not None and state.judge(
                    fitness(evaluation.map50, evaluation.map50_95), evaluation.class_maps
                )
                self.log(evaluation)
                state.epoch_done()
                if not options.nosave or self.done():
                    self.save(is_best)
                self.leave_if_asked()

    def done(self) -> bool:
        return self.state.epoch >= self.options.epochs or self.out_of_patience()

    def out_of_patience(self) -> bool:
        """Whether --patience epochs have passed without a better one; never without validation, which measures that, and
        of --progressive in the last stage, to which the others lead."""
        options, state = self.options, self.state
        since = max(state.best_epoch, self.stages[-1].begin)
        return not options.noval and 0 < options.patience <= state.epoch - 1 - since

    def train_epoch(self) -> None:
        """One pass over the images, or over what a resumed run has left of it."""
        state, learner, options = self.state, self.learner, self.options
        self.check_labels()
        self.enter_stage()
        state.begin_epoch()
        # worth its while for images of one size: CUDA then tries its convolutions, and keeps to the fastest of this run
        torch.backends.cudnn.benchmark = not (options.multi_scale or options.rect or options.deterministic)
        bar = self.batches_left()
        learner.parallel.train()
        with compile_errors():
            self.learn_from(bar)
        self.begin_loading()

    def learn_from(self, bar: tqdm) -> None:
        """The steps of an epoch, or of what is left of it."""
        state, learner, options, device = self.state, self.learner, self.options, self.world.device
        for batch in bar:
            number = self.step_number()
            rng = seed_step(options.seed, number, self.world.rank)
            images = to_float(batch.images, device)
            if options.multi_scale:
                images = scaled_at_random(images, int(learner.model.stride.max()), rng)
            if options.compile:
                any_number(images)
            started = time.monotonic()
            # float32 needs no turns: its barriers do not spin
            with nullcontext() if learner.amp == "off" else turn():
                losses = learner.step(images, batch.targets, number, state)
            if options.compile and not self.compiled:
                bar.write(f"--compile: the first batch took {time.monotonic() - started:.0f} s")
                self.compiled = True

            if state.epoch == 0:
                self.records.batch(state.batches_done, batch)
            state.batch_done(losses)
            bar.set_description(self.progress(batch, images.shape[-1]))
            self.save_if_due()
            self.leave_if_asked()

    def enter_stage(self) -> None:
        """Where a stage of --progressive begins, or is taken up again: its images, its loss, its stochastic depth."""
        if not self.changes_stage(self.state.epoch):
            return
        self.stage = stage = stage_at(self.stages, self.state.epoch)
        learner, stride = self.learner, int(self.learner.model.stride.max())
        self.data.train_loader = build_stage_loader(
            self.options, self.data, self.full_loader, stage, stride, self.world
        )
        # an object keeps to its anchor from stage to stage, as it keeps to its share of the image
        zoom = stage.imgsz / self.data.imgsz
        learner.loss = build_loss(learner.model, self.hyp, stage.imgsz, self.world, zoom, learner.pupil)
        self.drops.weaken(stage.strength)
        print(stage_line(stage, len(self.stages)))

    def changes_stage(self, epoch: int) -> bool:
        """Whether an epoch belongs to another stage of --progressive than the one whose batches the data has."""
        return len(self.stages) > 1 and stage_at(self.stages, epoch) is not self.stage

    def step_number(self) -> int:
        """Of the next batch, counted over the run in batches of --batch-size: where a stage of small images has more of them
        in a batch it stands for as many steps, and the rates and the images of an update stay those of the schedule."""
        schedule, done = self.learner.schedule, self.state.batches_done + 1
        images = done * self.data.train_loader.batch_sampler.batch_size
        within = min(math.ceil(images / schedule.batch_size), schedule.steps_per_epoch)
        return self.state.epoch * schedule.steps_per_epoch + within - 1

    def batches_left(self) -> tqdm:
        """The batches of this epoch that are still to do, behind a progress bar."""
        loader, state = self.data.train_loader, self.state
        loader.batch_sampler.set_epoch(state.epoch, state.batches_done)
        if self.options.image_weights:
            loader.batch_sampler.weights = image_weights(loader.dataset.annotations, state.class_maps)
        if state.epoch == loader.dataset.mosaic_epochs:
            print(f"close_mosaic: from epoch {state.epoch} on without mosaics, mixup and copy-paste")
        losses = "box_loss obj_loss cls_loss distill".split()[: len(state.mean_losses)]
        print("".join(f"{word:>11}" for word in ["Epoch", "GPU_mem", *losses, "Instances", "Size"]))
        begun, self.begun = self.begun, None
        here = begun and begun[0] == state.epoch and not state.batches_done
        batches = begun[1] if here else loader
        return track(batches, hidden=not self.world.is_first, total=len(loader), initial=state.batches_done)

    def begin_loading(self) -> None:
        """Have the first batches of the next epoch loaded while this one is validated, by processes that else had nothing to
        do; not where the images are drawn by what comes of the validation."""
        loader, epoch = self.data.train_loader, self.state.epoch + 1
        over = epoch >= self.options.epochs
        if not loader.num_workers or over or self.changes_stage(epoch) or self.options.image_weights:
            return
        loader.batch_sampler.set_epoch(epoch)
        self.begun = epoch, iter(loader)

    def guarded(self, stage: Callable[[], T]) -> T:
        """Run a stage of an epoch; what goes wrong around it becomes one line that says how to go on.

        A missing image is noticed between two steps, where all can be saved. The death of a loading process is reported
        from a signal handler, half-way through a step too, and that of another process of the run in the middle of one:
        there the run goes on from its last checkpoint.
        """
        try:
            with watching_workers(), normalising():
                return stage()
        except Diverged as e:
            first = "" if self.learner.amp == "off" else "add --amp off, "
            raise Diverged(
                f"epoch {self.state.epoch}, batch {self.state.batches_done}: {e}; "
                f"{first}lower lr0 in {self.options.hyp}, or check the labels; {self.last_words()}"
            ) from None
        except OutOfMemory:
            options, last = self.options, "" if self.learner.amp != "off" else ", or add --amp fp16"
            raise UserError(
                f"epoch {self.state.epoch}, batch {self.state.batches_done}: {describe_device(self.world.device)} is out "
                f"of memory; lower --batch-size {options.batch_size} or --imgsz {self.data.imgsz}{last}; "
                f"{self.last_words()}"
            ) from None
        except ImageError as e:
            self.save()
            raise UserError(f"an image can no longer be read: {one_line(e)}; {self.last_words()}") from None
        except (RuntimeError, WorkerDied, PeerLost) as e:
            if isinstance(e, RuntimeError):
                e = self.world.lost(e)
            if not isinstance(e, UserError):
                raise
            raise type(e)(f"{e}; {self.last_words()}") from None

    def check_labels(self) -> None:
        """Labels are read once. Raises UserError where a file has changed since, instead of training on old ones."""
        if self.world.is_first and (changed := self.data.changed_labels()):
            self.save()
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise UserError(
                f"{changed[0]}{more}: changed since the labels were read; resume to train on with the new labels, or put "
                f"the old ones back; {self.last_words()}"
            )

    def validate(self) -> Evaluation:
        """The averaged model on the validation images."""
        data, world = self.data, self.world
        model = deepcopy(world.copy_first(self.learner.ema.model)).fuse()
        # as precise as what it is trained in; the 8 bits of bfloat16 would cost accuracy
        if world.device.type == "cuda" and self.learner.amp == "fp16":
            use_half(model)
        settle(model)
        # images of many shapes
        torch.backends.cudnn.benchmark = False
        evaluation = evaluate(model, data.val_loader, world.device, data.names, loss=self.val_loss, world=world)
        print(evaluation.table())
        return evaluation

    def progress(self, batch: Batch, size: int) -> str:
        """The left part of the progress bar."""
        device = self.world.device
        reserved = torch.cuda.memory_reserved(device) / 1e9 if device.type == "cuda" else 0
        losses = "".join(f"{loss:>11.4g}" for loss in self.state.mean_losses.tolist())
        place = f"{self.state.epoch}/{self.options.epochs - 1}"
        memory = f"{reserved:.3g}G"
        return f"{place:>11}{memory:>11}{losses}{len(batch.targets):>11}{size:>11}"

    # Records --------------------------------------------------------------------------------------------------------

    def log(self, evaluation: Evaluation | None) -> None:
        """A row of results.csv; zeros where the epoch was not validated."""
        figures = None
        if evaluation:
            figures = [evaluation.p, evaluation.r, evaluation.map50, evaluation.map50_95, *evaluation.loss]
        rates = learning_rates(self.learner.optimizer)
        self.state.results.append(make_row(self.state.epoch, self.state.mean_losses.tolist(), figures, rates))
        self.records.results(self.state.results)

    def save(self, is_best: bool = False) -> None:
        """last.pt, from which the run can go on; best.pt, the same, where this epoch is the best; those of --save-period."""
        state, model = self.state, self.learner.model
        data = {
            **self.learner.state_dict(),
            **state.state_dict(),
            "yaml": model.yaml | {"yaml_file": model.yaml_file},
            "names": self.data.names,
            "hyp": self.hyp,
            "args": saved_arguments(self.options),
            "labels": self.data.digest,
            "launch": self.world.launch,
            "date": datetime.now().isoformat(timespec="seconds"),
        }
        names = ["best.pt"] if is_best else []
        period = self.options.save_period
        if period > 0 and not state.batches_done and state.epoch and state.epoch % period == 0:
            names.append(f"epoch{state.epoch - 1}.pt")
        # last.pt is the last: a run that is killed before goes on from the one before it, and writes all of them again
        self.records.checkpoints(data, [*names, "last.pt"])
        self.saved_at = time.monotonic()

    def save_if_due(self) -> None:
        """Within an epoch: every --save-minutes."""
        minutes = self.options.save_minutes
        if minutes and time.monotonic() - self.saved_at >= minutes * 60:
            self.save()

    def leave_if_asked(self) -> None:
        """After Ctrl-C or SIGTERM: save, and exit as the signal would."""
        if self.world.any(bool(self.stop.received)):
            # between epochs it has just been done
            if self.state.batches_done or self.options.nosave:
                self.save()
            # no process leaves before all have saved
            self.world.any(False)
            self.world.leave()
            raise Stopped(128 + (self.stop.received or 15))

    def last_words(self) -> str:
        """How to go on."""
        last = self.weights / "last.pt"
        if not last.exists():
            return "nothing was saved yet"
        words = ["--resume", last, *self.options.as_words(*PRESENT, *CODE)]
        return f"go on with: {command_line('train.py', *words, processes=self.world.local_size)}"

    def finish(self) -> None:
        """Validate the best checkpoint once more, draw everything, and reduce the checkpoints to what inference needs.

        That comes last: a run that is killed before it is resumed, and comes here again.
        """
        data, world, model = self.data, self.world, self.learner.ema.model
        best, last = self.weights / "best.pt", self.weights / "last.pt"
        weights = best if best.exists() else last
        print(f"validating {weights}")
        if world.is_first:
            found = read_checkpoint(weights).model
            if misfits(found, model.state_dict()):
                raise UserError(f"{weights}: holds another model than this run's; remove it to end with last.pt")
            model.load_state_dict(in_half(found))
        model = world.copy_first(model).fuse()
        print(model.summary(fused=True))
        settle(model)
        recorder = self.records.recorder()
        evaluation = evaluate(model, data.val_loader, world.device, data.names, recorder=recorder, world=world)
        print(evaluation.table(verbose=True))
        self.records.curves(evaluation)
        self.records.strip()
        print(f"results are in {self.folder}")
        words = ["--weights", weights, "--source", source_of(data.config, "val"), "--imgsz", data.imgsz]
        print(f"next: {command_line('detect.py', *words, *self.options.as_words('plugins', 'device'))}")
