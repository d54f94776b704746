"""The search for hyper-parameters improves on its start, and goes on where it was."""

import csv
import math
import os
import re
import shlex
import signal
import sys
import time

import numpy as np
import pytest
import yaml

import train
from engine.recipe.hyp import RANGES, read_hyp
from engine.studies import evolve
from engine.studies.evolve import mutate
from engine.training.learner import Learner
from engine.training.options import TrainOptions
from tests.helpers.descriptions import TINY
from tests.helpers.processes import in_background
from tests.helpers.project import ROOT, assert_user_error, command_here
from tests.helpers.training import options
from utils.errors import UserError
from utils.results import FIGURES, row_fitness
from utils.yaml_file import write_yaml

# of a training that finds nothing
FLAT = dict.fromkeys(FIGURES, 0.0)
START = read_hyp("hyp.scratch-low.yaml")
HEADER = ",".join([*FIGURES, *START]) + "\n"


def table(folder) -> list[dict]:
    with open(folder / "evolve.csv", newline="") as f:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(f)]


def fitness_of(row: dict) -> float:
    return 0.1 * row["metrics/mAP_0.5"] + 0.9 * row["metrics/mAP_0.5:0.95"]


def test_most_values_change_within_their_limits_and_the_rest_stays():
    start = read_hyp("hyp.scratch-low.yaml")
    rows = [
        ({"metrics/mAP_0.5": 0.1 * i, "metrics/mAP_0.5:0.95": 0.05 * i}, start | {"lr0": 0.01 * (i + 1)})
        for i in range(8)
    ]
    parents, shares = [], []
    for generation in range(200):
        new = mutate(rows, (0, generation))
        assert set(new) == set(start)
        assert all(limits.low <= new[name] <= limits.high for name, limits in RANGES.items())
        assert all(new[name] == start[name] for name in set(start) - set(RANGES))
        shares.append(np.mean([new[k] != start[k] for k in RANGES if start[k] and k != "lr0"]))
        parents.append(new["lr0"])
    assert 0.7 < np.mean(shares) < 0.9
    assert np.mean(parents) > 0.06  # of 0.01 to 0.08, the better ones are the larger
    assert mutate(rows, (0, 3)) == mutate(rows, (0, 3)) != mutate(rows, (0, 4))


def test_score_is_the_fitness():
    assert row_fitness({"metrics/mAP_0.5": 0.5, "metrics/mAP_0.5:0.95": 0.3}) == pytest.approx(0.32)


def test_the_table_of_an_earlier_release_lacks_what_has_come_since(tmp_path):
    then = {name: value for name, value in START.items() if name != "close_mosaic"}
    evolve.write_rows(tmp_path / "evolve.csv", [(FLAT, then)])
    assert "close_mosaic" not in (tmp_path / "evolve.csv").read_text()
    assert evolve.read_rows(tmp_path / "evolve.csv", START) == [(FLAT, START | {"close_mosaic": 0.0})]


def search_options(learnt, tmp_path, **changes) -> dict:
    """One more epoch, whose steps at the start are so large that they spoil what has been learnt: much can be improved.

    Of seed 31 an early generation has a much smaller lr0."""
    data, hyp, weights = map(str, learnt)
    fixed = {"weights": weights, "cfg": "", "hyp": hyp, "optimizer": "AdamW", "noautoanchor": True}
    return options(data, tmp_path, **fixed, **changes)


@pytest.mark.slow
def test_a_search_improves_on_its_start_and_can_be_killed_and_continued(learnt, tmp_path):
    folder = train.run(**search_options(learnt, tmp_path, seed=31, evolve=4, name="whole"))
    found = table(folder)
    scores = [fitness_of(row) for row in found]
    assert len(found) == 4
    assert max(scores) > scores[0] + 0.005
    best = yaml.safe_load((folder / "hyp_evolve.yaml").read_text())
    assert best["lr0"] == found[int(np.argmax(scores))]["lr0"] and not math.isnan(best["lr0"])
    assert (folder / "evolve.png").stat().st_size > 10_000
    assert not list(folder.rglob("*.pt"))

    line = [sys.executable, str(ROOT / "train.py")]
    for key, value in search_options(learnt, tmp_path, seed=31, evolve=4, name="killed").items():
        if value != "":
            line += [f"--{key.replace('_', '-')}", *([] if value is True else [str(value)])]
    process = in_background(line, tmp_path)
    killed = tmp_path / "runs" / "killed"
    deadline = time.time() + 200
    while time.time() < deadline and process.poll() is None:
        if (killed / "evolve.csv").exists() and len(table(killed)) >= 1:
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    before = len(table(killed))
    assert 1 <= before < 4
    assert train.run(resume_evolve=str(killed), device="cpu") == killed
    assert (killed / "evolve.csv").read_bytes() == (folder / "evolve.csv").read_bytes()


def test_mistakes(tiny_set, tmp_path):
    flags = ["--data", tiny_set, "--project", tmp_path, "--device", "cpu"]
    assert_user_error(command_here("train.py", *flags, "--resume_evolve", tmp_path), "no folder of a search")
    assert_user_error(command_here("train.py", *flags, "--resume_evolve"), "holds no search")
    assert_user_error(command_here("train.py", *flags, "--evolve", "2", "--resume"), "--resume_evolve")


def test_a_search_does_not_run_the_plugins_that_its_folder_names(tmp_path):
    plugin, ran = tmp_path / "blocks.py", tmp_path / "ran"
    plugin.write_text(f"open({str(ran)!r}, 'w')\n")
    write_yaml(tmp_path / "opt.yaml", {"plugins": [str(plugin)], "evolve": 2})
    write_yaml(tmp_path / "hyp_start.yaml", read_hyp("hyp.scratch-low.yaml"))
    with pytest.raises(UserError, match=rf"opt.yaml: was begun with blocks of your own.*add --plugins {plugin}"):
        train.run(resume_evolve=str(tmp_path))
    assert not ran.exists()


def test_the_trainings_of_a_search_have_stages_too(tiny_set, tmp_path, capsys):
    asked = options(tiny_set, tmp_path, cfg=tiny_model(tmp_path), imgsz=64, epochs=2, progressive=2, evolve=2)
    folder = train.run(**asked)
    said = capsys.readouterr().out
    assert said.count("stage 1 of 2: epochs 0 at 32 px") == said.count("stage 2 of 2: epochs 1 at 64 px") == 2
    assert len(table(folder)) == 2


def tiny_model(tmp_path) -> str:
    """The YAML of a model whose largest stride is 16."""
    write_yaml(tmp_path / "tiny.yaml", TINY)
    return str(tmp_path / "tiny.yaml")


def test_the_next_training_is_as_those_of_the_search(tiny_set, tmp_path, monkeypatch, capsys):
    """With what was found, and all else that was asked for; names with spaces are quoted."""
    monkeypatch.setattr(evolve, "train_once", lambda *_: FLAT)
    plugin = tmp_path / "my blocks.py"
    asked = options(tiny_set, tmp_path, project=str(tmp_path / "my runs"), plugins=[str(plugin)], cos_lr=True)
    folder = train.run(**asked, evolve=1, name="search")
    results, line = capsys.readouterr().out.splitlines()[-2:]
    assert results == f"results are in {folder}" and line.startswith("next: python train.py ")
    _, _, script, *words = shlex.split(line)
    again = TrainOptions.of(vars(TrainOptions.parser("").parse_args(words)))
    asked = {name: value for name, value in asked.items() if name != "project"}
    assert again == TrainOptions.of(asked | {"hyp": str(folder / "hyp_evolve.yaml")})


@pytest.mark.parametrize("moment", ["set_up", "record_best"])
def test_a_signal_between_trainings_says_how_to_go_on(moment, tiny_set, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evolve, moment, lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr(evolve, "train_once", evolve.train_once if moment == "set_up" else lambda *_: FLAT)
    with pytest.raises(SystemExit) as end:
        train.run(**options(tiny_set, tmp_path, evolve=2, name="search"))
    assert end.value.code == 128 + signal.SIGTERM
    folder = tmp_path / "runs" / "search"
    again = f"python train.py --resume_evolve {folder} --workers 0 --device cpu"
    assert f"stopped; go on with: {again}\n" in capsys.readouterr().out
    assert len(table(folder) if moment == "record_best" else []) == (moment == "record_best")


def test_a_signal_within_a_training_says_how_to_go_on_with_the_search(tiny_set, tmp_path, monkeypatch, capsys):
    step = Learner.step
    monkeypatch.setattr(Learner, "step", lambda *a: [os.kill(os.getpid(), signal.SIGTERM), step(*a)][1])
    with pytest.raises(SystemExit) as end:
        train.run(**options(tiny_set, tmp_path, evolve=2, name="search"))
    said = capsys.readouterr().out
    assert end.value.code == 128 + signal.SIGTERM and "--resume_evolve" in said
    assert said.count("stopped; ") == 1 and "--resume " not in said


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("opt.yaml", "epochs: 3", "doesn't say how many generations to search; add --evolve N"),
        ("opt.yaml", "evolve: two", "opt.yaml: holds the settings of a run that can't have been one: --evolve 'two'"),
        ("hyp_start.yaml", "lr0: 1", "missing"),
        ("evolve.csv", "metrics/precision\n1\n", "not the table of a search"),
        ("evolve.csv", HEADER + ",".join(["inf"] * (len(FIGURES) + len(START))), "a score is not a share"),
        ("evolve.csv", HEADER + ",".join([*["0"] * len(FIGURES), *["nan"] * len(START)]), "not finite"),
        ("evolve.csv", "\udcff", "not the table of a search"),
        ("evolve.csv", "\0,\0\n\0", "not the table of a search"),
    ],
)
def test_a_damaged_folder_of_a_search_is_one_line(file, text, words, tmp_path):
    write_yaml(tmp_path / "opt.yaml", {"evolve": 2})
    write_yaml(tmp_path / "hyp_start.yaml", read_hyp("hyp.scratch-low.yaml"))
    (tmp_path / file).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=re.escape(words)):
        train.run(resume_evolve=str(tmp_path), device="cpu")
