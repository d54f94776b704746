"""The trainings of a study: each a process of its own that runs train.py, several at once, one after another in each place.

    Trainings(jobs, places, workers, tell).run()
    Trainings(jobs, places, workers, tell, cluster).run()    on the machines of a cluster (remote.py)

What ends well, fails or is stopped is seen in the folder of the run and in how its process ended, never in ours alone: so a
study that was killed goes on where its runs are. Ctrl-C and SIGTERM are passed on to the trainings, which save and end.
"""

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from engine.comparison.record import DONE, FAILED, RUNNING, WAITING, Point
from engine.comparison.runs.locks import note_holder, run_lock
from engine.comparison.runs.remote import Cluster, RemoteProcess
from engine.training.options import CODE, TrainOptions
from engine.training.resume import is_finished
from engine.training.signals import Stopped, handled_by, restore
from utils.checkpoint import read_checkpoint
from utils.device import usable_cores
from utils.errors import UserError, one_line, shown
from utils.files import require_file
from utils.paths import ROOT
from utils.results import read_cells

PAUSE = 0.2  # seconds between two looks at the processes
TAIL = 2**16  # bytes of a log that are looked through for what went wrong
MOST_TABLE = 2**28
THREADS = "OMP_NUM_THREADS"


@dataclass
class Job:
    """One run: where it is, what it is asked for, and what has come of it so far. ``seconds`` are those of training."""

    name: str
    seed: int
    options: TrainOptions
    log: Path
    status: str = WAITING
    message: str = ""
    seconds: float = 0.0
    curve: list[Point] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return Path(self.options.project, self.options.name)

    @property
    def said(self) -> str:
        return f"{self.name}, seed {self.seed}"

    @property
    def last(self) -> Path:
        """The checkpoint to go on from, where there is one."""
        return self.folder / "weights" / "last.pt"

    @property
    def weights(self) -> Path:
        """The checkpoint that is looked at: as of any run, that of its best epoch."""
        best = self.last.with_name("best.pt")
        return best if best.exists() else self.last

    def is_done(self) -> bool:
        """Whether its training has ended well. Raises UserError where its last.pt can't be read."""
        return self.last.exists() and is_finished(read_checkpoint(self.last))

    def words(self, device: str | int, workers: int) -> list[str]:
        """Of train.py: to begin, or to go on."""
        present = ["--device", str(device)] if str(device) else []
        present += ["--workers", str(workers)]
        if self.last.exists():
            return ["--resume", str(self.last), *present, *self.options.as_words(*CODE)]
        names = [name for name, _, _ in self.options.flags() if name not in ("device", "workers")]
        return [*self.options.as_words(*names), *present]

    def follow(self) -> bool:
        """Take in the rows that results.csv has now; whether there were more of them."""
        rows = read_results(self.folder / "results.csv")
        known = {point.epoch: point for point in self.curve}
        # of epochs that passed while nobody looked on it is not known when
        seconds = round(self.seconds, 1) if self.seconds else None
        numbers = [int(row["epoch"]) + 1 for row in rows]
        points = [
            known.get(number) or Point(number, seconds, row["metrics/mAP_0.5"], row["metrics/mAP_0.5:0.95"])
            for number, row in zip(numbers, rows, strict=True)
        ]
        more = points != self.curve
        self.curve = points
        return more


def read_results(path: Path) -> list[dict[str, float]]:
    """The rows of a results.csv; none where it isn't there yet. Raises UserError where it is no such table."""
    if not path.exists():
        return []
    try:
        with open(require_file(path, "results.csv", MOST_TABLE), newline="", encoding="utf-8") as f:
            return [read_cells(cells) for cells in list(csv.reader(f))[1:]]
    except (ValueError, IndexError, csv.Error) as e:
        raise UserError(f"{path}: not the table of a run ({shown(str(e))})") from None


@dataclass
class _Started:
    """A run with its process, since ``at`` by a clock that nobody sets, and what it had trained before in seconds."""

    job: Job
    process: subprocess.Popen | RemoteProcess
    lock: IO[str]
    at: float
    before: float


class Trainings:
    """Runs ``jobs`` in their order, one at a time in each of ``places``, which are devices; ``tell`` is called after changes.
    With a ``cluster`` their processes are on its machines."""

    def __init__(
        self,
        jobs: Sequence[Job],
        places: Sequence[str | int],
        workers: int,
        tell: Callable[[], None],
        cluster: Cluster | None = None,
    ):
        self.jobs = jobs
        self.places = places
        self.workers = workers
        self.tell = tell
        self.cluster = cluster
        self.active: dict[int, _Started] = {}
        self.stopped = 0

    def run(self) -> None:
        """Until every run is done or has failed. Raises Stopped after a signal, once all processes have ended."""
        waiting = [job for job in self.jobs if not self._was_done(job)]
        total, before = len(waiting), handled_by(lambda number, _: self._stop(number))
        try:
            while (waiting and not self.stopped) or self.active:
                for place in range(len(self.places)):
                    if waiting and place not in self.active and not self.stopped:
                        number = total - len(waiting) + 1
                        self._start(place, waiting.pop(0), f"{number} of {total}")
                time.sleep(PAUSE)
                self._look()
        finally:
            # after an error of ours
            for started in self.active.values():
                started.process.terminate()
            restore(before)
        if self.stopped:
            raise Stopped(128 + self.stopped)

    def _was_done(self, job: Job) -> bool:
        try:
            if not job.is_done():
                return False
        except UserError as e:
            job.status, job.message = FAILED, one_line(e)
            print(f"{job.said}: {job.message}")
            return True
        job.status, job.message = DONE, ""
        job.follow()
        return True

    def _start(self, place: int, job: Job, number: str) -> None:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        lock = run_lock(job.log.with_suffix(".lock"))
        # what was left of an earlier start may have come to its end meanwhile
        if self._was_done(job):
            lock.close()
            return
        again = "goes on" if job.last.exists() else "begins"
        print(f"{job.said}: {again} ({number}), log in {job.log}", flush=True)
        job.status, job.message = RUNNING, ""

        def line() -> list[str]:
            return [sys.executable, str(ROOT / "train.py"), *job.words(self.places[place], self.workers)]

        process = self.cluster.start(line, job.log, job.said) if self.cluster else self._process(line(), job.log, lock)
        self.active[place] = _Started(job, process, lock, time.monotonic(), job.seconds)
        # the signal may have come while the process was being started
        if self.stopped:
            self._stop(self.stopped)
        self.tell()

    def _process(self, line: list[str], log: Path, lock: IO[str]) -> subprocess.Popen:
        """One of this machine, which holds the lock of its run."""
        more = {"pass_fds": (lock.fileno(),), "start_new_session": True} if os.name == "posix" else {}
        with open(log, "ab") as said:
            process = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, env=self._environment(), **more
            )
        note_holder(lock, process.pid)
        return process

    def _environment(self) -> dict[str, str]:
        """That of a training: of several on one processor each has its share of the cores."""
        environment = dict(os.environ)
        if len(self.places) > 1 and THREADS not in environment:
            environment[THREADS] = str(max(1, usable_cores() // len(self.places)))
        return environment

    def _look(self) -> None:
        """See what has become of the processes since the last time."""
        changed = False
        for place, started in list(self.active.items()):
            job, code = started.job, started.process.poll()
            job.seconds = started.before + time.monotonic() - started.at
            changed |= job.follow()
            if code is None:
                continue
            del self.active[place]
            started.lock.close()
            self._judge(job, code)
            changed = True
        if changed:
            self.tell()

    def _judge(self, job: Job, code: int) -> None:
        """What has come of a run whose process has ended with ``code``."""
        if self._was_done(job):
            if job.status == DONE:
                best = max((point.map50_95 for point in job.curve), default=0)
                print(f"{job.said}: done, {len(job.curve)} epochs in {job.seconds:.0f} s, best mAP50-95 {best:.4f}")
        elif self.stopped:
            job.status = WAITING
        else:
            job.status, job.message = FAILED, last_error(job.log, code)
            print(f"{job.said}: failed: {job.message}", flush=True)

    def _stop(self, number: int) -> None:
        """Pass a signal on; the first lets a training finish its batch and save, the second ends it at once."""
        self.stopped = number
        if os.name == "posix" or self.cluster:
            for started in list(self.active.values()):
                started.process.send_signal(number)


def last_error(log: Path, code: int) -> str:
    """The last line that says what went wrong, of the log of a process that ended with ``code``."""
    with open(log, "rb") as f:
        f.seek(max(0, log.stat().st_size - TAIL))
        text = f.read().decode("utf-8", "replace")
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    if code < 0:
        return f"ended by signal {-code}{' (was there enough memory?)' if code == -9 else ''}"
    errors = [line for line in lines if line.startswith("error: ")]
    return shown((errors or lines or [f"ended with status {code}"])[-1].removeprefix("error: "), 500)
