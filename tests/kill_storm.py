"""Runs that are killed at any moment and resumed end as if nothing had happened: python -m tests.kill_storm --kills 30

Each run is one of SCENES, is sent a signal at a moment of its life drawn from the seed, and then goes on as a user would
have it go on: by --resume where it has left a last.pt, by --resume_evolve where it is a search, else by the same command
again. Meanwhile the clock is set, back or forth, now and then. In the end its weights, tables, pictures and files are those
of a run that nobody disturbed. Ends with status 1 where they are not, 0 otherwise.
"""

import argparse
import atexit
import contextlib
import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml

from engine.recipe.hyp import read_hyp
from tests.fuzz.arena import remake, warm
from tests.helpers.descriptions import TINY
from tests.helpers.project import ROOT
from tests.helpers.sets import make_set
from utils.checkpoint import read_checkpoint

SECONDS = 120
DAY = 86400
BASE = "--imgsz 32 --batch-size 2 --epochs 3 --device cpu --save-minutes 0.000001 --name run".split()
SCENES = {
    "plain": ["--save-period", "1"],
    "cached on disk": ["--cache", "disk", "--noplots", "--multi-scale"],
    "epoch ends only": ["--save-minutes", "0", "--image-weights", "--optimizer", "AdamW"],
    "nosave": ["--nosave", "--noplots"],
    "search": ["--evolve", "3", "--epochs", "1"],
}
# what a kill may wait for: a file, the how-manieth time that it appears or changes
EVENTS = {
    "run/opt.yaml": 1,
    "run/labels.jpg": 1,
    "run/train_batch1.jpg": 1,
    "run/weights/last.pt": 17,
    "run/weights/best.pt": 3,
    "run/results.csv": 3,
    "run/results.png": 1,
    "run/confusion_matrix.png": 1,
    "run/PR_curve.png": 1,
    "run/hyp_start.yaml": 1,
    "run/evolve.csv": 3,
    "run/evolve.png": 3,
    "../set/labels/train.cache": 1,
    "../set/labels/val.cache": 1,
    "../set/labels/train.images": 1,
    "../set/labels/val.images": 1,
}


@dataclass
class Storm:
    """Where runs are made, and how they go undisturbed: ``expected`` and ``seconds`` by scene."""

    folder: Path
    expected: dict[str, dict[str, object]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    seen: dict[str, list[str]] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        return self.folder / "runs"

    def prepare(self) -> None:
        """A set, a model, hyper-parameters, and each scene once."""
        make_set(self.folder / "set", train=10, val=4, size=(32, 48))
        (self.folder / "model.yaml").write_text(yaml.safe_dump(TINY))
        hyp = read_hyp("hyp.scratch-tiny.yaml") | {"mixup": 0.5, "nominal_batch": 6, "warmup_epochs": 1.0}
        (self.folder / "hyp.yaml").write_text(yaml.safe_dump(hyp))
        for scene in SCENES:
            self.clear()
            begun = time.monotonic()
            code, said = self.wait(self.start(self.command(scene, 0)))
            if code != 0:
                raise SystemExit(f"{scene}: an undisturbed run ended with status {code}\n{said}")
            self.seconds[scene] = time.monotonic() - begun
            self.expected[scene] = self.found(self.project / "run")
            self.seen[scene] = [event for event in EVENTS if (self.project / event).exists()]

    def clear(self) -> None:
        """Nothing is left of earlier runs, nor of what was learnt about the set."""
        remake(self.project)
        for file in (self.folder / "set" / "labels").iterdir():
            if file.suffix != "" or file.name.startswith("."):
                shutil.rmtree(file) if file.is_dir() else file.unlink()

    def command(self, scene: str, workers: int) -> list[str]:
        """As a user begins a run."""
        files = {"--data": "set/data.yaml", "--cfg": "model.yaml", "--hyp": "hyp.yaml", "--project": "runs"}
        places = [word for name, file in files.items() for word in (name, str(self.folder / file))]
        return [*BASE, *places, *SCENES[scene], "--workers", str(workers)]

    def next_command(self, scene: str, workers: int) -> list[str]:
        """As a user goes on after a kill."""
        found = sorted(self.project.glob("*/hyp_start.yaml" if scene == "search" else "*/weights/last.pt"))
        if not found:
            return self.command(scene, workers)
        words = ["--resume_evolve", str(found[0].parent)] if scene == "search" else ["--resume", str(found[0])]
        if "--cache" in SCENES[scene]:
            words += ["--cache", "disk"]
        return [*words, "--workers", str(workers), "--device", "cpu"]

    def found(self, run: Path) -> dict[str, object]:
        """All that a run and what was learnt about its set consist of: file → bytes, or tensors of a checkpoint."""
        files: dict[str, object] = {}
        for file in sorted(run.rglob("*")):
            name = f"run/{file.relative_to(run)}"
            if file.is_file() and "tfevents" not in name:
                files[name] = read_checkpoint(file).model if file.suffix == ".pt" else content(file)
        labels = self.folder / "set" / "labels"
        return files | {str(f.relative_to(labels)): None for f in labels.rglob("*") if f.suffix != ".txt"}

    def start(self, words: list[str], shift: float = 0.0) -> int:
        """Begin train.py in a child, for which the clock is ``shift`` seconds ahead; its process id."""
        # held back until the child takes them as a program does that is being started
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        child = os.fork()
        if child == 0:
            live(words, self.folder / "said.txt", shift)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return child

    def wait(self, child: int) -> tuple[int, str]:
        """(exit status, or minus the signal; what was said) of a child, which is given SECONDS."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status), (self.folder / "said.txt").read_text()
            time.sleep(0.005)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return 1, f"did not end in {SECONDS} s"


def content(file: Path) -> bytes:
    """Its bytes; of settings without the number of workers, which may be another, and the folder's number."""
    if file.name != "opt.yaml":
        return file.read_bytes()
    return b"".join(line for line in file.read_bytes().splitlines(True) if not line.startswith(b"workers:"))


def live(words: list[str], said: Path, shift: float) -> None:
    """In the child: be train.py, started by a shell."""
    code, ending = 1, None
    try:
        os.setsid()
        for stop in STOPS:
            signal.signal(stop, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        where = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(where, 1)
        os.dup2(where, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        now = time.time
        time.time = lambda: now() + shift
        sys.argv = [str(ROOT / "train.py"), *words]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        # what the frames hold lives on while the interpreter ends
        ending = end
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    # all else is reported as Python would
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            # as the interpreter does: loading processes are ended by it
            atexit._run_exitfuncs()
            del ending
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


@dataclass
class Kill:
    """A signal at a moment: ``seconds`` after the start, or after ``event`` has been seen ``times`` times."""

    how: str
    seconds: float
    event: str = ""
    times: int = 1

    def __str__(self) -> str:
        return f"{self.how} {self.seconds:.3f} s after {f'{self.event} ({self.times})' if self.event else 'the start'}"

    def strike(self, child: int, project: Path, numbered: Callable[[], str]) -> bool:
        """Wait for the moment, then send the signal; False where the process had ended before."""
        begun, seen, count = time.monotonic(), None, 0
        while self.event and count < self.times:
            file = project / self.event.replace("run/", f"{numbered()}/", 1)
            stamp = file.stat().st_mtime_ns if file.exists() else None
            if stamp is not None and stamp != seen:
                seen, count = stamp, count + 1
            if ended(child) or time.monotonic() - begun > SECONDS:
                return False
            time.sleep(0.0005)
        time.sleep(self.seconds)
        if ended(child):
            return False
        send = os.killpg if "group" in self.how else os.kill
        number = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "INT": signal.SIGINT}[self.how.split()[0]]
        with contextlib.suppress(ProcessLookupError):
            send(child, number)
            if "twice" in self.how:
                time.sleep(0.02)
                send(child, number)
        return True


STOPS = (signal.SIGINT, signal.SIGTERM)
HOWS = ("KILL", "KILL", "KILL group", "TERM", "TERM", "TERM twice", "INT group", "INT group twice")


def ended(child: int) -> bool:
    """Whether a child has ended; it is still to be waited for."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def draw_kill(rng: random.Random, scene: str, storm: Storm) -> Kill:
    """A moment, uniform over the life of a run or around the appearance of a file."""
    how = rng.choice(HOWS)
    if rng.random() < 0.5:
        return Kill(how, rng.uniform(0, storm.seconds[scene]))
    event = rng.choice(storm.seen[scene])
    return Kill(how, rng.choice([0, rng.uniform(0, 0.02), rng.uniform(0, 0.2)]), event, rng.randint(1, EVENTS[event]))


def disturbed(rng: random.Random, storm: Storm) -> tuple[str, list[str], list[str]]:
    """A run that is killed up to three times: (its scene, what was done to it, what is wrong with how it ended)."""
    scene = rng.choice(list(SCENES))
    storm.clear()
    kills = [draw_kill(rng, scene, storm) for _ in range(rng.choice([1, 1, 2, 3]))]
    done, groups, shift = [], [], 0.0
    command = storm.command(scene, rng.randint(0, 2))
    for kill in [*kills, None]:
        child = storm.start(command, shift)
        groups.append(child)
        if kill and kill.strike(child, storm.project, lambda: "run"):
            done.append(str(kill))
        code, said = storm.wait(child)
        if wrong := judge(kill, code, said):
            return scene, done, [wrong]
        # finished, before the kill or in spite of it
        if code == 0 or (code == 2 and "its training is finished" in said):
            break
        shift = rng.choice([0.0, 0.0, -DAY, -60.0, 3600.0, 400.0 * DAY])
        for file in storm.project.rglob("*") if shift else ():
            os.utime(file, (time.time() + shift,) * 2)
        command = storm.next_command(scene, rng.randint(0, 2))
    return scene, done, [*compare(storm, scene), *left_over(groups)]


def judge(kill: Kill | None, code: int, said: str) -> str:
    """What is wrong with the end of one process."""
    if "Traceback" in said:
        return f"a traceback: {said[-1500:]}"
    expected = {0}
    if kill and "KILL" in kill.how:
        expected |= {-9}
    elif kill:
        # by the system before there is anything to save, or when all is done
        expected |= {143, -15} if "TERM" in kill.how else {130, -2}
    if code not in expected and not (code == 2 and "its training is finished" in said):
        return f"status {code}: {said[-1500:]}"
    return ""


def compare(storm: Storm, scene: str) -> list[str]:
    """How the run's files differ from those of the undisturbed one."""
    sign = "evolve.csv" if scene == "search" else "weights/last.pt"
    found = sorted(folder for folder in storm.project.iterdir() if (folder / sign).exists())
    if len(found) != 1:
        return [f"{len(found)} runs with {sign}"]
    have, want = storm.found(found[0]), storm.expected[scene]
    if found[0].name != "run":
        have["run/opt.yaml"] = want["run/opt.yaml"]
    wrong = [f"{name} too much" for name in have if name not in want]
    wrong += [f"{name} lacking" for name in want if name not in have]
    return wrong + [f"{name} differs" for name in want if name in have and not same(have[name], want[name])]


def same(a: object, b: object) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)
    return a == b


def left_over(groups: list[int]) -> list[str]:
    """Processes that outlived their run by more than the seconds that a loading process needs to notice."""
    end = time.monotonic() + 15
    for group in groups:
        while True:
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                break
            if time.monotonic() > end:
                os.killpg(group, signal.SIGKILL)
                return ["processes were left behind"]
            time.sleep(0.05)
    return []


def main() -> int:
    """Disturb as many runs as asked for; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="runs to disturb")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first run")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--folder", type=Path, help="where files of failed runs are kept")
    options = parser.parse_args()
    for scene in set(SCENES) - set(options.scenes):
        del SCENES[scene]
    folder = remake((options.folder or Path(tempfile.mkdtemp(prefix="storm-"))).resolve())
    warm()
    storm, begun = Storm(folder), time.monotonic()
    storm.prepare()
    print("undisturbed:", ", ".join(f"{scene} {seconds:.1f} s" for scene, seconds in storm.seconds.items()), flush=True)
    number, killed, wrong = options.first, 0, 0
    while killed < options.kills:
        scene, done, found = disturbed(random.Random(f"{options.seed} {number}"), storm)
        killed += bool(done)
        wrong += bool(found)
        print(f"{number} {scene}: {'; '.join(done) or 'ended before'}: {'; '.join(found) or 'the same'}", flush=True)
        if found:
            shutil.copytree(storm.project, folder / f"failed-{number}", dirs_exist_ok=True)
        number += 1
    print(f"{killed} runs killed, seed {options.seed}, {time.monotonic() - begun:.0f} s: {wrong} ended otherwise")
    if not wrong and options.folder is None:
        shutil.rmtree(folder)
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
