"""Runs a hostile case in a process of its own under limits, and says what went wrong.

A case is run by a child forked from this process, which has imported the project and PyTorch: a case costs the milliseconds
of its own work. The child leads a process group, works in the case's folder, and reports through its exit status and a file:

    warm()                  import what commands import
    run(case, folder)       → "" where the case ended as it must, or what was wrong

What a case must do: end within SECONDS, of itself and with status 0, or with status 2 and one line of error; touch no file
outside its folder, start no program, hold no more than MOST_MEMORY bytes, leave no process behind.
"""

import contextlib
import importlib
import os
import platform
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.project import ROOT

SECONDS = 20
MOST_MEMORY = 4 << 30
# what the machine is taken to have free: a model that fits in half of it is built, and may be copied a few times
FREE_MEMORY = 1 << 30
# what a payload makes where the code of a hostile file runs
CANARY = "canary"
FORBIDDEN = ("os.exec", "os.system", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn")
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.truncate", "os.chmod")
# of the system, written by libraries: devices, shared memory of the project's workers
SYSTEM = ("/dev/null", "/dev/shm/", "/dev/tty", "/proc/self/")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def nothing() -> None:
    """What most cases need to have ready."""


@dataclass
class Case:
    """A command line, the first word of which is a command of the project; its files are in the case's folder.

    ``before`` is called in the child, ahead of the command: it may start a server in a thread.
    """

    argv: list[str]
    before: Callable[[], None] = nothing


def small_machine() -> None:
    """The arena has a few gigabytes for all cases at a time, so a model of one is what is refused here."""
    from models.description import budget

    budget.available_memory = lambda: FREE_MEMORY


def warm() -> None:
    """Import all that commands import, so that children find it there; no thread may be started by it."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    # asks a program of the system, once
    platform.processor()
    # not all that is below ROOT: an environment may be there
    for path in sorted(path for folder in ("engine", "models", "utils") for path in (ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__init__":
            importlib.import_module(".".join(parts))
    runtimes = ("onnx", "onnxruntime", "openvino", "ncnn")
    for name in ("matplotlib.backends.backend_agg", "matplotlib.pyplot", *runtimes, "torch._dynamo"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def run(case: Case, folder: Path) -> str:
    """What was wrong with how ``case`` ended, in one line; empty where nothing was. ``folder`` holds its files."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _live(case, folder, home)
    status, memory, hung = _watch(child)
    left = _end_group(child)
    output = (folder / "output.txt").read_text(errors="replace") if (folder / "output.txt").exists() else ""
    report = (folder / "report.txt").read_text(errors="replace") if (folder / "report.txt").exists() else ""
    found = [f"held {memory >> 20} MB"] if memory > MOST_MEMORY else []
    if list(folder.rglob(CANARY)) or (folder.parent / CANARY).exists():
        found.append("code of a file was run")
    if report:
        found.append(report.splitlines()[0])
    if hung:
        found.append(f"did not end in {SECONDS} s")
    elif not found and os.WIFSIGNALED(status):
        found.append(f"died by {signal.Signals(os.WTERMSIG(status)).name}")
    elif not found:
        found += _judge(os.WEXITSTATUS(status), output)
    if left:
        found.append("left a process behind")
    return "; ".join(found)


def _judge(code: int, output: str) -> list[str]:
    lines = output.replace("\r", "\n").splitlines()
    errors = [line for line in lines if line.startswith("error:") or ": error:" in line]
    if "Traceback (most recent call last)" in output:
        return [f"a traceback: {next((line for line in reversed(lines) if line.strip()), '')[:200]}"]
    if code not in (0, 2):
        return [f"ended with status {code}"]
    if code == 2 and len(errors) != 1:
        return [f"ended with status 2 and {len(errors)} lines of error"]
    if code == 0 and errors:
        return ["reported an error with status 0"]
    if long := [line for line in errors if len(line) > 2500]:
        return [f"an error of {len(long[0])} characters"]
    if any(not c.isprintable() for line in errors for c in line):
        return ["an error with control characters"]
    return []


# In the child ------------------------------------------------------------------------------------------------------------


def _live(case: Case, folder: Path, home: Path) -> None:
    """Run the command as a program of its own would, and end with its status."""
    code = 1
    try:
        os.setsid()
        said = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = os.fdopen(1, "w", buffering=1, errors="backslashreplace")
        sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
        os.chdir(folder)
        # the parent has settled on a folder for temporary files already
        tempfile.tempdir = None
        os.environ |= {"HOME": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": str(home / "cache")}
        # asked for before, it would be what it was in the parent
        tempfile.tempdir = None
        script, *rest = case.argv
        sys.argv = [str(ROOT / script), *rest]
        _guard(folder)
        small_machine()
        case.before()
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    # all else is reported as Python would
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _guard(folder: Path) -> None:
    """From now on, writing outside ``folder`` and starting a program is noted in its report.txt."""
    inside = os.path.realpath(folder) + os.sep
    report = os.open(folder / "report.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(words: str) -> None:
        os.write(report, f"{words}\n".encode("utf-8", "replace"))

    def outside(path) -> bool:
        if isinstance(path, int) or path is None:
            return False
        where = os.fsdecode(path)
        if where.startswith(SYSTEM):
            return False
        return not (os.path.realpath(where) + os.sep).startswith(inside)

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING and outside(path):
                note(f"wrote {os.fsdecode(path)[:200]}")
        elif event in FORBIDDEN:
            note(f"started a program: {str(arguments)[:200]}")
        elif event in CHANGES and any(outside(path) for path in arguments[:2] if isinstance(path, str | bytes)):
            note(f"{event} of {str(arguments)[:200]}")

    sys.addaudithook(hook)


# In the parent -----------------------------------------------------------------------------------------------------------


def _watch(child: int) -> tuple[int, int, bool]:
    """(wait status, most bytes that it and its descendants held at a time, whether it had to be ended)."""
    end, most = time.monotonic() + SECONDS, 0
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status, most, False
        most = max(most, _memory_of_group(child))
        if most > MOST_MEMORY or time.monotonic() > end:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1], most, most <= MOST_MEMORY
        time.sleep(0.02)


def _group(leader: int) -> list[int]:
    """The processes of the group that ``leader`` leads."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == leader and fields[0] != "Z":
                    found.append(int(entry))
    return found


def _memory_of_group(leader: int) -> int:
    total = 0
    for pid in _group(leader):
        with contextlib.suppress(OSError, IndexError):
            total += int(Path("/proc", str(pid), "statm").read_text().split()[1])
    return total * os.sysconf("SC_PAGE_SIZE")


def _end_group(leader: int) -> bool:
    """Whether processes of the case were still there a moment after it ended; they are ended."""
    for _ in range(100):
        if not _group(leader):
            return False
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
    return True


def remake(folder: Path) -> Path:
    """An empty folder at that place."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
