"""Where detect.py takes its images from: a file, a folder, a glob, a list, a video, or several of these."""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from utils.data_yaml import image_files
from utils.errors import UserError
from utils.images import ImageError, is_image, is_video, read_image


@dataclass
class Frame:
    """One image to look at. ``number`` counts the frames of a video from 1, and is 0 for a picture."""

    path: Path
    image: np.ndarray  # uint8 [h, w, 3] RGB
    number: int = 0
    fps: float = 0.0
    place: str = ""  # «image 2/5», for the log


class Sources:
    """The pictures and video frames that ``source`` stands for, in order.

    Files that can't be read are named on the way, skipped, and kept in ``faults``. Raises UserError where ``source``
    doesn't exist or holds nothing to look at.
    """

    def __init__(self, source: str | Path):
        self.files = _files(str(source))
        self.faults: list[str] = []

    def __iter__(self) -> Iterator[Frame]:
        for i, file in enumerate(self.files, 1):
            place = f"{i}/{len(self.files)}"
            if is_video(file) and not is_image(file):
                yield from self._video(Path(file), place)
                continue
            try:
                yield Frame(Path(file), read_image(file), place=f"image {place}")
            except ImageError as e:
                self._skip(file, str(e))

    def _video(self, path: Path, place: str) -> Iterator[Frame]:
        video = cv2.VideoCapture(str(path))
        total = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        fps = video.get(cv2.CAP_PROP_FPS) or 30.0
        number = 0
        try:
            while True:
                read, image = video.read()
                if not read:
                    break
                number += 1
                rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                yield Frame(path, rgb, number, fps, f"video {place} ({number}/{total})")
        finally:
            video.release()
        if number == 0:
            self._skip(path, "not a video that can be read")
        elif number < total - 1:  # containers are often one off
            self._skip(path, f"only {number} of {total} frames could be read", "the rest is left out")

    def _skip(self, file: str | Path, reason: str, outcome: str = "skipped") -> None:
        self.faults.append(f"{file}: {reason}")
        print(f"warning: {file}: {reason}; {outcome}")


def _files(source: str) -> list[str]:
    if os.path.isdir(source):
        found = sorted(
            os.path.join(source, name)
            for name in os.listdir(source)
            if not name.startswith(".") and (is_image(name) or is_video(name))
        )
        if not found:
            raise UserError(f"{source}: the folder holds no images and no videos")
        return found
    if os.path.isfile(source):
        if is_image(source) or is_video(source):
            return [source]
        if source.lower().endswith(".txt"):
            return image_files([source])
        raise UserError(f"{source}: neither an image, a video, nor a .txt list of images (by its suffix)")
    found = [f for f in sorted(glob.glob(source, recursive=True)) if is_image(f) or is_video(f)]
    if not found:
        raise UserError(f"{source}: no such file or folder, and no images or videos match it as a pattern")
    return found
