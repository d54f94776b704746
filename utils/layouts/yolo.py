"""YOLO's layout: images/SPLIT, labels/SPLIT with a text file per image, and a data YAML."""

import os
from pathlib import Path

import numpy as np

from utils.boxes import xywh2xyxy
from utils.data.config import image_files, read_data_yaml
from utils.data.index import index_images
from utils.data.labels import Fault
from utils.errors import shown
from utils.layouts.collection import Box, Collection, Picture, place_image, require_empty
from utils.yaml_file import write_yaml

# of what is written, in its folder
DATA_YAML = "data.yaml"


def read_yolo(yaml: str | Path) -> Collection:
    """The data set of a data YAML: every split it names, boxes in pixels.

    Raises UserError where the YAML or a split can't be read.
    """
    config = read_data_yaml(yaml)
    names = list(config.names.values())
    found = Collection([], names)
    for split, entries in config.splits.items():
        index = index_images(image_files(entries), config.nc, None, f"{split}: checking images and labels")
        found.faults += index.faults
        for annotation in index.annotations:
            height, width = annotation.shape
            corners = xywh2xyxy(annotation.labels[:, 1:].astype(np.float64)) * (width, height, width, height)
            boxes = [
                Box(names[int(c)], *map(float, box)) for c, box in zip(annotation.labels[:, 0], corners, strict=True)
            ]
            found.pictures.append(Picture(Path(annotation.image), split, (width, height), boxes))
    return found


def write_yolo(found: Collection, dest: Path, link: bool) -> None:
    """images/SPLIT, labels/SPLIT and data.yaml in ``dest``; a box whose size rounds to nothing is dropped and named."""
    for split in found.splits:
        require_empty(dest / "labels" / split)
    number = {name: i for i, name in enumerate(found.names)}
    for picture in found.pictures:
        place_image(picture, dest / "images" / picture.split, link)
        width, height = picture.size
        lines = []
        for box in picture.boxes:
            x, y = (box.x1 + box.x2) / 2 / width, (box.y1 + box.y2) / 2 / height
            row = [round(v, 6) for v in (x, y, (box.x2 - box.x1) / width, (box.y2 - box.y1) / height)]
            if min(row[2:]) <= 0:
                detail = f"a box of {shown(box.name)} is {box.x2 - box.x1:g}x{box.y2 - box.y1:g} px; dropped"
                found.faults.append(Fault("degenerate box", str(picture.image), None, detail))
                continue
            lines.append(f"{number[box.name]} " + " ".join(f"{v:.6f}" for v in row) + "\n")
        path = dest / "labels" / picture.split / f"{picture.stem}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")
    write_data_yaml(found, dest / DATA_YAML)


def entry_in(folder: Path, path: str | Path) -> str:
    """What a list or a data YAML in ``folder`` says of a path: relative to it where it lies below, else the whole path."""
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def write_data_yaml(found: Collection, path: Path) -> None:
    """A data YAML for the splits, by their names: train2017 is one to train on. One that is there stays as it is."""
    if path.exists():
        print(f"note: {path} exists and stays as it is; it may lack {', '.join(found.splits)}")
        return
    entries = {key: [f"images/{s}" for s in found.splits if s.startswith(key)] for key in ("train", "val", "test")}
    rest = [f"images/{s}" for s in found.splits if not s.startswith(("train", "val", "test"))]
    entries["train"] = entries["train"] or rest or entries["val"] or entries["test"]
    entries["val"] = entries["val"] or entries["test"] or entries["train"]
    splits = {key: value[0] if len(value) == 1 else value for key, value in entries.items() if value}
    write_yaml(path, splits | {"names": dict(enumerate(found.names))})
