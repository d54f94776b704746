"""Darknet's layout, which CVAT exports as "YOLO 1.1": obj.data names the classes and lists of images, labels lie beside these.

A data YAML is written for it, and nothing else: images, labels and lists are read where they are.
"""

import os
from pathlib import Path

from utils.data.config import MOST_LIST, image_files, without_first_part
from utils.errors import UserError, shown
from utils.files import read_text
from utils.layouts.collection import writing
from utils.layouts.yolo import entry_in
from utils.yaml_file import write_yaml

# its word for a split → ours
SPLITS = {"train": "train", "valid": "val", "validation": "val", "val": "val", "test": "test"}


def describe_darknet(source: Path, dest: Path) -> Path:
    """Write data.yaml into ``dest`` for the export at ``source``: its .data file, or the folder of that.

    Returns the data YAML. Raises UserError for what is no such export, and where the YAML exists.
    """
    file = _data_file(source)
    settings = _settings(file)
    names = read_names(Path(_beside(file, settings, "names")))
    count = settings.get("classes", str(len(names)))
    if count != str(len(names)):
        raise UserError(
            f"{file}: classes is {shown(count)}, and {settings['names']} names {len(names)}; correct one of them"
        )
    splits = {ours: _beside(file, settings, theirs) for theirs, ours in SPLITS.items() if settings.get(theirs)}
    if not splits:
        raise UserError(f"{file}: names no list of images; write `train = train.txt`")
    for split, path in splits.items():
        print(f"{split}: {len(image_files([path]))} images of {path}")
    yaml = dest / "data.yaml"
    if yaml.exists():
        raise UserError(f"{yaml}: is there already; move it away, or name another destination")
    for split, others in (("train", ("val", "test")), ("val", ("test", "train"))):
        if split not in splits:
            splits[split] = next(splits[other] for other in others if other in splits)
            print(
                f"note: {file} has no list for {split}; {splits[split]} stands in its place. To part its images: "
                f"python data/convert.py split {yaml} DEST"
            )
    entries = {split: entry_in(dest, splits[split]) for split in ("train", "val", "test") if split in splits}
    with writing(dest):
        dest.mkdir(parents=True, exist_ok=True)
        write_yaml(yaml, entries | {"names": dict(enumerate(names))})
    return yaml


def read_names(file: Path) -> list[str]:
    """The classes of obj.names or classes.txt, one a line."""
    try:
        names = [line.strip() for line in read_text(file, "list of classes", MOST_LIST).splitlines()]
    except UnicodeDecodeError as e:
        raise UserError(f"{file}: not UTF-8 text (byte {e.start}); save it as UTF-8") from None
    while names and not names[-1]:
        names.pop()
    if not names or not all(names):
        raise UserError(f"{file}: {'an empty line' if names else 'no names'}; it has a class a line, in their order")
    return names


def _data_file(source: Path) -> Path:
    if not source.is_dir():
        return source
    found = sorted(source.glob("*.data"))
    if len(found) != 1:
        raise UserError(f"{source}: holds {len(found)} .data files; name the obj.data of the export")
    return found[0]


def _settings(file: Path) -> dict[str, str]:
    """The lines ``key = value``."""
    try:
        lines = read_text(file, "obj.data", MOST_LIST).splitlines()
    except UnicodeDecodeError as e:
        raise UserError(
            f"{file}: not UTF-8 text (byte {e.start}); an obj.data has lines such as `classes = 2`"
        ) from None
    pairs = [line.partition("=") for line in lines if "=" in line and not line.lstrip().startswith("#")]
    settings = {key.strip().lower(): value.strip().replace("\\", "/") for key, _, value in pairs}
    if not settings.get("names"):
        raise UserError(f"{file}: names no file of classes; an obj.data has `names = obj.names`")
    return settings


def _beside(file: Path, settings: dict[str, str], key: str) -> str:
    """The path of a file that obj.data names: from its folder, or without its first part, as in the lists of images."""
    folder = os.path.abspath(file.parent)
    return without_first_part(folder, settings[key]) or os.path.normpath(os.path.join(folder, settings[key]))
