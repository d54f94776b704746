"""What was found, to files: drawn pictures and videos, text, crops, a table, COCO results."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from engine.detection.heatmaps import Explanation
from engine.detection.options import DetectOptions
from utils.data.coco import coco_results, image_id
from utils.data.labels import text_line
from utils.files import short_name, unique_name
from utils.plots.crops import crop_box, crop_folders, save_crop
from utils.plots.draw import MOST_JPEG, draw_boxes, save_image
from utils.plots.heat import draw_heat
from utils.sources.frame import Frame

# pixels of a side, that the encoder of videos takes; larger ones are shrunk
MOST_VIDEO = 8190


class Writer:
    """Writes what was found to the folder of the run; use it as a context, so that videos and tables are closed."""

    def __init__(self, folder: Path, names: dict[int, str], options: DetectOptions):
        self.folder = folder
        self.names = names
        self.options = options
        self.boxes = 0
        self.outputs = OutputNames()
        self.videos: dict[Path, tuple[cv2.VideoWriter, tuple[int, int]]] = {}  # of one file, or of all live sources
        self.coco: list[dict] = []
        self.numbers: set[int] = set()  # of the images in COCO's results so far
        self.crop_folders = crop_folders(names)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_) -> None:
        self._close_videos()
        if self.options.save_json:
            (self.folder / "predictions.json").write_text(json.dumps(self.coco), encoding="utf-8")

    def write(self, frame: Frame, detections: torch.Tensor, draw: bool = False) -> np.ndarray | None:
        """Write all that the flags ask for; returns the picture with its boxes, None where no flag nor ``draw`` needs it."""
        self.boxes += len(detections)
        options, name = self.options, self.name(frame)
        drawn = self._draw(frame, detections) if draw or not options.nosave else None
        if not options.nosave:
            self._write_picture(frame, drawn)
        if options.save_txt:
            self._write_text(name, frame, detections)
        if options.save_crop:
            self._write_crops(name, frame, detections)
        if options.save_csv:
            self._write_csv(frame, detections)
        if options.save_json:
            self.coco += coco_results(image_id(name, self.numbers), detections.tolist(), self.names)
        return drawn

    def write_heat(self, frame: Frame, explanation: Explanation) -> None:
        """Write the picture of where the model looked, with the boxes, to heatmaps/."""
        (self.folder / "heatmaps").mkdir(exist_ok=True)
        heated = replace(frame, image=draw_heat(frame.image, explanation.heat()))
        drawn = self._draw(heated, explanation.detections)
        save_image(self.folder / "heatmaps" / f"{self.name(frame)}{_picture_suffix(frame.path, drawn)}", drawn)

    def name(self, frame: Frame) -> str:
        """What the results of a frame are called: as its file, with the number of the frame where it has one."""
        stem = self.outputs.stem(frame)
        return f"{stem}_{frame.number}" if frame.number else stem

    def _draw(self, frame: Frame, detections: torch.Tensor) -> np.ndarray:
        found = detections.numpy()
        labels = None
        if self.options.hide_labels:
            labels = [""] * len(found)
        elif self.options.hide_conf:
            labels = [self.names[int(c)] for c in found[:, 5]]
        return draw_boxes(
            frame.image, found[:, :4], found[:, 5], self.names, found[:, 4], self.options.line_thickness, labels
        )

    def _write_picture(self, frame: Frame, drawn: np.ndarray) -> None:
        if not frame.number:
            save_image(self.folder / f"{self.name(frame)}{_picture_suffix(frame.path, drawn)}", drawn)
            return
        if frame.path not in self.videos:
            if not frame.live:  # files come one after the other, live sources all at once
                self._close_videos()
            self.videos[frame.path] = self._open_video(
                self.folder / f"{self.outputs.stem(frame)}.mp4", drawn, frame.fps
            )
        video, size = self.videos[frame.path]
        if not video.isOpened():
            save_image(self.folder / f"{self.name(frame)}.jpg", drawn)
            return
        bgr = cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)
        if size != (bgr.shape[1], bgr.shape[0]):  # a camera may come back with another size; a video has one
            bgr = cv2.resize(bgr, size)
        for _ in range(frame.lasts):  # so that the video of a live source runs as fast as what it shows
            video.write(bgr)

    def _open_video(self, path: Path, first: np.ndarray, fps: float) -> tuple[cv2.VideoWriter, tuple[int, int]]:
        shrink = min(MOST_VIDEO / max(first.shape), 1)
        size = (max(int(first.shape[1] * shrink), 2), max(int(first.shape[0] * shrink), 2))
        video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
        if not video.isOpened():
            print(f"warning: {path}: OpenCV can't write this video; its frames are written as pictures")
        return video, size

    def _close_videos(self) -> None:
        for video, _ in self.videos.values():
            video.release()
        self.videos.clear()

    def _write_text(self, name: str, frame: Frame, detections: torch.Tensor) -> None:
        path = self.folder / "labels" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        lines = [text_line(d, frame.image.shape[:2], self.options.save_conf) for d in detections.tolist()]
        path.write_text("".join(lines), encoding="utf-8")

    def _write_crops(self, name: str, frame: Frame, detections: torch.Tensor) -> None:
        for i, (*box, _, cls) in enumerate(detections.tolist(), 1):
            folder = self.folder / "crops" / self.crop_folders[int(cls)]
            save_crop(folder, f"{name}_{i}", crop_box(frame.image, box))

    def _write_csv(self, frame: Frame, detections: torch.Tensor) -> None:
        # a name of a file need not be text
        file = self.folder / "predictions.csv"
        with open(file, "a", newline="", encoding="utf-8", errors="backslashreplace") as f:
            writer = csv.writer(f)
            if f.tell() == 0:
                writer.writerow(["Image Name", "Prediction", "Confidence", "x1", "y1", "x2", "y2", "Frame"])
            for x1, y1, x2, y2, conf, cls in detections.tolist():
                corners = [f"{v:.1f}" for v in (x1, y1, x2, y2)]
                writer.writerow([frame.path.name, self.names[int(cls)], f"{conf:.2f}", *corners, frame.number or ""])


class OutputNames:
    """A name for the results of every source file: its own stem, numbered where results of another have it.

    Frame 2 of clip.mp4 is called clip_2, and so is a picture clip_2.jpg: whichever comes later is numbered.
    ``name in names`` tells whether a picture's results would overwrite others.
    """

    def __init__(self):
        self.stems: dict[Path, str] = {}
        self.used: set[str] = set()  # the stems
        self.frames: dict[str, int] = {}  # stem of a video or stream → its last frame so far
        self.numbered: set[str] = set()  # «clip» of pictures such as clip_2

    def stem(self, frame: Frame) -> str:
        """The name that all results of the frame's file share."""
        if frame.path not in self.stems:
            taken = self.used | self.numbered if frame.number else self
            stem = unique_name(short_name(frame.path.stem), taken)
            self.stems[frame.path] = stem
            self.used.add(stem)
            if not frame.number:
                self.numbered.add(_frame_of(stem)[0])
        stem = self.stems[frame.path]
        if frame.number:
            self.frames[stem] = frame.number
        return stem

    def __contains__(self, name: str) -> bool:
        video, number = _frame_of(name)
        return name in self.used or 0 < number <= self.frames.get(video, 0)


def _frame_of(name: str) -> tuple[str, int]:
    """What ``name`` would be the frame of, and its number; 0 where it is like no frame's."""
    found = re.fullmatch(r"(.*)_([1-9][0-9]*)", name)
    return (found[1], int(found[2])) if found else (name, 0)


def _picture_suffix(path: Path, picture: np.ndarray) -> str:
    """The suffix to draw a picture under: its own where OpenCV writes that format with certainty, else .jpg, or .png
    where that is too large.
    """
    if path.suffix.lower() in {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}:
        return path.suffix
    return ".jpg" if max(picture.shape) <= MOST_JPEG else ".png"
