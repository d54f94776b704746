"""Detection on pictures and videos: from files to boxes, and from boxes to files.

predict(options)           detect.py
    Predictor              image → detections [m, 6] in its own pixels
    Writer                 detections → drawn pictures, videos, text, crops, CSV
"""

import argparse
import csv
import re
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import torch

from engine.detector import load_detector
from engine.evaluator import text_line
from models.plugins import load_plugins
from utils.boxes import non_max_suppression, scale_boxes
from utils.cli import require_share
from utils.device import describe_device, select_device, synchronize
from utils.draw import draw_boxes, save_image
from utils.errors import UserError
from utils.images import letterbox
from utils.paths import new_run_folder, newest_weights
from utils.sources import Frame, Sources


class Predictor:
    """A detector with its thresholds: ``predictor(image)`` gives detections [m, 6], x1 y1 x2 y2 conf class, in pixels.

    ``image`` is uint8 [h, w, 3] RGB of any size; ``imgsz`` (h, w) is what it is letterboxed to.
    """

    def __init__(
        self,
        weights: str | Path | list[str | Path],
        imgsz: tuple[int, int] = (640, 640),
        device: str = "",
        conf_thres: float = 0.25,
        iou_thres: float = 0.45,
        max_det: int = 1000,
        classes: list[int] | None = None,
        agnostic: bool = False,
    ):
        require_share("conf-thres", conf_thres)
        require_share("iou-thres", iou_thres)
        self.device = select_device(device)
        self.model = load_detector(weights, self.device)
        self.names = self.model.names
        self.stride = int(self.model.stride.max())
        self.imgsz = tuple(-(-side // self.stride) * self.stride for side in imgsz)
        unknown = [c for c in classes or [] if c not in self.names]
        if unknown:
            raise UserError(f"--classes {unknown[0]}: the model's classes are 0 to {len(self.names) - 1}")
        self.nms = {
            "conf_thres": conf_thres,
            "iou_thres": iou_thres,
            "max_det": max_det,
            "classes": classes,
            "agnostic": agnostic,
        }
        self.clock = np.zeros(3)  # seconds of pre-processing, inference and NMS so far
        self.count = 0
        self.shape = (0, 0)  # of the last input

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> torch.Tensor:
        times = [time.perf_counter()]
        boxed, ratio, pad = letterbox(image, self.imgsz, auto=True, stride=self.stride)
        pixels = torch.from_numpy(boxed).to(self.device).permute(2, 0, 1)[None].float() / 255
        self._tick(times)
        predictions = self.model(pixels)[0]
        self._tick(times)
        detections = non_max_suppression(predictions, **self.nms)[0]
        self._tick(times)
        detections[:, :4] = scale_boxes(detections[:, :4], ratio, pad, image.shape[:2])
        self.clock += np.diff(times)
        self.count += 1
        self.shape = boxed.shape[:2]
        return detections.cpu()

    def _tick(self, times: list[float]) -> None:
        synchronize(self.device)
        times.append(time.perf_counter())

    def speed(self) -> str:
        """Milliseconds per image so far."""
        before, inference, nms = self.clock / max(self.count, 1) * 1e3
        return f"speed: {before:.1f} ms pre-process, {inference:.1f} ms inference, {nms:.1f} ms NMS per image"


def predict(options: argparse.Namespace) -> Path:
    """What detect.py does; returns the folder of the results."""
    load_plugins(options.plugins)
    weights = options.weights or [newest_weights()]
    imgsz = options.imgsz * 2 if len(options.imgsz) == 1 else options.imgsz
    if len(imgsz) != 2 or min(imgsz) < 1:
        raise UserError(f"--imgsz {' '.join(map(str, options.imgsz))}: give one size, or height and width")
    sources = Sources(options.source)
    predictor = Predictor(
        weights,
        tuple(imgsz),
        options.device,
        options.conf_thres,
        options.iou_thres,
        options.max_det,
        options.classes,
        options.agnostic_nms,
    )
    trained = predictor.model.trained_size
    if trained and trained != max(imgsz):
        print(f"note: {weights[0]} was trained at {trained} px; --imgsz {trained} may find more")
    print(f"{' '.join(map(str, weights))} on {describe_device(predictor.device)}, {len(sources.files)} files")
    folder = new_run_folder(options.project, options.name, options.exist_ok)
    with Writer(folder, predictor.names, options) as writer:
        for frame in sources:
            before = predictor.clock[1]
            detections = predictor(frame.image)
            writer.write(frame, detections)
            height, width = predictor.shape
            took = (predictor.clock[1] - before) * 1e3
            print(
                f"{frame.place} {frame.path}: {height}x{width} {describe(detections, predictor.names)}, {took:.1f} ms"
            )
    if not predictor.count:
        raise UserError(f"{options.source}: none of its {len(sources.files)} files could be read")
    skipped = f", {len(sources.faults)} files skipped or cut short" if sources.faults else ""
    print(predictor.speed())
    print(f"{predictor.count} images, {writer.boxes} boxes{skipped}; results are in {folder}")
    return folder


def describe(detections: torch.Tensor, names: dict[int, str]) -> str:
    """«2 persons, 1 bus», or «(no detections)»."""
    counts = Counter(int(c) for c in detections[:, 5].tolist())
    words = [f"{n} {names[c]}{'s' if n > 1 and names[c].isascii() else ''}" for c, n in sorted(counts.items())]
    return ", ".join(words) or "(no detections)"


class Writer:
    """Writes what was found to the folder of the run; use it as a context, so that videos are closed."""

    def __init__(self, folder: Path, names: dict[int, str], options: argparse.Namespace):
        self.folder = folder
        self.names = names
        self.options = options
        self.boxes = 0
        self.outputs: dict[Path, str] = {}  # source file → the name that all its results bear
        self.video: cv2.VideoWriter | None = None
        self.video_source: Path | None = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_) -> None:
        self._close_video()

    def write(self, frame: Frame, detections: torch.Tensor) -> None:
        """Draw the detections of a frame and write all that the flags ask for."""
        self.boxes += len(detections)
        stem = self._stem(frame)
        found = detections.numpy()
        drawn = draw_boxes(frame.image, found[:, :4], found[:, 5], self.names, found[:, 4])
        if frame.number:
            self._write_frame(frame, stem, drawn)
        else:
            save_image(self.folder / f"{stem}{_picture_suffix(frame.path)}", drawn)
        name = f"{stem}_{frame.number}" if frame.number else stem
        if self.options.save_txt:
            self._write_text(name, frame, detections)
        if self.options.save_crop:
            self._write_crops(name, frame, detections)
        if self.options.save_csv:
            self._write_csv(frame, detections)

    def _stem(self, frame: Frame) -> str:
        """The name of a source file's results: its own stem, numbered where two sources share one."""
        if frame.path not in self.outputs:
            taken = set(self.outputs.values())
            stem, number = frame.path.stem, 1
            while stem in taken:
                number += 1
                stem = f"{frame.path.stem}-{number}"
            self.outputs[frame.path] = stem
        return self.outputs[frame.path]

    def _write_frame(self, frame: Frame, stem: str, drawn: np.ndarray) -> None:
        if self.video_source != frame.path:
            self._close_video()
            height, width = drawn.shape[:2]
            path = self.folder / f"{stem}.mp4"
            self.video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), frame.fps, (width, height))
            if not self.video.isOpened():
                raise UserError(
                    f"{path}: the video can't be written (is the folder writable, and its name plain ASCII?)"
                )
            self.video_source = frame.path
        self.video.write(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))

    def _close_video(self) -> None:
        if self.video is not None:
            self.video.release()
        self.video = self.video_source = None

    def _write_text(self, name: str, frame: Frame, detections: torch.Tensor) -> None:
        path = self.folder / "labels" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        lines = [text_line(d, frame.image.shape[:2], self.options.save_conf) for d in detections.tolist()]
        path.write_text("".join(lines), encoding="utf-8")

    def _write_crops(self, name: str, frame: Frame, detections: torch.Tensor) -> None:
        height, width = frame.image.shape[:2]
        for i, (x1, y1, x2, y2, _, cls) in enumerate(detections.tolist(), 1):
            margin_x, margin_y = (x2 - x1) * 0.01 + 5, (y2 - y1) * 0.01 + 5  # a little of what surrounds it
            left, top = max(int(x1 - margin_x), 0), max(int(y1 - margin_y), 0)
            right, bottom = min(int(x2 + margin_x) + 1, width), min(int(y2 + margin_y) + 1, height)
            folder = self.folder / "crops" / re.sub(r'[\\/:*?"<>|]', "_", self.names[int(cls)])
            folder.mkdir(parents=True, exist_ok=True)
            save_image(folder / f"{name}_{i}.jpg", np.ascontiguousarray(frame.image[top:bottom, left:right]))

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
