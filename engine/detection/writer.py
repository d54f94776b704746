"""What was found, to files: drawn pictures and videos, text, crops, a table, COCO results."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import torch

from engine.detection.options import DetectOptions
from utils.data.coco import coco_results
from utils.data.labels import text_line
from utils.errors import UserError
from utils.files import unique_name
from utils.plots.crops import crop_box, save_crop
from utils.plots.draw import draw_boxes, save_image
from utils.sources.frame import Frame


class Writer:
    """Writes what was found to the folder of the run; use it as a context, so that videos and tables are closed."""

    def __init__(self, folder: Path, names: dict[int, str], options: DetectOptions):
        self.folder = folder
        self.names = names
        self.options = options
        self.boxes = 0
        self.outputs: dict[Path, str] = {}  # source file → the name that all its results bear
        self.videos: dict[Path, tuple[cv2.VideoWriter, tuple[int, int]]] = {}  # of one file, or of all live sources
        self.coco: list[dict] = []

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
            self.coco += coco_results(name, detections.tolist(), self.names)
        return drawn

    def name(self, frame: Frame) -> str:
        """What the results of a frame are called: as its file, with the number of the frame where it has one."""
        stem = self._stem(frame)
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

    def _stem(self, frame: Frame) -> str:
        """The name of a source file's results: its own stem, numbered where two sources share one."""
        if frame.path not in self.outputs:
            self.outputs[frame.path] = unique_name(frame.path.stem, self.outputs.values())
        return self.outputs[frame.path]

    def _write_picture(self, frame: Frame, drawn: np.ndarray) -> None:
        if not frame.number:
            save_image(self.folder / f"{self._stem(frame)}{_picture_suffix(frame.path)}", drawn)
            return
        if frame.path not in self.videos:
            if not frame.live:  # files come one after the other, live sources all at once
                self._close_videos()
            self.videos[frame.path] = self._open_video(self.folder / f"{self._stem(frame)}.mp4", drawn, frame.fps)
        video, size = self.videos[frame.path]
        bgr = cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)
        if size != (bgr.shape[1], bgr.shape[0]):  # a camera may come back with another size; a video has one
            bgr = cv2.resize(bgr, size)
        for _ in range(frame.lasts):  # so that the video of a live source runs as fast as what it shows
            video.write(bgr)

    def _open_video(self, path: Path, first: np.ndarray, fps: float) -> tuple[cv2.VideoWriter, tuple[int, int]]:
        size = (first.shape[1], first.shape[0])
        video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
        if not video.isOpened():
            raise UserError(f"{path}: the video can't be written (is the folder writable, and its name plain ASCII?)")
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
            save_crop(self.folder / "crops", self.names[int(cls)], f"{name}_{i}", crop_box(frame.image, box))

    def _write_csv(self, frame: Frame, detections: torch.Tensor) -> None:
        with open(self.folder / "predictions.csv", "a", newline="", encoding="utf-8") as f:
            writer = csv.writer(f)
            if f.tell() == 0:
                writer.writerow(["Image Name", "Prediction", "Confidence", "x1", "y1", "x2", "y2", "Frame"])
            for x1, y1, x2, y2, conf, cls in detections.tolist():
                corners = [f"{v:.1f}" for v in (x1, y1, x2, y2)]
                writer.writerow([frame.path.name, self.names[int(cls)], f"{conf:.2f}", *corners, frame.number or ""])


def _picture_suffix(path: Path) -> str:
    """The suffix to draw a picture under: its own where OpenCV writes that format with certainty, else .jpg."""
    return path.suffix if path.suffix.lower() in {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"} else ".jpg"
