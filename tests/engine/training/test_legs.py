"""A finished run is trained on by another leg: a run of its own, which begins with the averaged weights of the first."""

import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import train
from engine.training.options import TrainOptions
from engine.training.resume import find_earlier
from engine.training.setup import Run, set_up
from engine.training.trainer import Trainer
from tests.helpers.descriptions import small
from tests.helpers.sets import make_set
from tests.helpers.training import hyp_file, options, rows, stopped_at, trainer_of
from utils.checkpoint import read_checkpoint, save_checkpoint
from utils.distributed import World
from utils.errors import UserError
from utils.yaml_file import write_yaml

NOW = {"device": "cpu", "workers": 0}


def sizes(folder: Path) -> dict:
    """The flags of a small training, whose files are in ``folder``: two steps an epoch."""
    write_yaml(folder / "small.yaml", {k: v for k, v in small(width_multiple=0.25).items() if k != "yaml_file"})
    hyp = hyp_file(folder, nominal_batch=2, close_mosaic=1)
    return {"cfg": str(folder / "small.yaml"), "hyp": hyp, "imgsz": 32, "batch_size": 2, "seed": 5, "name": "first"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The last.pt of a run of two epochs over four images."""
    folder = tmp_path_factory.mktemp("finished")
    data = make_set(folder / "set", train=4, val=2, size=(32, 32))
    return train.run(**options(data, folder, epochs=2, **sizes(folder))) / "weights" / "last.pt"


def copied(last: Path, tmp_path: Path, **changes) -> Path:
    """The last.pt of a copy of that run, in tmp_path/runs/first, with ``changes`` of what it holds."""
    folder = shutil.copytree(last.parents[1], tmp_path / "runs" / "first")
    copy = folder / "weights" / "last.pt"
    if changes:
        save_checkpoint(copy, read_checkpoint(copy).training | changes)
    return copy


def leg(last: Path, epochs: int, **changes) -> Run:
    return set_up(TrainOptions.of({"resume": str(last), "epochs": epochs, **NOW, **changes}))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_leg_begins_with_the_averaged_weights_and_all_else_anew(finished, tmp_path, capsys):
    last = copied(finished, tmp_path)
    run = leg(last, 5)
    saved = read_checkpoint(last).model
    for model in (run.learner.model, run.learner.ema.model):
        found = model.state_dict()
        assert found.keys() == saved.keys()
        assert all(torch.equal(found[k], v.to(found[k].dtype)) for k, v in saved.items())
    assert run.learner.ema.updates == 0 and not run.learner.optimizer.state
    assert (run.state.earlier_epochs, run.state.epoch, run.state.results) == (2, 0, [])
    assert (run.state.best_fitness, run.state.last_update) == (-1, -1)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("another leg")]
    assert line == (
        f"another leg: 2 epochs were done; 3 more from the averaged weights of {last}, with a fresh optimiser, a warm-up of "
        f"100 steps and a schedule of their own; results in {tmp_path / 'runs' / 'first2'}"
    )


def test_a_leg_is_a_run_of_its_own_that_leaves_the_first_as_it_is(finished, tmp_path):
    last = copied(finished, tmp_path)
    first = last.parents[1]
    before = contents(first)
    folder = train.run(resume=str(last), epochs=5, **NOW)
    assert folder == tmp_path / "runs" / "first2" and contents(first) == before
    hyp, old_hyp, asked, old_asked = (
        yaml.safe_load((run / name).read_text()) for name in ("hyp.yaml", "opt.yaml") for run in (folder, first)
    )
    assert hyp.keys() == old_hyp.keys() and asked.keys() == old_asked.keys()
    assert {k: v for k, v in hyp.items() if v != old_hyp[k]} == {"warmup_epochs": 1.0, "warmup_bias_lr": 0.0}
    changed = {"epochs": 3, "seed": 6, "weights": str(last), "project": str(tmp_path / "runs")}
    assert {k: v for k, v in asked.items() if v != old_asked[k]} == changed
    # in the last of the two steps of each epoch, all within a warm-up of a hundred; the schedule is one of three epochs
    figures = rows(folder)
    assert [row["epoch"] for row in figures] == ["0", "1", "2"]
    for epoch, row in enumerate(figures):
        rate = hyp["lr0"] * ((1 - epoch / 3) * (1 - hyp["lrf"]) + hyp["lrf"]) * (2 * epoch + 1) / 100
        assert [float(row[f"x/lr{i}"]) for i in range(3)] == [pytest.approx(rate, rel=1e-4)] * 3


def test_the_pictures_of_a_leg_are_not_those_of_the_first_run(finished, tmp_path):
    """Nor would they be those of the run, had it been longer."""
    last = copied(finished, tmp_path)
    run = leg(last, 4)
    flags = read_checkpoint(last).training["args"] | {"project": str(tmp_path / "longer"), "epochs": 4}
    longer = set_up(TrainOptions.of(flags))
    assert run.data.train_loader.dataset.mosaic_epochs == 1 and longer.data.train_loader.dataset.mosaic_epochs == 3
    images = []
    for epoch, loader in ((0, run.data.train_loader), *((e, longer.data.train_loader) for e in range(4))):
        loader.batch_sampler.set_epoch(epoch)
        images += [image for batch in loader for image in batch.images]
    assert not any(torch.equal(image, other) for image in images[:4] for other in images[4:])


def test_a_leg_that_is_stopped_goes_on_to_the_same_end(finished, tmp_path):
    last = copied(finished, tmp_path)
    whole = train.run(resume=str(last), epochs=5, **NOW)
    stopped = stopped_at(Trainer(leg(last, 5)), epoch=1, batches=1)
    # --epochs is what it was at first, or left out
    assert leg(stopped, 5).state.batches_done == 1
    assert train.run(resume=str(stopped), device="cpu", workers=2) == tmp_path / "runs" / "first3"
    assert stopped.parents[1].joinpath("results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    for name in ("last.pt", "best.pt"):
        found, expected = (read_checkpoint(weights / name) for weights in (stopped.parent, whole / "weights"))
        assert all(torch.equal(found.model[k], v) for k, v in expected.model.items())
        assert found.training["earlier_epochs"] == expected.training["earlier_epochs"] == 2


def test_epochs_count_all_legs(finished, tmp_path):
    last = copied(finished, tmp_path)
    with pytest.raises(UserError, match=rf"--epochs 2: {last} has 2 epochs behind it, .*; give more than 2"):
        leg(last, 2)
    second = train.run(resume=str(last), epochs=3, **NOW) / "weights" / "last.pt"
    with pytest.raises(UserError, match="--epochs 3: .* has 3 epochs behind it"):
        leg(second, 3)
    with pytest.raises(UserError, match="its training is finished"):
        train.run(resume=str(second), **NOW)
    third = leg(second, 5)
    assert (third.options.epochs, third.options.seed, third.state.earlier_epochs) == (2, 7, 3)
    assert third.folder == tmp_path / "runs" / "first3"


def test_a_run_that_ended_early_goes_on_from_where_it_ended(finished, tmp_path):
    args = read_checkpoint(finished).training["args"] | {"epochs": 50, "patience": 1}
    run = leg(copied(finished, tmp_path, args=args), 3)
    assert (run.options.epochs, run.options.patience, run.state.earlier_epochs) == (1, 1, 2)


def test_an_unfinished_run_keeps_its_epochs(tmp_path):
    data = make_set(tmp_path / "set", train=4, val=2, size=(32, 32))
    trainer = trainer_of(data, tmp_path, epochs=3, **sizes(tmp_path))
    trainer.save()
    last = trainer.weights / "last.pt"
    with pytest.raises(UserError, match=f"--epochs 4: {last} is of an unfinished run of 3 epochs.*leave --epochs out"):
        leg(last, 4)
    assert leg(last, 3).folder == trainer.folder


def test_a_run_without_epochs_has_a_hundred(tmp_path):
    data = make_set(tmp_path / "set", train=4, val=2, size=(32, 32))
    assert trainer_of(data, tmp_path, **sizes(tmp_path) | {"epochs": None}).options.epochs == 100


def test_what_was_not_trained_here_has_no_other_leg(yolov5n):
    with pytest.raises(UserError, match=r"yolov5n.pt: doesn't say how it was trained; .* --weights"):
        leg(yolov5n, 5)


# Where it writes, and what it runs -----------------------------------------------------------------------------------------


def test_a_leg_lies_where_the_command_line_says_whatever_the_checkpoint_does(finished, tmp_path):
    args = read_checkpoint(finished).training["args"]
    elsewhere = {"project": str(tmp_path / "elsewhere"), "name": "another", "exist_ok": True}
    last = copied(finished, tmp_path, args=args | elsewhere)
    before = contents(last.parents[1])
    assert leg(last, 3).folder == tmp_path / "runs" / "first2"
    assert leg(last, 3, name="first", exist_ok=True).folder == tmp_path / "runs" / "first3"
    assert leg(last, 3, name="mine").folder == tmp_path / "runs" / "mine"
    assert leg(last, 3, project=str(tmp_path / "p")).folder == tmp_path / "p" / "first"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p", "runs"] and contents(last.parents[1]) == before


def test_code_is_named_on_the_command_line(finished, tmp_path):
    args = read_checkpoint(finished).training["args"] | {"plugins": ["evil.py"]}
    with pytest.raises(UserError, match="last.pt: was begun with blocks of your own.*add --plugins evil.py"):
        leg(copied(finished, tmp_path, args=args), 3)


def test_a_checkpoint_in_no_runs_folder_has_no_place_beside_it(finished, tmp_path):
    shutil.copy(finished, tmp_path / "last.pt")
    with pytest.raises(UserError, match="move the file to its weights/"):
        leg(tmp_path / "last.pt", 3)
    assert os.listdir(tmp_path) == ["last.pt"]


@pytest.mark.parametrize(
    "changes",
    [
        *({"epoch": value} for value in (-1, "2", None)),
        *({"earlier_epochs": value} for value in (-1, 0.5, None)),
        *({"args": value} for value in (None, [], {"seed": "x"}, {"batch_size": 0})),
        *({"hyp": value} for value in (None, {}, {"lr0": 1})),
        *({"names": value} for value in (None, ["a"], {0: 1, 1: [2]})),
        *({"model": value} for value in (None, {}, {"a": torch.ones(1)})),
    ],
    ids=str,
)
def test_whatever_is_off_is_one_line_before_anything_is_written(changes, finished, tmp_path):
    last = copied(finished, tmp_path, **changes)
    with pytest.raises(UserError) as caught:
        leg(last, 3)
    assert "last.pt" in str(caught.value) and len(str(caught.value)) < 700
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["first"]


@pytest.mark.parametrize("alike", [False, True])
def test_a_restart_by_torchrun_goes_on_with_the_leg_that_it_began(alike, finished, tmp_path, monkeypatch):
    """``alike``: the finished run was started by a launch of the same name, as may be in containers."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "launch")
    last = copied(finished, tmp_path, launch=World().launch if alike else "")
    asked = TrainOptions.of({"resume": str(last), "epochs": 4, **NOW})
    assert find_earlier(asked, World(restarted=True))[0] == last
    trainer = Trainer(set_up(asked))
    trainer.save()
    assert find_earlier(asked, World(restarted=True))[0] == trainer.weights / "last.pt"
    assert find_earlier(asked, World())[0] == last
