"""Detection on pictures and videos: from files to boxes, and from boxes to files.

predict(options)           detect.py
    Sources                files, URLs, cameras, streams, the screen → frames
    Predictor              image → detections [m, 6] in its own pixels
    Writer                 detections → drawn pictures, videos, text, crops, CSV, JSON
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from engine.detection.detector import load_detector, note_other_size
from engine.detection.heatmaps import Explainer
from engine.detection.options import DetectOptions
from engine.detection.pipeline import EVERYDAY, INFERENCE, VALIDATION, Pipeline, Thresholds, speed_line, warm_up
from engine.detection.results import describe
from engine.detection.writer import Writer
from models.plugins import load_plugins
from utils.cli import require_share
from utils.console.neighbours import make_way
from utils.data.images import fit_size
from utils.device import describe_device, select_device
from utils.errors import MOST_SAID, UserError, shown
from utils.paths import new_run_folder, newest_weights
from utils.plots.display import show_image, why_no_display
from utils.plots.feature_maps import FeatureMaps
from utils.sources.ahead import Behind, is_large, look_abreast
from utils.sources.frame import Frame
from utils.sources.sources import Sources
from utils.sources.streams import display_name

# images that are looked at at once on a CPU: each has layers of its own in memory, and beyond this there is little to win
MOST_AT_ONCE = 4


class Predictor:
    """A detector with its thresholds: ``predictor(image)`` gives detections [m, 6], x1 y1 x2 y2 conf class, in pixels.

    ``image`` is uint8 [h, w, 3] RGB of any size; ``imgsz`` (h, w) is what it is letterboxed to, unless the
    model is an exported file of another size. Raises UserError for thresholds and classes that can't be.
    """

    def __init__(
        self,
        weights: str | Path | list[str | Path],
        imgsz: tuple[int, int] = (640, 640),
        device: str = "",
        thresholds: Thresholds = EVERYDAY,
        augment: bool = False,
        half: bool = False,
        dnn: bool = False,
        trust: bool = False,
        runtime: str = "torch",
    ):
        require_share("--conf-thres", thresholds.conf_thres)
        require_share("--iou-thres", thresholds.iou_thres)
        self.device = select_device(device)
        make_way(self.device)
        self.model = load_detector(weights, self.device, half, dnn, trust, runtime)
        self.names = self.model.names
        self.stride = int(self.model.stride.max())
        self.fixed = self.model.fixed_size
        self.imgsz = self.fixed or tuple(fit_size(side, self.stride) for side in imgsz)
        unknown = [c for c in thresholds.classes or [] if c not in self.names]
        if unknown:
            raise UserError(f"--classes {unknown[0]}: the model's classes are 0 to {len(self.names) - 1}")
        self.pipeline = Pipeline(self.model, self.device, thresholds, augment)

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        return self.look(image).detections

    @torch.inference_mode()
    def look(self, image: np.ndarray) -> "Look":
        """The detections and more, in any thread."""
        pipeline = self.pipeline.with_own_clock()
        batch = pipeline.prepare([image], self.imgsz, auto=self.fixed is None)
        found, _ = pipeline.detect(batch)
        return Look(found[0], tuple(batch.images.shape[2:]), pipeline.clock.seconds)

    def at_once(self) -> int:
        """How many images it had better look at at once: on a CPU its threads then need not wait for each other. 1 on a GPU,
        for exported files, whose libraries have threads of their own, and for layers that keep something while they compute,
        which would mix up the images."""
        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        if threads == 1 or not isinstance(self.model, torch.nn.Module):
            return 1
        blank = np.zeros((*self.imgsz, 3), np.uint8)
        return min(threads, MOST_AT_ONCE) if unchanged_by(lambda: self.look(blank), self.model) else 1


def unchanged_by(call: Callable[[], object], model: torch.nn.Module) -> bool:
    """Whether ``call`` leaves all attributes of the layers of ``model`` what they were."""

    def attributes() -> list[dict]:
        return [found for layer in model.modules() for found in (dict(vars(layer)), dict(layer._buffers))]

    before = attributes()
    call()
    after = attributes()
    return len(before) == len(after) and all(
        old.keys() == new.keys() and all(new[name] is value for name, value in old.items())
        for old, new in zip(before, after, strict=True)
    )


class Look(NamedTuple):
    """What a predictor sees in an image. ``shape`` (h, w): of the model's input; ``seconds`` [3]: what pre-processing, inference
    and suppression took, of one image; of several at once, its share of that."""

    detections: torch.Tensor
    shape: tuple[int, int]
    seconds: np.ndarray


def predict(options: DetectOptions) -> Path:
    """What detect.py does; returns the folder of the results."""
    load_plugins(options.plugins)
    weights = options.weights or [newest_weights()]
    imgsz = options.shape
    sources = Sources(options.source, options.vid_stride)
    thresholds = Thresholds(
        options.conf_thres, options.iou_thres, options.max_det, options.classes, agnostic=options.agnostic_nms
    )
    how = {name: getattr(options, name) for name in ("augment", "half", "dnn", "trust", "runtime")}
    predictor = Predictor(weights, imgsz, options.device, thresholds, **how)
    if predictor.fixed and max(predictor.fixed) != max(imgsz):
        print(f"note: {weights[0]} takes {predictor.fixed[0]}×{predictor.fixed[1]} images only; --imgsz is not used")
    warm_up(predictor.model, predictor.device, (1, 3, *predictor.imgsz))
    feature_maps = visualize(predictor) if options.visualize else None
    explainer = explain(predictor, options) if options.explain else None
    note_other_size(predictor.model, weights[0], max(imgsz))
    show = options.view_img and not why_no_display()
    if options.view_img and not show:
        print(f"note: --view-img: {why_no_display()}; look at the files in the run's folder instead")
    print(f"{' '.join(map(str, weights))} on {describe_device(predictor.device)}, {sources.size}")
    folder = new_run_folder(options.project, options.name, options.exist_ok)
    count, seconds = 0, np.zeros(3)
    at_once = predictor.at_once() if sources.has_video and not (feature_maps or explainer) else 1
    with Writer(folder, predictor.names, options) as writer, Behind() as behind:
        try:
            for frame, look in looks(sources, predictor, at_once):
                count, seconds = count + 1, seconds + look.seconds
                tell(frame, look, predictor.names)
                behind.do(writer.write, frame, look.detections, show)
                if feature_maps or explainer or show or is_large(frame):
                    drawn = behind.wait()
                if feature_maps:
                    feature_maps.save(folder / writer.name(frame))
                if explainer:
                    writer.write_heat(frame, explainer(frame.image))
                if show and not show_image(str(frame.path), drawn, wait=1 if frame.number else 0):
                    break
        except KeyboardInterrupt:  # how one leaves a camera; what was found so far is whole
            print("stopped")
    if not count:
        fault = f" ({sources.faults[0]})" if sources.faults else ""
        raise UserError(f"{display_name(options.source)}: nothing could be read{fault}")
    skipped = f", {len(sources.faults)} files or frames skipped or cut short" if sources.faults else ""
    print(speed_line(seconds / count * 1e3))
    if not writer.boxes and options.conf_thres > VALIDATION.conf_thres:
        print(f"note: no box has the confidence of --conf-thres {options.conf_thres:g}; a lower one shows weaker boxes")
    print(f"{count} images, {writer.boxes} boxes{skipped}; results are in {folder}")
    return folder


def looks(frames: Iterable[Frame], predictor: Predictor, at_once: int) -> Iterator[tuple[Frame, Look]]:
    """Each frame with what is seen in it, in order; so many of a video ``at_once``, which share the threads of a CPU."""
    threads = torch.get_num_threads()

    def alone(frame: Frame) -> Look:
        return predictor.look(frame.image)

    def together(frame: Frame) -> Look:
        look = alone(frame)
        return look._replace(seconds=look.seconds / at_once)

    def begin() -> None:
        # it holds for the thread that calls, and for those that begin later
        torch.set_num_threads(max(threads // at_once, 1))

    try:
        yield from look_abreast(iter(frames), alone, together, at_once, begin)
    finally:
        torch.set_num_threads(threads)


def tell(frame: Frame, look: Look, names: dict[int, str]) -> None:
    """A line about one frame."""
    path, (height, width) = shown(str(frame.path), MOST_SAID), look.shape
    took = look.seconds[INFERENCE] * 1e3
    print(f"{frame.place} {path}: {height}x{width} {describe(look.detections, names)}, {took:.1f} ms")


def visualize(predictor: Predictor) -> FeatureMaps:
    """Hooks that draw the feature maps of every layer. Raises UserError where the model has none to show."""
    layers = getattr(predictor.model, "model", None)
    if not isinstance(layers, torch.nn.Sequential):
        raise UserError("--visualize: shows the layers of one .pt model; give a single one as --weights")
    return FeatureMaps(layers)


def explain(predictor: Predictor, options: DetectOptions) -> Explainer:
    """What finds where the model looked. Raises UserError where it is none with layers, or has not those asked for."""
    thresholds = predictor.pipeline.thresholds
    where = predictor.imgsz, options.explain, options.explain_layer
    return Explainer(predictor.model, predictor.device, thresholds, *where)
