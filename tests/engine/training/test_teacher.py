"""Runs with --teacher: what they leave, how they go on, and what stops them before they begin."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import train
from engine.training.options import TrainOptions
from engine.training.setup import build_learner, set_up
from engine.training.trainer import Trainer
from tests.helpers.descriptions import small
from tests.helpers.fake_cuda import CUDA, fake_cuda
from tests.helpers.models import own_checkpoint
from tests.helpers.sets import make_set
from tests.helpers.syncs import host_syncs
from tests.helpers.training import hyp_file, options, rows, stopped_at
from utils.checkpoint import read_checkpoint, save_checkpoint
from utils.errors import UserError
from utils.results import NAMES, TAUGHT
from utils.yaml_file import write_yaml

NOW = {"device": "cpu", "workers": 0}
CLASSES = {0: "disc", 1: "rectangle"}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a set of four images, a small model's YAML, and two teachers of other widths, t.pt and u.pt."""
    folder = tmp_path_factory.mktemp("taught")
    make_set(folder / "set", train=4, val=2, size=(32, 32))
    for name, width in (("small", 0.25), ("t", 0.5), ("u", 0.75)):
        description = {k: v for k, v in small(width_multiple=width).items() if k != "yaml_file"}
        write_yaml(folder / f"{name}.yaml", description)
    for name in "tu":
        own_checkpoint(folder / f"{name}.pt", cfg=str(folder / f"{name}.yaml"), names=CLASSES)
    return folder


def flags(place: Path, tmp_path: Path, *teachers: str, gains=(1.0, 1.0), **changes) -> dict:
    """The flags of a small training of two epochs: an update every two of its four steps."""
    hyp = hyp_file(tmp_path, nominal_batch=4, warmup_epochs=0.0, distill_cwd=gains[0], distill_mgd=gains[1])
    files = [str(place / f"{name}.pt") for name in teachers]
    size = {"cfg": str(place / "small.yaml"), "imgsz": 32, "batch_size": 2, "epochs": 2, "hyp": hyp, "teacher": files}
    return options(place / "set" / "data.yaml", tmp_path, **size | changes)


def resumed(last: Path, **changes):
    return set_up(TrainOptions.of({"resume": str(last), **NOW, **changes}))


def assert_same(a, b, where: str = "") -> None:
    """Equal to the bit, through containers."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - {"date", "args"}:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, where


def test_a_run_that_is_stopped_goes_on_to_the_very_same_end(place, tmp_path):
    """With two teachers, images of changing size, and gradients and adapters in the middle of an update."""
    given = flags(place, tmp_path, "t", "u", multi_scale=True)
    whole = Trainer(set_up(TrainOptions.of(given | {"name": "whole"})))
    whole.fit()
    last = stopped_at(Trainer(set_up(TrainOptions.of(given | {"name": "part"}))), epoch=1, batches=1)
    saved = read_checkpoint(last).training
    assert {k.split(".")[1] for k in saved["adapters"]} == {"distill_cwd", "distill_mgd"}
    assert any(k.startswith("adapters.") for k in saved["gradients"]) and len(saved["teachers"]) == 2
    trainer = Trainer(resumed(last))
    trainer.fit()
    assert_same(*(read_checkpoint(t.weights / "last.pt").training for t in (whole, trainer)))
    # the adapters have learnt
    learnt = trainer.learner.pupil.adapters.state_dict()
    assert not any(torch.equal(v, learnt[k]) for k, v in saved["adapters"].items())
    files = [(t.folder / "results.csv").read_bytes() for t in (whole, trainer)]
    assert files[0] == files[1]


def test_stages_of_smaller_images_are_taught_as_well(place, tmp_path):
    """The student's anchors are smaller there, and so are what it learns from."""
    trainer = Trainer(set_up(TrainOptions.of(flags(place, tmp_path, "t", imgsz=64, progressive=2))))
    whole = trainer.learner.loss.anchors
    trainer.train_epoch()
    assert trainer.learner.loss.zoom == 0.5 and trainer.state.mean_losses[3] > 0
    assert trainer.learner.loss.anchors != whole
    trainer.state.epoch_done()
    trainer.train_epoch()
    assert trainer.learner.loss.zoom == 1 and trainer.learner.loss.anchors == whole


def test_what_is_left_is_the_student_alone(place, tmp_path, capsys):
    folder = train.run(**flags(place, tmp_path, "t"))
    said = capsys.readouterr().out
    assert f"taught by {place / 't.pt'}: t, " in said and "strides 4 8; distill_box 1, distill_obj 1, " in said
    (header,) = [line for line in said.splitlines() if line.split()[:2] == ["Epoch", "GPU_mem"]][:1]
    assert header.split() == "Epoch GPU_mem box_loss obj_loss cls_loss distill Instances Size".split()
    assert list(rows(folder)[0]) == [*NAMES, TAUGHT.name] and float(rows(folder)[1][TAUGHT.name]) > 0
    plain = train.run(**flags(place, tmp_path))
    assert list(rows(plain)[0]) == list(NAMES)
    for name in ("best.pt", "last.pt"):
        found, expected = (read_checkpoint(run / "weights" / name) for run in (folder, plain))
        assert found.model.keys() == expected.model.keys() and found.training.keys() == expected.training.keys()
        assert found.training["args"]["teacher"] == [str(place / "t.pt")]


def test_learning_without_a_teacher_knows_nothing_of_one(place, tmp_path):
    learner = set_up(TrainOptions.of(flags(place, tmp_path))).learner
    assert learner.pupil is None and learner.parallel is learner.model
    assert not {"adapters", "teachers"} & learner.state_dict().keys() and len(learner.optimizer.param_groups) == 3


def test_answers_alone_need_no_adapters(place, tmp_path):
    trainer = Trainer(set_up(TrainOptions.of(flags(place, tmp_path, "t", gains=(0.0, 0.0)))))
    trainer.train_epoch()
    assert not [*trainer.learner.pupil.adapters.parameters()] and trainer.state.mean_losses[3] > 0
    trainer.save()
    resumed(trainer.weights / "last.pt")


@pytest.mark.parametrize(("amp", "most"), [("off", 1), ("fp16", 2)])
def test_a_step_waits_for_the_device_no_more_often(amp, most, place, tmp_path):
    """All of the losses is read at once, as without teachers; these have their classes in another order."""
    run = set_up(TrainOptions.of(flags(place, tmp_path, "t", "u")))
    images, targets = torch.rand(2, 3, 32, 32), torch.tensor([[0, 1, 0.5, 0.5, 0.4, 0.4]])
    with fake_cuda(), host_syncs() as found:
        model, world = run.learner.model.to(CUDA), replace(run.world, device=CUDA)
        teachers = [replace(t, model=t.model.to(CUDA), columns=t.columns.to(CUDA)) for t in run.learner.pupil.teachers]
        learner = build_learner(model, run.options, run.hyp, 4, 32, world, amp, teachers)
        if amp == "fp16":
            learner.scaler = torch.amp.GradScaler("cuda", init_scale=16.0)
        learner.parallel.train()
        images = images.to(CUDA)
        found.clear()
        for number in range(2):
            run.state.last_update = number - learner.schedule.accumulate
            learner.step(images, targets, number, run.state)
    assert learner.ema.updates == 2 and 0 < len(found) <= 2 * most, found


@pytest.fixture(scope="module")
def stopped(place, tmp_path_factory) -> Path:
    """The last.pt of a run that t.pt teaches, before its first step."""
    folder = tmp_path_factory.mktemp("stopped")
    trainer = Trainer(set_up(TrainOptions.of(flags(place, folder, "t"))))
    trainer.save()
    return trainer.weights / "last.pt"


def copied(last: Path, tmp_path: Path, **changes) -> Path:
    folder = shutil.copytree(last.parents[1], tmp_path / "runs" / "copy")
    save_checkpoint(folder / "weights" / "last.pt", read_checkpoint(last).training | changes)
    return folder / "weights" / "last.pt"


def test_a_teacher_may_be_moved_and_must_be_there(place, stopped, tmp_path, capsys):
    args = read_checkpoint(stopped).training["args"]
    # the name of a checkpoint that would be fetched, were it given on the command line
    last = copied(stopped, tmp_path, args=args | {"teacher": ["yolov5n.pt"]})
    with pytest.raises(
        UserError, match="last.pt: was begun with --teacher yolov5n.pt, and there is no file yolov5n.pt; put it"
    ):
        resumed(last)
    moved = shutil.copy(place / "t.pt", tmp_path / "moved.pt")
    assert resumed(last, teacher=[str(moved)]).options.teacher == [str(moved)]
    assert "warning" not in capsys.readouterr().out
    other = str(tmp_path / "other.pt")
    own_checkpoint(other, cfg=str(place / "t.yaml"), names={0: "rectangle", 1: "disc"})
    weights = read_checkpoint(other).training
    weights["model"] = {k: v + 1 if v.is_floating_point() else v for k, v in weights["model"].items()}
    save_checkpoint(other, weights)
    resumed(last, teacher=[other])
    assert f"warning: --teacher {other}: not the weights that this run began with" in capsys.readouterr().out


def test_a_run_keeps_as_many_teachers_as_it_has(place, stopped, tmp_path):
    files = [str(place / "t.pt"), str(place / "u.pt")]
    with pytest.raises(UserError, match="of an unfinished run with 1 teachers, and here are 2; give as many, or begin"):
        resumed(stopped, teacher=files)
    args = {k: v for k, v in read_checkpoint(stopped).training["args"].items() if k != "teacher"}
    with pytest.raises(UserError, match="with 0 teachers, and here are 1; leave --teacher out, or begin a new run"):
        resumed(copied(stopped, tmp_path, args=args), teacher=files[:1])


@pytest.mark.parametrize(
    "changes",
    [
        *({"adapters": value} for value in (None, {}, {"a": 1}, {"a": torch.ones(1)})),
        *({"teachers": value} for value in (None, "x")),
        {"mean_losses": torch.zeros(3)},
        {"args": {"teacher": 3}},
        {"args": {"teacher": [None]}},
        {"args": {"teacher": ["/dev/zero"]}},
    ],
    ids=str,
)
def test_whatever_is_off_in_a_checkpoint_is_one_line(changes, stopped, tmp_path):
    if "args" in changes:
        changes = {"args": read_checkpoint(stopped).training["args"] | changes["args"]}
    with pytest.raises(UserError, match=r"last\.pt: "):
        resumed(copied(stopped, tmp_path, **changes))


def test_a_teacher_of_other_classes_stops_a_run_before_it_leaves_anything(place, tmp_path):
    own_checkpoint(place / "other.pt", cfg=str(place / "t.yaml"), names={0: "disc", 1: "cone"})
    with pytest.raises(
        UserError, match="other.pt: has other classes: it doesn't know rectangle; cone is not among those"
    ):
        train.run(**flags(place, tmp_path, "other"))
    with pytest.raises(UserError, match="none.pt: no such checkpoint"):
        train.run(**flags(place, tmp_path, "none"))
    assert not (tmp_path / "runs").exists()


def test_a_search_is_taught_in_every_training(place, tmp_path):
    folder = train.run(**flags(place, tmp_path, "t", evolve=1, epochs=1))
    assert len((folder / "evolve.csv").read_text().splitlines()) == 2
    assert "distill_box" in (folder / "hyp_evolve.yaml").read_text()
