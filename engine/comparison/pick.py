"""Which candidate to take: the best within what may be spent, the next, and what the data leave open between them.

Imports no torch.
"""

from dataclasses import replace

from engine.comparison.record import (
    END_TO_END,
    NO_DIFFERENCE,
    TOO_FEW,
    Candidate,
    Comparison,
    Latency,
    Pair,
    Pick,
)

# a difference that is 0.00 points
NEXT_TO_NONE = 5e-5


def latency_of(
    candidate: Candidate, runtimes: tuple[str, ...], batch: int = 1, part: str = END_TO_END
) -> Latency | None:
    """That of the first of ``runtimes`` under which it was measured; of an exported file, under its own. Of one image, end to
    end, unless another is asked for."""
    found = [t for t in candidate.latencies if (t.batch, t.part) == (batch, part) and t.median_ms is not None]
    places = {runtime: i for i, runtime in enumerate(runtimes)}
    return min(found, key=lambda t: places.get(t.runtime, len(places)), default=None)


def on_front(comparison: Comparison) -> dict[str, bool | None]:
    """Of each candidate, whether no other is at least as fast and as accurate, and better in one of both; None where one of
    the two is not known."""
    metric, runtimes = comparison.settings.metric, comparison.settings.runtimes
    places = {}
    for c in comparison.candidates:
        latency = latency_of(c, runtimes)
        if latency and metric in c.accuracy:
            places[c.name] = (latency.median_ms, -c.accuracy[metric].mean)

    def beaten(name: str) -> bool:
        own = places[name]
        return any(other != own and other[0] <= own[0] and other[1] <= own[1] for other in places.values())

    return {c.name: not beaten(c.name) if c.name in places else None for c in comparison.candidates}


def excess(candidate: Candidate, constraints: dict[str, float], runtimes: tuple[str, ...]) -> str:
    """Why a candidate does not keep within ``constraints``; empty where it does."""
    latency = latency_of(candidate, runtimes)
    have = {
        "max_latency": (latency.median_ms if latency else None, "ms from file to boxes"),
        "max_params": (candidate.parameters, "parameters"),
        "max_gflops": (candidate.gflops, "GFLOPs"),
    }
    for name, most in constraints.items():
        value, unit = have[name]
        if value is None:
            return f"its {unit} are not known"
        if value > most:
            return f"{figure(value)} {unit}, more than {figure(most)}"
    return ""


def figure(value: float) -> str:
    """A limit, or what exceeds one, for people: 2,500,000, 40, 12.34."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def pick(comparison: Comparison, constraints: dict[str, float]) -> Pick:
    """The pick of a comparison that has all its measures."""
    settings = comparison.settings
    metric = settings.metric
    reasons = {c.name: excess(c, constraints, settings.runtimes) for c in comparison.candidates}
    left_out = {name: why for name, why in reasons.items() if why}
    fit = [c for c in comparison.candidates if c.name not in left_out]
    known = sorted((c for c in fit if metric in c.accuracy), key=lambda c: -c.accuracy[metric].mean)
    chosen = Pick(constraints, left_out=left_out)
    if not fit:
        return replace(chosen, open="no candidate keeps within these limits")
    if not known:
        return replace(chosen, open="no accuracy was measured: the sizes and latencies say who fits, not who is best")
    if unknown := [c.name for c in fit if c not in known]:
        left_out |= dict.fromkeys(unknown, "its accuracy is not known")
    if len(known) == 1:
        return replace(chosen, best=known[0].name, open="it is the only one that keeps within these limits")
    best, second = known[:2]
    pairs = {frozenset((p.first, p.second)): p for p in comparison.pairs}
    between = pairs[frozenset((best.name, second.name))]
    if between.verdict == TOO_FEW:
        return replace(chosen, open="below three seeds of each no winner is named")
    others = [c.name for c in known[1:] if pairs[frozenset((best.name, c.name))].verdict == NO_DIFFERENCE]
    return replace(chosen, best=best.name, second=second.name, open=_left_open(best.name, second.name, between, others))


def _left_open(best: str, second: str, between: Pair, others: list[str]) -> str:
    """What the data say of the two, and of whom else they don't tell the best."""
    if between.difference >= NEXT_TO_NONE:
        said = f"{best} is ahead of {second} by {points(between)}"
    else:
        said = f"{best} and {second} come to the same{interval(between, ' points')}"
    if between.verdict != NO_DIFFERENCE:
        return f"{said}: a difference is shown"
    said += f": no difference is shown; {more_seeds(between)}"
    if further := [name for name in others if name != second]:
        said += f"; nor is one shown between {best} and {', '.join(further)}"
    return said


def points(pair: Pair) -> str:
    """A difference in points, hundredths of AP, with its interval."""
    return f"{pair.difference * 100:.2f} points{interval(pair)}"


def interval(pair: Pair, unit: str = "") -> str:
    """That of a difference, in points, where it is known."""
    return "" if pair.low is None else f" ({pair.low * 100:.2f} to {pair.high * 100:.2f}{unit})"


def more_seeds(pair: Pair) -> str:
    """How many seeds more would show a difference of half a point."""
    if pair.seeds_more is None:
        return "no number of seeds on these validation images would show one of half a point: more images would"
    if not pair.seeds_more:
        return "one of half a point would have been shown as a rule"
    return f"{pair.seeds_more} seeds more of each would show one of half a point as a rule"
