"""Ctrl-C and SIGTERM, noted between batches."""

import signal
import threading


class StopSignal:
    """While in use, Ctrl-C and SIGTERM set ``received`` to their number; a second one acts at once.

    ``patient``: a second one changes nothing. torchrun passes on the signal that its processes have had already.
    """

    def __init__(self, patient: bool = False):
        self.patient = patient
        self.received = 0

    def __enter__(self) -> "StopSignal":
        self.before = {}
        # Python sets signal handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _) -> None:
        if self.received and not self.patient:
            raise KeyboardInterrupt
        self.received = number
        print("\nstopping after this batch (once more to stop at once)", flush=True)
