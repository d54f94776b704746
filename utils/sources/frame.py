"""The unit that sources give and results are written of: one picture, with where it came from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass
class Frame:
    """One image to look at. ``number`` counts the frames of a video or stream from 1, and is 0 for a picture."""

    path: Path  # the file; of a live source a name made from it
    image: np.ndarray  # uint8 [h, w, 3] RGB
    number: int = 0
    fps: float = 0.0
    place: str = ""  # «image 2/5», for the log
    live: bool = False  # from a camera, a network stream or the screen
    lasts: int = 1  # frames that passed since the last one taken: a live source doesn't wait for a slow detector
