"""What a checkpoint of an unfinished run may hold: all else is one line that names the file, before anything is written."""

import os
import shutil

import pytest
import torch

import train
from engine.training import resume
from engine.training.options import CODE, TrainOptions
from engine.training.setup import set_up
from tests.helpers.descriptions import small
from tests.helpers.project import assert_user_error, command_here
from tests.helpers.sets import make_set
from tests.helpers.training import hyp_file, trainer_of
from utils.checkpoint import read_checkpoint, save_checkpoint
from utils.errors import UserError
from utils.yaml_file import write_yaml

NAN = float("nan")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """{optimizer: last.pt of a run that was stopped within its first epoch, before the gradients were applied}."""
    folder = tmp_path_factory.mktemp("stopped")
    data = make_set(folder / "set", train=4, val=2, size=(32, 32))
    write_yaml(folder / "small.yaml", {k: v for k, v in small(width_multiple=0.25).items() if k != "yaml_file"})
    found = {}
    for name in ("SGD", "AdamW"):
        changes = {"cfg": str(folder / "small.yaml"), "hyp": hyp_file(folder, nominal_batch=2, warmup_epochs=0.0)}
        trainer = trainer_of(data, folder, imgsz=32, batch_size=2, epochs=2, optimizer=name, name=name, **changes)
        trainer.train_epoch()
        trainer.log(None)
        trainer.state.epoch_done()
        parameter = next(trainer.learner.model.parameters())
        parameter.grad = torch.ones_like(parameter)
        trainer.save()
        found[name] = trainer.weights / "last.pt"
    return found


def changed(data: dict, way: str, value) -> dict:
    """A copy of ``data`` with another value, or without it (KeyError stands for that), where ``way`` leads."""
    key, _, rest = way.partition(" ")
    key = int(key) if key.isdigit() else key
    if isinstance(data, list):
        return [
            changed(part, rest, value) if rest and i == key else value if i == key else part
            for i, part in enumerate(data)
        ]
    if not rest and value is KeyError:
        return {k: v for k, v in data.items() if k != key}
    return {**data, key: changed(data[key], rest, value) if rest else value}


def resumed(file, folder, changes):
    """Take up the run of ``file`` as its checkpoint is with ``changes``, in a folder of its own."""
    data = read_checkpoint(file).training
    for way, value in changes.items():
        data = changed(data, way, value)
    last = folder / "run" / "weights" / "last.pt"
    last.parent.mkdir(parents=True)
    save_checkpoint(last, data)
    return set_up(TrainOptions.of({"resume": str(last), "device": "cpu", "workers": 0}))


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_an_unchanged_state_is_taken_up(name, stopped, tmp_path):
    run = resumed(stopped[name], tmp_path, {})
    saved = read_checkpoint(stopped[name]).training
    state = run.learner.optimizer.state_dict()["state"]
    for number, entries in saved["optimizer"]["state"].items():
        for key, value in entries.items():
            assert torch.equal(state[number][key], value)
    assert run.state.results == saved["results"] and run.folder == tmp_path / "run"


WRONG = {
    "earlier_epochs": [-1, "1", None],
    "epoch": [KeyError, -1, 1.5, "1", None, True],
    "batches_done": [-1, [1]],
    "last_update": [-2, NAN],
    "best_fitness": [NAN, "0.5", float("inf")],
    "best_epoch": [None, 2**70],
    "results": [None, {}, [1], [{}], [["1", "x"]], ["text"]],
    "results 0 epoch": ["1", KeyError],
    "results 0 train/obj_loss": ["1", None],
    "class_maps": [None, [0.5] * 3, torch.zeros(7), torch.tensor([NAN] * 3), torch.zeros(3).long()],
    "mean_losses": [torch.zeros(2), torch.tensor([1, NAN, 1.0])],
    "updates": [-1, "x"],
    "model": [KeyError, {}, None, {"a": torch.ones(1)}],
    "model model.0.conv.weight": [torch.zeros(3), KeyError, None, torch.zeros(8, 3, 3, 3).long()],
    "ema": [[1], {"a": torch.ones(1)}],
    "ema model.0.conv.weight": [torch.full((8, 3, 3, 3), NAN), 3],
    "optimizer": [[], {}, 5, {"state": {}, "param_groups": []}],
    "optimizer state": [None, [], {99: {}}, {-1: {}}, {"a": {}}],
    "optimizer state 0": [None, {}, {"momentum_buffer": torch.zeros(1)}],
    "optimizer state 1 momentum_buffer": [5, torch.zeros(2, 2), KeyError],
    "optimizer param_groups": [None, {}, [1, 2, 3]],
    "optimizer param_groups 0 lr": [NAN, -1.0, "0.1", KeyError],
    "optimizer param_groups 1 params": [[], [0], None, [torch.ones(3)] * 99],
    "scaler": [None, 5, {"scale": 1.0}, {"scale": "x"}],
    "gradients": [None, [1]],
    "gradients model.0.conv.weight": [torch.zeros(1), None, torch.full((8, 3, 3, 3), NAN)],
    "hyp": [None, {}, {"lr0": 1}],
    "hyp lr0": [NAN, "0.1", -1, None],
    "hyp nominal_batch": [0],
    "hyp mosaic": [2],
    "args": [None, [], "x"],
    "args epochs": [KeyError, 0, "3", 2.5, None],
    "args imgsz": [[32], 1, True],
    "args optimizer": ["Evil", 3],
    "args freeze": [[[1]], 7, "x", [None]],
    "args data": [7, None, ["x"]],
    "args seed": [-1, 2**64, 0.5],
    "args drop_path": ["x", 7],
    "args cos_lr": ["yes", 1, None],
    "args backbone_lr": [0, NAN],
    "names": [None, {}, ["a"], {0: "a"}, {0: 1, 1: [2]}, {0: "a", 1: "b" * 5000}],
    "yaml": [KeyError, None, [], {}],
    "yaml ch": [torch.ones(3), {1, 2}],
    "args albumentations": [torch.ones(3), 5],
    "yaml width_multiple": ["2", -1],
}


@pytest.mark.parametrize("way", WRONG)
def test_whatever_is_off_is_one_line_that_names_the_file(way, stopped, tmp_path):
    for number, value in enumerate(WRONG[way]):
        with pytest.raises(UserError) as caught:
            resumed(stopped["SGD"], tmp_path / str(number), {way: value})
        message = str(caught.value)
        assert "last.pt" in message or way == "names", (value, message)
        assert len(message) < 700 and message.isprintable(), (value, message)


def test_moments_of_another_optimiser_are_named(stopped, tmp_path):
    with pytest.raises(UserError, match=r"last.pt: optimizer.state\[0\]"):
        resumed(stopped["AdamW"], tmp_path, {"optimizer state 0": {"step": torch.tensor(1.0)}})


# Where it writes, and what it runs -----------------------------------------------------------------------------------------


def test_a_run_goes_on_in_the_folder_of_its_checkpoint_whatever_that_says(stopped, tmp_path):
    elsewhere = {"args project": str(tmp_path / "elsewhere"), "args name": "another", "args exist_ok": True}
    run = resumed(stopped["SGD"], tmp_path, elsewhere)
    assert run.folder == tmp_path / "run"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_a_checkpoint_outside_of_a_run_is_not_resumed(stopped, tmp_path, monkeypatch):
    shutil.copy(stopped["SGD"], tmp_path / "last.pt")
    monkeypatch.chdir(tmp_path)
    for path in ("last.pt", tmp_path / "last.pt"):
        with pytest.raises(UserError, match="weights/last.pt"):
            resume.find_resumable(path)
    assert os.listdir(tmp_path) == ["last.pt"]


@pytest.mark.parametrize("link", ["results.png", "weights/best.pt"])
def test_a_link_out_of_the_runs_folder_is_not_followed(link, stopped, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    last = tmp_path / "run" / "weights" / "last.pt"
    last.parent.mkdir(parents=True)
    shutil.copy(stopped["SGD"], last)
    (tmp_path / "run" / link).symlink_to(tmp_path / "mine.txt")
    with pytest.raises(UserError, match=f"{link}: is a link out of the run's folder"):
        resume.find_resumable(last)


def test_nothing_is_fetched_because_a_checkpoint_says_so(stopped, tmp_path):
    data = tmp_path / "far.yaml"
    names = list(read_checkpoint(stopped["SGD"]).names.values())
    url = "http://127.0.0.1:9/set.zip"
    write_yaml(data, {"path": str(tmp_path / "far"), "train": "a", "val": "a", "names": names, "download": url})
    with pytest.raises(UserError, match=f"on the command line, too: --data {data}"):
        resumed(stopped["SGD"], tmp_path, {"args data": str(data)})
    last = tmp_path / "run" / "weights" / "last.pt"
    with pytest.raises(UserError, match="127.0.0.1"):
        set_up(TrainOptions.of({"resume": str(last), "device": "cpu", "workers": 0, "data": str(data)}))


@pytest.mark.parametrize(("option", "saved"), [("plugins", ["evil.py"]), ("albumentations", "pipeline.yaml")])
def test_files_that_are_code_come_from_the_command_line(option, saved, stopped, tmp_path):
    file = saved[0] if option == "plugins" else saved
    (tmp_path / file).write_text("open('ran', 'w')")
    with pytest.raises(UserError, match=f"add --{option} {file}"):
        resumed(stopped["SGD"], tmp_path, {f"args {option}": saved})
    assert TrainOptions.of({option: saved}).as_words(*CODE) == [f"--{option}", file]
    own = resume.continued_options(
        TrainOptions.of({option: ["own"] if option == "plugins" else "own"}),
        read_checkpoint(tmp_path / "run" / "weights" / "last.pt"),
    )
    assert getattr(own, option) == (["own"] if option == "plugins" else "own")


def test_a_best_checkpoint_of_another_model_is_named_at_the_end(tiny_set, tmp_path):
    trainer = trainer_of(tiny_set, tmp_path)
    torch.save({"a": torch.ones(3)}, trainer.weights / "best.pt")
    with pytest.raises(UserError, match=r"best.pt: holds another model.*remove it"):
        trainer.finish()


def test_the_official_checkpoint_is_no_unfinished_run(yolov5n):
    result = command_here("train.py", "--resume", yolov5n)
    assert_user_error(result, "yolov5n.pt", "its training is finished")


def test_train_takes_no_sound_run_for_a_changed_one(stopped, tmp_path):
    """To the end, in the folder of the checkpoint."""
    last = tmp_path / "run" / "weights" / "last.pt"
    last.parent.mkdir(parents=True)
    shutil.copy(stopped["SGD"], last)
    assert train.run(resume=str(last), device="cpu", workers=0) == tmp_path / "run"
    assert "optimizer" not in read_checkpoint(last).training
