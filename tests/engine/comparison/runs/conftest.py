"""A train.py that takes no time."""

import pytest

from engine.comparison.runs import trainings
from tests.helpers.models import make_weights
from utils.results import NAMES

# leaves what a training leaves; with --epochs 9 it goes on until it is asked to stop
STAND_IN = """
import os, pathlib, shutil, signal, sys, time
words = sys.argv[1:]
if "--resume" in words:
    folder = pathlib.Path(words[words.index("--resume") + 1]).parents[1]
else:
    folder = pathlib.Path(words[words.index("--project") + 1], words[words.index("--name") + 1])
(folder / "weights").mkdir(parents=True, exist_ok=True)
with open(folder / "calls.txt", "a") as f:
    print(os.environ.get("OMP_NUM_THREADS"), *words, file=f)
if "--multi-scale" in words:
    print("some warning")
    sys.exit("error: the card\\x1b is full")
def stop(number, _):
    (folder / "stopped.txt").write_text(str(number))
    sys.exit(128 + number)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, stop)
(folder / "began.txt").touch()
while "9" in words and not (folder / "go.txt").exists():
    time.sleep(0.01)
(folder / "results.csv").write_text({table!r})
shutil.copy({weights!r}, folder / "weights" / "last.pt")
"""
ROW = "0,0.1,0.1,0.1,0.5,0.5,0.25,0.125,0.1,0.1,0.1,0.01,0.01,0.01"


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A folder with a train.py of its own in the project's place."""
    weights, table = str(make_weights(tmp_path / "done.pt", seed=0)), f"{','.join(NAMES)}\n{ROW}\n"
    (tmp_path / "train.py").write_text(STAND_IN.replace("{table!r}", repr(table)).replace("{weights!r}", repr(weights)))
    monkeypatch.setattr(trainings, "ROOT", tmp_path)
    monkeypatch.setattr(trainings, "PAUSE", 0.02)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path
