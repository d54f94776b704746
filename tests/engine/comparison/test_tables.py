"""The tables of a comparison: each figure as comparison.json has it, names of any kind escaped."""

import csv

from engine.comparison.record import (
    DONE,
    FAILED,
    NO_DIFFERENCE,
    Candidate,
    Comparison,
    Data,
    Estimate,
    Latency,
    Pair,
    Pick,
    Run,
    Settings,
)
from engine.comparison.tables import latex, markdown, screen, write_tables

NAMES = ("a_b|<i>", "50%&$#{}~^\\")


def comparison() -> Comparison:
    candidates = tuple(
        Candidate(
            name,
            parameters=1_234_567,
            gflops=1 / 3,
            latencies=(Latency("pytorch", 1, "end_to_end", 10 / 3, 4.0), Latency("onnx", 1, "model", why="missing")),
            runs=(Run(0, status=DONE, map50_95=accuracy), Run(1, status=FAILED, message="out of memory")),
            accuracy={"map50_95": Estimate(accuracy, accuracy - 0.01, accuracy + 0.01)},
        )
        for name, accuracy in zip(NAMES, (1 / 7, 2 / 7), strict=True)
    )
    pair = Pair(NAMES[1], NAMES[0], "map50_95", 1 / 7, -0.1, 0.3, 0.2, 0.2, NO_DIFFERENCE, 5)
    pick = Pick({"max_params": 3e6}, NAMES[1], NAMES[0], "open")
    return Comparison(
        "t_1", "now", "python compare.py --cfg 'a b.yaml'", data=Data("d.yaml", imgsz=64), settings=Settings(seeds=(0, 1)),
        candidates=candidates, pairs=(pair,), pick=pick,
    )  # fmt: skip


def test_the_csv_has_every_figure_to_the_bit(tmp_path):
    write_tables(comparison(), tmp_path)
    with open(tmp_path / "comparison.csv", newline="", encoding="utf-8") as f:
        first, second = csv.DictReader(f)
    # the most accurate first
    assert (first["candidate"], second["candidate"]) == NAMES[::-1]
    assert float(first["map50_95"]) == 2 / 7 and float(second["map50_95_seed0"]) == 1 / 7
    assert float(first["gflops"]) == 1 / 3 and float(first["pytorch_batch1_end_to_end_ms"]) == 10 / 3
    assert first["parameters"] == "1234567" and first["onnx_batch1_model_ms"] == "" == first["map50"]
    assert float(second["behind_best"]) == 1 / 7 and second["behind_best_verdict"] == NO_DIFFERENCE
    assert first["failed"] == "out of memory" and first["seeds"] == "1"


def test_what_is_read_on_the_screen():
    said = screen(comparison())
    assert "1,234,567" in said and "0.2857  0.2757 to 0.2957" in said
    assert "no difference shown; 5 seeds more of each would show one of half a point" in said
    assert "onnx, batch 1: missing" in said and "seed 1: failed: out of memory" in said
    assert f"the pick within --max-params 3,000,000: {NAMES[1]}, then {NAMES[0]}: open" in said


def test_names_are_escaped():
    said = markdown(comparison())
    assert "\\<i\\>" in said and "a\\_b\\|" in said and "<i>" not in said
    assert "```bash\npython compare.py --cfg 'a b.yaml'\n```" in said
    paper = latex(comparison())
    assert r"a\_b\textbar{}\textless{}i\textgreater{} & 1" in paper
    assert r"50\%\&\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{} & 1" in paper
    assert paper.count(r"\\") == 3 and r"\toprule" in paper and "95 \\% interval" in paper


def test_a_comparison_that_has_only_begun_has_tables_too(tmp_path):
    begun = Comparison("t", "now", "c", candidates=(Candidate("a"),))
    write_tables(begun, tmp_path)
    assert "a" in screen(begun) and (tmp_path / "comparison.tex").read_text().count("-") > 5
