"""Where the project stands, its commands run as a user runs them, and what a user's mistake looks like."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
import traceback
from pathlib import Path
from unittest import mock

import pytest

ROOT = Path(__file__).resolve().parents[2]
# figures, photographs and a checkpoint that are not part of the project
SHARED = ROOT.parent / "shared"
COMMANDS = ["train.py", "val.py", "detect.py", "export.py", "benchmarks.py", "compare.py", "data/convert.py"]


def shared(*parts: str) -> Path:
    """A file or folder beside the project; the test is skipped where it isn't there."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {Path('..', 'shared', *parts)}, which is not part of the project")
    return path


def command(*args: object, cwd: Path = ROOT, timeout: float = 600) -> subprocess.CompletedProcess:
    """Run one of the project's commands: ``command("train.py", "--epochs", 1)``."""
    script, *rest = map(str, args)
    line = [sys.executable, str(ROOT / script), *rest]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)


def command_here(*args: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """What ``command`` gives, of the command run within this process: without the seconds that importing PyTorch takes.

    For what a command says. What it leaves in a process that goes on, such as plugins, it leaves here.
    """
    script, *rest = map(str, args)
    line, before, code = [str(ROOT / script), *rest], os.getcwd(), 0
    said, errors = io.StringIO(), io.StringIO()
    with mock.patch.object(sys, "argv", line), contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
        os.chdir(cwd)
        try:
            runpy.run_path(line[0], run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        except Exception:
            traceback.print_exc()
            code = 1
        finally:
            os.chdir(before)
    return subprocess.CompletedProcess(line, code, said.getvalue(), errors.getvalue())


def assert_user_error(result: subprocess.CompletedProcess, *words: str) -> None:
    """The command ended as for a user's mistake: status 2, one line on stderr that begins with error and holds ``words``."""
    lines = [line for line in result.stderr.replace("\r", "\n").splitlines() if line.startswith("error:")]
    assert result.returncode == 2, result.stderr[-2000:]
    assert len(lines) == 1, result.stderr[-2000:]
    assert "Traceback" not in result.stderr
    for word in words:
        assert str(word) in lines[0]
