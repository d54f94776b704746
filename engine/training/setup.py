"""Everything a training run is made of, built from its options and handed to the Trainer.

set_up(options) → Run
    find_earlier        what an unfinished run left, or a finished one that is to go on (resume.py)
    build_model         the model, new or taken up again (model.py)
    index_data, build_loaders                             (data.py)
    build_learner       optimiser, average and loss around the model (learner.py)
    State, Records      where it stands, and what it leaves
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engine.recipe.anchors import fit_anchors
from engine.recipe.autobatch import find_batch_size
from engine.recipe.distillation import Pupil, PupilLoss, Teacher, read_teachers
from engine.recipe.ema import ModelEMA, fitting_tau
from engine.recipe.hyp import OPTIONAL, check_hyp, read_said_hyp
from engine.recipe.image_size import largest_size
from engine.recipe.optimizer import Schedule, build_optimizer
from engine.recipe.parameters import Drops, freeze_layers, idle_parameters, set_drop_path
from engine.recipe.progressive import Stage, most_images, plan_stages
from engine.recipe.recipes import recipe_hyp, recipe_line
from engine.training.data import TrainingData, build_loaders, index_data
from engine.training.learner import Learner
from engine.training.model import build_model, require_classes
from engine.training.options import DEFAULT_BATCH, DEFAULT_EPOCHS, TrainOptions, check_together
from engine.training.precision import choose_precision
from engine.training.records import Records, Silent
from engine.training.resume import continued_options, epochs_done, find_earlier, is_finished, leg_hyp, leg_options
from engine.training.state import State
from models.heads.protocol import Loss
from models.load import detector_from
from models.plugins import load_plugins
from models.sync_bn import synchronize_batchnorm
from models.yolo import DetectionModel
from utils.checkpoint import Checkpoint
from utils.console.neighbours import make_way
from utils.data.config import prepare_data, read_data_yaml
from utils.data.images import usable_imgsz
from utils.device import be_deterministic, describe_device, keeping_random_state, select_device
from utils.distributed import World
from utils.paths import new_run_folder
from utils.saved.schema import Entries, reading

# boxes of an image of noise
TRIAL_BOXES = 16


@dataclass
class Run:
    """What a training run is made of. ``val_loss`` is over the batches of this process alone. ``stages``: one, or those of
    --progressive; ``drops`` is what they weaken in the model."""

    options: TrainOptions
    hyp: dict[str, Any]
    world: World
    data: TrainingData
    learner: Learner
    val_loss: Loss
    stages: list[Stage]
    drops: Drops
    folder: Path
    records: Records | Silent
    state: State


def set_up(options: TrainOptions, hyp: dict[str, Any] | None = None, keep_records: bool = True) -> Run:
    """Build a run, take up the unfinished one that ``options`` name, or begin another leg of the finished one that they name.

    ``hyp`` replaces the file that they name.
    Without ``keep_records`` it leaves no files: for trainings that are a step of something larger.
    """
    device = select_device(options.device)
    make_way(device)
    world = World.join(device)
    path, earlier = find_earlier(options, world)
    is_leg = earlier is not None and is_finished(earlier)
    given = options
    if earlier:
        options = leg_options(options, path, earlier) if is_leg else continued_options(options, earlier)
    elif options.epochs is None:
        options = replace(options, epochs=DEFAULT_EPOCHS)
    if options.deterministic:
        be_deterministic()
    options = replace(options, plugins=load_plugins(options.plugins))
    check_together(options, world.size, device.type)
    hyp = saved_hyp(earlier) if earlier else hyp or read_run_hyp(options)
    hyp = leg_hyp(hyp) if is_leg else hyp
    config = read_data_yaml(options.data)
    names = {0: "object"} if options.single_cls else config.names
    if earlier:
        require_classes(earlier, names, config.file)
    with world.first_before_others():
        # nothing is fetched because a checkpoint alone says so
        config = prepare_data(config, fetch=not earlier or read_data_yaml(given.data).file == config.file)

    # of the initial weights
    torch.manual_seed(options.seed)
    model = detector_from(earlier) if earlier else build_model(options, names, hyp)
    model = model.to(device, memory_format=torch.channels_last)
    if options.drop_path is not None:
        set_drop_path(model, options.drop_path)
    stride = int(model.stride.max())
    imgsz = usable_imgsz(options.imgsz, stride)
    amp = choose_precision(options.amp, model, imgsz, world, str(earlier.training.get("precision")) if earlier else "")
    with world.first_before_others():
        teachers = read_teachers(options.teacher, model, names, hyp, device)
    for teacher in teachers:
        print(teacher.told(hyp))
    if options.batch_size == -1:
        options = replace(options, batch_size=choose_batch_size(model, options, hyp, imgsz, world, amp, teachers))
    if options.progressive and not earlier:
        # the run keeps to it, wherever it is resumed
        hyp = hyp | {"progressive_batch": most_images(hyp, options.batch_size, device.type)}
    multiple = world.size * (4 if options.quad else 1)
    stages = plan_stages(options.progressive, options.epochs, imgsz, stride, options.batch_size, hyp, multiple)

    with world.first_before_others():
        train, val = index_data(config, options.single_cls)
    if not earlier and not options.noautoanchor and world.is_first:
        fit_anchors(model.detect, train, imgsz, hyp["anchor_t"], options.seed)
    folder, records = open_folder(options, None if is_leg else path, keep_records, world, names)
    data = TrainingData(
        config, names, train, val, imgsz, *build_loaders(options, hyp, config, train, val, imgsz, stride, world)
    )
    learner = build_learner(model, options, hyp, len(data.train_loader), imgsz, world, amp, teachers)
    if options.compile:
        # takes a second to import
        from engine.training.compiled import compile_model

        compile_model(learner.model, device)
    val_loss = model.detect.loss(hyp, imgsz)
    state = State.at_start(len(names), epochs_done(earlier) if is_leg else 0, terms=4 if teachers else 3)
    run = Run(options, hyp, world, data, learner, val_loss, stages, Drops(model), folder, records, state)
    if earlier and not is_leg:
        take_up(run, path, earlier.training)
    else:
        records.start(saved_arguments(options), hyp, train)
    if is_leg:
        announce_leg(run, path)
    return run


def read_run_hyp(options: TrainOptions) -> dict[str, Any]:
    """The hyper-parameters of --hyp, those of --recipe where the file doesn't say them, and the label smoothing of the flag
    where it is given. Says what the recipe sets."""
    said = read_said_hyp(options.hyp)
    hyp = OPTIONAL | recipe_hyp(options.recipe) | said
    if options.recipe != "stock":
        print(recipe_line(options.recipe, options.as_data(), hyp, said))
    return hyp | {"label_smoothing": options.label_smoothing} if options.label_smoothing else hyp


def saved_hyp(checkpoint: Checkpoint) -> dict[str, Any]:
    """The hyper-parameters of a run that goes on."""
    with reading(checkpoint.path):
        saved = Entries(checkpoint.training).mapping("hyp")
    return check_hyp(saved, checkpoint.path)


def saved_arguments(options: TrainOptions) -> dict[str, Any]:
    """The options as opt.yaml and checkpoints hold them."""
    return {k: v for k, v in options.as_data().items() if k != "resume"}


def choose_batch_size(
    model: DetectionModel,
    options: TrainOptions,
    hyp: dict[str, Any],
    imgsz: int,
    world: World,
    amp: str,
    teachers: Sequence[Teacher] = (),
) -> int:
    """--batch-size -1: what fits a CUDA device's memory, measured on copies of ``model``."""
    device = world.device
    side = largest_size(imgsz, int(model.stride.max())) if options.multi_scale else imgsz
    found = find_batch_size(lambda size: try_steps(model, options, hyp, size, side, world, amp, teachers), device)
    if found is None:
        print(f"--batch-size -1 measures the memory of a CUDA device; on {device.type} it is {DEFAULT_BATCH}")
        return DEFAULT_BATCH
    found = max(found // 4 * 4, 4) if options.quad else found
    print(f"--batch-size -1: {found} images fit the memory of {describe_device(device)}")
    return found


def try_steps(
    model: DetectionModel,
    options: TrainOptions,
    hyp: dict[str, Any],
    size: int,
    imgsz: int,
    world: World,
    amp: str,
    teachers: Sequence[Teacher] = (),
) -> None:
    """Two whole steps of a copy of ``model`` on ``size`` images of noise: the first makes what the second finds there.

    Nothing of the run changes: neither ``model``, nor what is drawn later.
    """
    device = world.device
    with keeping_random_state(device):
        learner = build_learner(deepcopy(model), replace(options, batch_size=size), hyp, 1, imgsz, world, amp, teachers)
        # at the usual scale of the loss the first gradients overflow, and nothing would be updated
        learner.scaler = torch.amp.GradScaler(device.type, init_scale=1.0, enabled=learner.scaler.is_enabled())
        learner.parallel.train()
        images = torch.rand(size, model.yaml["ch"], imgsz, imgsz, device=device)
        targets = torch.rand(size * TRIAL_BOXES, 6)
        targets[:, 0] = torch.arange(len(targets)) // TRIAL_BOXES
        targets[:, 1] = 0
        state = State.at_start(model.nc)
        for _ in range(2):
            # both of them change the weights
            state.last_update = -learner.schedule.accumulate
            learner.step(images, targets, 0, state)


def open_folder(
    options: TrainOptions, resumed_from: Path | None, keep_records: bool, world: World, names: dict[int, str]
) -> tuple[Path, Records | Silent]:
    """The folder of the run, that of the checkpoint where it is taken up, and what writes to it in this process."""
    if resumed_from:
        folder = resumed_from.parents[1]
    elif keep_records:
        folder = world.from_first(partial(new_run_folder, options.project, options.name, options.exist_ok))
    else:
        folder = Path(options.project)
    keeps = keep_records and world.is_first
    return folder, Records(folder, names, not options.noplots) if keeps else Silent()


def build_learner(
    model: DetectionModel,
    options: TrainOptions,
    hyp: dict[str, Any],
    batches: int,
    imgsz: int,
    world: World,
    amp: str,
    teachers: Sequence[Teacher] = (),
) -> Learner:
    """The model with schedule, optimiser, average and loss; ``batches``: of an epoch; ``amp``: off, fp16 or bf16."""
    device = world.device
    schedule = Schedule(hyp, options.epochs, batches, options.batch_size, options.cos_lr)
    freeze_layers(model, options.freeze)
    pupil = Pupil(model, teachers, hyp) if teachers else None
    parts = {"slow": model.backbone, "factor": options.backbone_lr, "beside": pupil and pupil.adapters}
    optimizer = build_optimizer(model, hyp, options.batch_size, schedule.accumulate, options.optimizer, **parts)
    tau = hyp["ema_tau"] or fitting_tau(options.epochs * batches / schedule.accumulate)
    ema = ModelEMA(world.copy_first(model), tau=tau)
    idle = idle_parameters(model, imgsz) if world.size > 1 else []
    if idle and world.is_first:
        print(f"note: {len(idle)} parameters do not learn, since no gradient reaches them; the first: {idle[0]}")
    if options.sync_bn:
        synchronize_batchnorm(model)
    return Learner(
        model=model,
        parallel=world.wrap(pupil or model, bool(idle)),
        loss=build_loss(model, hyp, imgsz, world, pupil=pupil),
        optimizer=optimizer,
        schedule=schedule,
        scaler=torch.amp.GradScaler(device.type, enabled=amp == "fp16"),
        ema=ema,
        device=device,
        amp=amp,
        loss_factor=4.0 if options.quad else 1.0,
        pupil=pupil,
    )


def build_loss(
    model: DetectionModel,
    hyp: dict[str, Any],
    imgsz: int,
    world: World,
    zoom: float = 1.0,
    pupil: Pupil | None = None,
) -> Loss | PupilLoss:
    """What ``model`` is trained by, of images at ``imgsz`` pixels, ``zoom`` times the size that its anchors are for: by the
    labels, and by the teachers of ``pupil``."""
    of_anchors = {"zoom": zoom} if model.detect.anchored and zoom != 1 else {}
    labels = model.detect.loss(hyp, imgsz, world.sum, world.size, **of_anchors)
    return PupilLoss(labels, pupil, hyp, imgsz, world.sum, world.size, zoom) if pupil else labels


def take_up(run: Run, path: Path, saved: dict[str, Any]) -> None:
    """Put a run that was just built where an unfinished one stood."""
    with reading(path):
        run.learner.load_state_dict(saved)
        run.state.load_state_dict(saved)
    if saved.get("labels") != run.data.digest:
        print(f"warning: the training labels of {run.data.config.file} are not those that this run began with")
    print(f"resuming {path} at epoch {run.state.epoch}, batch {run.state.batches_done}")


def announce_leg(run: Run, path: Path) -> None:
    """What another leg of a finished run begins with, in one line."""
    warmup = run.learner.schedule.warmup
    print(
        f"another leg: {run.state.earlier_epochs} epochs were done; {run.options.epochs} more from the averaged weights of "
        f"{path}, with a fresh optimiser, {f'a warm-up of {warmup} steps' if warmup else 'no warm-up'} and a schedule of "
        f"their own; results in {run.folder}"
    )
