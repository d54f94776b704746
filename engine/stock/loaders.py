"""Images as programs written for YOLOv5 read them: letterboxed RGB [3, h, w] beside the original in OpenCV's order, BGR.

LoadImages     files        → path, image, original, capture, words for the log
LoadStreams    live sources → the same, of all streams at once
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from utils.data.images import is_video
from utils.data.images import letterbox as fit
from utils.sources.sources import Sources, live_sources
from utils.sources.streams import Streams, display_name

Transform = Callable[[np.ndarray], np.ndarray]


def letterbox(
    im: np.ndarray,
    new_shape: int | tuple[int, int] = (640, 640),
    color: tuple[int, int, int] = (114, 114, 114),
    auto: bool = True,
    scaleFill: bool = False,
    scaleup: bool = True,
    stride: int = 32,
) -> tuple[np.ndarray, tuple[float, float], tuple[float, float]]:
    """Fit an image [h, w, 3] into ``new_shape`` (h, w), see utils/data/images.py; ``scaleFill`` stretches it instead.

    Returns the image, the ratios (width, height), and the padding (x, y) on each side.
    """
    if scaleFill:
        height, width = (new_shape, new_shape) if isinstance(new_shape, int) else new_shape
        ratios = width / im.shape[1], height / im.shape[0]
        return cv2.resize(im, (width, height), interpolation=cv2.INTER_LINEAR), ratios, (0.0, 0.0)
    return fit(
        im, tuple(new_shape) if not isinstance(new_shape, int) else new_shape, auto, scaleup, stride, tuple(color)
    )


class LoadImages:
    """``for path, im, im0, vid_cap, s in LoadImages("folder", img_size=640)``.

    ``im``: uint8 [3, h, w] RGB, letterboxed; ``im0``: uint8 [h, w, 3] BGR as it was; ``vid_cap``: the capture of a video, to
    ask it for its size and rate, or None; ``s``: «image 1/3 path: ». ``mode`` is "video" or "image", ``frame`` the number of
    the frame, ``frames`` how many the video has, ``count`` of the file. Raises UserError as Sources does.
    """

    def __init__(
        self,
        path: str | Path | list[str],
        img_size: int | tuple[int, int] = 640,
        stride: int = 32,
        auto: bool = True,
        transforms: Transform | None = None,
        vid_stride: int = 1,
    ):
        paths = path if isinstance(path, list | tuple) else [path]
        self.sources = [Sources(p, vid_stride) for p in paths]
        self.files = [file for sources in self.sources for file in sources.files]
        self.nf = len(self.files)
        self.img_size, self.stride, self.auto, self.transforms = img_size, stride, auto, transforms
        self.vid_stride = vid_stride
        self.mode = "image"
        self.cap: cv2.VideoCapture | None = None
        self.count = self.frame = self.frames = 0

    def __len__(self) -> int:
        return self.nf

    def __iter__(self) -> Iterator[tuple[str, np.ndarray, np.ndarray, cv2.VideoCapture | None, str]]:
        current = None
        for frame in (frame for sources in self.sources for frame in sources):
            if frame.path != current:
                current = frame.path
                self.count = self.files.index(str(current)) + 1 if str(current) in self.files else self.count + 1
                self._open(current)
            self.mode, self.frame = ("video" if frame.number else "image"), frame.number
            original = np.ascontiguousarray(frame.image[..., ::-1])
            shaped = shape_input(original, self.img_size, self.stride, self.auto, self.transforms)
            yield str(frame.path), shaped, original, self.cap, f"{frame.place} {frame.path}: "
        self._open(None)

    def _open(self, path: Path | None) -> None:
        """The capture that callers ask for the size and rate of a video; frames are read by another."""
        if self.cap is not None:
            self.cap.release()
        self.cap = cv2.VideoCapture(str(path)) if path is not None and is_video(path) else None
        self.frames = int(self.cap.get(cv2.CAP_PROP_FRAME_COUNT)) if self.cap is not None else 0


class LoadStreams:
    """``for path, im, im0s, vid_cap, s in LoadStreams("streams.txt")``: cameras, network streams, the screen.

    ``path``: the sources; ``im``: uint8 [b, 3, h, w] RGB, the newest frame of each; ``im0s``: those frames, BGR. It begins when
    every source has given a frame, and goes on with each new one. Raises UserError where ``sources`` names no live source.
    """

    mode = "stream"

    def __init__(
        self,
        sources: str = "file.streams",
        img_size: int | tuple[int, int] = 640,
        stride: int = 32,
        auto: bool = True,
        transforms: Transform | None = None,
        vid_stride: int = 1,
    ):
        live = live_sources(str(sources))
        # reports that nothing live is meant, as detect.py would
        self.streams = Streams(live, vid_stride) if live else Sources(sources).streams
        self.sources = [display_name(source) for source in live]
        self.img_size, self.stride, self.transforms, self.auto = img_size, stride, transforms, auto
        self.count = 0

    def __len__(self) -> int:
        return len(self.sources)

    def __iter__(self) -> Iterator[tuple[list[str], np.ndarray, list[np.ndarray], None, str]]:
        newest: dict[Path, np.ndarray] = {}
        order = [stream.path for stream in self.streams.streams]
        for frame in self.streams:
            newest[frame.path] = np.ascontiguousarray(frame.image[..., ::-1])
            if len(newest) < len(order):
                continue
            self.count += 1
            originals = [newest[path] for path in order]
            # one shape for all, or no padding saved
            auto = self.auto and len({image.shape for image in originals}) == 1
            shaped = [shape_input(image, self.img_size, self.stride, auto, self.transforms) for image in originals]
            yield self.sources, np.stack(shaped), originals, None, ""


def shape_input(
    original: np.ndarray, img_size: int | tuple[int, int], stride: int, auto: bool, transforms: Transform | None
) -> np.ndarray:
    """An image uint8 [h, w, 3] BGR → what a model takes, uint8 [3, h, w] RGB, or what ``transforms`` makes of it."""
    if transforms is not None:
        return transforms(original)
    boxed, _, _ = letterbox(original, img_size, stride=stride, auto=auto)
    return np.ascontiguousarray(boxed[..., ::-1].transpose(2, 0, 1))
