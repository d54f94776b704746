"""Where detect.py takes its images from: files of all kinds, URLs, and live sources (utils/sources/streams.py)."""

import glob
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2

from utils.data.config import MOST_LIST, image_files
from utils.data.images import ImageError, is_image, is_video, read_image
from utils.download import download_file, is_url, url_name
from utils.errors import MOST_SAID, UserError, shown
from utils.files import read_text, require_file
from utils.sources.ahead import read_ahead
from utils.sources.capture import CaptureError, frame_rate, open_video
from utils.sources.frame import Frame
from utils.sources.streams import Streams, display_name, is_live

BROKEN_FRAMES = 30  # in a row, after which the rest of a video is taken for lost


class Sources:
    """The pictures and frames that ``source`` stands for: files in order, live sources as they come.

    ``vid_stride``: of videos and streams every so many-th frame, beginning with the first. Files and frames that can't
    be read are named on the way, skipped, and kept in ``faults``. Raises UserError where ``source`` doesn't exist or
    holds nothing to look at.
    """

    def __init__(self, source: str | Path, vid_stride: int = 1):
        source = str(source)
        self.vid_stride = vid_stride
        self.skipped: list[str] = []
        live = live_sources(source)
        self.streams = Streams(live, vid_stride) if live else None
        self.files: list[str] = []
        if is_url(source) and not live:
            self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # lives as long as this object
            self.files = [str(fetch(source, self.folder.name))]
        elif not live:
            self.files = _files(source)

    @property
    def faults(self) -> list[str]:
        return self.streams.faults if self.streams else self.skipped

    @property
    def size(self) -> str:
        """«3 files», «1 stream»."""
        count, word = (len(self.streams.streams), "stream") if self.streams else (len(self.files), "file")
        return f"{count} {word}{'s' if count != 1 else ''}"

    @property
    def has_video(self) -> bool:
        return any(map(_is_read_as_video, self.files))

    def __iter__(self) -> Iterator[Frame]:
        if self.streams:
            yield from self.streams
        for found in read_ahead(self._read()):
            if isinstance(found, Frame):
                yield found
            else:
                self._skip(*found)

    def _read(self) -> Iterator[Frame | tuple[str, str, str]]:
        """The frames of all files, and of what can't be read the file, the reason, and what becomes of it."""
        for i, file in enumerate(self.files, 1):
            place = f"{i}/{len(self.files)}"
            if _is_read_as_video(file):
                yield from self._video(Path(file), place)
                continue
            try:
                yield Frame(Path(file), read_image(file), place=f"image {place}")
            except ImageError as e:
                yield file, str(e), "skipped"

    def _video(self, path: Path, place: str) -> Iterator[Frame | tuple[str, str, str]]:
        try:
            video = open_video(path)
        except CaptureError as e:
            yield str(path), str(e), "skipped"
            return
        total = max(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        fps = frame_rate(video) / self.vid_stride
        number = read = 0
        broken: list[int] = []  # damaged frames since the last good one: in the middle of a file, or its lost end
        try:
            while number < total or not broken:
                number += 1
                due = (number - 1) % self.vid_stride == 0
                good, image = video.read() if due else (video.grab(), None)
                if not good or (due and not image.size):
                    broken.append(number)
                    if len(broken) >= BROKEN_FRAMES:
                        break
                    continue
                for damaged in broken:
                    yield f"{path} frame {damaged}", "damaged", "skipped"
                broken.clear()
                read = number
                if due:
                    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                    yield Frame(path, rgb, number, fps, f"video {place} ({number}/{total})")
        finally:
            video.release()
        if read == 0:
            yield str(path), "not a video that can be read", "skipped"
        elif read < total - 1:  # containers are often one off
            yield str(path), f"only {read} of {total} frames could be read", "the rest is left out"

    def _skip(self, file: str, reason: str, outcome: str) -> None:
        fault = f"{shown(file, MOST_SAID)}: {reason}"
        self.skipped.append(fault)
        print(f"warning: {fault}; {outcome}")


def fetch(url: str, folder: str | Path) -> Path:
    """Download the image or video of a URL into ``folder``, under its own name; returns the file.

    Raises UserError where it can't be had.
    """
    file = Path(folder) / (re.sub(r"[^\w. -]", "_", url_name(url)).lstrip(".") or "download")
    return download_file(url, file, "download it by other means and name the file instead")


def live_sources(source: str) -> list[str]:
    """The live sources that a text stands for, none where it stands for files.

    A camera number, stream URL or «screen …» is one; a .streams file, and a .txt file that lists such, is one a line.
    Raises UserError where such a file lists nothing, or other things besides.
    """
    if is_live(source):
        return [source]
    suffix = Path(source).suffix.lower()
    if suffix not in {".streams", ".txt"} or not os.path.lexists(source):
        return []
    try:
        text = read_text(source, "list", MOST_LIST)
    except UnicodeDecodeError as e:
        raise UserError(f"{source}: not UTF-8 text (byte {e.start}); save the list as UTF-8") from None
    lines = [line.strip() for line in text.splitlines()]
    numbered = [(i, line) for i, line in enumerate(lines, 1) if line and not line.startswith("#")]
    # In a list of streams whatever has a URL is one, «https://host/live.mp4» as well.
    live = [(i, line) for i, line in numbered if is_live(line) or (suffix == ".streams" and is_url(line))]
    if suffix == ".txt" and not live:
        return []  # a list of images
    if not live:
        raise UserError(f"{source}: lists no streams; give one a line: a URL, a camera number or «screen»")
    if len(live) < len(numbered):
        number, line = next(entry for entry in numbered if entry not in live)
        raise UserError(
            f"{source} line {number}: {display_name(line)!r} is no stream, but other lines are; split the list"
        )
    return [line for _, line in live]


def _is_read_as_video(file: str) -> bool:
    return is_video(file) and not is_image(file)


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
    if os.path.lexists(source):
        if is_image(source) or is_video(source):
            return [source]
        if source.lower().endswith(".txt"):
            return image_files([source])
        require_file(source, "source")
        raise UserError(f"{source}: neither an image, a video, nor a .txt list of images (by its suffix)")
    found = [f for f in sorted(glob.glob(source, recursive=True)) if is_image(f) or is_video(f)]
    if not found:
        raise UserError(f"{source}: no such file or folder, and no images or videos match it as a pattern")
    return found
