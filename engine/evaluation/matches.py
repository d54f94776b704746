"""What a model finds on a set, held against the labels image by image: all that its precision and recall are made of."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class ImageMatches(NamedTuple):
    """Of one image with n detections and m labels."""

    path: str
    hits: np.ndarray  # [n, 10] bool, at each IoU threshold
    conf: np.ndarray  # [n]
    cls: np.ndarray  # [n]
    label_cls: np.ndarray  # [m]


@dataclass(frozen=True)
class Matches:
    """Of a whole set with n detections and m labels, in the order of its images."""

    paths: list[str]
    hits: np.ndarray  # [n, 10] bool
    conf: np.ndarray  # [n]
    cls: np.ndarray  # [n]
    image: np.ndarray  # [n] the image that each detection is of, an index into paths
    label_cls: np.ndarray  # [m]
    label_image: np.ndarray  # [m]

    @classmethod
    def of(cls, images: Iterable[ImageMatches]) -> "Matches":
        """Those of at least one image, put together."""
        paths, *columns = zip(*images, strict=True)
        hits, conf, classes, label_cls = map(np.concatenate, columns)
        image, label_image = (np.repeat(np.arange(len(paths)), list(map(len, columns[i]))) for i in (1, 3))
        return cls(list(paths), hits, conf, classes, image, label_cls, label_image)
