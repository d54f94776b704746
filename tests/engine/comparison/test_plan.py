"""Who is compared and how: candidates of flags and of a study YAML, and whether it is still the same study."""

from pathlib import Path

import pytest
import yaml

from engine.comparison.options import CompareOptions
from engine.comparison.plan import check_settings, make_plan
from tests.helpers.project import assert_user_error, command_here
from utils.errors import UserError


def plan_of(**given):
    return make_plan(CompareOptions.of(given))


def study_file(tmp_path, **data) -> str:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    return str(file)


def finished_run(folder: Path) -> Path:
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "best.pt").touch()
    return folder


def test_candidates_are_named_after_what_they_are(tmp_path):
    run = finished_run(tmp_path / "exp2")
    plan = plan_of(
        cfg=["yolov5n.yaml", "other/yolov5n.yaml"],
        backbone=["resnet18"],
        size="n",
        weights=[str(run), str(run / "weights" / "best.pt"), "a/b.onnx"],
        backbone_weights="imagenet",
    )
    names = "yolov5n-n yolov5n-n-2 resnet18 exp2 exp2-2 b.onnx".split()
    assert [e.name for e in plan.entrants] == names
    assert plan.entrants[0].source == {"cfg": "yolov5n.yaml", "size": "n"}
    assert plan.entrants[2].source == {"backbone": "resnet18", "size": "n", "backbone_weights": "imagenet"}
    assert plan.entrants[3].finished == plan.entrants[4].finished == (run / "weights" / "best.pt",)
    assert plan.seeds == (0, 1, 2) and plan_of(weights=["a.pt"]).seeds == () == plan_of(cfg=["a"], epochs=0).seeds


def test_a_run_is_an_ordinary_training():
    plan = plan_of(cfg=["a.yaml"], epochs=7, imgsz=96, data="d.yaml", hyp="h.yaml", batch_size=4)
    options = plan.training(plan.entrants[0], 2, Path("runs/compare/exp/a/seed2"), device="cpu", workers=1)
    assert (
        options.as_words("cfg", "epochs", "imgsz", "data", "hyp", "batch_size", "seed", "name", "exist_ok")
        == (
            "--cfg a.yaml --imgsz 96 --data d.yaml --hyp h.yaml --epochs 7 --batch-size 4 --seed 2 --name seed2 --exist-ok"
        ).split()
    )


def test_a_study_yaml_holds_candidates_and_settings(tmp_path):
    run = finished_run(tmp_path / "exp")
    candidates = {"small": {"cfg": "yolov5n.yaml", "drop-path": 0.1}, "done": {"finished": [str(run), "b.pt"]}}
    file = study_file(
        tmp_path, epochs=5, imgsz=96, **{"max-latency": 9.5}, train={"cos_lr": True}, candidates=candidates
    )
    plan = plan_of(study=file, imgsz=128, backbone=["resnet18"])
    assert [e.name for e in plan.entrants] == ["small", "done", "resnet18"]
    # a flag stands over the file
    assert (plan.options.epochs, plan.options.imgsz, plan.options.max_latency) == (5, 128, 9.5)
    assert plan.entrants[1].finished == (run / "weights" / "best.pt", Path("b.pt"))
    options = plan.training(plan.entrants[0], 0, Path("a/seed0"))
    assert options.cos_lr and options.drop_path == 0.1 and options.epochs == 5


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"epoch": 3}, "no such key: epoch"),
        ({"epochs": "3"}, "--epochs '3': must be a whole number"),
        ({"candidates": ["a.yaml"]}, "candidates holds list"),
        ({"candidates": {"a/b": {"cfg": "a.yaml"}}}, "candidate a/b: becomes a folder"),
        ({"candidates": {"a": None}}, "candidate a: holds NoneType"),
        ({"candidates": {"a": {"epochs": 3}}}, "candidate a: epochs is the same for all candidates"),
        ({"candidates": {"a": {"wheels": 3}}}, "candidate a: no such flag of train.py: wheels"),
        ({"candidates": {"a": {"cfg": "x", "finished": "b.pt"}}}, "finished is a file .* and stands alone"),
        ({"candidates": {"a": {"finished": []}}}, "finished is a file"),
        ({"candidates": {"a": {"drop_path": 3}}}, "--drop-path 3: must lie between 0 and 1"),
        ({"train": {"resume": True}, "candidates": {}}, "train: resume is the same"),
        ({}, "nobody to compare"),
    ],
)
def test_mistakes_in_a_study_are_one_line(data, said, tmp_path):
    with pytest.raises(UserError, match=said):
        plan_of(study=study_file(tmp_path, **data))


def test_mistakes_of_the_command_line(tmp_path):
    assert_user_error(command_here("compare.py"), "nobody to compare: name candidates by --cfg")
    assert_user_error(command_here("compare.py", "--weights", tmp_path), "holds no weights/best.pt")
    assert_user_error(command_here("compare.py", "--cfg", "a.yaml", "a.yaml"), "--cfg a.yaml: is given twice")
    assert_user_error(command_here("compare.py", "--study", tmp_path / "none.yaml"), "no such study YAML")


def test_a_changed_setting_is_noticed(tmp_path):
    given = {"cfg": ["yolov5n.yaml"], "epochs": 30, "name": "cells"}
    check_settings(tmp_path, plan_of(**given).settings())
    # the same, and what adds to it
    check_settings(tmp_path, plan_of(**given, metric="map50", jobs=2, seeds=5).settings())
    check_settings(tmp_path, plan_of(**given | {"cfg": ["yolov5n.yaml", "yolov5s.yaml"]}).settings())
    check_settings(tmp_path, plan_of(**given | {"cfg": ["yolov5s.yaml"]}).settings())
    with pytest.raises(
        UserError, match=f"{tmp_path.name}: this study .*: epochs was 30, is now 40; give those .* --name"
    ):
        check_settings(tmp_path, plan_of(**given | {"epochs": 40}).settings())
    hyp = tmp_path / "hyp.yaml"
    hyp.write_text((Path("data/hyps/hyp.scratch-low.yaml")).read_text().replace("lr0: 0.01", "lr0: 0.02"))
    with pytest.raises(UserError, match="hyp lr0 was 0.01, is now 0.02"):
        check_settings(tmp_path, plan_of(**given, hyp=str(hyp)).settings())
    sized = plan_of(study=study_file(tmp_path, candidates={"yolov5n": {"cfg": "yolov5n.yaml", "size": "s"}}), epochs=30)
    with pytest.raises(UserError, match="candidate yolov5n: size was not given, is now s"):
        check_settings(tmp_path, sized.settings())
    damaged = "{images: {}, training: {}, candidates: {yolov5n: set}}\n"
    for text in ("a: b\n", damaged):
        (tmp_path / "settings.yaml").write_text(text)
        with pytest.raises(UserError, match="not the settings of a study"):
            check_settings(tmp_path, plan_of(**given).settings())
