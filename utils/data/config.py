"""Data YAMLs: where a data set's images are, what its classes are called, and how to get it."""

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from utils.console.typed import quoted
from utils.data.images import IMAGE_SUFFIXES, is_image
from utils.data.index import Index, index_images
from utils.data.labels import label_path
from utils.download import download_archive, is_url
from utils.errors import UserError, shown
from utils.files import read_text
from utils.paths import ROOT
from utils.yaml_file import read_yaml

DATA = ROOT / "data"
# of a class name and of an entry, characters; folders of any depth in a glob, each of which multiplies the walk
MOST_NAME, MOST_PATH, MOST_ANY_DEPTH = 200, 4096, 2
# bytes of a list of images: millions of paths
MOST_LIST = 256 << 20


@dataclass
class DataConfig:
    """What a data YAML says, with every path absolute."""

    file: Path
    root: Path  # the data set's folder, against which the entries were resolved
    names: dict[int, str]  # class index → name, 0..nc-1
    nc: int
    splits: dict[str, list[str]]  # "train", "val" and, if given, "test" → folders, .txt lists, images or globs
    download: list[tuple[str, str]] = field(default_factory=list)  # (folder to fill, URL or another text)
    generate: str | None = None  # "shapes": the set is drawn, not downloaded


def read_data_yaml(path: str | Path, required: tuple[str, ...] = ("train", "val")) -> DataConfig:
    """Read a data YAML given by its path, or by its name in data/ with or without ``.yaml``.

    | key | value |
    | --- | --- |
    | path | the data set's folder; see below |
    | train, val, test | a folder of images, a .txt list of images, an image, a glob, or a list of these, in ``path`` |
    | names | class names: a list, or a mapping from 0, 1, 2, … |
    | nc | number of classes; may be left out |
    | download | URL of an archive to unpack to ``path``, or a list of them, or a mapping: folder in ``path`` to these |
    | generate | ``shapes``: draw the set of utils/data/shapes.py |

    Backslashes part folders as slashes do.

    A relative ``path`` (and without one: the entries) is tried against the YAML's folder, the current folder, the
    repository and the folder ``datasets`` beside the repository; the first where the images are is taken.

    Raises UserError for a file, a key or one of the ``required`` splits that is missing, and for values that make no sense.
    Whether the images exist is left to prepare_data.
    """
    file = _find_yaml(path)
    data = read_yaml(file, "data YAML")
    names = _names(file, data)
    entries = {
        split: list(map(_slashed, _strings(file, split, data[split])))
        for split in ("train", "val", "test")
        if data.get(split)
    }
    for split in required:
        if split not in entries:
            raise UserError(f"{file}: no `{split}:`; name the folder (or .txt list) of the {split} images there")
    if data.get("generate") not in (None, "shapes"):
        raise UserError(
            f"{file}: generate: {shown(repr(data['generate']))} is unknown; `shapes` is what can be generated"
        )

    root = _find_root(file, data.get("path"), [entry for split in required for entry in entries[split]])
    splits = {split: [_locate(root, entry) for entry in values] for split, values in entries.items()}
    return DataConfig(file, root, names, len(names), splits, _downloads(file, root, data), data.get("generate"))


def prepare_data(config: DataConfig, splits: Iterable[str] = ("train", "val"), fetch: bool = True) -> DataConfig:
    """See to it that the entries of ``splits`` exist: generate or download the set where the YAML says how.

    Without ``fetch`` neither is done: for a YAML that a file names and not the user. Returns the configuration, read anew
    if anything was fetched. Raises UserError if the data is missing and can't be had, or can't be found where the YAML
    says after fetching.
    """
    splits = [split for split in splits if split in config.splits]
    if not _missing(config, splits):
        return config
    missing = f"{config.file}: `{_missing(config, splits)[0]}` does not exist"

    if not fetch:
        words = quoted("--data", str(config.file))
        raise UserError(f"{missing}; to have it fetched, name this data on the command line, too: {words}")
    if os.path.lexists(config.root) and not os.path.isdir(config.root):
        raise UserError(f"{config.file}: `path:` is {shown(str(config.root))}, which is no folder; name one")
    if config.generate:
        from utils.data.shapes import make_shapes  # only here: most data sets are not drawn

        print(f"generating the data set of {config.file.name} in {config.root}")
        make_shapes(config.root)
    elif not config.download:
        raise UserError(
            f"{missing}; put the data there, or correct `path:` or the entries (comments in data/*.yaml "
            "name the public sources)"
        )
    else:
        for _, url in config.download:
            if not is_url(url):
                raise UserError(
                    f"{missing}, and its `download:` is a script, which is not run; get the data by hand "
                    f"and put it in {config.root}, or give the URL of an archive"
                )
        for folder, url in config.download:
            download_archive(url, folder)

    config = read_data_yaml(config.file)
    if _missing(config, splits):
        raise UserError(
            f"{config.file}: fetched, but `{_missing(config, splits)[0]}` still does not exist; correct the "
            f"entries to what lies in {config.root}"
        )
    return config


def image_files(entries: list[str]) -> list[str]:
    """The images that entries of a split stand for, in the order of the entries.

    A folder gives all images in it and below, sorted; a glob its matches, sorted; a .txt list its lines: absolute,
    relative to the list's folder if they begin with ``./``, else relative to the current or to the list's folder, in
    which the first part of a line is left out where only that file exists (see ``without_first_part``).

    Raises UserError for an entry that doesn't exist, and if there is no image at all.
    """
    images = []
    for entry in entries:
        if os.path.isdir(entry):
            images += _images_below(entry)
        elif os.path.lexists(entry):
            images += [entry] if is_image(entry) else _read_list(entry)
        elif matches := sorted(glob.glob(entry, recursive=True)):
            images += filter(is_image, matches)
        else:
            raise UserError(f"{entry}: no such folder, list or image")
    if not images:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"{', '.join(entries)}: no images there (files that end in {suffixes})")
    return images


def source_of(config: DataConfig, split: str) -> str:
    """What detect.py takes as --source to show the images of a split: the first of its entries.

    detect.py looks at the images of a folder, but not below it, and at lists that end in .txt: for any other entry the
    folder of its first image stands.
    """
    entry = config.splits[split][0]
    if os.path.isdir(entry):
        shows = any(is_image(name) and not name.startswith(".") for name in os.listdir(entry))
    else:
        shows = is_image(entry) or entry.lower().endswith(".txt")
    return entry if shows else os.path.dirname(image_files([entry])[0])


def index_split(config: DataConfig, split: str, single_cls: bool = False) -> Index:
    """Check every image and label of a split, say what was found, and keep the result in a cache beside the labels.

    With ``single_cls`` all boxes are of class 0.
    Raises UserError for a split the YAML doesn't have, and where no image is usable.
    """
    if split not in config.splits:
        raise UserError(f"{config.file}: no `{split}:`; name the folder (or .txt list) of the {split} images there")
    files = image_files(config.splits[split])
    index = index_images(files, config.nc, cache_path(config, split, ".cache"), f"{split}: checking images and labels")
    print(f"{split}: {index.summary}")
    index.print_faults()
    if single_cls:
        for annotation in index.annotations:
            annotation.labels[:, 0] = 0
    return index


def cache_path(config: DataConfig, split: str, suffix: str) -> Path:
    """Where what was learnt about a split is kept: images/train → labels/train.cache, a list train.txt → train.cache."""
    entry = config.splits[split][0]
    folder = label_path(os.path.join(entry, "_")).parent
    # labels that lie beside the images, below a folder that happens to be called `images`
    place = folder if folder.parent.is_dir() else Path(entry)
    # the root folder has no name
    return place.with_suffix(suffix) if place.name else place / f"images{suffix}"


# ---------------------------------------------------------------------------------------------------------------------
# The YAML's values
# ---------------------------------------------------------------------------------------------------------------------


def _find_yaml(path: str | Path) -> Path:
    path = Path(path)
    name = path if path.suffix in {".yaml", ".yml"} else path.parent / f"{path.name}.yaml"
    for candidate in (path, ROOT / path, DATA / name):
        # a folder may have the name of a data set; whatever else is there is read, or refused by what it is
        if os.path.exists(candidate) and not os.path.isdir(candidate):
            return Path(os.path.abspath(candidate))
    known = ", ".join(sorted(p.stem for p in DATA.glob("*.yaml")))
    raise UserError(f"{shown(str(path))}: no such data YAML; give a path, or a name from data/: {known}")


def _names(file: Path, data: dict) -> dict[int, str]:
    names = data.get("names")
    if not isinstance(names, (list, dict)) or not names:
        raise UserError(f"{file}: no class names; write `names: [first, second, …]`, in the order of the label numbers")
    names = dict(enumerate(names)) if isinstance(names, list) else _int_keys(names)
    if set(names) != set(range(len(names))):
        numbers = shown(", ".join(map(str, names)))
        raise UserError(f"{file}: names are numbered {numbers}; they must be 0 to {len(names) - 1}")
    for index, name in names.items():
        if isinstance(name, bool) or not isinstance(name, (str, int, float)):
            raise UserError(f"{file}: the name of class {index} is read as {shown(repr(name))}; put it into quotes")
        if len(str(name)) > MOST_NAME or len(str(name).splitlines()) > 1:
            raise UserError(
                f"{file}: the name of class {index} is {shown(repr(name))}; a name is one line of at most {MOST_NAME} characters"
            )
    nc = data.get("nc", len(names))
    if nc != len(names):
        raise UserError(
            f"{file}: nc is {shown(repr(nc))}, but there are {len(names)} names; correct one, or leave nc out"
        )
    return {index: str(names[index]) for index in range(len(names))}


def _int_keys(names: dict) -> dict:
    """Class numbers as integers; some tools quote them."""
    return {int(key) if str(key).isdecimal() else key: name for key, name in names.items()}


def _strings(file: Path, key: str, value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(v, str) and v for v in values):
        raise UserError(f"{file}: `{key}:` is {shown(repr(value))}; a text or a list of texts was expected")
    if wrong := [v for v in values if len(v) > MOST_PATH or v.count("**") > MOST_ANY_DEPTH]:
        raise UserError(
            f"{file}: `{key}:` has {shown(wrong[0])}; an entry has at most {MOST_PATH:,} characters, and `**` at most twice"
        )
    return values


def _downloads(file: Path, root: Path, data: dict) -> list[tuple[str, str]]:
    value = data.get("download") or {}
    by_folder = value if isinstance(value, dict) else {".": value}
    for folder in by_folder:
        if not Path(os.path.abspath(root / str(folder))).is_relative_to(os.path.abspath(root)):
            raise UserError(
                f"{file}: `download:` would fill {shown(repr(folder))}, which lies outside `path:`; name a folder in it"
            )
    return [
        (os.path.abspath(root / str(folder)), url.strip())
        for folder, urls in by_folder.items()
        for url in _strings(file, "download", urls)
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Paths. Symbolic links are left as they are: a data set's `images` may be one, and labels are found by that name.
# ---------------------------------------------------------------------------------------------------------------------


def _find_root(file: Path, path: object, entries: list[str]) -> Path:
    """The folder that entries are relative to: the first candidate that has all of them, else any of them."""
    if path is not None and not isinstance(path, str):
        raise UserError(f"{file}: `path:` is {shown(repr(path))}; a folder was expected")
    path = path and _slashed(path)
    bases = [file.parent, Path.cwd(), ROOT, ROOT.parent / "datasets"]
    if path is None:
        bases.pop()  # without a name of its own, a set is not looked for among all data sets
    candidates = [Path(os.path.abspath(base / os.path.expanduser(path or ""))) for base in bases]
    for enough in (all, any):
        for candidate in candidates:
            if enough(_exists(_locate(candidate, entry)) for entry in entries):
                return candidate
    # Nowhere: then this is where the data belongs. In the project's own YAMLs, `path` counts from the repository.
    return candidates[2] if file.is_relative_to(ROOT) else candidates[0]


def _slashed(path: str) -> str:
    """A path as every system reads it: data sets made on Windows may say images\\train."""
    return path.replace("\\", "/")


def _locate(root: Path, entry: str) -> str:
    """The absolute path of an entry."""
    path = os.path.abspath(root / os.path.expanduser(entry))
    # Exports of labelling services say ../train/images where train/images lies beside the YAML.
    if entry.startswith("../") and not _exists(path) and _exists(inner := os.path.abspath(root / entry[3:])):
        return inner
    return path


def _exists(entry: str) -> bool:
    return os.path.exists(entry) or (glob.has_magic(entry) and bool(glob.glob(entry, recursive=True)))


def _missing(config: DataConfig, splits: list[str]) -> list[str]:
    return [entry for split in splits for entry in config.splits[split] if not _exists(entry)]


def _images_below(folder: str) -> list[str]:
    """All images in a folder and below, sorted; links are followed, hidden files and folders left out."""
    images = []
    visited, top = set(), os.path.realpath(folder)
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        # a link that leads back up: to what was seen, or to a folder that holds all of the set and more
        if real in visited or (parent != folder and os.path.commonpath([real, top]) == real):
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        images += [os.path.join(parent, name) for name in files if is_image(name) and not name.startswith(".")]
    return sorted(images)


# the lists whose entries were not where they say, which is told once
_told: set[str] = set()


def _read_list(file: str) -> list[str]:
    """The images that a .txt list names, one a line."""
    try:
        lines = read_text(file, "list of images", MOST_LIST).splitlines()
    except UnicodeDecodeError as e:
        raise UserError(f"{file}: neither an image nor a list of images in UTF-8 text (byte {e.start})") from None
    folder = os.path.dirname(file)
    images, moved = [], []
    for line in filter(None, map(str.strip, lines)):
        if not os.path.exists(line):
            line = _slashed(line)
        if line.startswith("./") or not os.path.exists(line):
            inner = without_first_part(folder, line)
            moved += [line] if inner else []
            line = inner or os.path.normpath(os.path.join(folder, line))
        images.append(os.path.abspath(line))
    if moved and file not in _told:
        _told.add(file)
        print(
            f"note: {shown(file)}: {len(moved)} of {len(images)} entries, such as {shown(moved[0])}, lie beside it without their "
            f"first part: taken is {shown(without_first_part(folder, moved[0]))}"
        )
    return images


def without_first_part(folder: str, entry: str) -> str:
    """The path of a relative entry of a file in ``folder`` less its first part, where that exists and the whole doesn't.

    CVAT's YOLO export lists data/obj_train_data/a.jpg, and obj_train_data lies beside the list. Empty where it is not so.
    """
    inner = os.path.join(folder, os.path.normpath(entry).partition(os.sep)[2])
    moved = not os.path.isabs(entry) and not os.path.exists(os.path.join(folder, entry)) and os.path.isfile(inner)
    return inner if moved else ""
