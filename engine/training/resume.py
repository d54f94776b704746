"""Going on with a run: one that was stopped, or a finished one that is given another leg.

find_earlier(options)             the checkpoint to go on from: of --resume, or of a restart by torchrun
    find_resumable("…/last.pt")   that checkpoint, or an error that offers another
continued_options                 of an unfinished run: its options, over those given now
leg_options, leg_hyp              of another leg, a run of its own that starts from the averaged weights of a finished one
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.training.options import PRESENT, TrainOptions, require_code
from engine.training.state import saved_earlier_epochs
from utils.checkpoint import Checkpoint, read_checkpoint
from utils.console.typed import quoted
from utils.distributed import World
from utils.errors import UserError, shown
from utils.paths import ROOT
from utils.saved.schema import Entries, reading


def find_resumable(path: str | Path | bool, finished_too: bool = False) -> tuple[Path, Checkpoint]:
    """The checkpoint of an unfinished run: ``path``, or True for the newest last.pt under runs/train.

    Raises UserError where there is none, where the run is finished, unless it may be, and where the file is damaged; it
    then names the newest sound one of the same run.
    """
    if path is True:
        found = sorted((ROOT / "runs" / "train").glob("*/weights/last.pt"), key=_written)
        if not found:
            raise UserError("--resume: runs/train holds no */weights/last.pt; name the checkpoint to go on from")
        path = found[-1]
    path = Path(os.path.abspath(path))
    try:
        checkpoint = read_checkpoint(path)
    except UserError as e:
        sound = [p for p in _newest_first(path.parent) if p != path and _can_be_resumed(p)]
        offer = (
            f"; the newest sound checkpoint of this run is {sound[0]}: {quoted('--resume', str(sound[0]))}"
            if sound
            else ""
        )
        raise UserError(f"{e}{offer}") from None
    finished = is_finished(checkpoint)
    if finished and not finished_too:
        raise UserError(
            f"{path}: its training is finished; to train on, add --epochs N, more than were done, or give it as --weights"
        )
    require_run_folder(path)
    if not finished:
        require_no_links(path.parents[1])
    return path, checkpoint


def is_finished(checkpoint: Checkpoint) -> bool:
    """Whether nothing is left of a run but what inference needs."""
    return checkpoint.training.get("optimizer") is None


def require_run_folder(path: Path) -> None:
    """Raises UserError where ``path`` lies in no folder of a run."""
    if path.parent.name != "weights":
        raise UserError(
            f"{path}: a run goes on in its folder, or beside that: move the file to its weights/, …/weights/{path.name}"
        )


def require_no_links(folder: Path) -> None:
    """Raises UserError where links would take what is written to ``folder`` out of it."""
    for found in folder.rglob("*"):
        if found.is_symlink() and not found.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{found}: is a link out of the run's folder; put what it leads to in its place")


def find_earlier(options: TrainOptions, world: World) -> tuple[Path, Checkpoint] | tuple[None, None]:
    """The checkpoint to go on from and what it holds: that of --resume, or of a restart by torchrun; or two None.

    It is of a finished run only where --epochs says how far that is to go on. The first process looks, and gives what it
    has found to the others: on another machine they may not see its files, and nothing there bears the name of its launch.
    """

    def find() -> tuple[Path, Checkpoint] | tuple[None, None]:
        found, place = (None, None), options
        if options.resume:
            found = find_resumable(options.resume, finished_too=options.epochs is not None)
            if not is_finished(found[1]):
                return found
            place = replace(options, **leg_place(options, found[0]))
        own = find_restarted(place, world.launch) if world.restarted else None
        # a launch of the same name may have trained the finished run itself
        return find_resumable(own) if own and own != found[0] else found

    return world.from_first(find)


def find_restarted(options: TrainOptions, launch: str) -> Path | None:
    """The last.pt that this start of torchrun wrote before it had to restart its processes, or None."""
    for path in sorted(Path(options.project).glob(f"{options.name}*/weights/last.pt"), key=_written, reverse=True):
        try:
            if read_checkpoint(path).training.get("launch") == launch:
                return path
        except UserError:
            continue
    return None


def _written(path: Path) -> float:
    return path.stat().st_mtime


def continued_options(options: TrainOptions, checkpoint: Checkpoint) -> TrainOptions:
    """The options of an unfinished run, which hold; of those given now, the ones that do not change what is learnt.

    Raises UserError as ``saved_options`` does, for --epochs that are not the run's, and for more or fewer teachers.
    """
    with reading(checkpoint.path):
        entries = Entries(checkpoint.training)
        before = Entries(entries.mapping("args"), "args")
        total = before.whole("epochs", least=1) + saved_earlier_epochs(entries)
        teachers = before.rows("teacher") if "teacher" in before.saved else []
    if options.epochs not in (None, total):
        raise UserError(
            f"--epochs {options.epochs}: {checkpoint.path} is of an unfinished run of {total} epochs, and a resumed run keeps "
            "its schedule; leave --epochs out, and give it once that run is finished"
        )
    if options.teacher and len(options.teacher) != len(teachers):
        raise UserError(
            f"--teacher: {checkpoint.path} is of an unfinished run with {len(teachers)} teachers, and here are "
            f"{len(options.teacher)}; {'give as many' if teachers else 'leave --teacher out'}, or begin a new run"
        )
    return saved_options(options, checkpoint)


def saved_options(options: TrainOptions, checkpoint: Checkpoint) -> TrainOptions:
    """The options that a run was begun with, over those given now, but for what it runs on and the files of code.

    Raises UserError for a --size or a --recipe that is not the run's, and where the run needs plugins that are not given:
    files of code are named by who starts the run, never by a checkpoint.
    """
    file = Path(checkpoint.path)
    with reading(file):
        before = Entries(checkpoint.training).mapping("args")
    size = before.get("size")
    if options.size and options.size != size:
        trained = size if isinstance(size, str) else "that of its YAML"
        raise UserError(
            f"--size {options.size}: the size of {file} is {shown(trained)}, and a resumed run keeps its model; "
            "leave --size out, or begin a new run"
        )
    changes = {name: getattr(options, name) for name in PRESENT} | require_code(options, before, file)
    if options.teacher:
        # they may have been moved
        changes["teacher"] = options.teacher
    recipe = before.get("recipe", "stock")
    if options.recipe not in ("stock", recipe):
        raise UserError(
            f"--recipe {options.recipe}: {file} is of the recipe {shown(str(recipe))}, and a resumed run keeps its own; leave "
            "--recipe out, or begin a new run"
        )
    # the way out for a run that diverges in the precision it began with
    if options.amp != "auto":
        changes["amp"] = options.amp
    kept = options.with_saved(before, file, **changes)
    # nothing is fetched because a checkpoint alone says so
    lost = [teacher for teacher in kept.teacher if not options.teacher and not os.path.isfile(teacher)]
    if lost:
        named = shown(" ".join(map(shown, kept.teacher)))
        raise UserError(
            f"{file}: was begun with --teacher {named}, and there is no file {shown(lost[0])}; put it back, or add --teacher "
            "and where it is now"
        )
    return kept


# Another leg ------------------------------------------------------------------------------------------------------------


def leg_options(options: TrainOptions, path: Path, checkpoint: Checkpoint) -> TrainOptions:
    """The options of another leg of the finished run of ``path``: those of that run, for the epochs that --epochs adds.

    Raises UserError as ``saved_options`` does, for a checkpoint that doesn't say how it was trained, and where no epoch is
    left to be done.
    """
    if "args" not in checkpoint.training:
        raise UserError(f"{path}: doesn't say how it was trained; to train on, give it as --weights")
    done = epochs_done(checkpoint)
    if options.epochs <= done:
        raise UserError(
            f"--epochs {options.epochs}: {path} has {done} epochs behind it, and --epochs counts them, too; give more than {done}"
        )
    kept = saved_options(options, checkpoint)
    # what augmentation draws depends on (seed, epoch, index), and the epochs begin at 0 again: these draws are new
    seed = (kept.seed + 1) % 2**63
    # what its weights know came of images at full size
    changes = {"epochs": options.epochs - done, "seed": seed, "weights": str(path), "exist_ok": False, "progressive": 0}
    return replace(kept, **changes, **leg_place(options, path))


def leg_place(options: TrainOptions, path: Path) -> dict[str, str]:
    """--project and --name of another leg: as they are given, else of the folder that ``path`` lies in, so that the leg's is
    the next in number beside it. What the checkpoint says of them leads nowhere."""
    first = path.parents[1]
    # of exp2 where there is exp, too: the next is exp3, and not exp22
    unnumbered = first.name.rstrip("0123456789")
    name = unnumbered if unnumbered and first.with_name(unnumbered).is_dir() else first.name
    beside = {"project": str(first.parent), "name": name}
    return {key: getattr(options, key) if options.as_words(key) else value for key, value in beside.items()}


def leg_hyp(hyp: dict[str, Any]) -> dict[str, Any]:
    """The hyper-parameters of another leg: a warm-up of an epoch at most, in which all rates rise from 0, those of biases,
    too, which have learnt already."""
    return hyp | {"warmup_epochs": min(hyp["warmup_epochs"], 1.0), "warmup_bias_lr": 0.0}


def epochs_done(checkpoint: Checkpoint) -> int:
    """How many epochs the weights of a checkpoint of ours have behind them, those of earlier legs included."""
    with reading(checkpoint.path):
        entries = Entries(checkpoint.training)
        return saved_earlier_epochs(entries) + entries.whole("epoch")


def _newest_first(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("*.pt") if path.is_file()), key=_written, reverse=True)


def _can_be_resumed(path: Path) -> bool:
    try:
        return not is_finished(read_checkpoint(path))
    except UserError:
        return False
