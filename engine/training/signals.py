"""Ctrl-C and SIGTERM: noted between batches, or at once where what was begun can be repeated."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """While in use, Ctrl-C and SIGTERM set ``received`` to their number; a second one ends the process at once.

    ``patient``: a second one changes nothing. torchrun passes on the signal that its processes have had already.
    """

    def __init__(self, patient: bool = False):
        self.patient = patient
        self.received = 0

    def __enter__(self) -> "StopSignal":
        self.before = handled_by(self._note)
        return self

    def __exit__(self, *_) -> None:
        restore(self.before)

    def _note(self, number: int, _) -> None:
        if self.received and not self.patient:
            leave(number)
        self.received = number
        # not by print: what it writes to might be just being written to
        with suppress(OSError):
            os.write(1, b"\nstopping after this batch (once more to stop at once)\n")


@contextmanager
def stopping_at_once(last_words: Callable[[], str]) -> Iterator[None]:
    """While in use, Ctrl-C and SIGTERM end the process, which says ``last_words``: what is done now can be done again."""
    before = handled_by(lambda number, _: leave(number))
    try:
        yield
    except Stopped:
        print(f"\nstopped; {last_words()}", flush=True)
        raise
    finally:
        restore(before)


class Stopped(SystemExit):
    """The end of a process that was asked by a signal to stop."""


def leave(number: int) -> None:
    """End the process with the status that the signal ``number`` stands for; it is not disturbed in that any more."""
    handled_by(signal.SIG_IGN)
    raise Stopped(128 + number)


def handled_by(handler: Callable | signal.Handlers) -> dict[int, Callable | int | None]:
    """Let ``handler`` have both signals; returns what had them before. Python does this in its main thread only."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in SIGNALS}


def restore(before: dict[int, Callable | int | None]) -> None:
    """Give the signals back."""
    for number, handler in before.items():
        signal.signal(number, handler)
