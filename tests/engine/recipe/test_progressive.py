"""The plan of --progressive: sizes, epochs, batches and strengths by stage."""

import pytest

from engine.recipe.hyp import OPTIONAL, read_hyp
from engine.recipe.progressive import grown_batch, most_images, plan_stages, stage_at, stage_table
from tests.helpers.project import ROOT
from utils.errors import UserError

HYP = read_hyp("hyp.scratch-high.yaml")


def plan(count=4, epochs=100, imgsz=640, stride=32, batch_size=16, multiple=1, **hyp):
    return plan_stages(count, epochs, imgsz, stride, batch_size, HYP | {"progressive_batch": 64} | hyp, multiple)


@pytest.mark.parametrize(
    ("imgsz", "stride", "start", "sizes"),
    [
        (640, 32, 0.5, [320, 416, 544, 640]),
        (320, 32, 0.5, [160, 224, 256, 320]),
        (192, 32, 0.5, [96, 128, 160, 192]),
        (1280, 64, 0.5, [640, 832, 1088, 1280]),
        (640, 32, 0.2, [128, 288, 480, 640]),
        # two cells of the coarsest map at least
        (128, 32, 0.1, [64, 96, 96, 128]),
    ],
)
def test_sizes_grow_in_equal_steps_as_multiples_of_the_stride(imgsz, stride, start, sizes):
    assert [s.imgsz for s in plan(imgsz=imgsz, stride=stride, progressive_start=start)] == sizes


@pytest.mark.parametrize(
    ("count", "epochs", "last", "ends"),
    [
        (4, 100, 0, [25, 50, 75, 100]),
        (4, 15, 0, [4, 8, 11, 15]),
        (4, 16, 0.125, [5, 9, 14, 16]),
        (2, 10, 0.9, [1, 10]),
        # each stage has an epoch at least
        (4, 4, 0, [1, 2, 3, 4]),
        (4, 5, 1, [1, 2, 3, 5]),
        (3, 50, 0.001, [25, 49, 50]),
    ],
)
def test_stages_part_the_epochs(count, epochs, last, ends):
    stages = plan(count, epochs, progressive_last=last)
    assert [s.end for s in stages] == ends and [s.begin for s in stages] == [0, *ends[:-1]]
    assert [s.number for s in stages] == list(range(1, count + 1))
    for epoch in range(epochs):
        stage = stage_at(stages, epoch)
        assert stage.begin <= epoch < stage.end


def test_regularisation_grows_from_weak_to_the_given():
    stages = plan(progressive_weak=0.4)
    assert [s.strength for s in stages] == pytest.approx([0.4, 0.6, 0.8, 1.0])
    assert [s.hyp["mosaic"] for s in stages] == pytest.approx([0.4, 0.6, 0.8, 1.0])
    assert [s.hyp["scale"] for s in stages] == pytest.approx([0.36, 0.54, 0.72, 0.9])
    # from nothing, as in the paper
    assert [s.hyp["mixup"] for s in stages] == pytest.approx([0, 0.1 / 3, 0.2 / 3, 0.1])
    assert stages[-1].hyp == HYP | {"progressive_batch": 64, "progressive_weak": 0.4}
    unchanged = ("lr0", "box", "fliplr", "flipud", "close_mosaic", "label_smoothing", "anchor_t")
    assert all(s.hyp[name] == HYP[name] for s in stages for name in unchanged)


def test_batches_grow_as_images_shrink_up_to_a_limit():
    assert [s.batch_size for s in plan(batch_size=16)] == [64, 37, 22, 16]
    assert [s.batch_size for s in plan(batch_size=16, multiple=8)] == [64, 32, 16, 16]
    assert [s.batch_size for s in plan(batch_size=16, progressive_batch=40)] == [40, 37, 22, 16]
    assert [s.batch_size for s in plan(batch_size=128)] == [128] * 4
    assert grown_batch(6, 2.0, 64, 6) == 24
    assert [most_images(HYP, batch, "cuda") for batch in (16, 128)] == [64, 128]
    assert most_images(HYP, 16, "cpu") == 16
    assert most_images(HYP | {"progressive_batch": 40}, 16, "cpu") == 40


def test_without_the_flag_there_is_one_stage_which_changes_nothing():
    (stage,) = plan(0)
    assert (stage.begin, stage.end, stage.imgsz, stage.batch_size, stage.strength) == (0, 100, 640, 16, 1.0)
    assert stage.hyp == HYP | {"progressive_batch": 64}


def test_what_cannot_be_parted_is_told():
    with pytest.raises(
        UserError, match="--progressive 4: every stage needs an epoch at least, and there are 3; take more"
    ):
        plan(epochs=3)
    for changes in ({"imgsz": 64}, {"progressive_start": 1.0}):
        with pytest.raises(UserError, match="there is no size to begin with, in multiples of 32 from 64 px on"):
            plan(**changes)


def test_the_table_has_a_line_for_every_stage_and_a_column_for_what_is_given():
    head, *lines = stage_table(plan()).splitlines()
    assert head.split() == "stage epochs size batch strength mosaic mixup scale hsv_s".split()
    assert lines[0].split() == "1 0-24 320 64 33% 0.33 0 0.297 0.231".split()
    assert lines[-1].split() == "4 75-99 640 16 100% 1 0.1 0.9 0.7".split()
    assert stage_table(plan(epochs=4, mixup=0)).splitlines()[1].split()[:2] == ["1", "0"]


@pytest.mark.parametrize("page", ["train.md", "train.zh-CN.md"])
def test_the_plan_in_the_docs_is_what_is_printed(page):
    hyp = read_hyp("hyp.scratch-low.yaml")
    stages = plan_stages(4, 100, 640, 32, 16, hyp | {"progressive_batch": most_images(hyp, 16, "cpu")})
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert f"```text\n{stage_table(stages)}\n```" in text
    for name in ("progressive_start", "progressive_weak", "progressive_last", "progressive_batch"):
        assert f"| `{name}: {OPTIONAL[name]:g}` |" in text
