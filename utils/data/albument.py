"""Albumentations' transforms in training, where that package is installed: ``--albumentations``."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from utils.errors import UserError, shown
from utils.extras import load_extra
from utils.files import read_text
from utils.yaml_file import MOST_BYTES, read_yaml

PACKAGE = "'albumentations>=2.0'"


def make_transform(file: str | None) -> Callable:
    """(image uint8 [h, w, 3], labels [n, 5] class, x, y, w, h, rng) → the same, transformed.

    ``file``: a pipeline saved by ``albumentations.save`` as YAML or JSON; None: rare blur, median blur, grey, and
    contrast, as YOLOv5 does. Raises UserError where the package or the file is missing or unusable.
    """
    A = load_extra("albumentations", "--albumentations", PACKAGE)
    if not hasattr(A.Compose, "set_random_seed"):
        raise UserError(f"--albumentations: version {A.__version__} cannot be seeded per image: pip install {PACKAGE}")
    if file is None:
        steps = [A.Blur(p=0.01), A.MedianBlur(p=0.01), A.ToGray(p=0.01), A.CLAHE(p=0.01)]
    else:
        saved = _read_pipeline(file)
        # Of the names in it, the package makes its own transforms alone. It raises errors of many types for what it cannot
        # make; the user reads what it says.
        try:
            steps = [A.from_dict(saved)]
        except Exception as e:
            raise UserError(f"--albumentations {shown(file)}: {shown(f'{type(e).__name__}: {e}')}") from None
    boxes = A.BboxParams(format="yolo", label_fields=["classes"], clip=True)
    pipeline = A.Compose(steps, bbox_params=boxes)
    # not a function within this one: loading processes that are spawned are handed it
    return partial(_transform, pipeline)


def _transform(pipeline: Callable, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator):
    pipeline.set_random_seed(int(rng.integers(2**31)))
    new = pipeline(image=image, bboxes=labels[:, 1:], classes=labels[:, 0])
    boxes, classes = np.array(new["bboxes"], np.float32).reshape(-1, 4), np.array(new["classes"], np.float32)
    return new["image"], np.column_stack((classes, boxes)).astype(np.float32)


def _read_pipeline(file: str) -> dict[str, Any]:
    """What albumentations.save wrote, as plain values."""
    what = "pipeline of --albumentations"
    if not file.endswith(".json"):
        return read_yaml(file, what)
    try:
        return json.loads(read_text(file, what, MOST_BYTES))
    # RecursionError: of thousands of brackets
    except (ValueError, RecursionError) as e:
        raise UserError(f"--albumentations {shown(file)}: not JSON: {shown(str(e))}") from None
