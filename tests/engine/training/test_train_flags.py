"""Every flag of train.py does what its help says: each test fails where the flag is without effect."""

import os
import sys
import warnings
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

import train
from engine.training.data import mosaic_epochs
from engine.training.setup import set_up
from engine.training.trainer import Trainer
from tests.helpers.project import assert_user_error, command_here
from tests.helpers.sets import make_set
from tests.helpers.training import hyp_file, options, rows, trainer_of
from utils.checkpoint import read_checkpoint
from utils.data.dataset import TrainSet
from utils.data.loader import collate_quad, image_weights
from utils.errors import UserError


def batches(trainer: Trainer, epoch: int = 0) -> list:
    trainer.data.train_loader.batch_sampler.set_epoch(epoch)
    return list(trainer.data.train_loader)


def mixed_set(root):
    """A set of six wide images, and the same ones on their side."""
    data = make_set(root, train=6, val=2, size=(32, 96))
    for file in sorted((root / "images" / "train").iterdir()):
        cv2.imwrite(str(file.with_name(f"tall{file.name}")), cv2.imread(str(file)).transpose(1, 0, 2))
        label = root / "labels" / "train" / f"{file.stem}.txt"
        turned = [f"{c} {y} {x} {h} {w}" for c, x, y, w, h in map(str.split, label.read_text().splitlines())]
        label.with_name(f"tall{label.name}").write_text("\n".join(turned))
    return data


def test_rect_pads_little_and_keeps_neighbours_together(tmp_path):
    data = mixed_set(tmp_path / "mixed")
    squares = batches(trainer_of(data, tmp_path, imgsz=96, batch_size=3))
    assert {tuple(b.images.shape[2:]) for b in squares} == {(96, 96)}
    trainer = trainer_of(data, tmp_path, imgsz=96, batch_size=3, rect=True)
    shapes = [tuple(b.images.shape[2:]) for b in batches(trainer)]
    assert sorted(shapes) == [(32, 96)] * 2 + [(96, 32)] * 2
    # in another order
    assert any([tuple(b.images.shape[2:]) for b in batches(trainer, e)] != shapes for e in (1, 2, 3))
    assert len({p for b in batches(trainer) for p in b.paths}) == 12
    trainer.train_epoch()


def test_quad_makes_batches_of_a_quarter_at_twice_the_size(tiny_set, tmp_path):
    plain, quad = (trainer_of(tiny_set, tmp_path, batch_size=8, quad=q) for q in (False, True))
    assert batches(plain)[0].images.shape == (8, 3, 64, 64)
    batch = batches(quad)[0]
    assert batch.images.shape == (2, 3, 128, 128)
    quad.train_epoch()
    with pytest.raises(UserError, match="multiple of 4"):
        trainer_of(tiny_set, tmp_path, batch_size=6, quad=True)


def test_quad_boxes_lie_where_their_images_lie(tiny_set, tmp_path):
    trainer = trainer_of(tiny_set, tmp_path, batch_size=4, hyp=hyp_file(tmp_path, mosaic=0.0, hsv_v=0.0))
    dataset = trainer.data.train_loader.dataset
    kinds = set()
    for epoch in range(6):
        items = [dataset[epoch, i] for i in range(4)]
        batch = collate_quad(items, seed=0)
        image = batch.images[0].permute(1, 2, 0).numpy()
        assert image.shape == (128, 128, 3)
        alone = len(batch.targets) == len(items[0].labels)
        kinds.add(alone)
        if not alone:
            np.testing.assert_array_equal(image[64:, :64], items[2].image)
            assert len(batch.targets) == sum(len(i.labels) for i in items)
        for _, _, x, y, w, h in (batch.targets * 128).round().int().tolist():
            box = image[max(y - h // 4, 0) : y + h // 4, max(x - w // 4, 0) : x + w // 4]
            if box.size > 75:
                assert box.mean() > 100  # the shapes are bright, the background is not
    assert kinds == {True, False}


def test_multi_scale_varies_the_size_of_batches(tiny_set, tmp_path, capsys):
    sizes = []
    for multi in (False, True):
        trainer = trainer_of(tiny_set, tmp_path, imgsz=128, multi_scale=multi, epochs=3)
        seen = set()
        trainer.learner.parallel.register_forward_pre_hook(lambda _, x, seen=seen: seen.add(tuple(x[0].shape[2:])))
        for trainer.state.epoch in range(3):
            trainer.state.batches_done = 0
            trainer.train_epoch()
        sizes.append(seen)
    assert sizes[0] == {(128, 128)}
    assert len(sizes[1]) > 2
    assert all(64 <= h <= 192 and h % 32 == 0 and h == w for h, w in sizes[1])


def test_image_weights_draw_what_is_found_badly(tiny_set, tmp_path):
    trainer = trainer_of(tiny_set, tmp_path, image_weights=True)
    annotations = trainer.data.train_loader.dataset.annotations
    for i, annotation in enumerate(annotations):  # class 1 in the first two images only
        annotation.labels = annotation.labels[:1] if i > 1 else annotation.labels
    odds = image_weights(annotations, np.array([0.9, 0.0]))
    assert odds[:2].min() > 20 * odds[2:].max() and odds.min() > 0
    trainer.state.class_maps = np.array([0.9, 0.0])
    trainer.train_epoch()
    drawn = np.concatenate([[key.index for key in batch] for batch in trainer.data.train_loader.batch_sampler])
    assert len(drawn) == 8 and (drawn < 2).mean() > 0.7
    with pytest.raises(UserError, match="--noval does not measure"):
        trainer_of(tiny_set, tmp_path, image_weights=True, noval=True)
    with pytest.raises(UserError, match="--rect fixes"):
        trainer_of(tiny_set, tmp_path, image_weights=True, rect=True)


@pytest.mark.parametrize("mode", ["ram", "disk"])
def test_cached_images_are_the_same_and_the_files_are_not_read_again(mode, tiny_set, tmp_path, capsys):
    expected = batches(trainer_of(tiny_set, tmp_path))
    trainer = trainer_of(tiny_set, tmp_path, cache=mode)
    for file in (tiny_set.parent / "images" / "train").iterdir():
        file.unlink()
    for a, b in zip(expected, batches(trainer), strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets)
    files = list((tiny_set.parent / "labels" / "train.images").glob("*.npy"))
    assert len(files) == (8 if mode == "disk" else 0)


def test_a_damaged_cache_file_is_made_up_for_by_the_image(tiny_set, tmp_path):
    expected = batches(trainer_of(tiny_set, tmp_path))
    trainer = trainer_of(tiny_set, tmp_path, cache="disk")
    for file in (tiny_set.parent / "labels" / "train.images").glob("*.npy"):
        file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(expected[0].images, batches(trainer)[0].images)


def test_a_cache_is_not_taken_for_another_size_or_image(tiny_set, tmp_path):
    trainer_of(tiny_set, tmp_path, cache="disk")
    fresh = batches(trainer_of(tiny_set, tmp_path, imgsz=96))
    cached = batches(trainer_of(tiny_set, tmp_path, imgsz=96, cache="disk"))
    assert torch.equal(fresh[0].images, cached[0].images)


def test_a_cache_that_does_not_fit_is_left_out(tiny_set, tmp_path, monkeypatch, capsys):
    import utils.data.image_cache

    monkeypatch.setattr(utils.data.image_cache, "available_memory", lambda: 1000)
    trainer = trainer_of(tiny_set, tmp_path, cache="ram")
    assert "--cache ram needs 0.0 GB in memory for the train images" in capsys.readouterr().out
    assert len(batches(trainer)) == 2


def test_noval_validates_the_last_epoch_only(tiny_set, tmp_path):
    figures = rows(train.run(**options(tiny_set, tmp_path, epochs=3, noval=True, patience=1)))
    assert [float(row["val/box_loss"]) > 0 for row in figures] == [False, False, True]


def test_nosave_writes_the_last_checkpoint_only(tiny_set, tmp_path):
    trainer = trainer_of(tiny_set, tmp_path, epochs=2, nosave=True)
    seen = []
    validate = trainer.validate

    def look_and_validate():
        seen.append(sorted(p.name for p in trainer.weights.iterdir()))
        return validate()

    trainer.validate = look_and_validate
    folder = trainer.run()
    assert seen == [[], []]
    assert (folder / "weights" / "last.pt").exists()
    assert "optimizer" not in read_checkpoint(folder / "weights" / "last.pt").training


def test_noplots_draws_nothing(tiny_set, tmp_path):
    folder = train.run(**options(tiny_set, tmp_path, noplots=True))
    assert not [p for p in folder.rglob("*") if p.suffix in (".jpg", ".png")]
    assert (folder / "results.csv").exists()


def test_drop_path_grows_with_depth(tiny_set, tmp_path):
    def rates(trainer):
        return [m.p for m in trainer.learner.model.modules() if type(m).__name__ == "DropPath"]

    cfg = "yolov5s_EfficientNetV2.yaml"
    assert len(set(rates(trainer_of(tiny_set, tmp_path, cfg=cfg)))) == 2  # as published: 0.2 where there is a residual
    trainer = trainer_of(tiny_set, tmp_path, cfg=cfg, drop_path=0.3)
    grown = rates(trainer)
    np.testing.assert_allclose(grown, np.linspace(0, 0.3, len(grown)))
    trainer.train_epoch()
    trainer.save()
    resumed = Trainer(set_up(replace(trainer.options, resume=str(trainer.weights / "last.pt"))))
    assert rates(resumed) == grown
    with pytest.raises(UserError, match="no block of yolov5n has stochastic depth"):
        trainer_of(tiny_set, tmp_path, drop_path=0.1)


def test_mosaic9_is_a_hyper_parameter(tiny_set, tmp_path):
    images = [batches(trainer_of(tiny_set, tmp_path, hyp=hyp_file(tmp_path, mosaic9=p)))[0] for p in (0.0, 1.0)]
    assert not torch.equal(images[0].images, images[1].images)
    assert len(images[1].targets) > 0


def test_close_mosaic_is_a_hyper_parameter(tiny_set, tmp_path, capsys):
    """The last epochs are to the bit those without mosaics, the first ones those of the plain run; one line says when."""

    def trainer(**hyp):
        return trainer_of(tiny_set, tmp_path, epochs=4, hyp=hyp_file(tmp_path, mixup=0.5, **hyp))

    plain, closing, without = trainer(), trainer(close_mosaic=2), trainer(mosaic=0.0)
    for epoch in range(4):
        expected = batches(plain if epoch < 2 else without, epoch)
        for a, b in zip(batches(closing, epoch), expected, strict=True):
            assert torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets)
    assert not torch.equal(batches(plain, 2)[0].images, batches(without, 2)[0].images)
    capsys.readouterr()
    for closing.state.epoch in range(4):
        closing.batches_left().close()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("close_mosaic")]
    assert lines == ["close_mosaic: from epoch 2 on without mosaics, mixup and copy-paste"]
    assert mosaic_epochs(closing.options, closing.hyp | {"close_mosaic": 9}) == 0
    # where there is none to close, nothing is said
    assert mosaic_epochs(plain.options, plain.hyp) is None
    assert mosaic_epochs(closing.options, closing.hyp | {"mosaic": 0.0}) is None
    assert mosaic_epochs(replace(closing.options, rect=True), closing.hyp) is None


def test_batch_size_on_a_cpu_has_a_word_and_a_number(tiny_set, tmp_path, capsys):
    trainer = trainer_of(tiny_set, tmp_path, batch_size=-1)
    assert trainer.options.batch_size == 16
    assert "--batch-size -1 measures the memory of a CUDA device; on cpu it is 16" in capsys.readouterr().out


def test_sync_bn_needs_cuda(tiny_set, tmp_path):
    with pytest.raises(UserError, match="BatchNorm between several CUDA processes only"):
        trainer_of(tiny_set, tmp_path, sync_bn=True)


@pytest.fixture
def restored_settings():
    """What --deterministic sets, as it was before, after the test."""
    cudnn = torch.backends.cudnn
    before = (
        torch.are_deterministic_algorithms_enabled(),
        cudnn.deterministic,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )
    yield
    torch.use_deterministic_algorithms(before[0])
    cudnn.deterministic = before[1]
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    if before[2] is not None:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = before[2]


def test_deterministic_warns_of_what_is_not(tiny_set, tmp_path, restored_settings):
    unordered = torch.nn.MaxUnpool2d(2)
    pooled, where = torch.nn.functional.max_pool2d(torch.rand(1, 1, 4, 4), 2, return_indices=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer_of(tiny_set, tmp_path)
        unordered(pooled, where)
    trainer = trainer_of(tiny_set, tmp_path, deterministic=True)
    with pytest.warns(UserWarning, match="does not have a deterministic implementation"):
        unordered(pooled, where)
    assert torch.backends.cudnn.deterministic
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    # a step has none of those on a CPU
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.train_epoch()


def test_tensorboard_gets_the_figures(tiny_set, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = train.run(**options(tiny_set, tmp_path, epochs=2))
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    written = [(e.step, e.value) for e in events.Scalars("metrics/mAP_0.5")]
    expected = [(int(r["epoch"]), pytest.approx(float(r["metrics/mAP_0.5"]), rel=1e-5)) for r in rows(folder)]
    assert written == expected


def test_albumentations_is_an_extra(tiny_set, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "albumentations", None)
    with pytest.raises(UserError, match="pip install 'albumentations"):
        trainer_of(tiny_set, tmp_path, albumentations="")


def test_albumentations_transforms_images_and_boxes(tiny_set, tmp_path):
    A = pytest.importorskip("albumentations")
    pipeline = A.Compose([A.HorizontalFlip(p=1.0), A.InvertImg(p=1.0)])
    file = tmp_path / "pipeline.yaml"
    A.save(pipeline, str(file), data_format="yaml")
    hyp = hyp_file(tmp_path, mosaic=0.0, fliplr=0.0)
    plain, changed = (
        trainer_of(tiny_set, tmp_path, hyp=hyp, albumentations=a).train_loader.dataset[0, 1] for a in (None, str(file))
    )
    np.testing.assert_array_equal(255 - plain.image[:, ::-1], changed.image)
    expected = plain.labels * [1, -1, 1, 1, 1] + [0, 1, 0, 0, 0]
    np.testing.assert_allclose(changed.labels, expected, atol=1e-5)


def test_labels_that_change_during_training_stop_it_and_lose_nothing(tiny_set, tmp_path):
    trainer = trainer_of(tiny_set, tmp_path, epochs=3)
    trainer.train_epoch()
    trainer.state.epoch, trainer.state.batches_done = 1, 0
    label = tiny_set.parent / "labels" / "train" / "3.txt"
    label.write_text("0 0.5 0.5 0.25 0.25\n")
    with pytest.raises(UserError, match=r"3\.txt: changed since the labels were read.*--resume"):
        trainer.guarded(trainer.train_epoch)
    assert read_checkpoint(trainer.weights / "last.pt").training["epoch"] == 1


def test_a_resumed_run_says_that_its_labels_are_others(tiny_set, tmp_path, capsys):
    trainer = trainer_of(tiny_set, tmp_path, epochs=3)
    trainer.train_epoch()
    trainer.save()
    last = str(trainer.weights / "last.pt")
    word = "are not those that this run began with"
    for expected in (False, True):
        set_up(replace(trainer.options, resume=last))
        assert (word in capsys.readouterr().out) is expected
        (tiny_set.parent / "labels" / "train" / "3.txt").write_text("0 0.5 0.5 0.25 0.25\n")


def test_a_gradient_that_is_no_number_stops_the_run_before_the_weights_are_spoilt(tiny_set, tmp_path):
    trainer = trainer_of(tiny_set, tmp_path, hyp=hyp_file(tmp_path, nominal_batch=4))
    trainer.train_epoch()
    trainer.state.epoch, trainer.state.batches_done = 1, 0
    trainer.save()
    weight = trainer.learner.model.model[0].conv.weight
    weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(UserError, match=r"epoch 1, batch 0: the gradient is nan.*--resume"):
        trainer.guarded(trainer.train_epoch)
    assert torch.isfinite(weight).all()
    saved = read_checkpoint(trainer.weights / "last.pt").training
    assert all(torch.isfinite(v).all() for v in saved["model"].values())


def test_stock_flags_are_all_there():
    flags = {o for action in train.build_parser()._actions for o in action.option_strings}
    stock = """--weights --cfg --data --hyp --epochs --batch-size --imgsz --img --img-size --rect --resume --nosave --noval
    --noautoanchor --noplots --evolve --resume_evolve --cache --image-weights --device --multi-scale --single-cls
    --optimizer --sync-bn --workers --project --name --exist-ok --quad --cos-lr --label-smoothing --patience --freeze
    --save-period --seed"""
    assert set(stock.split()) <= flags


def test_flags_that_contradict_each_other_are_one_line(tiny_set, tmp_path):
    result = command_here(
        "train.py", "--data", tiny_set, "--project", tmp_path / "runs", "--rect", "--quad", "--device", "cpu"
    )
    assert_user_error(result, "--rect and --quad")


def test_rect_set_is_sorted_by_aspect(tmp_path):
    data = mixed_set(tmp_path / "mixed")
    trainer = trainer_of(data, tmp_path, imgsz=96, batch_size=3)
    plain = trainer.data.train_loader.dataset
    rect = TrainSet(plain.annotations, 96, trainer.hyp, rect_batch=3)
    assert [a.shape for a in rect.annotations] == [(32, 96)] * 6 + [(96, 32)] * 6


def test_a_map_of_one_pixel_is_one_line(tmp_path):
    data = make_set(tmp_path / "set", train=1, val=1)
    with pytest.raises(UserError, match="smallest map of the model has one pixel here.*larger --imgsz"):
        train.run(**options(data, tmp_path, imgsz=32, batch_size=1))
