"""What val.py writes for others to read: LaTeX, curves, and several validations in one picture."""

import csv
import re

import numpy as np
import pytest

import val
from engine.evaluation.errors import KINDS, SPECIAL
from engine.evaluation.latex import errors_table, escaped, tabular
from engine.evaluation.options import ValOptions
from tests.helpers.models import make_weights
from utils.data.images import read_image
from utils.errors import UserError
from utils.plots.runs import read_pr_curves


def cells(tex: str) -> list[list[str]]:
    """The rows of a table."""
    return [line.removesuffix(r" \\").split(" & ") for line in tex.splitlines() if line.endswith(r" \\")]


def test_names_are_set_as_they_are():
    assert escaped(r"50% & #1_a {b} $x$") == r"50\% \& \#1\_a \{b\} \$x\$"
    assert escaped("a\\b~c^d") == r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d"
    assert escaped("<a>|b") == r"\textless{}a\textgreater{}\textbar{}b"
    assert escaped("a\nb\tc\x1b") == "a b c " and escaped("猫 é") == "猫 é"


def test_a_table_has_its_rules():
    tex = tabular(["a", "b"], [["x", "1"]], [["y", "2"], ["z", "3"]])
    assert tex.splitlines()[1:] == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"a & b \\",
        r"\midrule",
        r"x & 1 \\",
        r"\midrule",
        r"y & 2 \\",
        r"z & 3 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    rows = [["error", "count", "dAP50"], *([kind, "1", "0.12345"] for kind in (*KINDS, *SPECIAL))]
    assert cells(errors_table(rows)) == [rows[0], *([kind, "1", "0.123"] for kind in (*KINDS, *SPECIAL))]


def test_val_writes_tables_and_draws_runs_together(tiny_set, tmp_path, capsys):
    tiny_set.write_text(tiny_set.read_text().replace("rectangle", "50%_box"))
    given = {"data": str(tiny_set), "imgsz": 96, "workers": 0, "device": "cpu", "project": str(tmp_path / "runs")}
    evaluations = []
    for seed in (0, 1):
        weights = make_weights(tmp_path / f"{seed}.pt", seed)
        more = (
            {"bootstrap": 20, "save_tex": True, "errors": True}
            if seed == 0
            else {"against": [tmp_path / "runs" / "exp"]}
        )
        evaluations.append(val.run(**given, weights=[str(weights)], save_csv=True, **more))
    first, second = tmp_path / "runs" / "exp", tmp_path / "runs" / "exp2"

    header, *rows = cells((first / "metrics.tex").read_text())
    assert header == "class images instances P R mAP50 mAP75 mAP50-95".split()
    assert [row[0] for row in rows] == ["all", r"50\%\_box", "disc"]
    bounds = evaluations[0].intervals.overall[0]
    expected = f"{evaluations[0].map50:.3f} {{\\footnotesize ({bounds[0]:.3f}--{bounds[1]:.3f})}}"
    assert rows[0][1:3] == ["4", "8"] and rows[0][5] == expected
    assert all(re.fullmatch(r"[01]\.\d{3}", cell) for row in rows for cell in row[3:5])
    gains = [f"{gain:.3f}" for gain in evaluations[0].errors.gains.values()]
    assert [row[2] for row in cells((first / "errors.tex").read_text())[1:]] == gains
    assert not (first / "PR_runs.png").exists()

    errors = evaluations[0].errors
    said = capsys.readouterr().out
    assert errors.table() in said and "Error      Count      dAP50" in said
    assert errors.ap50 == pytest.approx(evaluations[0].map50, abs=1e-9) and evaluations[1].errors is None
    with open(first / "errors.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["error"] for row in found] == [*KINDS, *SPECIAL]
    assert [int(row["count"]) for row in found] == list(errors.counts.values())
    assert [float(row["dAP50"]) for row in found] == pytest.approx(list(errors.gains.values()), rel=1e-4)
    assert read_image(first / "errors.png").std() > 10
    assert not {p.name for p in second.iterdir()} & {"errors.csv", "errors.png", "errors.tex", "metrics.tex"}

    with open(second / "PR_curve.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["recall", "all", "50%_box", "disc"]
    np.testing.assert_allclose(np.array(rows, float)[:, 2:].T, evaluations[1].ap.pr_curve, rtol=1e-4, atol=1e-9)
    curves = read_pr_curves([first, second, f"{second}/"])
    assert list(curves) == ["exp", "exp2", second.as_posix()]
    for name, evaluation in zip(curves, evaluations, strict=False):
        assert curves[name].map50 == pytest.approx(evaluation.map50, rel=1e-4)
        # the area under the curve is the figure, but for the points at which it is read
        area = np.trapezoid(curves[name].precision, curves[name].recall) if hasattr(np, "trapezoid") else None
        assert area is None or area == pytest.approx(evaluation.map50, abs=0.01)
    assert read_image(second / "PR_runs.png").std() > 10


def test_runs_without_curves_say_so(tmp_path):
    given = {"weights": ["absent.pt"], "data": "absent.yaml", "device": "cpu"}
    for name, words in {
        "none": "none: has no PR_curve.csv; validate that model with --save-csv first",
        "bare": "metrics.csv: no such results file",
        "odd": r"PR_curve.csv, line 2: all is 'x', not a number",
        "empty": "metrics.csv: holds no figures between 0 and 1",
        "far": "PR_curve.csv: holds no figures between 0 and 1",
        "binary": "PR_curve.csv: is not a CSV of text",
        "other": r"PR_curve.csv: no column 'recall' in the header, found: a, b",
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        if name != "none":
            text = {
                "odd": b"recall,all\n0,x\n",
                "far": b"recall,all\n0,1\n1e308,nan\n",
                "binary": b"\xff\xfe\0",
                "other": b"a,b\n",
            }
            (folder / "PR_curve.csv").write_bytes(text.get(name, b"recall,all\n0,1\n1,0\n"))
        if name in ("empty", "far"):
            (folder / "metrics.csv").write_text("class,mAP50\n" + "all,0.5\n" * (name == "far"))
        with pytest.raises(UserError, match=words):
            val.run(**given, against=[str(folder)], project=str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("name", "value"), [("save_tex", True), ("against", ["runs"]), ("errors", True)])
@pytest.mark.parametrize("task", ["speed", "study"])
def test_they_are_of_one_validation(name, value, task):
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')}: not with --task {task}"):
        ValOptions.of({name: value, "task": task})
