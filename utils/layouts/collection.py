"""A data set between two layouts: pictures with boxes in pixels, and what had to be left out. Its files are moved here."""

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.data.images import MOST_BYTES
from utils.data.labels import Fault
from utils.errors import UserError, shown
from utils.files import replacing, safe_name, unique_name, why_unreadable

PRINTED = 20  # of what was dropped; all of it is in dropped.txt


@dataclass
class Box:
    """An object: its class by name, its corners in pixels, counted from 0 at the left and top edge of the image."""

    name: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass
class Picture:
    """An image file with its boxes."""

    image: Path
    split: str  # «train», «val2017», …
    size: tuple[int, int]  # width, height in pixels
    boxes: list[Box]
    stem: str = ""  # the name its files get in the new layout; its own unless that is taken

    def __post_init__(self):
        stem = self.stem or self.image.stem
        # what is no text, or breaks a line, can stand in no list and in no XML
        self.stem = stem if stem.isprintable() else safe_name(stem)


@dataclass
class Collection:
    """A data set: its pictures, its classes in their order, and what of it had to be left out or changed."""

    pictures: list[Picture]
    names: list[str]
    faults: list[Fault] = field(default_factory=list)

    @property
    def splits(self) -> list[str]:
        return list(dict.fromkeys(p.split for p in self.pictures))

    def report(self) -> str:
        """The counts of each split, and of each kind of fault."""
        lines = []
        for split in self.splits:
            own = [p for p in self.pictures if p.split == split]
            boxes, empty = sum(len(p.boxes) for p in own), sum(not p.boxes for p in own)
            lines.append(f"{split}: {len(own)} images, {boxes} boxes, {empty} images without boxes")
        lines.append("classes: " + ", ".join(f"{i} {shown(name)}" for i, name in enumerate(self.names)))
        counts = Counter(f.kind for f in self.faults).most_common()
        lines.append("dropped or changed: " + (", ".join(f"{n} × {kind}" for kind, n in counts) or "nothing"))
        return "\n".join(lines)


def keep_box(box: Box, size: tuple[int, int], file: str, where: str, faults: list[Fault]) -> Box | None:
    """The box, clipped to the image; None where nothing of it is left. What is done is added to ``faults``."""
    width, height = size
    corners = f"{box.x1:g} {box.y1:g} {box.x2:g} {box.y2:g}"
    place = f"{where} ({shown(box.name)}, {corners})"
    if not all(np.isfinite((box.x1, box.y1, box.x2, box.y2))) or box.x2 <= box.x1 or box.y2 <= box.y1:
        faults.append(Fault("degenerate box", file, None, f"{place}: has no width or no height; dropped"))
        return None
    clipped = Box(box.name, max(box.x1, 0), max(box.y1, 0), min(box.x2, width), min(box.y2, height))
    if clipped.x2 <= clipped.x1 or clipped.y2 <= clipped.y1:
        faults.append(Fault("box outside the image", file, None, f"{place}: outside {width}x{height} px; dropped"))
        return None
    if clipped != box:
        faults.append(Fault("box clipped", file, None, f"{place}: reaches beyond {width}x{height} px; clipped"))
    return clipped


def usable_image(image: Path, faults: list[Fault]) -> bool:
    """Whether an image can be copied: a file of the size of one. What can't is added to ``faults``."""
    if reason := why_unreadable(image, "file", MOST_BYTES):
        faults.append(Fault("image refused", str(image), None, f"{reason}; dropped"))
    return not reason


@contextmanager
def writing(dest: Path) -> Iterator[None]:
    """Within it what is written goes to ``dest``. Raises UserError where the system refuses it."""
    try:
        yield
    except OSError as e:
        raise UserError(
            f"{e.filename or dest}: can't be written ({e.strerror or e}); name another destination"
        ) from None


def require_empty(folder: Path) -> None:
    """Raises UserError where a folder to write to holds something: what is there might be somebody's only labels."""
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty; move it away, or name another destination")


def place_image(picture: Picture, folder: Path, link: bool) -> Path:
    """Copy a picture's file to ``folder``, or link to it; one that is there already, of the same size, stays."""
    target = folder / f"{picture.stem}{picture.image.suffix}"
    if target.exists():
        if not (target.samefile(picture.image) or target.stat().st_size == picture.image.stat().st_size):
            raise UserError(f"{target}: another image of that name is there; name another destination")
        return target
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if link:
            target.symlink_to(picture.image.resolve())
        else:
            with replacing(target) as temporary:
                shutil.copyfile(picture.image, temporary)
    except OSError as e:
        raise UserError(f"{target}: can't be written ({e.strerror or e})") from None
    return target


def name_apart(pictures: list[Picture]) -> None:
    """Give pictures of one split that share a stem different ones, in place: 1, 1-2, 1-3."""
    taken: dict[str, set[str]] = defaultdict(set)
    for picture in pictures:
        picture.stem = unique_name(picture.stem, taken[picture.split])
        taken[picture.split].add(picture.stem)


def save_faults(found: Collection, dest: Path) -> None:
    """Print the first of what was dropped or changed, and write all of it to dropped.txt."""
    for fault in found.faults[:PRINTED]:
        print(f"warning: {fault}")
    if found.faults:
        path = dest / "dropped.txt"
        path.write_text("".join(f"{fault}\n" for fault in found.faults), encoding="utf-8")
        print(f"all that was dropped or changed is in {path}")
