"""What is read from the studies of claims, and the pages of them."""

from dataclasses import asdict

import pytest

from bench.comparison.claims import (
    NOT_SHOWN,
    PAGES,
    REFUTED,
    REPRODUCED,
    Fact,
    ap_small,
    at_most,
    claims,
    costs,
    difference,
    faster_training,
    judge,
    less,
    options_of,
    page,
    write_mbconv,
)
from engine.comparison.plan import make_plan
from engine.comparison.record import (
    END_TO_END,
    MODEL,
    NO_DIFFERENCE,
    SECOND,
    Candidate,
    Comparison,
    Estimate,
    Latency,
    Machine,
    Pair,
)
from models.yolo import DetectionModel
from utils.errors import UserError


def candidate(name: str, times: float, **figures) -> Candidate:
    latencies = tuple(Latency("pytorch", 1, part, 10.0 * times) for part in (END_TO_END, MODEL))
    sizes = {"parameters": int(2e6 * times), "gflops": 5.0 * times, "inference_mb": 100.0}
    return Candidate(name, latencies=latencies, **sizes | figures)


def comparison(*candidates: Candidate, pairs: tuple[Pair, ...] = ()) -> Comparison:
    return Comparison("t", "2026-01-01", "compare.py", machine=Machine(noise=0.05), candidates=candidates, pairs=pairs)


def test_costs_are_ratios_and_within_the_noise_nothing_is_shown():
    found = comparison(candidate("a", 1.0, images_per_second=30.0), candidate("b", 0.38, images_per_second=20.0))
    assert less("GFLOPs", found, lambda c: c.gflops, 0.62).holds is True
    assert less("GFLOPs", found, lambda c: c.gflops, 0.5).holds is False
    assert [(round(f.value, 2), f.holds) for f in costs(found, claimed=True)] == [
        *((0.38, True), (0.38, True), (0.38, True), (1.0, None))
    ]
    assert [f.holds for f in costs(found)] == [None] * 4
    assert faster_training(found) == Fact("training images/s, times", "每秒训练图片数，倍数", 1.5, holds=True)
    published = candidate("yolov5n_C3_UIB", 1.0, parameters=1_300_000, gflops=3.5)
    assert [f.holds for f in at_most("yolov5n_C3_UIB", comparison(published, published))] == [True, False]


@pytest.mark.parametrize(
    ("verdict", "as_much", "more"), [(SECOND, False, False), (NO_DIFFERENCE, None, None), ("first", True, True)]
)
def test_a_difference_is_turned_about_with_its_interval(verdict, as_much, more):
    pair = Pair("one", "other", "map50_95", -0.02, low=-0.05, high=0.01, verdict=verdict)
    found = comparison(pairs=(pair,))
    fact = difference(found, "one", "other")
    assert (fact.value, fact.low, fact.high, fact.holds) == (-0.02, -0.05, 0.01, as_much)
    about = difference(found, "other", "one")
    assert (about.value, about.low, about.high) == (0.02, -0.01, 0.05)
    assert about.holds is (None if more is None else not more)
    with pytest.raises(UserError, match="no pair of one and third"):
        difference(found, "one", "third")


def test_small_objects_are_told_beside_the_claim():
    found = comparison(candidate("a", 1.0, accuracy={"ap_small": Estimate(0.125)}))
    fact = ap_small(found, "a")
    assert (fact.value, fact.low, fact.claimed) == (0.125, None, False) and fact.en.startswith("ap_small of a ")
    assert judge([fact]) == NOT_SHOWN


def test_a_claim_is_as_good_as_its_worst_figure():
    yes, no, unknown = (Fact("", "", 1.0, holds=holds) for holds in (True, False, None))
    assert judge([yes, yes]) == REPRODUCED and judge([yes, no, unknown]) == REFUTED
    assert judge([yes, unknown]) == judge([unknown]) == NOT_SHOWN
    # of what nothing was claimed, nothing can be shown
    beside = Fact("", "", 1.0, claimed=False)
    assert judge([yes, beside]) == REPRODUCED and judge([beside]) == NOT_SHOWN


def test_every_study_is_one_that_compare_can_run(tmp_path):
    for claim in claims():
        options = options_of(claim, device="cpu", workers=0)
        plan = make_plan(options)
        trained = plan.training(plan.entrants[0], 0, tmp_path / "seed0")
        assert (options.hyp == "hyp.shapes.yaml") == (trained.optimizer == "AdamW"), claim.key
    write_mbconv(tmp_path / "mbconv.yaml")
    changed, plain = (DetectionModel(cfg) for cfg in (str(tmp_path / "mbconv.yaml"), "yolov5s_EfficientNetV2-P3.yaml"))
    kinds = [{row.block for row in model.rows} for model in (changed, plain)]
    assert "FusedMBConv" in kinds[1] and "FusedMBConv" not in kinds[0]
    assert [row.shape for row in changed.rows[:10]] == [row.shape for row in plain.rows[:10]]


def test_both_pages_say_the_same():
    facts = [Fact("GFLOPs", "GFLOPs", 3.49, holds=False), Fact("mAP of a less b", "a 减 b", -0.012, -0.03, 0.006)]
    entry = {"facts": [asdict(f) for f in facts], "verdict": REFUTED, "command": "python compare.py --cfg a b"}
    record = {"c3-uib": entry | {"machine": "a CPU", "torch": "2.14.1", "date": "2026-01-01"}}
    english, chinese = (page(record, language) for language in PAGES)
    for text in (english, chinese):
        assert "| GFLOPs | 3.49 |  |" in text and "| -0.012 | -0.030 … +0.006 |" in text
        assert "python compare.py --cfg a b" in text
    assert "**Refuted.** a CPU, PyTorch 2.14.1" in english and "**不成立。**" in chinese
    assert "1.3 M parameters" in english and "1.3 M 参数量" in chinese and "ShuffleNetV2" not in english
