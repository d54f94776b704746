"""--progressive: sizes, augmentation, loss and stochastic depth by stage, and runs that are stopped within them."""

import re

import pytest
import torch

import train
from engine.training.options import TrainOptions
from engine.training.setup import set_up
from engine.training.trainer import Trainer
from tests.helpers.descriptions import with_row
from tests.helpers.sets import make_set
from tests.helpers.training import hyp_file, options, stopped_at
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
    learner, seen, numbers, gains, sizes, step = trainer.learner, [], [], [], [], trainer.learner.step
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
        sizes.append(learner.loss.anchors / anchors)
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
    # an object keeps to its anchor, while those of the model, by which it validates, stay at full size
    for found, size in zip(sizes[::2], (16, 24, 32), strict=True):
        torch.testing.assert_close(found, torch.full_like(anchors, size / 32))
    assert torch.equal(learner.model.detect.anchors, anchors)
    assert re.findall(r"^stage .*", capsys.readouterr().out, re.M) == [
        "stage 1 of 3: epochs 0-1 at 16 px, batch 6",
        "stage 2 of 3: epochs 2-3 at 24 px, batch 3",
        "stage 3 of 3: epochs 4-5 at 32 px, batch 2",
    ]


def test_a_run_killed_in_every_stage_ends_like_one_that_was_not(flags):
    flags |= {"recipe": "fast", "amp": "bf16", "noval": True}
    whole = train.run(**flags, name="whole")
    run = of(flags, name="killed")
    now = {"device": "cpu", "workers": 0}
    # within the first stage; after its last batch; between it and the next; within that, and within the last
    for epoch, batches in ((0, 1), (0, 2), (1, 0), (1, 3), (2, 4)):
        last = stopped_at(run, epoch, batches)
        saved = read_checkpoint(last).training
        assert (saved["epoch"], saved["batches_done"]) == (epoch, batches)
        now["cache"] = "ram" if epoch == 1 else ""
        run = Trainer(set_up(TrainOptions.of({"resume": str(last), **now})))
        assert (run.options.recipe, run.options.progressive, run.options.amp) == ("fast", 3, "bf16")
    killed = run.run()
    assert (killed / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    found, expected = (read_checkpoint(folder / "weights" / "last.pt") for folder in (killed, whole))
    assert all(torch.equal(found.model[key], value) for key, value in expected.model.items())
    assert found.training["hyp"] == expected.training["hyp"]


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


def test_rect_and_quads_and_image_weights_have_stages_too(flags):
    for changes, shape in (({"rect": True}, (2, 3, 16, 16)), ({"quad": True, "batch_size": 4}, (1, 3, 32, 32))):
        trainer = of(flags, **changes)
        trainer.enter_stage()
        batch = next(iter(trainer.data.train_loader))
        assert batch.images.shape[1:] == shape[1:] and len(batch.images) >= shape[0]
        assert trainer.data.train_loader.batch_sampler.batch_size % (4 if "quad" in changes else 1) == 0
    trainer = of(flags, image_weights=True)
    trainer.train_epoch()
    assert trainer.data.train_loader.batch_sampler.weights is not None


def test_mosaics_are_closed_in_the_last_epochs_of_any_stage(flags, tmp_path):
    trainer = of(flags, hyp=hyp_file(tmp_path, close_mosaic=2))
    trainer.state.epoch = 1
    trainer.enter_stage()
    images = trainer.data.train_loader.dataset
    assert (images.size, images.mosaic_epochs) == (24, 1)


def test_patience_waits_for_the_last_stage(flags):
    trainer = of(flags, epochs=30, patience=5)
    state = trainer.state
    assert [stage.begin for stage in trainer.stages] == [0, 10, 20]
    state.best_epoch = 2
    ended = []
    for state.epoch in range(30):
        ended.append(trainer.out_of_patience())
    assert ended.index(True) == 26 and all(ended[26:])
    plain = of(flags, progressive=0, epochs=30, patience=5)
    plain.state.best_epoch, plain.state.epoch = 2, 8
    assert plain.out_of_patience()


def test_what_does_not_go_together_is_told(flags):
    with pytest.raises(UserError, match="--progressive and --multi-scale: both set the size of images"):
        of(flags, multi_scale=True)
    with pytest.raises(UserError, match="--progressive 3: every stage needs an epoch at least, and there are 2"):
        of(flags, epochs=2)
    with pytest.raises(UserError, match="below --imgsz 32 there is no size to begin with, in multiples of 32"):
        of(flags, cfg="yolov5n.yaml")
    with pytest.raises(UserError, match="--progressive 1: must be 2 or more"):
        of(flags, progressive=1)


def test_the_plan_is_printed_and_validation_is_at_full_size(flags, capsys):
    folder = of(flags, epochs=6, noval=True).run()
    said = capsys.readouterr().out
    assert re.search(r"stage +epochs +size +batch +strength +mosaic .*\n +1 +0-1 +16 +6 +40% +0\.4 ", said)
    assert "--imgsz 32" in said.splitlines()[-1]
    (trained, validated) = (read_checkpoint(folder / "weights" / "last.pt").training[key] for key in ("args", "hyp"))
    assert (trained["progressive"], validated["progressive_batch"]) == (3, 6)


def test_another_leg_of_a_finished_run_is_at_full_size(flags):
    first = of(flags, noval=True).run() / "weights" / "last.pt"
    run = set_up(TrainOptions.of({"resume": str(first), "epochs": 5, "device": "cpu", "workers": 0}))
    assert (run.options.progressive, run.options.epochs, len(run.stages)) == (0, 2, 1)


def test_a_resumed_run_keeps_its_recipe(flags):
    trainer = of(flags, recipe="small", progressive=0)
    trainer.save()
    last = str(trainer.weights / "last.pt")
    resumed = set_up(TrainOptions.of({"resume": last, "device": "cpu", "recipe": "small"}))
    assert resumed.options.recipe == "small" and resumed.hyp == trainer.hyp
    assert resumed.learner.ema.tau == trainer.learner.ema.tau
    with pytest.raises(UserError, match="--recipe fast: .*is of the recipe small, and a resumed run keeps its own"):
        set_up(TrainOptions.of({"resume": last, "device": "cpu", "recipe": "fast"}))


def test_what_another_stage_loads_is_not_begun_on_before_it(flags):
    trainer = of(flags, epochs=6, workers=2)
    begun = []
    for _ in range(3):
        trainer.train_epoch()
        begun.append(trainer.begun and trainer.begun[0])
        trainer.state.epoch_done()
    assert begun == [1, None, 3]
