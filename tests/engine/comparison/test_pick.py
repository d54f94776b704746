"""The pick: the best that keeps within the limits, and what the data leave open."""

from dataclasses import replace

from engine.comparison.pick import latency_of, on_front, pick
from engine.comparison.record import (
    FIRST,
    NO_DIFFERENCE,
    TOO_FEW,
    Candidate,
    Comparison,
    Estimate,
    Latency,
    Pair,
    Settings,
)


def candidate(name: str, accuracy: float, ms: float, parameters: int) -> Candidate:
    latency = (Latency("onnx", 1, "end_to_end", ms / 2, ms), Latency("pytorch", 1, "end_to_end", ms, 2 * ms))
    return Candidate(name, parameters=parameters, latencies=latency, accuracy={"map50_95": Estimate(accuracy)})


def comparison(*verdicts: str) -> Comparison:
    """Three candidates, each less accurate and smaller than the one before; and a fourth that is beaten."""
    candidates = (
        candidate("l", 0.6, 90, 9_000_000),
        candidate("m", 0.5, 30, 2_500_000),
        candidate("s", 0.49, 20, 2_000_000),
        candidate("odd", 0.3, 25, 4_000_000),
    )
    names = [(a.name, b.name) for i, a in enumerate(candidates) for b in candidates[i + 1 :]]
    found = dict(zip(names, verdicts, strict=False))
    pairs = tuple(Pair(*n, "map50_95", 0.01, -0.01, 0.03, verdict=found.get(n, FIRST), seeds_more=4) for n in names)
    return Comparison("t", "now", "c", candidates=candidates, pairs=pairs, settings=Settings(runtimes=("pytorch",)))


def test_the_best_that_fits_and_the_second():
    chosen = pick(comparison(), {"max_latency": 40.0, "max_params": 3e6})
    assert (chosen.best, chosen.second) == ("m", "s") and "a difference is shown" in chosen.open
    assert chosen.left_out == {
        "l": "90 ms from file to boxes, more than 40",
        "odd": "4,000,000 parameters, more than 3,000,000",
    }


def test_what_is_left_open_is_said():
    open_ = [FIRST, FIRST, FIRST, NO_DIFFERENCE]
    said = pick(comparison(*open_), {"max_latency": 40.0}).open
    assert "m is ahead of s by 1.00 points (-1.00 to 3.00): no difference is shown; 4 seeds more" in said
    level = comparison(*open_)
    level = replace(level, pairs=tuple(replace(p, difference=0.00002) for p in level.pairs))
    said = pick(level, {"max_latency": 40.0}).open
    assert said.startswith("m and s come to the same (-1.00 to 3.00 points): no difference is shown; ")
    chosen = pick(comparison(*open_[:3], TOO_FEW), {"max_latency": 40.0})
    assert chosen.best is None and "below three seeds" in chosen.open


def test_nobody_and_only_one():
    assert pick(comparison(), {"max_params": 10.0}).best is None
    only = pick(comparison(), {"max_latency": 20.0})
    assert (only.best, only.second) == ("s", None) and "only one" in only.open
    unknown = pick(comparison(), {"max_gflops": 5.0})
    assert unknown.best is None and set(unknown.left_out.values()) == {"its GFLOPs are not known"}


def test_without_accuracies_nothing_is_picked():
    bare = comparison()
    bare = replace(bare, candidates=tuple(replace(c, accuracy={}) for c in bare.candidates), pairs=())
    assert pick(bare, {}).best is None and "no accuracy" in pick(bare, {}).open


def test_the_front_is_of_those_that_none_beats_in_both():
    assert on_front(comparison()) == {"l": True, "m": True, "s": True, "odd": False}
    twins = replace(comparison(), candidates=(candidate("a", 0.5, 9, 1), candidate("b", 0.5, 9, 1), Candidate("c")))
    assert on_front(twins) == {"a": True, "b": True, "c": None}


def test_the_latency_is_that_of_the_first_runtime_asked_for():
    c = candidate("a", 0.5, 30, 1)
    assert latency_of(c, ("pytorch", "onnx")).median_ms == 30 and latency_of(c, ("onnx",)).median_ms == 15
    # an exported file has its own runtime alone
    assert latency_of(replace(c, latencies=c.latencies[:1]), ("pytorch",)).median_ms == 15
    assert latency_of(Candidate("b"), ("pytorch",)) is None
