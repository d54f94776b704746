"""--progressive: sizes, augmentation, loss and stochastic depth by stage, and runs that are stopped within them."""

import re
from dataclasses import replace

import pytest
import torch

import train
from engine.training.options import TrainOptions
from engine.training.setup import set_up
from engine.training.trainer import Trainer
from tests.helpers.descriptions import with_row
from tests.helpers.sets import make_set
from tests.helpers.training import hyp_file, options, rows, stopped_at, trainer_of
from utils.checkpoint import read_checkpoint
from utils.errors import UserError
from utils.yaml_file import write_yaml

# of a model with stochastic depth in its two middle blocks, whose largest stride is 8
DROPS = [-1, 2, "FusedMBConv", [64, 3, 1, 2]]


@pytest.fixture
def flags(tmp_path):
    """Of a run of three stages of an epoch, at 16, 24 and 32 px: two, four and five batches of ten images."""
    data = make_set(tmp_path / "set", train=10, val=2, size=(32, 32))
    description = {k: v for k, v in with_row(2, DROPS).items() if k != "yaml_file"} | {"depth_multiple": 1.0}
    write_yaml(tmp_path / "small.yaml", description | {"width_multiple": 0.25})
    hyp = hyp_file(tmp_path, mixup=0.5, nominal_batch=4, warmup_epochs=0.0, progressive_batch=6, progressive_weak=0.4)
    given = {"cfg": str(tmp_path / "small.yaml"), "imgsz": 32, "batch_size": 2, "epochs": 3, "progressive": 3}
    return options(data, tmp_path, hyp=hyp, **given)


def of(flags, **changes) -> Trainer:
    return Trainer(set_up(TrainOptions.of(flags | changes)))


def test_every_stage_has_its_size_batch_augmentation_loss_and_depth(flags, capsys):
    trainer = of(flags, epochs=6, drop_path=0.5)
    learner, seen, numbers, gains, step = trainer.learner, [], [], [], trainer.learner.step
    anchors = learner.model.detect.anchors.clone()

    def note(images, targets, number, state):
        depth = max(m.p for m in learner.model.modules() if type(m).__name__ == "DropPath")
        hyp = trainer.data.train_loader.dataset.hyp
        seen.append((*images.shape[::3], hyp["mosaic"], hyp["mixup"], depth))
        numbers.append(number)
        return step(images, targets, number, state)

    learner.step = note
    while not trainer.done():
        trainer.train_epoch()
        gains.append(learner.loss.hyp["obj"])
        trainer.state.epoch_done()
    stages = [(16, 0.4, 0.0, 0.2), (24, 0.7, 0.25, 0.35), (32, 1.0, 0.5, 0.5)]
    batches = [[6, 4], [3, 3, 3, 1], [2, 2, 2, 2, 2]]
    expected = [(size, *stage) for sizes, stage in zip(batches, stages, strict=True) for size in sizes * 2]
    assert [row[:2] for row in seen] == [row[:2] for row in expected]
    for found, row in zip(seen, expected, strict=True):
        assert found == pytest.approx(row)
    # counted in batches of --batch-size, five an epoch: the rates and the images of an update are those of the schedule
    assert numbers == [2, 4, 7, 9, 11, 12, 14, 14, 16, 17, 19, 19, *range(20, 30)]
    # by the stock rule the gain of objectness follows the area
    assert gains[::2] == pytest.approx([gains[-1] * (size / 32) ** 2 for size in (16, 24, 32)])
    assert torch.equal(learner.model.detect.anchors, anchors)
    assert re.findall(r"^stage .*", capsys.readouterr().out, re.M) == [
        "stage 1 of 3: epochs 0-1 at 16 px, batch 6",
        "stage 2 of 3: epochs 2-3 at 24 px, batch 3",
        "stage 3 of 3: epochs 4-5 at 32 px, batch 2",
    ]


def test_a_run_stopped_in_any_stage_ends_like_one_that_was_not(flags):
    whole = train.run(**flags, name="whole")
    expected = read_checkpoint(whole / "weights" / "last.pt").model
    # within the first stage, at the end of the second, and within the last
    for epoch, batches in ((0, 1), (1, 4), (2, 3)):
        last = stopped_at(of(flags, name=f"stopped{epoch}"), epoch, batches)
        now = {"device": "cpu", "workers": 2 if epoch == 0 else 0, "cache": "ram" if epoch == 1 else ""}
        stopped = train.run(resume=str(last), **now)
        assert (stopped / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
        found = read_checkpoint(stopped / "weights" / "last.pt").model
        assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize("mode", ["ram", "disk"])
def test_a_cache_at_full_size_serves_the_smaller_ones(mode, flags):
    def batches(trainer):
        for trainer.state.epoch in range(3):
            trainer.enter_stage()
            trainer.data.train_loader.batch_sampler.set_epoch(trainer.state.epoch)
            yield from trainer.data.train_loader

    expected = list(batches(of(flags)))
    trainer = of(flags, cache=mode)
    for annotation in trainer.data.train:
        open(annotation.image, "wb").close()
    for a, b in zip(expected, batches(trainer), strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets)
    assert [b.images.shape[-1] for b in expected] == [16] * 2 + [24] * 4 + [32] * 5
