"""Going on with a run that was stopped.

find_unfinished(options)          the checkpoint to go on from: of --resume, or of a restart by torchrun
    find_resumable("…/last.pt")   that checkpoint, or an error that offers another
continued_options                 its options, over those given now
"""

from pathlib import Path
from typing import Any

from engine.training.options import TrainOptions
from utils.checkpoint import Checkpoint, read_checkpoint
from utils.distributed import World
from utils.errors import UserError
from utils.paths import ROOT

# What a resumed run takes from the command line: what it runs on, and the files of code.
PRESENT = ("device", "workers", "cache", "plugins")


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
    path = Path(path)
    try:
        checkpoint = read_checkpoint(path)
    except UserError as e:
        sound = [p for p in _newest_first(path.parent) if p != path and _can_be_resumed(p)]
        offer = f"; the newest sound checkpoint of this run is {sound[0]}: --resume {sound[0]}" if sound else ""
        raise UserError(f"{e}{offer}") from None
    if "optimizer" not in checkpoint.training:
        raise UserError(f"{path}: its training is finished; to train on, give it as --weights with new --epochs")
    return path, checkpoint


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
    before = checkpoint.training["args"]
    if options.size and options.size != before.get("size"):
        trained = before.get("size") or "that of its YAML"
        raise UserError(
            f"--size {options.size}: the size of {checkpoint.path} is {trained}, and a resumed run keeps its model; "
            "leave --size out, or begin a new run"
        )
    require_plugins(options, before, checkpoint.path)
    return options.with_saved(before, **{name: getattr(options, name) for name in PRESENT})


def require_plugins(options: TrainOptions, saved: dict[str, Any], file: Path) -> None:
    """Raises UserError where what ``file`` has saved of a run names plugins, and none are given."""
    if (named := saved.get("plugins")) and not options.plugins:
        words = " ".join(map(str, named)) if isinstance(named, list) else str(named)
        raise UserError(f"{file}: was begun with blocks of your own, whose files are code: add --plugins {words[:200]}")


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pt"), key=_written, reverse=True)


def _can_be_resumed(path: Path) -> bool:
    try:
        return "optimizer" in read_checkpoint(path).training
    except UserError:
        return False
