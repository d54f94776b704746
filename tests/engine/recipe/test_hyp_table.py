"""The table of hyper-parameters and the files of data/hyps say the same."""

import re

import pytest

from engine.recipe.hyp import HYPER_PARAMETERS, OPTIONAL, RANGES, REQUIRED, read_hyp
from tests.helpers.project import ROOT

FILES = sorted((ROOT / "data" / "hyps").glob("*.yaml"))
LINE = re.compile(r"(\w+): +(\S+) +# (.+)")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_line_of_a_file_has_the_comment_of_the_table(path):
    lines = [LINE.fullmatch(line) for line in path.read_text().splitlines() if line and not line.startswith("#")]
    comments = {h.name: h.comment for h in HYPER_PARAMETERS}
    assert all(lines)
    assert {name for name, _, _ in (line.groups() for line in lines)} >= set(REQUIRED)
    assert all(comments[name] == comment for name, _, comment in (line.groups() for line in lines))


def test_names_stand_once_and_what_is_searched_for_has_limits_and_no_default():
    names = [h.name for h in HYPER_PARAMETERS]
    assert len(set(names)) == len(names) == len(REQUIRED) + len(OPTIONAL)
    assert set(RANGES) == set(REQUIRED)
    assert all(0 <= limits.low < limits.high and 0 < limits.gain <= 1 for limits in RANGES.values())
    assert all(RANGES[h.name].high <= 1 for h in HYPER_PARAMETERS if h.most == 1 and h.evolve)


def test_the_default_file_lies_within_the_limits_and_gets_the_defaults():
    hyp = read_hyp("hyp.scratch-low.yaml")
    assert all(limits.low <= hyp[name] <= limits.high for name, limits in RANGES.items())
    assert {name: hyp[name] for name in OPTIONAL} == OPTIONAL
