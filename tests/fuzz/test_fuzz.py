"""A round of hostile cases of every kind."""

import subprocess
import sys

import pytest

from tests.helpers.project import ROOT


@pytest.mark.slow
def test_no_hostile_case_runs_hangs_or_crashes_a_command():
    words = [sys.executable, "-m", "tests.fuzz", "--cases", "300", "--seed", "11", "--jobs", "1"]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=1200, stdin=subprocess.DEVNULL)
    assert result.returncode == 0, f"{result.stdout[-4000:]}{result.stderr[-2000:]}"
    assert "300 cases, seed 11" in result.stdout and "0 went wrong" in result.stdout
