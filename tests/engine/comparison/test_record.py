"""comparison.json: written and read again, and every damage told in one line."""

import json
from dataclasses import asdict

import pytest

from engine.comparison.record import (
    DONE,
    FAILED,
    FORMAT,
    Candidate,
    Comparison,
    Data,
    Estimate,
    Latency,
    Machine,
    Pair,
    Pick,
    Picture,
    Point,
    Run,
    read_record,
    write_record,
)
from utils.errors import UserError

RUN = Run(1, "a/seed1", DONE, epochs_done=2, seconds=3.5, map50_95=0.25, curve=(Point(1, None, 0.1, 0.05),))
FULL = Comparison(
    title="数据 <b>",
    created="2026-01-05T09:12:44+00:00",
    command="python compare.py",
    machine=Machine("a machine", 2, 2, noise=0.01, runtimes={"onnx": "1"}),
    data=Data("d.yaml", ("cat", "</script>"), 8, 4, 64),
    candidates=(
        Candidate(
            "a",
            {"cfg": "a.yaml"},
            parameters=7,
            latencies=(Latency("pytorch", 1, "model", 2.5, 3.0), Latency("onnx", 16, "end_to_end", why="missing")),
            runs=(RUN,),
            accuracy={"map50_95": Estimate(0.25, 0.2, 0.3)},
            seconds_to={"0.1": None},
        ),
    ),
    pairs=(Pair("a", "b", "map50_95", 0.01, verdict="no_difference"),),
    pick=Pick({"max_latency": 40.0}, "a", left_out={"b": "too slow"}),
    pictures=(Picture("a.jpg", 64, 48, ((0.0, 1.0, 2.0, 3.0, 1.0, 0),), {"a": ()}),),
)


def test_what_is_written_is_read_again(tmp_path):
    file = tmp_path / "comparison.json"
    for comparison in (FULL, Comparison("t", "now", "python compare.py")):
        write_record(file, comparison)
        assert read_record(file) == comparison
    assert [path.name for path in tmp_path.iterdir()] == ["comparison.json"]


def test_whether_a_run_has_failed():
    assert not FULL.failed
    failed = Candidate("b", runs=(RUN, Run(2, status=FAILED)))
    assert Comparison("t", "now", "c", candidates=(*FULL.candidates, failed)).failed


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("title",), 5, "title is 5, not a text"),
        (("stage",), "resting", "stage is resting, not one of training"),
        (("machine", "cores"), "two", "machine.cores is two, not a whole number"),
        (("machine", "cores"), True, "machine.cores is True, not a whole number"),
        (("machine", "noise"), [1], r"machine.noise is \[1\], not a number"),
        # which Python reads as such, and as a whole number of any size
        (("machine", "noise"), float("nan"), "machine.noise is nan, not a number"),
        (("machine", "noise"), 10**400, "machine.noise is 10000.*, not a number"),
        (("candidates",), {}, r"candidates is {}, not a list"),
        (("candidates", 0, "runs", 0, "status"), "resting", r"candidates\[0\].runs\[0\].status is resting"),
        (
            ("candidates", 0, "latencies", 0, "part"),
            "half",
            r"latencies\[0\].part is half, not one of end_to_end model",
        ),
        (("candidates", 0, "wheels"), 4, r"candidates\[0\] has the unknown entry wheels"),
        (("pictures", 0, "labels", 0), [1, 2], r"pictures\[0\].labels\[0\] is"),
        (("format",), FORMAT + 1, f"format {FORMAT + 1}, this release reads {FORMAT}"),
    ],
)
def test_damage_is_one_line_that_names_the_place(place, value, said, tmp_path):
    data = json.loads(json.dumps(asdict(FULL)))
    *way, last = place
    entry = data
    for key in way:
        entry = entry[key]
    entry[last] = value
    file = tmp_path / "comparison.json"
    file.write_text(json.dumps(data))
    with pytest.raises(UserError, match=said) as error:
        read_record(file)
    assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "[" * 100_000, '{"format": 1}', '{"format": 1, "title": "\x00"}', "NaN"]
)
def test_anything_else_is_refused(text, tmp_path):
    file = tmp_path / "comparison.json"
    file.write_text(text)
    with pytest.raises(UserError, match="comparison.json: "):
        read_record(file)
