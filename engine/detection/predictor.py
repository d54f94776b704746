"""Detection on pictures and videos: from files to boxes, and from boxes to files.

predict(options)           detect.py
    Sources                files, URLs, cameras, streams, the screen → frames
    Predictor              image → detections [m, 6] in its own pixels
    Writer                 detections → drawn pictures, videos, text, crops, CSV, JSON
"""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from engine.detection.detector import load_detector
from engine.detection.options import DetectOptions
from engine.detection.results import describe
from engine.detection.writer import Writer
from engine.export.runtime import find_boxes, fixed_size
from models.plugins import load_plugins
from utils.boxes import scale_boxes
from utils.cli import require_share
from utils.data.images import fit_size, letterbox
from utils.device import describe_device, select_device, synchronize
from utils.errors import UserError
from utils.paths import new_run_folder, newest_weights
from utils.plots.display import show_image, why_no_display
from utils.plots.feature_maps import FeatureMaps
from utils.sources.frame import Frame
from utils.sources.sources import Sources
from utils.sources.streams import display_name


class Predictor:
    """A detector with its thresholds: ``predictor(image)`` gives detections [m, 6], x1 y1 x2 y2 conf class, in pixels.

    ``image`` is uint8 [h, w, 3] RGB of any size; ``imgsz`` (h, w) is what it is letterboxed to, unless the
    model is an exported file of another size.
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
        augment: bool = False,
        half: bool = False,
        dnn: bool = False,
    ):
        require_share("conf-thres", conf_thres)
        require_share("iou-thres", iou_thres)
        self.device = select_device(device)
        self.model = load_detector(weights, self.device, half, dnn)
        self.names = self.model.names
        self.stride = int(self.model.stride.max())
        self.fixed = fixed_size(self.model)
        self.imgsz = self.fixed or tuple(fit_size(side, self.stride) for side in imgsz)
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
        self.augment = augment
        self.clock = np.zeros(3)  # seconds of pre-processing, inference and NMS so far
        self.count = 0
        self.shape = (0, 0)  # of the last input

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> torch.Tensor:
        times = [time.perf_counter()]
        boxed, ratio, pad = letterbox(image, self.imgsz, auto=self.fixed is None, stride=self.stride)
        pixels = torch.from_numpy(boxed).to(self.device).permute(2, 0, 1)[None].float() / 255
        self._tick(times)
        predictions = self.model(pixels, augment=True)[0] if self.augment else self.model(pixels)[0]
        self._tick(times)
        detections = find_boxes(self.model, predictions, **self.nms)[0]
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


def predict(options: DetectOptions) -> Path:
    """What detect.py does; returns the folder of the results."""
    load_plugins(options.plugins)
    weights = options.weights or [newest_weights()]
    imgsz = options.shape
    sources = Sources(options.source, options.vid_stride)
    predictor = Predictor(
        weights,
        imgsz,
        options.device,
        options.conf_thres,
        options.iou_thres,
        options.max_det,
        options.classes,
        options.agnostic_nms,
        augment=options.augment,
        half=options.half,
        dnn=options.dnn,
    )
    if predictor.fixed and max(predictor.fixed) != max(imgsz):
        print(f"note: {weights[0]} takes {predictor.fixed[0]}×{predictor.fixed[1]} images only; --imgsz is not used")
    feature_maps = visualize(predictor) if options.visualize else None
    trained = predictor.model.trained_size
    if trained and trained != max(imgsz):
        print(f"note: {weights[0]} was trained at {trained} px; --imgsz {trained} may find more")
    if options.view_img and why_no_display():
        print(f"note: --view-img: {why_no_display()}; look at the files in the run's folder instead")
        options = replace(options, view_img=False)
    print(f"{' '.join(map(str, weights))} on {describe_device(predictor.device)}, {sources.size}")
    folder = new_run_folder(options.project, options.name, options.exist_ok)
    with Writer(folder, predictor.names, options) as writer:
        try:
            for frame in sources:
                go_on = look_at(frame, predictor, writer)
                if feature_maps:
                    feature_maps.save(folder / writer.name(frame))
                if not go_on:
                    break
        except KeyboardInterrupt:  # how one leaves a camera; what was found so far is whole
            print("stopped")
    if not predictor.count:
        fault = f" ({sources.faults[0]})" if sources.faults else ""
        raise UserError(f"{display_name(options.source)}: nothing could be read{fault}")
    skipped = f", {len(sources.faults)} files or frames skipped or cut short" if sources.faults else ""
    print(predictor.speed())
    print(f"{predictor.count} images, {writer.boxes} boxes{skipped}; results are in {folder}")
    return folder


def look_at(frame: Frame, predictor: Predictor, writer: Writer) -> bool:
    """Detect in one frame, write and show what is found; False where the user wants to see no more."""
    before = predictor.clock[1]
    detections = predictor(frame.image)
    drawn = writer.write(frame, detections)
    height, width = predictor.shape
    took = (predictor.clock[1] - before) * 1e3
    print(f"{frame.place} {frame.path}: {height}x{width} {describe(detections, predictor.names)}, {took:.1f} ms")
    if not writer.options.view_img:
        return True
    return show_image(str(frame.path), drawn, wait=1 if frame.number else 0)


def visualize(predictor: Predictor) -> FeatureMaps:
    """Hooks that draw the feature maps of every layer. Raises UserError where the model has none to show."""
    layers = getattr(predictor.model, "model", None)
    if not isinstance(layers, torch.nn.Sequential):
        raise UserError("--visualize: shows the layers of one .pt model; give a single one as --weights")
    return FeatureMaps(layers)
