"""Reading the next image, and writing the last one, while a detector looks at the one between them; at several of a video.

OpenCV reads, draws and encodes without Python's lock, and PyTorch computes so, too: a thread each is enough.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, TypeVar

from utils.sources.frame import Frame

# Bytes of an image above which nothing else is kept beside it: a picture may have a gigabyte.
LARGE = 64 << 20
Seen = TypeVar("Seen")


def read_ahead(frames: Iterator[Frame]) -> Iterator[Frame]:
    """The same frames in the same order; each is made while the one before it is in use, unless that is LARGE.

    What ``frames`` raises is raised in its place.
    """
    end = object()
    with ThreadPoolExecutor(1, "reader") as thread:
        coming = thread.submit(next, frames, end)
        try:
            while (frame := coming.result()) is not end:
                if is_large(frame):
                    yield frame
                    coming = thread.submit(next, frames, end)
                else:
                    coming = thread.submit(next, frames, end)
                    yield frame
        finally:
            # a video is closed by the generator that reads it, which can't be while it reads
            coming.exception()
            frames.close()


def look_abreast(
    frames: Iterator[Frame],
    alone: Callable[[Frame], Seen],
    together: Callable[[Frame], Seen],
    at_once: int,
    begin: Callable[[], None] | None = None,
) -> Iterator[tuple[Frame, Seen]]:
    """Each frame and what is seen in it, in the order of ``frames``: ``together`` in so many threads ``at_once`` for the
    frames of a video, from its second on, and ``alone`` in this thread for whatever else there is, and for what is LARGE.

    Each of the threads calls ``begin`` first. What a call raises is raised in its place.
    """
    coming: deque[tuple[Frame, Future]] = deque()
    path = None
    threads = ThreadPoolExecutor(at_once, "looker", begin)
    try:
        with closing(frames):
            for frame in frames:
                video = frame.number > 0 and not frame.live and not is_large(frame)
                follows = at_once > 1 and video and frame.path == path
                path = frame.path
                if follows:
                    coming.append((frame, threads.submit(together, frame)))
                # one more than there are threads, so that none of them waits for what is done with the oldest
                while coming and (not follows or len(coming) > at_once):
                    yield _first_of(coming)
                if not follows:
                    yield frame, alone(frame)
            while coming:
                yield _first_of(coming)
    finally:
        threads.shutdown(cancel_futures=True)


def _first_of(coming: deque[tuple[Frame, Future]]) -> tuple[Frame, Any]:
    frame, seen = coming.popleft()
    return frame, seen.result()


def is_large(frame: Frame | None) -> bool:
    return isinstance(frame, Frame) and frame.image.nbytes > LARGE


class Behind:
    """A thread that does one thing after the other, at most one behind; use it as a context, which waits for the last.

    What a call raises is raised by the next ``do``, or at the end.
    """

    def __init__(self):
        self.thread = ThreadPoolExecutor(1, "writer")
        self.last: Future | None = None

    def __enter__(self) -> "Behind":
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        try:
            self.thread.shutdown()
        finally:
            # an error that is on its way already says more
            if kind is None:
                self.wait()

    def do(self, call: Callable, *args: Any) -> None:
        """Call ``call(*args)`` in the thread, once what was asked before is done."""
        self.wait()
        self.last = self.thread.submit(call, *args)

    def wait(self) -> Any:
        """What the last call gives, once it is done; None where nothing is left to do. Raises what it raised."""
        last, self.last = self.last, None
        return None if last is None else last.result()
