"""tests/kill_study.py: what it runs is a command, and what differs is seen. The kills themselves take minutes."""

import torch

from engine.comparison.options import CompareOptions
from tests.kill_study import command, differing, prepare


def test_its_command_is_one(tmp_path):
    prepare(tmp_path)
    words = command(tmp_path, "calm")
    options = CompareOptions.of(vars(CompareOptions.parser("").parse_args(words[2:])))
    assert len(options.cfg) == options.seeds == options.epochs == 2


def test_what_differs_is_seen():
    calm = {"a": (1, 0.5), "weights": {"x": torch.ones(3)}, "pairs": ()}
    assert differing(calm, {"a": (1, 0.5), "weights": {"x": torch.ones(3)}, "pairs": ()}) == []
    other = {"a": (1, 0.25), "weights": {"x": torch.tensor([1, 1, 1.0000001])}}
    assert sorted(differing(calm, other)) == ["a", "pairs", "weights"]
