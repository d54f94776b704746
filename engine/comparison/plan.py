"""What a study is to do: who is compared, by which trainings, and whether that is what its folder was begun with.

plan = make_plan(options)                 candidates of flags and of a study YAML
plan.training(entrant, seed, folder)      the options of train.py for one run
check_settings(folder, plan.settings())   UserError where a study was begun with others
"""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from engine.comparison.options import CompareOptions
from engine.export.formats.table import is_exported
from engine.recipe.hyp import read_hyp
from engine.training.options import TrainOptions
from utils.console.typed import quoted
from utils.errors import UserError, shown
from utils.files import safe_name, unique_name
from utils.yaml_file import read_yaml, write_yaml

MOST_CANDIDATES = 1000
SETTINGS = "settings.yaml"
# options of train.py that a study decides itself: they are the same for all candidates, or one for each run
COMMON = ("data", "epochs", "imgsz", "batch_size", "hyp", "plugins", "workers", "device")
OWN = (
    *COMMON,
    "seed",
    "project",
    "name",
    "exist_ok",
    "resume",
    "evolve",
    "resume_evolve",
    "noplots",
    "noval",
    "nosave",
)
FREE = tuple(f.name for f in fields(TrainOptions) if f.name not in OWN)


@dataclass(frozen=True)
class Entrant:
    """One that is compared. ``train``: options of train.py of its own; or ``finished`` files, one for each seed."""

    name: str
    train: dict[str, Any] = field(default_factory=dict)
    finished: tuple[Path, ...] = ()

    @property
    def source(self) -> dict[str, str]:
        """What it is, in words."""
        if self.finished:
            return {"weights": " ".join(map(str, self.finished))}
        return {name: str(value) for name, value in self.train.items()}


@dataclass(frozen=True)
class Plan:
    """A study: ``options`` with what its YAML says, ``train``: further options of train.py that all candidates have."""

    options: CompareOptions
    entrants: tuple[Entrant, ...]
    train: dict[str, Any]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the trainings; none where nothing is trained."""
        return tuple(range(self.options.seeds)) if self.trains else ()

    @property
    def trains(self) -> bool:
        return self.options.epochs > 0 and any(not e.finished for e in self.entrants)

    def training(
        self, entrant: Entrant, seed: int, folder: Path, device: str | int = "", workers: int = 0
    ) -> TrainOptions:
        """The options of the run of one seed, which is ``folder``. Raises UserError for those that can't be."""
        o = self.options
        common = {"data": o.data, "imgsz": o.imgsz, "batch_size": o.batch_size, "hyp": o.hyp, "plugins": o.plugins}
        place = {"project": str(folder.parent), "name": folder.name, "exist_ok": True}
        changes = {"epochs": max(o.epochs, 1), "seed": seed, "noplots": True, "device": device, "workers": workers}
        return TrainOptions.of(common | self.train | entrant.train | place | changes)

    def settings(self) -> dict[str, dict[str, Any]]:
        """All that a study's accuracies depend on, as plain data: of the images, of the trainings, of each candidate."""
        o = self.options
        training = {}
        if self.trains:
            training = {"epochs": o.epochs, "batch_size": o.batch_size}
            training |= {f"hyp {name}": value for name, value in read_hyp(o.hyp).items()}
            training |= {name: str(value) for name, value in self.train.items()}
        own = {e.name: e.source for e in self.entrants}
        return {"images": {"data": o.data, "imgsz": o.imgsz}, "training": training, "candidates": own}


def make_plan(options: CompareOptions) -> Plan:
    """Raises UserError where a study YAML or a flag asks for what can't be, and where there is nobody to compare."""
    given, train, listed = read_study(options.study) if options.study else ({}, {}, {})
    options = over(options, given)
    entrants = [Entrant(name, **parts) for name, parts in listed.items()]
    taken = {e.name for e in entrants}

    def add(name: str, **parts: Any) -> None:
        name = unique_name(safe_name(name), taken)
        taken.add(name)
        entrants.append(Entrant(name, **parts))

    size = {"size": options.size} if options.size else {}
    for cfg in options.cfg:
        add(f"{Path(cfg).stem}{f'-{options.size}' if size else ''}", train={"cfg": cfg} | size)
    pretrained = {"backbone_weights": options.backbone_weights} if options.backbone_weights else {}
    for backbone in options.backbone:
        add(backbone, train={"backbone": backbone} | size | pretrained)
    for weights in options.weights:
        file = finished_file(weights)
        add(file.parents[1].name if file.parent.name == "weights" else file.name, finished=(file,))
    if not entrants:
        raise UserError("nobody to compare: name candidates by --cfg, --backbone, --weights or --study")
    if len(entrants) > MOST_CANDIDATES:
        raise UserError(f"{len(entrants)} candidates are more than the {MOST_CANDIDATES} of a study")
    plan = Plan(options, tuple(entrants), train)
    for entrant in entrants:
        if not entrant.finished:
            plan.training(entrant, 0, Path("study/seed0"))
    return plan


def finished_file(text: str | Path) -> Path:
    """The file of a finished candidate: as it is named, or the best checkpoint of a run's folder."""
    path = Path(text)
    if not path.is_dir() or is_exported(path):
        return path
    found = [path / "weights" / name for name in ("best.pt", "last.pt")]
    file = next((file for file in found if file.is_file()), None)
    if file is None:
        raise UserError(f"{shown(str(path))}: holds no weights/best.pt; name the folder of a finished run, or a file")
    return file


# The study YAML ---------------------------------------------------------------------------------------------------------


def read_study(file: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, dict[str, Any]]]:
    """(options of compare.py, options of train.py for all, {candidate: its parts}) of a study YAML.

    Raises UserError for a key that neither has, and for candidates that are not one.
    """
    found = {str(key).replace("-", "_"): value for key, value in read_yaml(file, "study YAML").items()}
    listed, train = found.pop("candidates", {}), found.pop("train", {})
    known = {f.name for f in fields(CompareOptions)} - {"study"}
    if unknown := sorted(set(found) - known):
        raise UserError(
            f"{file}: no such key: {shown(unknown[0])}; there are candidates, train and the flags of compare.py"
        )
    for key, value in (("candidates", listed), ("train", train)):
        if not isinstance(value, dict):
            raise UserError(f"{file}: {key} holds {type(value).__name__}, it has entries by name")
    train = _train_options(train, f"{file}: train")
    return found, train, {str(name): _parts(file, str(name), own) for name, own in listed.items()}


def _parts(file: str, name: str, own: Any) -> dict[str, Any]:
    """What Entrant has beside its name, of an entry of ``candidates``."""
    where = f"{file}: candidate {shown(name)}"
    if safe_name(name) != name:
        raise UserError(f"{where}: becomes a folder; choose a name without slashes and the like: {safe_name(name)}")
    if not isinstance(own, dict) or not own:
        raise UserError(f"{where}: holds {type(own).__name__}, it has flags of train.py such as cfg, or finished")
    if "finished" not in own:
        return {"train": _train_options(own, where)}
    files = own["finished"] if isinstance(own["finished"], list) else [own["finished"]]
    if len(own) > 1 or not files or not all(isinstance(text, str) and text for text in files):
        raise UserError(f"{where}: finished is a file or the folder of a run, or a list of these, and stands alone")
    return {"finished": tuple(map(finished_file, files))}


def _train_options(given: dict[str, Any], where: str) -> dict[str, Any]:
    given = {str(key).replace("-", "_"): value for key, value in given.items()}
    for key in given:
        if key in OWN:
            raise UserError(
                f"{where}: {key} is the same for all candidates, or decided by the study; leave it out there"
            )
        if key not in FREE:
            raise UserError(f"{where}: no such flag of train.py: {shown(key)}")
    return given


def over(options: CompareOptions, given: dict[str, Any]) -> CompareOptions:
    """``options`` where they are not at their defaults, else those that a study YAML has ``given``."""
    declared = {name: flag.default for name, flag, _ in options.flags()}
    changes = {name: value for name, value in given.items() if getattr(options, name) == declared[name]}
    try:
        return replace(options, **changes)
    except UserError as e:
        raise UserError(f"{options.study}: {e}") from None


# Whether it is the same study -------------------------------------------------------------------------------------------


def check_settings(folder: Path, settings: dict[str, dict[str, Any]]) -> None:
    """Write ``settings`` to a study's folder, or hold them against those that it was begun with.

    More candidates, fewer, more seeds, and trainings where there were none are the same study. Raises UserError that names what
    has changed.
    """
    file = folder / SETTINGS
    if not file.exists():
        write_yaml(file, settings)
        return
    saved = read_yaml(file, "settings of a study")
    whole = all(isinstance(saved.get(key), dict) for key in settings)
    if not whole or not all(isinstance(own, dict) for own in saved["candidates"].values()):
        raise UserError(f"{file}: not the settings of a study; move it away, or choose another --name")
    changed = changes(saved["images"], settings["images"])
    if saved["training"] and settings["training"]:
        changed += changes(saved["training"], settings["training"])
    for name, own in settings["candidates"].items():
        if name in saved["candidates"]:
            changed += [f"candidate {name}: {text}" for text in changes(saved["candidates"][name], own)]
    if changed:
        more = f", and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(
            f"{folder}: this study was begun with other settings: {'; '.join(changed[:3])}{more}; give those to go on with "
            f"it, or begin another: {quoted('--name', f'{folder.name}-2')}"
        )
    kept = {"training": settings["training"] or saved["training"]}
    write_yaml(file, settings | kept | {"candidates": saved["candidates"] | settings["candidates"]})


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs, in words."""
    names = dict.fromkeys([*before, *now])
    return [
        f"{name} was {shown(before.get(name, 'not given'), 80)}, is now {shown(now.get(name, 'not given'), 80)}"
        for name in names
        if before.get(name) != now.get(name)
    ]
