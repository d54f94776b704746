"""How accurate a file is on the validation images, kept in the study's folder: found/CANDIDATE-seedK.npz.

found = Accuracy(...).of(weights, keep)    evaluated, or read where ``keep`` has it of the very same file and labels
sample_of(name, founds, metric)            what statistics need of a candidate's runs (pairs.py)
"""

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from engine.comparison.pairs import Sample
from engine.detection.detector import load_detector
from engine.evaluation.bootstrap import draw_images, mean_over_classes, resampled_figures
from engine.evaluation.coco import NAMES, CocoEvaluator
from engine.evaluation.errors import KINDS, ErrorEvaluator
from engine.evaluation.evaluator import evaluate
from engine.evaluation.figures import Evaluation
from utils.data.config import DataConfig
from utils.data.dataset import EvalSet
from utils.data.index import Index, labels_digest
from utils.data.loader import eval_loader, worker_count
from utils.errors import UserError
from utils.files import replacing

RESAMPLES = 1000
# of the images, for figures that only the library of COCO's rules computes: each resample lacks one of them
GROUPS = 20
# images a batch, as in val.py, whose figures these are
BATCH = 32
# the columns of ``resampled``, in the order of FIGURES in engine/evaluation/bootstrap.py
BOOTSTRAPPED = ("map50", "map75", "map50_95")
# arrays of boxes, the last column of which is a class
BOXES = ("detections", "labels")
# of what is kept of one run: the boxes of some hundred thousand images
MOST_BYTES = 2**30
COCO = "faster_coco_eval"
AREAS = {"ap_small": "APs", "ap_medium": "APm", "ap_large": "APl"}


@dataclass(frozen=True)
class Found:
    """What a file finds on n images, ordered by their paths: m detections and k labels, x1 y1 x2 y2 confidence class in pixels
    of their images. ``figures``: BOOTSTRAPPED; ``areas``: AREAS, NaN where there is none or the library is missing."""

    digest: str
    paths: np.ndarray  # [n] texts
    sizes: np.ndarray  # [n, 2] height, width
    detections: np.ndarray  # [m, 6]
    image: np.ndarray  # [m] of each detection, an index into paths
    labels: np.ndarray  # [k, 6]
    label_image: np.ndarray  # [k]
    figures: np.ndarray  # [3]
    resampled: np.ndarray  # [RESAMPLES, 3]
    areas: np.ndarray  # [3]
    classes: int

    def figure(self, metric: str) -> float | None:
        """One of METRICS of record.py; None where it is not known."""
        values = dict(zip(BOOTSTRAPPED, self.figures, strict=True)) | dict(zip(AREAS, self.areas, strict=True))
        return None if np.isnan(values[metric]) else float(values[metric])

    def by_image(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The detections and the labels of each image, [., 6] each."""
        bounds = np.arange(1, len(self.paths))
        detections = np.split(self.detections, np.searchsorted(self.image, bounds))
        labels = np.split(self.labels, np.searchsorted(self.label_image, bounds))
        return [tuple(map(torch.from_numpy, rows)) for rows in zip(detections, labels, strict=True)]


class _Collector:
    """A recorder for ``evaluate`` that keeps what is found and labelled, image by image."""

    def __init__(self):
        self.images: list[tuple[str, tuple[int, int], np.ndarray, np.ndarray]] = []

    def image(self, path: str, native: tuple[int, int], detections: torch.Tensor, labelled: torch.Tensor) -> None:
        self.images.append((path, native, detections[:, :6].float().numpy(), labelled.float().numpy()))

    def batch(self, *_) -> None:
        pass


@dataclass(frozen=True)
class Accuracy:
    """Evaluates files on the images of ``index``, with the longer side of ``imgsz`` px."""

    config: DataConfig
    index: Index
    imgsz: int
    device: torch.device
    workers: int
    trust: bool = False

    def evaluate(self, weights: Path, collector: _Collector | None = None, dnn: bool = False) -> Evaluation:
        """As val.py does. Raises UserError for files that are no detectors of these classes."""
        model = load_detector(weights, self.device, dnn=dnn, trust=self.trust)
        if model.nc != self.config.nc:
            raise UserError(
                f"{weights} knows {model.nc} classes, {self.config.file} has {self.config.nc}; name its own data by --data"
            )
        stride = max(int(model.stride.max()), 32)
        dataset = EvalSet(self.index.annotations, self.imgsz, BATCH, stride, shape=model.fixed_size)
        loader = eval_loader(dataset, BATCH, worker_count(self.workers, BATCH), self.device.type == "cuda")
        return evaluate(model, loader, self.device, self.config.names, recorder=collector, progress=None)

    def of(self, weights: Path, keep: Path) -> Found:
        """Evaluate a file and write what came of it to ``keep``, or read that, where it is of this file and these labels."""
        # a library that was installed since knows more
        areas = find_spec(COCO) is not None
        digest = f"{file_digest(weights)} {labels_digest(self.index.annotations)} {self.imgsz} {areas}"
        if (found := read_found(keep)) and (found.digest, found.classes) == (digest, self.config.nc):
            return found
        collector = _Collector()
        evaluation = self.evaluate(weights, collector)
        found = self._found(digest, evaluation, collector)
        keep.parent.mkdir(parents=True, exist_ok=True)
        with replacing(keep) as temporary:
            np.savez_compressed(temporary, **vars(found))
        return found

    def _found(self, digest: str, evaluation: Evaluation, collector: _Collector) -> Found:
        matches, images = evaluation.matches, collector.images
        # of each image of the set as it was gone through, its place by path: all candidates have the same resamples
        order = np.argsort(np.array(matches.paths), kind="stable")
        place = np.empty(len(order), int)
        place[order] = np.arange(len(order))
        weights = draw_images(len(order), RESAMPLES)[:, place]
        resampled = mean_over_classes(resampled_figures(matches, weights))
        images = [images[i] for i in order]
        counts = [[len(image[part]) for image in images] for part in (2, 3)]
        image, label_image = (np.repeat(np.arange(len(images)), each) for each in counts)
        found = Found(
            digest=digest,
            paths=np.array([path for path, *_ in images]),
            sizes=np.array([native for _, native, *_ in images]),
            detections=np.concatenate([detections for *_, detections, _ in images]),
            image=image,
            labels=np.concatenate([labels for *_, labels in images]),
            label_image=label_image,
            figures=np.array([evaluation.map50, evaluation.map75, evaluation.map50_95]),
            resampled=resampled,
            areas=np.full(len(AREAS), np.nan),
            classes=self.config.nc,
        )
        return Found(**vars(found) | {"areas": areas_of(found)})


def file_digest(path: Path) -> str:
    """A digest of a file, or of all files in a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:32]


def read_found(path: Path) -> Found | None:
    """What was kept; None where there is nothing, or it is damaged or of another release."""
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > MOST_BYTES:
                return None
        with np.load(path, allow_pickle=False) as saved:
            values = {f.name: saved[f.name] for f in fields(Found)}
    # what NumPy and its readers of archives and of Python's literals raise has no common base
    except Exception:
        return None
    return _checked(values)


def _checked(values: dict[str, np.ndarray]) -> Found | None:
    """The arrays as what was found, where they can be that."""
    n, m, k = (len(values[name]) if values[name].ndim else 0 for name in ("paths", "detections", "labels"))
    shapes = {"digest": (), "paths": (n,), "sizes": (n, 2), "detections": (m, 6), "image": (m,), "labels": (k, 6)}
    shapes |= {"label_image": (k,), "figures": (len(BOOTSTRAPPED),), "areas": (len(AREAS),), "classes": ()}
    shapes |= {"resampled": (RESAMPLES, len(BOOTSTRAPPED))}
    kinds = dict.fromkeys(("sizes", "image", "label_image", "classes"), "i") | {"digest": "U", "paths": "U"}
    if any(
        values[name].shape != shape or values[name].dtype.kind != kinds.get(name, "f") for name, shape in shapes.items()
    ):
        return None
    numbers = (*BOXES, "figures", "resampled")
    in_order = all(_in_order(values[name], n) for name in ("image", "label_image"))
    if not n or not in_order or not all(np.isfinite(values[name]).all() for name in numbers):
        return None
    if not all(((rows := values[name])[:, 5] >= 0).all() and (rows[:, 5] < values["classes"]).all() for name in BOXES):
        return None
    return Found(**values | {"digest": str(values["digest"]), "classes": int(values["classes"])})


def _in_order(indices: np.ndarray, n: int) -> bool:
    """Whether they are indices into n images, which rise."""
    return not len(indices) or bool(indices[0] >= 0 and indices[-1] < n and (np.diff(indices) >= 0).all())


def areas_of(found: Found, images: np.ndarray | None = None) -> np.ndarray:
    """AREAS [3] by COCO's rules, of all ``images`` or of these; NaN where faster-coco-eval is missing."""
    try:
        coco = CocoEvaluator()
    except UserError:
        return np.full(len(AREAS), np.nan)
    rows = found.by_image()
    for i in range(len(rows)) if images is None else images:
        coco.add(*rows[i])
    overall = coco.figures(found.classes).overall
    return overall[[NAMES.index(name) for name in AREAS.values()]]


def errors_of(founds: Sequence[Found]) -> dict[str, float]:
    """What each kind of error costs in AP50, the mean of the runs; empty where there is none."""
    costs = []
    for found in founds:
        evaluator = ErrorEvaluator()
        for detections, labels in found.by_image():
            evaluator.add(detections, labels)
        costs.append(evaluator.figures().gains)
    return {kind: float(np.mean([cost[kind] for cost in costs])) for kind in KINDS} if costs else {}


def sample_of(name: str, founds: Sequence[Found], metric: str) -> Sample | None:
    """What the runs of a candidate tell of ``metric``; None where one of them doesn't know it."""
    figures = [found.figure(metric) for found in founds]
    if not figures or None in figures:
        return None
    draws = len(founds[0].paths)
    if metric in AREAS:
        column = list(AREAS).index(metric)
        groups = np.random.default_rng(0).permutation(draws) % min(GROUPS, draws)
        resampled = np.array(
            [[areas_of(f, np.flatnonzero(groups != g))[column] for g in range(groups.max() + 1)] for f in founds]
        )
        # a group may hold all there is of a size
        resampled = np.where(np.isnan(resampled), np.array(figures)[:, None], resampled)
        many = resampled.shape[1]
        return Sample(name, np.array(figures), resampled, (many - 1) / many, many)
    resampled = np.stack([found.resampled[:, BOOTSTRAPPED.index(metric)] for found in founds])
    # resamples vary less than sets of as many images
    factor = draws / max(draws - 1, 1) / (resampled.shape[1] - 1)
    return Sample(name, np.array(figures), resampled, factor, draws)
