"""Computing on a CPU beside other programs. Linux, and PyTorch's threads there.

make_way(device)       from now on see to it that neither waits for the other more than it must
with turn(): ...       one piece of work, such as a step of training; while others of ours want the cores, one works at a time

At the end of each piece of work, of which a step of training has thousands, the threads that compute wait for the last of
them. They spin meanwhile: best where each has a core of its own, and worst where the one that is waited for can't run for the
one that waits. Two trainings at once then take more than twice as long as one after the other, in bfloat16 thirty times.

GNU's OpenMP spins next to not at all while it has more threads than there are cores: so one that does nothing is added to
them as long as others want the cores. The barriers of oneDNN, which it has in bfloat16, always spin: so trainings in it take
turns, too. How many threads compute, and so what comes out to the last bit, stays the same.
"""

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import torch

from utils.device import told_number, usable_cores

# Of two looks: seconds between them; how many cores' worth of waiting for one, and of work done by others on them, shows that
# others want them; and how little of it, for how many looks, that they no longer do
LOOK, CROWDED, ALONE, QUIET = 0.5, 0.3, 0.1, 6
# Of a turn: seconds between two tries to get it, after how many of them it is taken all the same (its holder may have been
# stopped), and for how many it is left to others
TRY, MOST, LEFT = 0.001, 10.0, 0.003


class Look(NamedTuple):
    """What the system has told by a moment. ``waited``: ns for which each thread was ready to run and had no core, by its
    number; ``all`` and ``own``: seconds that all programs have computed, and this one with the processes it has started."""

    waited: dict[str, int]
    all: float
    own: float


def look(system: Path = Path("/proc")) -> Look:
    """Look now; ``system``: where Linux tells of itself. Threads and processes may end meanwhile."""
    waited, computed, ticks = {}, [], os.sysconf("SC_CLK_TCK")
    children = []
    for thread in (system / "self" / "task").iterdir():
        with suppress(OSError, IndexError, ValueError):
            waited[thread.name] = int((thread / "schedstat").read_text().split()[1])
            children += (thread / "children").read_text().split()
    for process in ("self", *children):
        with suppress(OSError, IndexError, ValueError):
            # behind the name, which may hold anything
            fields = (system / process / "stat").read_text().rpartition(")")[2].split()
            computed.append(sum(map(int, fields[11:13])))
    user, nice, kernel, _, _, *interrupts = map(int, (system / "stat").read_text().splitlines()[0].split()[1:8])
    return Look(waited, (user + nice + kernel + sum(interrupts)) / ticks, sum(computed) / ticks)


class Neighbours(threading.Thread):
    """Watches whether others want the cores that this process computes on. ``turns``: the file that is locked while one
    works."""

    def __init__(self, turns: Path | None = None):
        super().__init__(name="neighbours", daemon=True)
        self.turns = turns or Path(tempfile.gettempdir(), f"detectors-take-turns-{os.getuid()}.lock")
        self.last = look()
        self.calm = 0
        self.alone = threading.Event()
        self.alone.set()

    def run(self) -> None:
        with suppress(OSError):
            while True:
                began = time.monotonic()
                time.sleep(LOOK)
                self.judge(look(), time.monotonic() - began)

    def judge(self, now: Look, seconds: float) -> None:
        """Make way, or no longer, by what has changed in ``seconds``: where the threads wait for each other, or for the
        processes that load their images, it is no use."""
        last, self.last = self.last, now
        waited = sum(now.waited[name] - before for name, before in last.waited.items() if name in now.waited)
        others = (now.all - last.all) - (now.own - last.own)
        wanted = min(waited / 1e9, others) / seconds
        self.calm = self.calm + 1 if wanted < ALONE else 0
        if wanted > CROWDED and self.alone.is_set():
            self.alone.clear()
            threading.Thread(target=self._wait_in_a_team, name="neighbours-team", daemon=True).start()
        elif self.calm >= QUIET:
            self.alone.set()

    def _wait_in_a_team(self) -> None:
        # computed by several threads, which from here on belong to this one, as long as it lives
        torch.empty(2**20).zero_()
        self.alone.wait()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Work, alone among those of ours on this machine that make way."""
        if self.alone.is_set():
            yield
            return
        with self.hold():
            yield
        time.sleep(LEFT)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the file of turns, waiting for it; without it where that takes too long, or it can't be had at all."""
        # it is there on Linux alone, as is this class
        import fcntl

        try:
            file = open(self.turns, "ab")  # noqa: SIM115
        except OSError:
            yield
            return
        with file:
            began = time.monotonic()
            while time.monotonic() - began < MOST:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    # as long as others want a turn, this is no time to be alone
                    self.calm = 0
                    time.sleep(TRY)
            yield


_NEIGHBOURS: list[Neighbours] = []


def make_way(device: torch.device) -> None:
    """Watch from now on. Nothing is done without need or use: on a GPU, on other systems than Linux, with one thread or fewer
    than there are cores, and of one training in several processes, which must not wait for each other's turns."""
    on_linux = sys.platform.startswith("linux") and Path("/proc/self/schedstat").exists()
    single = told_number("WORLD_SIZE", 1) <= 1
    useful = device.type == "cpu" and on_linux and single and torch.get_num_threads() >= max(usable_cores(), 2)
    if useful and not _NEIGHBOURS:
        # some systems, such as Android, tell nobody who else computes
        with suppress(OSError):
            _NEIGHBOURS.append(Neighbours())
            _NEIGHBOURS[0].start()


@contextmanager
def turn() -> Iterator[None]:
    """A turn of this process; at once where it is alone."""
    if not _NEIGHBOURS:
        yield
        return
    with _NEIGHBOURS[0].turn():
        yield
