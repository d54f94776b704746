"""What OpenCV calls a capture: cameras, network streams, and the screen."""

import time
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np

from utils.data.headers import LIMIT_VARIABLE, most_pixels
from utils.errors import UserError, shown
from utils.extras import load_extra
from utils.files import why_unreadable

TIMEOUT = 10  # seconds without a connection or a picture after which a network stream counts as broken


SCREEN_RATE = 20  # pictures of the screen per second


MOST_RATE, USUAL_RATE = 1000.0, 30.0  # frames per second: the most that is believed, and what is taken otherwise


class CaptureError(Exception):
    """A live source can't be opened; the message is the reason."""


def open_capture(source: str) -> "cv2.VideoCapture | ScreenCapture":
    """Open a camera by its number, a network stream by its URL, or «screen [number] [left top width height]».

    Raises CaptureError where that fails, UserError where the package for the screen is missing.
    """
    if source.startswith("screen"):
        return ScreenCapture(*map(int, source.split()[1:]))
    if not source.isdecimal():
        return _open_address(source, "no answer, or not a video stream")
    # OpenCV takes no number of more digits
    capture = cv2.VideoCapture(int(source)) if len(source) < 10 else None
    if capture is None or not capture.isOpened():
        raise CaptureError("no such camera, or another program is using it")
    return capture


def open_video(path: Path) -> cv2.VideoCapture:
    """Open a video file. Raises CaptureError with the reason where that can't be."""
    if reason := why_unreadable(path, "video"):
        raise CaptureError(reason)
    try:
        str(path).encode()
    except UnicodeEncodeError:
        # OpenCV crashes
        raise CaptureError("its path is not UTF-8 text; rename it") from None
    return _open_address(str(path), "not a video that can be read")


def _open_address(address: str, why: str) -> cv2.VideoCapture:
    """What FFmpeg opens, a file or URL, which has to begin within TIMEOUT: a file can be empty for terabytes."""
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT * 1000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT * 1000]
    capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        raise CaptureError(why)
    width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    if width * height > most_pixels():
        raise CaptureError(
            f"frames of {width:g}x{height:g} pixels: more than {most_pixels():,} are not decoded; "
            f"shrink it, or set {LIMIT_VARIABLE} to a higher number"
        )
    return capture


def frame_rate(capture: "cv2.VideoCapture | ScreenCapture") -> float:
    """Frames per second, as far as what the source says can be true."""
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if 0 < rate <= MOST_RATE else USUAL_RATE


class ScreenCapture:
    """The screen, with the methods of cv2.VideoCapture that Stream uses.

    ``number``: 1, 2, … is a monitor, 0 all of them; the other four pick a part of it, in pixels.
    """

    def __init__(self, number: int = 0, *part: int):
        mss = _load_mss()
        try:
            self.screen = mss.MSS()
            self.area = self.screen.monitors[number]
        except IndexError:
            raise CaptureError(f"no monitor {number}; there are {len(self.screen.monitors) - 1}") from None
        except Exception as e:  # mss has no common class for «no display» and «not allowed»
            raise CaptureError(f"the screen can't be read: {' '.join(str(e).split())}") from None
        if part:
            left, top, width, height = part
            corner = {"left": self.area["left"] + left, "top": self.area["top"] + top}
            self.area = corner | {"width": width, "height": height}
        self.due = time.monotonic()

    def get(self, prop: int) -> float:
        return SCREEN_RATE if prop == cv2.CAP_PROP_FPS else 0.0

    def grab(self) -> bool:
        """Wait for the next picture's turn."""
        time.sleep(max(self.due - time.monotonic(), 0))
        self.due = max(self.due, time.monotonic() - 1) + 1 / SCREEN_RATE
        return True

    def retrieve(self) -> tuple[bool, np.ndarray]:
        """True and the picture, uint8 [h, w, 3] BGR. Raises CaptureError where the part lies outside the screen."""
        try:
            picture = np.asarray(self.screen.grab(self.area))
        except Exception as e:  # as above
            raise CaptureError(f"the screen can't be read: {' '.join(str(e).split())}") from None
        return True, np.ascontiguousarray(picture[..., :3])

    def release(self) -> None:
        self.screen.close()


def check_screen(source: str) -> None:
    numbers = source.split()[1:]
    if len(numbers) not in (0, 1, 4, 5) or any(len(number) > 6 for number in numbers):
        raise UserError(f"--source {shown(source)!r}: write «screen», «screen 1», or «screen 1 left top width height»")
    _load_mss()


def _load_mss() -> ModuleType:
    return load_extra("mss", "--source screen", "'mss>=10.2'")
