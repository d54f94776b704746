"""bench/comparison/false_winners.py: studies of equals, and a pool of runs that differ in chance alone."""

import sys

import numpy as np

from bench.comparison import false_winners
from engine.comparison.accuracy import Found


def kept_run(path, figure: float, rng: np.random.Generator):
    """What compare.py keeps of a run whose mAP50-95 is ``figure``."""
    empty = np.zeros((0, 6), np.float32)
    paths, none = np.array(["a.jpg", "b.jpg", "c.jpg"]), np.zeros(0, int)
    resampled = figure + rng.normal(0, 0.02, (1000, 3))
    found = Found(
        "", paths, np.ones((3, 2), int), empty, none, empty, none, np.full(3, figure), resampled, np.zeros(3), 2
    )
    np.savez(path, **vars(found))
    return path


def test_studies_of_equals(capsys, monkeypatch):
    words = "--candidates 3 --seeds 3 --spread 0.1 --images 12 --runs 2 --resamples 20"
    monkeypatch.setattr(sys, "argv", ["false_winners.py", *words.split()])
    false_winners.main()
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["candidates", "seeds", "spread", "named", "held"] and row.split()[:3] == [
        "3",
        "3",
        "0.1",
    ]


def test_parts_of_a_pool(tmp_path, capsys, monkeypatch):
    rng = np.random.default_rng(0)
    files = [kept_run(tmp_path / f"{i}.npz", 0.5 + 0.01 * rng.normal(), rng) for i in range(12)]
    monkeypatch.setattr(
        sys, "argv", ["false_winners.py", "--runs", "20", "--candidates", "2", "4", "--pool", *map(str, files)]
    )
    false_winners.main()
    assert capsys.readouterr().out.splitlines() == [
        "12 runs dealt out among 2 candidates 20 times: named 0.0%, held 100.0%",
        "12 runs dealt out among 4 candidates 20 times: named 0.0%, held 100.0%",
    ]


def test_the_time_of_a_large_set(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["false_winners.py", "--time", "5"])
    false_winners.main()
    assert "1000 paired resamples of 5 images" in capsys.readouterr().out
