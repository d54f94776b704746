"""An index of a split: every image and label file is checked once, and the result kept in a cache file."""

import hashlib
import json
import os
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from utils.console.progress import track
from utils.data.images import MIN_SIDE, ImageError, read_image
from utils.data.labels import Annotation, Fault, LabelError, label_file, label_path, parse_label_text, read_label_text
from utils.errors import UserError
from utils.files import replacing

CACHE_VERSION = 1  # raise it whenever the checks or the layout of the cache change


@dataclass
class Index:
    """The usable images of a split, and all that was found wrong on the way."""

    annotations: list[Annotation]  # in the order of the image list
    faults: list[Fault]
    missing: int  # usable images without a label file: background
    empty: int  # usable images with an empty label file: background

    @property
    def instances(self) -> int:
        """Number of boxes over all images."""
        return sum(len(a.labels) for a in self.annotations)

    @property
    def summary(self) -> str:
        """One line: images, boxes, background images, faults."""
        return (
            f"{len(self.annotations)} images, {self.instances} boxes, "
            f"{self.missing} without a label file, {self.empty} with an empty one, {len(self.faults)} faults"
        )

    def print_faults(self, limit: int = 10) -> None:
        """Print the first ``limit`` faults, and how many there are of each kind if that is not all of them."""
        for fault in self.faults[:limit]:
            print(f"warning: {fault}")
        if len(self.faults) > limit:
            counts = Counter(fault.kind for fault in self.faults).most_common()
            print(f"warning: {len(self.faults)} faults in all: {', '.join(f'{n} × {kind}' for kind, n in counts)}")


def index_images(
    images: list[str], nc: int, cache: str | Path | None, description: str, workers: int | None = None
) -> Index:
    """Decode every image and read its label file once; the next call, with nothing changed, takes all from ``cache``.

    A file listed twice counts once. Images that can't be read are left out and stand among the faults. The cache holds
    for the paths, sizes and modification times it was made with; any other content of that file is replaced.
    ``description`` stands before the progress bar, ``workers`` is the number of threads (default: one per CPU).

    Raises UserError if no image is usable. Whether images without boxes will do is for the caller: Index.instances.
    """
    unique: dict[str, str] = {}
    for image in images:
        unique.setdefault(os.path.abspath(image), image)
    images = list(unique.values())

    key = _cache_key(images, nc) if cache else ""
    index = _load_cache(Path(cache), key, images, nc) if cache else None
    if index is None:
        index = _check_all(images, nc, description, workers)
        if cache:
            _save_cache(Path(cache), key, images, index)
    if not index.annotations:
        folder = os.path.dirname(images[0]) if images else description
        first = "".join(f"; {fault}" for fault in index.faults[:3])
        raise UserError(f"{folder}: none of {len(images)} images is usable{first}")
    return index


def _check_all(images: list[str], nc: int, description: str, workers: int | None) -> Index:
    index = Index([], [], missing=0, empty=0)
    pool = ThreadPoolExecutor(workers or os.cpu_count())  # threads suffice: decoding releases Python's lock
    try:
        results = pool.map(lambda image: _check(image, nc), images)
        for annotation, faults, background in track(results, description, total=len(images), unit="image"):
            index.faults += faults
            if annotation is not None:
                index.annotations.append(annotation)
                index.missing += background == "missing"
                index.empty += background == "empty"
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, don't wait for the rest of the images
    return index


def _check(image: str, nc: int) -> tuple[Annotation | None, list[Fault], str]:
    """One image's annotation or None, its faults, and whether its label file is "missing", "empty" or neither ("")."""
    try:
        shape = read_image(image).shape[:2]
    except ImageError as e:
        return None, [Fault("image refused", image, None, f"{e}; image left out")], ""
    no_labels = np.zeros((0, 5), np.float32)
    file = label_path(image)
    try:
        text = read_label_text(file)
    # What isn't known to be empty must not be learnt as background: without its labels the image goes too.
    except UnicodeDecodeError as e:
        detail = f"not UTF-8 text (byte {e.start}); its image is left out"
        return None, [Fault("not UTF-8", str(file), None, detail)], ""
    except LabelError as e:
        return None, [Fault("label file unreadable", str(file), None, f"{e}; its image is left out")], ""
    if text is None:
        return Annotation(image, shape, no_labels, []), [], "missing"
    if not text.removeprefix("\ufeff").strip():
        return Annotation(image, shape, no_labels, []), [], "empty"
    labels, segments, faults = parse_label_text(text, nc, str(file))
    return Annotation(image, shape, labels, segments), faults, ""


def label_stamps(annotations: list[Annotation]) -> dict[str, tuple[int, int] | None]:
    """Size and time of every label file as it is now; None of one that isn't there."""
    return {file: _stamp(file) for file in (label_file(a.image) for a in annotations)}


def changed_labels(stamps: dict[str, tuple[int, int] | None]) -> list[str]:
    """The label files that have changed since ``stamps``."""
    return [path for path, stamp in stamps.items() if _stamp(path) != stamp]


def labels_digest(annotations: list[Annotation]) -> str:
    """A digest of all labels and the names of their images, wherever the files lie."""
    digest = hashlib.sha256()
    for annotation in annotations:
        digest.update(os.fsencode(os.path.basename(annotation.image)) + annotation.labels.tobytes())
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# The cache: flat arrays with offsets, and JSON for the rest; nothing in it is ever executed (no pickle)
# ---------------------------------------------------------------------------------------------------------------------


def _cache_key(images: list[str], nc: int) -> str:
    """A digest over what the index depends on: the checks, nc, and path, size and time of each image and label file."""
    digest = hashlib.sha256(repr((CACHE_VERSION, nc)).encode())
    for image in images:
        digest.update(repr((image, _stamp(image), _stamp(label_file(image)))).encode())
    return digest.hexdigest()


def _stamp(path: str | Path) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    # ValueError: a NUL byte in a path of a list
    except (OSError, ValueError):
        return None
    return stat.st_size, stat.st_mtime_ns


def _save_cache(path: Path, key: str, images: list[str], index: Index) -> None:
    position = {image: i for i, image in enumerate(images)}
    annotations = index.annotations
    polygons = [polygon for a in annotations for polygon in a.segments]
    rest = {"faults": [asdict(f) for f in index.faults], "missing": index.missing, "empty": index.empty}
    arrays = {
        "key": np.frombuffer(key.encode(), np.uint8),
        "rest": np.frombuffer(json.dumps(rest).encode(), np.uint8),
        "positions": np.array([position[a.image] for a in annotations], np.int64),  # in the list of images
        "shapes": np.array([a.shape for a in annotations], np.int64).reshape(-1, 2),
        "labels": np.concatenate([np.zeros((0, 5), np.float32), *(a.labels for a in annotations)]),
        "label_counts": np.array([len(a.labels) for a in annotations], np.int64),
        "points": np.concatenate([np.zeros((0, 2), np.float32), *polygons]),
        "point_counts": np.array([len(p) for p in polygons], np.int64),
        "segment_counts": np.array([len(a.segments) for a in annotations], np.int64),
    }
    try:
        with replacing(path) as temporary, open(temporary, "wb") as f:
            np.savez(f, **arrays)
    except OSError as e:
        print(f"note: {path} can't be written ({e.strerror}): the images will be checked again next time")


def _load_cache(path: Path, key: str, images: list[str], nc: int) -> Index | None:
    """The index kept in the cache, or None if there is none for this key, or what is there can't be one."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            # what is compressed may be of any size once it is read; it isn't written so
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.zip.infolist()):
                return None
            if archive["key"].tobytes().decode() != key:
                return None
            return _unpack({name: archive[name] for name in archive.files}, images, nc)
    except Exception:  # a cache only saves time: whatever is wrong with the file, checking the images anew mends it
        return None


def _unpack(arrays: dict[str, np.ndarray], images: list[str], nc: int) -> Index:
    """The index of the arrays of a cache. Raises ValueError and others where they are not what _save_cache writes."""
    rest = json.loads(arrays["rest"].tobytes())
    positions, shapes, values = arrays["positions"], arrays["shapes"], arrays["labels"]
    if not (
        values.dtype == arrays["points"].dtype == np.float32
        and values.shape[1:] == (5,)
        and arrays["points"].shape[1:] == (2,)
        and np.isin(values[:, 0], np.arange(nc)).all()
        and ((values[:, 1:] >= 0) & (values[:, 1:] <= 1)).all()
        and np.isfinite(arrays["points"]).all()
        and shapes.shape == (len(positions), 2)
        and (shapes >= MIN_SIDE).all()
        and (np.diff(positions, prepend=-1) > 0).all()
    ):
        raise ValueError("not an index")
    labels = _split(values, arrays["label_counts"])
    segments = _split(_split(arrays["points"], arrays["point_counts"]), arrays["segment_counts"])
    annotations = [
        Annotation(images[i], (height, width), boxes, polygons)
        for i, (height, width), boxes, polygons in zip(
            positions.tolist(), shapes.tolist(), labels, segments, strict=True
        )
    ]
    if any(len(a.segments) not in (0, len(a.labels)) for a in annotations):
        raise ValueError("not an index")
    return Index(annotations, [Fault(**fault) for fault in rest["faults"]], int(rest["missing"]), int(rest["empty"]))


def _split(items: np.ndarray | list, counts: np.ndarray) -> list:
    """Cut a sequence into consecutive pieces of the given lengths."""
    if counts.dtype != np.int64 or (counts < 0).any() or counts.sum() != len(items):
        raise ValueError("pieces that don't make up the whole")
    ends = np.cumsum(counts).tolist()
    return [items[end - count : end] for end, count in zip(ends, counts.tolist(), strict=True)]
