"""Going on with a run that was stopped.

find_unfinished(options)          the checkpoint to go on from: of --resume, or of a restart by torchrun
    find_resumable("…/last.pt")   that checkpoint, or an error that offers another
continued_options                 its options, over those given now
"""

import os
from pathlib import Path

from engine.training.options import PRESENT, TrainOptions, require_code
from utils.checkpoint import Checkpoint, read_checkpoint
from utils.console.typed import quoted
from utils.distributed import World
from utils.errors import UserError, shown
from utils.paths import ROOT
from utils.saved.schema import Entries, reading


def find_resumable(path: str | Path | bool) -> tuple[Path, Checkpoint]:
    """The checkpoint of an unfinished run: ``path``, or True for the newest last.pt under runs/train.

    Raises UserError where there is none, where the run is finished, and where the file is damaged; it then names the
    newest sound one of the same run.
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
    if checkpoint.training.get("optimizer") is None:
        raise UserError(f"{path}: its training is finished; to train on, give it as --weights with new --epochs")
    require_run_folder(path)
    return path, checkpoint


def require_run_folder(path: Path) -> None:
    """Raises UserError where ``path`` lies in no folder of a run, or where links would take what is written out of it."""
    folder = path.parents[1]
    if path.parent.name != "weights":
        raise UserError(
            f"{path}: a run goes on in its folder: move the file to weights/ of that, …/weights/{path.name}"
        )
    for found in folder.rglob("*"):
        if found.is_symlink() and not found.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{found}: is a link out of the run's folder; put what it leads to in its place")


def find_unfinished(options: TrainOptions, world: World) -> tuple[Path, Checkpoint] | tuple[None, None]:
    """The checkpoint to go on from and what it holds: that of --resume, or of a restart by torchrun; or two None.

    The first process looks, and gives what it has found to the others: on another machine they may not see its files, and
    nothing there bears the name of its launch.
    """

    def find() -> tuple[Path, Checkpoint] | tuple[None, None]:
        if options.resume:
            return find_resumable(options.resume)
        own = find_restarted(options, world.launch) if world.restarted else None
        return find_resumable(own) if own else (None, None)

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

    Raises UserError for a --size that is not the run's, and where the run needs plugins that are not given: files of code
    are named by who starts the run, never by a checkpoint.
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
    # the way out for a run that diverges in the precision it began with
    if options.amp != "auto":
        changes["amp"] = options.amp
    return options.with_saved(before, file, **changes)


def _newest_first(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("*.pt") if path.is_file()), key=_written, reverse=True)


def _can_be_resumed(path: Path) -> bool:
    try:
        return read_checkpoint(path).training.get("optimizer") is not None
    except UserError:
        return False
