"""A data set parted into train, val and test: lists of images and a data YAML, written beside or elsewhere; nothing is moved."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import numpy as np

from utils.data.config import image_files, read_data_yaml
from utils.data.index import index_images
from utils.data.labels import Annotation, label_path
from utils.errors import UserError, shown
from utils.files import replacing
from utils.layouts.collection import writing
from utils.layouts.darknet import read_names
from utils.layouts.yolo import entry_in
from utils.yaml_file import write_yaml

SPLITS = ("train", "val", "test")
# files in which labelling tools leave the names of the classes
NAME_FILES = ("classes.txt", "obj.names")
# in the place of the classes of an image without boxes, which are shared out as those of a class are
BACKGROUND = -1


def split_set(
    source: Path, dest: Path, shares: list[float], seed: int = 0, groups: str = "", names: list[str] | None = None
) -> Path:
    """Write train.txt, val.txt, test.txt (as many as there are ``shares``) and data.yaml into ``dest``.

    ``source``: a data YAML, all of whose images are parted anew, or a folder of images with ``names`` for its classes.
    ``groups``: images that stay together, see ``group_images``. The same ``seed`` gives the same lists.
    Returns the data YAML. Raises UserError for sets that can't be parted so, and where one of the files exists.
    """
    splits = SPLITS[: len(shares)]
    files, names = _images_and_names(source, names)
    yaml, lists = dest / "data.yaml", {split: dest / f"{split}.txt" for split in splits}
    if taken := [path for path in (yaml, *lists.values()) if path.exists()]:
        raise UserError(f"{taken[0]}: is there already; move it away, or name another destination")
    index = index_images(files, len(names), None, "checking images and labels")
    index.print_faults()
    annotations = index.annotations
    units = group_images([a.image for a in annotations], groups)
    if len(units) < len(splits):
        what = f"groups by {groups}" if groups else "usable images"
        raise UserError(f"{source}: has {len(units)} {what}, too few for {len(splits)} splits")
    found = stratify(units, [set(a.labels[:, 0].astype(int).tolist()) for a in annotations], shares, seed)
    parts = {
        split: [a for a, own in zip(annotations, found, strict=True) if own == i] for i, split in enumerate(splits)
    }

    texts = {split: "".join(f"{_listed(dest, a.image)}\n" for a in part) for split, part in parts.items()}
    with writing(dest):
        dest.mkdir(parents=True, exist_ok=True)
        for split, text in texts.items():
            with replacing(lists[split]) as temporary:
                temporary.write_text(text, encoding="utf-8")
        write_yaml(yaml, {split: path.name for split, path in lists.items()} | {"names": dict(enumerate(names))})
    print(table(parts, names))
    if scarce := _scarce(parts, names):
        print(f"note: not in every split, for want of images: {', '.join(scarce)}")
    return yaml


def group_images(images: list[str], by: str) -> list[list[int]]:
    """The images (by their places in the list) that belong together.

    ``name``: those whose names differ in the number behind the last _ or - alone, such as clip1_0001.jpg and clip1_0002.jpg,
    wherever they lie; ``folder``: those of one folder; empty: each stands alone.
    """
    groups: dict[object, list[int]] = defaultdict(list)
    for place, image in enumerate(images):
        path = Path(image)
        key = {"name": re.sub(r"[_-]\d+$", "", path.stem), "folder": path.parent, "": place}[by]
        groups[key].append(place)
    return list(groups.values())


def stratify(units: list[list[int]], classes: list[set[int]], shares: list[float], seed: int) -> list[int]:
    """The split (0, 1, …) of every image: each split has its share of the images, and of the images of every class.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011): of the classes left, that with the fewest images goes
    first, each of these to the split that lacks most of the class. ``classes`` are those of each image. ``units`` of images
    stay together; where they are single images, the shares are met within one image. No split stays empty.
    """
    counts = [Counter(cls for image in unit for cls in classes[image] or {BACKGROUND}) for unit in units]
    drawn = np.random.default_rng(seed).permutation(len(units)).tolist()
    # images of each class that are not shared out yet, and the units they are in
    left: Counter[int] = Counter()
    carriers: dict[int, list[int]] = defaultdict(list)
    # the large groups first, while every split has room for them
    for unit in sorted(drawn, key=lambda unit: -len(units[unit])):
        left.update(counts[unit])
        for cls in counts[unit]:
            carriers[cls].append(unit)
    lacks = {cls: [n * share for share in shares] for cls, n in left.items()}
    room = whole_shares(len(classes), shares)
    empty = set(range(len(shares)))
    chosen: dict[int, int] = {}
    while left:
        rarest = min(left, key=lambda cls: (left[cls], cls))
        for unit in carriers[rarest]:
            if unit in chosen:
                continue
            # the last ones are for the splits that still have none
            candidates = sorted(empty) if len(units) - len(chosen) <= len(empty) else range(len(shares))
            split = _neediest(lacks[rarest], room, len(units[unit]), candidates)
            chosen[unit] = split
            empty.discard(split)
            room[split] -= len(units[unit])
            for cls, n in counts[unit].items():
                lacks[cls][split] -= n
                left[cls] -= n
        del left[rarest]
    found = [0] * len(classes)
    for unit, split in chosen.items():
        for image in units[unit]:
            found[image] = split
    if len(units) == len(classes):
        _exchange(found, classes, shares)
    return found


def _exchange(found: list[int], classes: list[set[int]], shares: list[float]) -> None:
    """Mend what the one pass of ``stratify`` can leave in small sets: a split with no image of a class of which its share
    is one or more gets one for another of its images, where thereby no split loses its last of a class. In place."""
    have = [
        Counter(cls for own, of in zip(found, classes, strict=True) if own == s for cls in of)
        for s in range(len(shares))
    ]
    total = sum(have, Counter())
    for cls, split in product(sorted(total, key=lambda cls: (total[cls], cls)), range(len(shares))):
        if have[split][cls] or total[cls] * shares[split] < 1:
            continue
        givers = [image for image, of in enumerate(classes) if cls in of]
        takers = [image for image, own in enumerate(found) if own == split]
        for a, b in product(givers, takers):
            # how many images of a class its split has, before it goes
            left = [have[found[a]][c] for c in classes[a] - classes[b]]
            left += [have[split][c] for c in classes[b] - classes[a]]
            if min(left) > 1:
                for image, other in ((a, b), (b, a)):
                    have[found[image]].subtract(classes[image])
                    have[found[other]].update(classes[image])
                found[a], found[b] = found[b], found[a]
                break


def _neediest(lacks: list[float], room: list[int], size: int, candidates: Iterable[int]) -> int:
    """Of the splits with room for ``size`` images that which lacks most of a class, of equals that with most room."""
    fitting = [split for split in candidates if room[split] >= size]
    if not fitting:
        return max(candidates, key=lambda split: room[split])
    # beyond the digits that subtracting has left
    return max(fitting, key=lambda split: (round(lacks[split], 6), room[split]))


def whole_shares(count: int, shares: list[float]) -> list[int]:
    """``count`` in whole parts, each within one of its share."""
    # 0.29 × 100 is a little less than 29
    parts = [int(count * share + 1e-6) for share in shares]
    by_rest = sorted(range(len(shares)), key=lambda i: parts[i] - count * shares[i])
    for i in by_rest[: count - sum(parts)]:
        parts[i] += 1
    return parts


def table(parts: dict[str, list[Annotation]], names: list[str]) -> str:
    """Images and boxes of each class in each split."""
    rows = [["", *(word for split in parts for word in (split, ""))], ["class", *["images", "boxes"] * len(parts)]]
    of_class = {split: [Counter(a.labels[:, 0].astype(int).tolist()) for a in part] for split, part in parts.items()}
    for cls, name in enumerate(names):
        pairs = [(sum(cls in c for c in found), sum(c[cls] for c in found)) for found in of_class.values()]
        rows.append([shown(name, 20), *(str(n) for pair in pairs for n in pair)])
    empty = [sum(not c for c in found) for found in of_class.values()]
    if any(empty):
        rows.append(["no boxes", *(word for n in empty for word in (str(n), "0"))])
    total = [(str(len(found)), str(sum(c.total() for c in found))) for found in of_class.values()]
    rows.append(["all", *(word for pair in total for word in pair)])
    width = max(len(row[0]) for row in rows)
    return "\n".join(f"{row[0]:<{width}}" + "".join(f"{word:>9}" for word in row[1:]).rstrip() for row in rows)


def _scarce(parts: dict[str, list[Annotation]], names: list[str]) -> list[str]:
    """The classes that some split has no image of, with their number of images."""
    found = {split: Counter(cls for a in part for cls in set(a.labels[:, 0].tolist())) for split, part in parts.items()}
    return [
        f"{shown(name, 20)} ({sum(count[cls] for count in found.values())})"
        for cls, name in enumerate(names)
        if not all(count[cls] for count in found.values())
    ]


def _images_and_names(source: Path, names: list[str] | None) -> tuple[list[str], list[str]]:
    """The images of a data YAML or a folder, and the classes: the YAML's, ``names``, or those of a file beside the images."""
    if not source.is_dir():
        if names:
            raise UserError(f"--names: the classes are those of {source}; leave it out")
        config = read_data_yaml(source, required=("train",))
        entries = dict.fromkeys(entry for entries in config.splits.values() for entry in entries)
        return image_files(list(entries)), list(config.names.values())
    files = image_files([str(source)])
    if not names:
        folders = (source, source.absolute().parent, label_path(files[0]).parent, label_path(files[0]).parent.parent)
        lists = [folder / name for folder in folders for name in NAME_FILES if (folder / name).is_file()]
        if not lists:
            raise UserError(f"{source}: its classes have no names: give them in their order, as in --names cat dog")
        names = read_names(lists[0])
        print(f"the classes are those of {lists[0]}")
    return files, names


def _listed(folder: Path, image: str) -> str:
    """The line of an image in a list that lies in ``folder``."""
    line = entry_in(folder, image)
    if len(line.splitlines()) != 1 or line.encode("utf-8", "ignore").decode() != line:
        raise UserError(f"{shown(image)}: a name that breaks lines, or is not UTF-8, can stand in no list; rename it")
    return line if os.path.isabs(line) else f"./{line}"
