"""A few killed runs end as those that nobody disturbed; many: python -m tests.kill_storm --kills 30."""

import subprocess
import sys

import pytest

from tests.helpers.project import ROOT


@pytest.mark.slow
def test_killed_runs_end_like_those_that_were_not():
    words = "-m tests.kill_storm --kills 3 --seed 4".split() + ["--scenes", "cached on disk", "nosave"]
    result = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, f"{result.stdout[-4000:]}{result.stderr[-2000:]}"
    assert "3 runs killed" in result.stdout and ": 0 ended otherwise" in result.stdout
