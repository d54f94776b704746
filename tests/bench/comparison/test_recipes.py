"""bench/comparison/recipes.py: its runs can be begun, and its pages say what came of them."""

from dataclasses import replace

import cv2
import pytest

from bench.comparison.recipes import (
    EXPERIMENTS,
    LONG_AVERAGE,
    METHODS,
    PAGES,
    TEACHER,
    draw,
    job_of,
    mean_of,
    page,
    row,
    teacher_of,
    timed_points,
    write_fifth,
    write_hyps,
)
from engine.recipe.hyp import read_hyp
from engine.recipe.recipes import recipe_hyp
from tests.helpers.project import shared
from utils.data.config import image_files, read_data_yaml
from utils.yaml_file import read_yaml


def runs(*figures: float, minutes: float = 1.0) -> dict:
    curve = [[30.0, 0.1], [60.0 * minutes, 0.2]]
    told = {"seconds": 60 * minutes, "curve": curve, "machine": "a CPU"}
    return {str(s): told | {"map50_95": f} for s, f in enumerate(figures)}


def test_means_have_the_intervals_of_students_t():
    mean, half = mean_of([0.1, 0.2, 0.3])
    # 4.303 · 0.1 / √3
    assert (mean, half) == (pytest.approx(0.2), pytest.approx(0.24843, abs=1e-4)) and mean_of([0.5]) == (0.5, None)


def test_an_arm_is_told_beside_the_first_by_the_seeds_that_both_have():
    first = runs(0.40, 0.42, 0.44)
    assert row("stock", first, first) == "| stock | 3 | 0.420 ± 0.050 |  | 1.0 |  |  |"
    fast = runs(0.41, 0.43, minutes=0.25)
    assert row("fast", fast, first) == "| fast | 2 | 0.420 ± 0.127 | +0.010 ± 0.000 | 0.2 | 0.25 |  |"
    # as good as 0.40 and as 0.42, less 0.005, after 12 of 60 seconds
    for run in fast.values():
        run["curve"] = [[6.0, 0.39], [12.0, 0.418], [15.0, 0.41]]
    assert row("fast", fast, first).endswith("| 0.2 | 0.25 | 0.20 |")


def test_every_run_is_one_that_train_can_begin():
    for experiment in EXPERIMENTS:
        assert bool(experiment.before) is any(TEACHER in arm.get("teacher", []) for arm in experiment.arms.values())
        jobs = [job_of(experiment, arm, 1, "best.pt") for arm in experiment.arms]
        assert len({job.folder for job in jobs}) == len(jobs) and {job.options.seed for job in jobs} == {1}
        assert all(TEACHER not in job.options.teacher for job in jobs)
    assert job_of(EXPERIMENTS[0], "fast, 58 epochs", 0).options.progressive == 4
    present = {"device": "0", "noval": True}
    on_gpu = job_of(EXPERIMENTS[0], "fast, 58 epochs", 0, present=present).options
    assert (on_gpu.device, on_gpu.noval) == ("0", True)
    teachers = {e.key: teacher_of(e, {}).folder for e in EXPERIMENTS if e.before}
    # two students may have one teacher
    assert teachers["taught"] == teachers["taught-c3-uib"] != teachers["methods"]


def test_ways_to_teach_differ_in_nothing_but_their_weights(tmp_path):
    write_hyps(tmp_path)
    plain = read_hyp("hyp.shapes.yaml")
    for method, weights in METHODS.items():
        hyp = read_hyp(str(tmp_path / f"{method}.yaml"))
        taught = {key: value for key, value in hyp.items() if key.startswith("distill_") and value}
        assert taught == weights
        assert {k: v for k, v in hyp.items() if not k.startswith("distill_")}.items() <= plain.items()


def test_the_average_of_long_runs_is_all_that_its_arm_changes(tmp_path):
    write_hyps(tmp_path)
    said = read_yaml(tmp_path / LONG_AVERAGE.name, "hyp YAML")
    assert said["ema_tau"] == 2000 and recipe_hyp("fast") == {"ema_tau": 0}
    assert read_hyp(str(tmp_path / LONG_AVERAGE.name)) == read_hyp("hyp.scratch-tiny.yaml")
    ablation = next(e for e in EXPERIMENTS if e.key == "ablation")
    fast, other = (job_of(ablation, arm, 0).options for arm in ("fast", "with the average of long runs"))
    assert replace(other, hyp=fast.hyp, project=fast.project) == fast


def test_both_pages_and_the_plot_show_what_was_measured(tmp_path):
    arms = {"stock, 60 epochs": {"seeds": runs(0.4, 0.41), "command": "python train.py --epochs 60"}}
    arms["fast, 36 epochs"] = {"seeds": runs(0.42, 0.43, minutes=0.5), "command": "python train.py --recipe fast"}
    arms["fast, 36 epochs"]["seeds"]["1"]["machine"] = "another"
    entry = {"arms": arms, "torch": "2.14.1", "date": "2026-01-01"}
    english, chinese = (page({"thirds": entry}, language) for language in PAGES)
    for text in (english, chinese):
        assert "| fast, 36 epochs | 2 | 0.425 ± 0.064 | +0.020 ± 0.000 | 0.5 | 0.50 |  |" in text
        assert "a CPU; another" in text
        assert "python train.py --recipe fast" in text and "(images/recipes-thirds.png)" in text
    assert "a third of the time" in english and "三分之一" in chinese
    draw(entry, tmp_path / "plot.png")
    assert cv2.imread(str(tmp_path / "plot.png")).std() > 5


def test_of_runs_side_by_side_no_minutes_are_told():
    untimed = {"seconds": None, "map50_95": 0.4, "curve": [[None, 0.4]], "machine": "a GPU"}
    untimed = dict.fromkeys("012", untimed)
    assert row("stock", untimed, untimed) == "| stock | 3 | 0.400 ± 0.000 |  |  |  |  |"
    assert row("fast", runs(0.5, 0.6), untimed).endswith("| +0.150 ± 0.635 | 1.0 |  |  |")
    entry = {"arms": {"fast": {"seeds": untimed, "command": "python train.py"}}, "torch": "", "date": ""}
    assert timed_points(entry) == []
    assert "recipes-ablation.png" not in page({"ablation": entry}, "en")
    # nor is an experiment told whose first arm is not there yet
    entry["arms"] = {"without stages": entry["arms"]["fast"]}
    assert "without stages" not in page({"ablation": entry}, "en")


def test_a_fifth_of_the_training_images_is_to_validate_with(tmp_path):
    shared("datasets", "bccd")
    write_fifth(tmp_path)
    config = read_data_yaml(tmp_path / "bccd-fifth.yaml")
    train, val = (set(image_files(config.splits[name])) for name in ("train", "val"))
    assert (len(train), len(val), len(train & val)) == (164, 41, 0)
    assert not any("/val/" in image for image in train | val)
