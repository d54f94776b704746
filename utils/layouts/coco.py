"""COCO's layout: one JSON file per split with its images, annotations and categories."""

import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from utils.data.coco import category_ids, image_id
from utils.data.images import is_image
from utils.data.labels import Fault
from utils.device import available_memory
from utils.errors import UserError, shown
from utils.files import read_text
from utils.layouts.collection import (
    Box,
    Collection,
    Picture,
    keep_box,
    name_apart,
    place_image,
    require_empty,
    usable_image,
)

NUMBER = (int, float)
MOST_BYTES = 4 << 30  # of a COCO file
MOST_PIXELS = 1e9  # of a side or a place; anything beyond is no picture's
# what an entry must have to be understood at all; the annotations are looked at one by one
FIELDS = {
    "images": {"id": (int, str), "file_name": str, "width": NUMBER, "height": NUMBER},
    "categories": {"id": int, "name": str},
    "annotations": {},
}


def read_coco(sources: list[str | Path], images: str | Path | None = None) -> Collection:
    """The data set of one or several COCO files, a split each: instances_val2017.json is val2017, any other file bears
    its split's name, or lies in a folder that does (train/_annotations.coco.json).

    Classes are the categories by rising number. ``images``: the folder of the images, or one with a folder per split;
    default: where COCO's own lie, and beside the JSON. Crowds are dropped. Raises UserError for files that are not COCO.
    """
    found = Collection([], [])
    read = [(Path(source), _read_json(Path(source))) for source in sources]
    categories: dict[int, str] = {}
    for path, data in read:
        own = {c["id"]: c["name"] for c in data["categories"]}
        clash = [i for i in own if categories.get(i, own[i]) != own[i]]
        if clash:
            raise UserError(
                f"{path}: category {clash[0]} is {shown(own[clash[0]])!r}, "
                f"in an earlier file {shown(categories[clash[0]])!r}"
            )
        categories |= own
    found.names = [categories[i] for i in sorted(categories)]
    if len(set(found.names)) < len(found.names):
        raise UserError(f"{read[0][0]}: two categories have the same name")
    for path, data in read:
        split = split_name(path)
        pictures = _pictures(path, data, split, _image_folders(path, split, images), found.faults)
        _add_boxes(path, data, pictures, categories, found.faults)
        found.pictures += [picture for picture in pictures.values() if picture]
    if not found.pictures:
        raise UserError(f"{read[0][0]}: none of its images was found; name their folder with --images")
    name_apart(found.pictures)
    return found


def split_name(path: Path) -> str:
    """The split of a COCO file, from its name: val2017 of instances_val2017.json, train of train/_annotations.coco.json."""
    stem = path.name.removesuffix(".json").removesuffix(".coco").removeprefix("instances_").strip("_.")
    name = path.absolute().parent.name if stem in ("annotations", "") else stem
    return "val" if name == "valid" else name


def _read_json(path: Path) -> dict[str, Any]:
    # as Python's objects it takes several times its size
    most = min(MOST_BYTES, (available_memory() or MOST_BYTES * 4) // 4)
    try:
        data = json.loads(read_text(path, "COCO file", most))
    # ValueError: not UTF-8, not JSON, or an integer of thousands of digits
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path}: not JSON: {shown(str(e))}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: no COCO file: its JSON is no mapping")
    for entry in data.get("categories") if isinstance(data.get("categories"), list) else []:
        # JSON can write half a surrogate pair, which is no text in any file
        if isinstance(entry, dict) and isinstance(entry.get("name"), str) and not entry["name"].isprintable():
            raise UserError(f"{path}: the name of category {shown(entry['name'])} has control characters; correct it")
    for key, needs in FIELDS.items():
        entries = data.get(key)
        if not isinstance(entries, list) or not all(isinstance(e, dict) and _has(e, needs) for e in entries):
            fields = ", ".join(needs) or "any fields"
            raise UserError(f"{path}: no COCO file of boxes: `{key}` must be a list of entries with {fields}")
    return data


def _has(entry: dict, needs: dict) -> bool:
    return all(isinstance(entry.get(name), kind) for name, kind in needs.items())


def _image_folders(path: Path, split: str, images: str | Path | None) -> list[Path]:
    if images:
        return [Path(images) / split, Path(images)]
    root = path.absolute().parent
    return [root / split, root.parent / "images" / split, root.parent / split, root.parent / "images", root]


def _pictures(
    path: Path, data: dict, split: str, folders: list[Path], faults: list[Fault]
) -> dict[Any, Picture | None]:
    """Image number → its picture, None where it can't be used."""
    pictures: dict[Any, Picture | None] = {}
    for entry in data["images"]:
        name, said = PurePosixPath(entry["file_name"].replace("\\", "/")), shown(entry["file_name"])
        pictures[entry["id"]] = None
        if name.is_absolute() or ".." in name.parts or not is_image(name.name):
            faults.append(Fault("no image", str(path), None, f"{said}: no name of an image in the folder; dropped"))
            continue
        # os.path: Path.exists raises for names that the system can't take
        file = next((f / name for f in folders if os.path.exists(f / name)), None)
        if file is None:
            faults.append(Fault("no image", str(path), None, f"{said}: the file was not found; dropped"))
            continue
        if not usable_image(file, faults):
            continue
        if not all(1 <= entry[side] <= MOST_PIXELS for side in ("width", "height")):
            size = f"{shown(entry['width'])}x{shown(entry['height'])}"
            faults.append(Fault("no size", str(path), None, f"{said}: {size} is no size of an image; dropped"))
            continue
        pictures[entry["id"]] = Picture(file, split, (int(entry["width"]), int(entry["height"])), [])
    return pictures


def _add_boxes(
    path: Path, data: dict, pictures: dict[Any, Picture | None], categories: dict[int, str], faults: list[Fault]
) -> None:
    for entry in data["annotations"]:
        where = f"annotation {shown(entry.get('id'))}"
        reason = _unusable(entry, pictures, categories)
        if reason:
            faults.append(Fault(reason, str(path), None, f"{where}: {reason}; dropped"))
            continue
        picture = pictures[entry["image_id"]]
        x, y, width, height = entry["bbox"]
        box = Box(categories[entry["category_id"]], x, y, x + width, y + height)
        box = keep_box(box, picture.size, str(path), where, faults)
        if box is not None:
            picture.boxes.append(box)


def _unusable(entry: dict, pictures: dict, categories: dict) -> str | None:
    """Why an annotation is dropped, None where it is good."""
    if not isinstance(entry.get("image_id"), (int, str)) or entry["image_id"] not in pictures:
        return "unknown image"
    if pictures[entry["image_id"]] is None:
        return "its image is missing"
    if not isinstance(entry.get("category_id"), int) or entry["category_id"] not in categories:
        return "unknown category"
    if entry.get("iscrowd"):
        return "crowd"
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, NUMBER) for v in box):
        return "no box"
    # integers of any length, which no float can take; what is no number has its own word later
    if any(abs(v) > MOST_PIXELS for v in box):
        return "no box"
    return None


def write_coco(found: Collection, dest: Path, link: bool) -> None:
    """annotations/instances_SPLIT.json and images/SPLIT in ``dest``.

    Images and categories have the numbers that val.py --save-json and detect.py --save-json give them.
    """
    require_empty(dest / "annotations")
    (dest / "annotations").mkdir(parents=True, exist_ok=True)
    numbers = category_ids(dict(enumerate(found.names)))
    number_of = dict(zip(found.names, numbers, strict=True))
    name_apart(found.pictures)
    for split in found.splits:
        images, annotations = [], []
        taken: set[int] = set()
        for picture in (p for p in found.pictures if p.split == split):
            file = place_image(picture, dest / "images" / split, link)
            width, height = picture.size
            own = image_id(picture.stem, taken)
            images.append({"id": own, "file_name": file.name, "width": width, "height": height})
            for box in picture.boxes:
                w, h = box.x2 - box.x1, box.y2 - box.y1
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": own,
                        "category_id": number_of[box.name],
                        "bbox": [round(v, 3) for v in (box.x1, box.y1, w, h)],
                        "area": round(w * h, 3),
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": i, "name": name} for name, i in number_of.items()]
        data = {"images": images, "annotations": annotations, "categories": categories}
        path = dest / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
