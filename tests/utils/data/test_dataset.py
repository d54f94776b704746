"""From annotations to batches: what a model sees is a function of (seed, epoch, index), and lies where the labels say."""

import os
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from engine.recipe.hyp import read_hyp
from tests.helpers.project import ROOT, assert_user_error
from tests.helpers.sets import make_set
from utils.boxes import scale_boxes, xywh2xyxy
from utils.data.config import index_split, read_data_yaml
from utils.data.dataset import EvalSet, TrainSet, batch_shapes, load_resized
from utils.data.image_cache import cached
from utils.data.loader import (
    EpochSampler,
    WorkerDied,
    collate,
    eval_loader,
    train_loader,
    watching_workers,
    worker_count,
)

HYP = read_hyp("hyp.scratch-high.yaml")


@pytest.fixture
def annotations(tiny_set):
    return index_split(read_data_yaml(tiny_set), "train").annotations


def batches(annotations, workers, epoch=3, seed=0, skip=0, hyp=HYP):
    sampler = EpochSampler(len(annotations), 3, seed)
    loader = train_loader(TrainSet(annotations, 64, hyp, seed), sampler, workers, pin=False)
    loader.batch_sampler.set_epoch(epoch, skip)
    return [(b.images.clone(), b.targets.clone(), b.paths) for b in loader]


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and a[2] == b[2] for a, b in zip(first, second, strict=True)
    )


def test_any_number_of_workers_gives_the_same_batches(annotations):
    alone = batches(annotations, 0)
    assert [len(paths) for *_, paths in alone] == [3, 3, 2]
    assert same(alone, batches(annotations, 1))
    assert same(alone, batches(annotations, 2))


def test_other_epochs_and_seeds_give_other_batches(annotations):
    assert not same(batches(annotations, 0), batches(annotations, 0, epoch=4))
    assert not same(batches(annotations, 0), batches(annotations, 0, seed=1))


def test_an_epoch_can_be_entered_in_the_middle(annotations):
    assert same(batches(annotations, 0)[2:], batches(annotations, 0, skip=2))


def test_persistent_workers_follow_the_epoch(annotations):
    sampler = EpochSampler(len(annotations), 3, seed=0)
    loader = train_loader(TrainSet(annotations, 64, HYP, 0), sampler, 2, pin=False)
    for epoch in (0, 3):
        loader.batch_sampler.set_epoch(epoch)
        seen = [(b.images.clone(), b.targets.clone(), b.paths) for b in loader]
    assert same(seen, batches(annotations, 0))


def test_persistent_workers_close_the_mosaics_by_the_epoch_alone(annotations):
    sampler = EpochSampler(len(annotations), 3, seed=0)
    loader = train_loader(TrainSet(annotations, 64, HYP, 0, mosaic_epochs=3), sampler, 2, pin=False)
    for epoch in (2, 3, 2, 4):
        loader.batch_sampler.set_epoch(epoch)
        seen = [(b.images.clone(), b.targets.clone(), b.paths) for b in loader]
        hyp = HYP if epoch < 3 else HYP | {"mosaic": 0.0}
        assert same(seen, batches(annotations, 0, epoch, hyp=hyp))
    assert not same(batches(annotations, 0, 4), seen)


def test_every_image_once_per_epoch_in_a_new_order():
    sampler = EpochSampler(10, 4, seed=0)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        keys = [key for batch in sampler for key in batch]
        assert {key.epoch for key in keys} == {epoch}
        orders.append([key.index for key in keys])
        assert sorted(orders[-1]) == list(range(10))
    assert orders[0] != orders[1] != orders[2]
    assert len(sampler) == 3


def test_global_random_state_does_not_matter(annotations):
    np.random.seed(1)
    torch.manual_seed(1)
    first = batches(annotations, 0)
    np.random.seed(2)
    torch.manual_seed(2)
    assert same(first, batches(annotations, 0))


@pytest.mark.parametrize("changes", [{"mosaic": 1.0, "mixup": 0.0}, {"mosaic": 0.0}, {"mosaic": 1.0, "mixup": 1.0}])
def test_training_boxes_lie_on_bright_shapes(annotations, changes):
    """The shapes are the only bright things in the pictures, so the inside of a box is brighter than the whole."""
    hyp = HYP | {"hsv_v": 0.0, "hsv_s": 0.0, "mosaic": 1.0, "mixup": 0.0} | changes
    dataset = TrainSet(annotations, 128, hyp)
    inside, overall, boxes = [], [], 0
    for index in range(len(annotations)):
        item = dataset[0, index]
        assert item.image.shape == (128, 128, 3) and item.image.dtype == np.uint8
        assert item.labels.shape[1] == 5 and (item.labels[:, 1:] >= 0).all() and (item.labels[:, 1:] <= 1).all()
        for x1, y1, x2, y2 in (xywh2xyxy(item.labels[:, 1:]) * 128).round().astype(int):
            if min(x2 - x1, y2 - y1) > 6:
                inside.append(item.image[y1:y2, x1:x2].mean())
                boxes += 1
        overall.append(item.image.mean())
    assert boxes > 10
    assert np.mean(inside) > np.mean(overall) + 40


def test_validation_items_lead_back_to_the_native_labels(tmp_path):
    data = read_data_yaml(make_set(tmp_path / "wide", val=3, size=(70, 200)))
    annotations = index_split(data, "val").annotations
    for rect in (True, False):
        dataset = EvalSet(annotations, 160, 2, rect=rect)
        for i in range(len(dataset)):
            item, annotation = dataset[i], dataset.annotations[i]
            height, width = item.image.shape[:2]
            boxes = xywh2xyxy(torch.from_numpy(item.labels[:, 1:])) * torch.tensor([width, height, width, height])
            native = scale_boxes(boxes, item.ratio, item.pad, item.native)
            expected = xywh2xyxy(annotation.labels[:, 1:]) * np.array([200, 70, 200, 70])
            np.testing.assert_allclose(native.numpy(), expected, atol=1e-3)
            assert (height, width) == ((96, 192) if rect else (160, 160))


def test_batch_shapes():
    # two wide, two mixed, two tall: padded by half a stride
    shapes = batch_shapes([0.5, 0.6, 0.9, 1.2, 1.5, 2.0], 640, 2, 32, 0.5)
    assert shapes == [(416, 672)] * 2 + [(672, 672)] * 2 + [(672, 448)] * 2


def test_batches_are_in_channels_last_memory(annotations):
    batch = next(iter(eval_loader(EvalSet(annotations, 64, 4), 4, 0, False)))
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert sorted(set(batch.targets[:, 0].tolist())) == [0, 1, 2, 3]


def test_a_batch_without_boxes(annotations):
    items = [EvalSet(annotations, 64, 4)[0]._replace(labels=np.zeros((0, 5), np.float32))]
    assert collate(items).targets.shape == (0, 6)


def test_worker_count_is_bounded_by_cores_and_batch():
    assert worker_count(0, 16) == 0
    assert worker_count(8, 1) == 0
    assert 1 <= worker_count(100, 100) <= 100
    assert worker_count(100, 100) == worker_count(1000, 1000)


class Deadly(torch.utils.data.Dataset):
    """Kills the process that asks for its third item."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(1)


def test_the_death_of_a_loading_process_is_told():
    with pytest.raises(WorkerDied, match="fewer --workers"), watching_workers():
        list(torch.utils.data.DataLoader(Deadly(), num_workers=1))


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), ConnectionRefusedError(), EOFError()])
def test_a_loading_process_that_died_while_it_handed_over_a_batch_is_told(error):
    with pytest.raises(WorkerDied, match="fewer --workers"), watching_workers():
        raise error


def test_other_errors_are_not_taken_for_the_death_of_a_loading_process():
    with pytest.raises(RuntimeError, match="shapes"), watching_workers():
        raise RuntimeError("shapes do not fit")


def test_samplers_of_several_processes_share_each_batch():
    whole = EpochSampler(10, 4, seed=3)
    parts = [EpochSampler(10, 4, seed=3, rank=r, processes=3) for r in range(3)]
    for batch, *shares in zip(whole, *parts, strict=True):
        seen = [key for share in shares for key in share]
        assert set(seen) == set(batch)
        assert all(shares)  # nobody is without work
        assert len(seen) == max(len(batch), 3)


SCRIPT = """
import multiprocessing, sys
sys.path.insert(0, {root!r})
multiprocessing.set_start_method("spawn", force=True)
import torch
from utils.data.loader import watching_workers
from utils.errors import exit_on_user_error

def run():
    with watching_workers():
        list(torch.utils.data.DataLoader([1, 2, 3, 4], num_workers=2))
        print("all loaded")

{guard}exit_on_user_error(run)
"""


def test_a_script_without_a_guard_is_told_so_where_processes_are_not_forked(tmp_path):
    file = tmp_path / "mine.py"
    for guard in ("", "if __name__ == '__main__': "):
        file.write_text(SCRIPT.format(root=str(ROOT), guard=guard))
        result = subprocess.run([sys.executable, file], capture_output=True, text=True, timeout=300)
        if guard:
            assert result.returncode == 0 and result.stdout == "all loaded\n", result.stderr
        else:
            assert_user_error(result, 'below `if __name__ == "__main__":`', "fewer --workers")


def test_kept_images_that_do_not_fit_are_made_anew(tmp_path, annotations):
    load = partial(load_resized, size=64, training=True)
    expected = [load(a.image)[0] for a in annotations]
    cached(load, annotations, 64, "disk", tmp_path / "kept", "train")
    files = sorted((tmp_path / "kept").iterdir())
    for content in (np.zeros((2, 2, 3), np.uint8), np.zeros((64, 64, 3)), np.array([{}], object), b"short"):
        for file in files:
            if isinstance(content, bytes):
                file.write_bytes(content)
            else:
                np.save(file, content)
        kept = cached(load, annotations, 64, "disk", tmp_path / "kept", "train")
        assert all((kept(a.image)[0] == image).all() for a, image in zip(annotations, expected, strict=True))
        assert sorted((tmp_path / "kept").iterdir()) == files
        assert all(np.load(file).shape[2] == 3 for file in files)
