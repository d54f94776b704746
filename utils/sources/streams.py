"""Live sources: cameras, network streams and the screen, several at once.

Streams          → Frames, of whichever source has a new one
    Stream       reads one source in a thread of its own; the newest frame wins, what comes too fast is dropped
        open_capture    camera number, URL or «screen …» → what OpenCV calls a VideoCapture
"""

import math
import os
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from utils.data.images import is_image, is_video
from utils.download import without_login
from utils.errors import MOST_SAID, shown
from utils.files import short_name, unique_name
from utils.sources.capture import CaptureError, check_screen, frame_rate, open_capture
from utils.sources.frame import Frame

# FFmpeg would print messages of its own about every connection; -8 is silent.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
RETRY_WAITS = (1, 2, 4, 8, 16, 30, 30, 30, 30, 30)  # seconds; after the last one a stream is given up
BAD_FRAMES = 3  # pictures in a row that can't be read before the connection is made anew

STREAM_URL = r"(rtsps?|rtmps?|udp|tcp|rtp|srt|https?)://\S+"
SCREEN = r"screen( -?\d+)*"


def is_live(source: str) -> bool:
    """Whether a text names a camera (by number), a network stream or the screen.

    An http(s) URL whose path ends as an image or video file does is no stream.
    """
    if source.isdecimal() or re.fullmatch(SCREEN, source):
        return True
    path = re.sub(r"[?#].*", "", source)
    downloadable = source.startswith("http") and (is_image(path) or is_video(path))
    return re.fullmatch(STREAM_URL, source) is not None and not downloadable


def display_name(source: str | int | Path) -> str:
    """A source as it may be shown and logged: without the user and password of a URL."""
    return shown(without_login(source), MOST_SAID)


class Stream(threading.Thread):
    """Reads one live source until it ends, is stopped, or can no longer be read.

    ``take()`` gives the newest frame once. ``news`` is notified of every new frame and of the end; ``fault`` then says
    what went wrong, if anything did.
    """

    def __init__(self, source: str, stem: str, place: str, vid_stride: int, news: threading.Condition):
        super().__init__(daemon=True, name=display_name(source))
        self.source, self.place, self.vid_stride, self.news = source, place, vid_stride, news
        self.path = Path(stem)
        self.stopping = threading.Event()
        self.number = 0  # frames that came so far
        self.given = 0  # those of them that were pictures, and published
        self.taken = 0  # number of the frame that was taken last
        self.latest: Frame | None = None
        self.ended = False
        self.fault: str | None = None

    def run(self) -> None:
        """Read; where the source breaks off, try again after growing waits, and give up after the last of them."""
        attempt = 0
        try:
            while not self.stopping.is_set():
                before, reason = self.given, "broke off"
                try:
                    if self._read_until_it_breaks():
                        break
                except (CaptureError, cv2.error) as e:
                    reason = " ".join(str(e).split())
                if self.given > before:
                    attempt = 0
                if self.given == 0 or attempt == len(RETRY_WAITS):
                    self.fault = reason if self.given == 0 else f"{reason}; given up after {attempt} attempts"
                    print(f"warning: {self.name}: {self.fault}")
                    break
                wait = RETRY_WAITS[attempt]
                attempt += 1
                print(f"warning: {self.name}: {reason}; trying again in {wait:g} s")
                self.stopping.wait(wait)
        finally:
            with self.news:
                self.ended = True
                self.news.notify_all()

    def _read_until_it_breaks(self) -> bool:
        """Read one connection; whether it came to its own end."""
        capture = open_capture(self.source)
        try:
            rate = frame_rate(capture)
            total, count, bad = capture.get(cv2.CAP_PROP_FRAME_COUNT), 0, 0  # a camera's total is 0 or less
            while bad < BAD_FRAMES and not self.stopping.is_set():
                if not capture.grab():
                    bad += 1
                    continue
                self.number += 1
                count += 1
                if (self.number - 1) % self.vid_stride:
                    bad = 0
                    continue
                read, image = capture.retrieve()
                read = read and image.size > 0
                bad = 0 if read else bad + 1
                if read:
                    self._publish(image, rate)
            return self.stopping.is_set() or 0 < total <= count + 1
        finally:
            capture.release()

    def _publish(self, image: np.ndarray, rate: float) -> None:
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        place = f"{self.place} ({self.number})"
        self.given += 1
        with self.news:
            self.latest = Frame(self.path, rgb, self.number, rate / self.vid_stride, place, live=True)
            self.news.notify_all()

    def take(self) -> Frame | None:
        """The newest frame, where there is one that was not taken yet."""
        with self.news:
            frame, self.latest = self.latest, None
        if frame is not None:
            # the first one stands for those before it, too
            frame.lasts = math.ceil((frame.number - self.taken) / self.vid_stride)
            self.taken = frame.number
        return frame


class Streams:
    """Live sources side by side: ``for frame in streams`` gives their frames until all have ended.

    ``faults`` says which could not be opened or reconnected, and why.
    """

    def __init__(self, sources: list[str], vid_stride: int = 1):
        for source in sources:
            if source.startswith("screen"):
                check_screen(source)
        self.news = threading.Condition()
        self.streams = [
            Stream(source, stem, f"stream {i}/{len(sources)}", vid_stride, self.news)
            for i, (source, stem) in enumerate(zip(sources, file_stems(sources), strict=True), 1)
        ]

    def __iter__(self) -> Iterator[Frame]:
        for stream in self.streams:
            stream.start()
        try:
            while any(not stream.ended or stream.latest for stream in self.streams):
                with self.news:
                    # The time limit lets Ctrl-C through on Windows, where a wait without one can't be interrupted.
                    self.news.wait_for(self._has_news, timeout=0.5)
                for stream in self.streams:
                    frame = stream.take()
                    if frame is not None:
                        yield frame
        finally:
            self.stop()

    def _has_news(self) -> bool:
        return any(s.latest for s in self.streams) or all(s.ended for s in self.streams)

    def stop(self) -> None:
        """End all threads; one that hangs in its driver is left behind."""
        for stream in self.streams:
            stream.stopping.set()
        for stream in self.streams:
            with suppress(RuntimeError):  # never started
                stream.join(timeout=2)

    @property
    def faults(self) -> list[str]:
        return [f"{s.name}: {s.fault}" for s in self.streams if s.fault]


def file_stems(sources: list[str]) -> list[str]:
    """A name for the results of each source that any file system takes, all of them different."""
    stems: list[str] = []
    for source in sources:
        stem = re.sub(r"[^\w-]+", "_", display_name(source)).strip("_") or "stream"
        stem = short_name(stem)
        stems.append(unique_name(stem, stems))
    return stems
