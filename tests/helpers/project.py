"""Where the project stands, its commands run as a user runs them, and what a user's mistake looks like."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# figures, photographs and a checkpoint that are not part of the project
SHARED = ROOT.parent / "shared"
COMMANDS = ["train.py", "val.py", "detect.py", "export.py", "benchmarks.py", "data/convert.py"]


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


def assert_user_error(result: subprocess.CompletedProcess, *words: str) -> None:
    """The command ended as for a user's mistake: status 2, one line on stderr that begins with error and holds ``words``."""
    lines = [line for line in result.stderr.replace("\r", "\n").splitlines() if line.startswith("error:")]
    assert result.returncode == 2, result.stderr[-2000:]
    assert len(lines) == 1, result.stderr[-2000:]
    assert "Traceback" not in result.stderr
    for word in words:
        assert str(word) in lines[0]
