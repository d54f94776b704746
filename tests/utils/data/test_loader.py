"""Mosaics are made within groups of a batch: each file is read once for it, and whoever loads it, the batch is the same."""

from collections import Counter

import cv2
import numpy as np
import pytest
import torch

from engine.recipe.hyp import read_hyp
from tests.helpers.sets import make_set
from utils.data.config import index_split, read_data_yaml
from utils.data.dataset import TrainSet
from utils.data.loader import GROUP, EpochSampler, train_loader

HYP = read_hyp("hyp.scratch-high.yaml") | {"mixup": 0.5, "mosaic9": 0.3}


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    data = make_set(tmp_path_factory.mktemp("many") / "set", train=40, val=1)
    return index_split(read_data_yaml(data), "train").annotations


@pytest.fixture
def decoded(monkeypatch):
    """How often each file's content has been decoded."""
    counts, decode = Counter(), cv2.imdecode

    def counting(data, flags):
        counts[data.tobytes()] += 1
        return decode(data, flags)

    monkeypatch.setattr(cv2, "imdecode", counting)
    return counts


def loader_of(annotations, batch, workers=0, rank=0, processes=1, epoch=2, skip=0, weights=None, **changes):
    dataset = TrainSet(annotations, 64, HYP | changes, seed=5)
    sampler = EpochSampler(len(annotations), batch, 5, rank, processes)
    sampler.set_epoch(epoch, skip)
    sampler.weights = weights
    return train_loader(dataset, sampler, workers, pin=False)


def batches(*args, **settings):
    return [(b.images.clone(), b.targets.clone()) for b in loader_of(*args, **settings)]


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(first, second, strict=True)
    )


@pytest.mark.parametrize(("batch", "most"), [(16, 16), (19, 19), (36, 36), (4, 16), (1, 16)])
def test_a_file_is_decoded_once_for_all_mosaics_of_a_batch(batch, most, annotations, decoded):
    loader = iter(loader_of(annotations, batch))
    for _ in range(2):
        decoded.clear()
        images = next(loader).images
        assert set(decoded.values()) == {1}
        # with mixup nearly every image is made of more than four
        assert min(3, most) < len(decoded) <= most or len(images) < batch


def test_a_single_image_has_the_partners_of_a_large_batch(annotations, decoded):
    drawn = [len(images) for images, _ in batches(annotations, 1, mixup=0.0, mosaic9=0.0)]
    assert drawn == [1] * 40
    assert sum(decoded.values()) == 160


@pytest.mark.parametrize("batch", [1, 3, 16, 37])
def test_any_number_of_workers_and_any_start_gives_the_same_batches(batch, annotations):
    if batch == 1:
        annotations = annotations[:5]
    alone = batches(annotations, batch)
    assert same(alone, batches(annotations, batch, workers=2))
    assert same(alone[1:], batches(annotations, batch, skip=1))
    assert not same(alone, batches(annotations, batch, epoch=3))


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_together_load_the_batches_of_one(processes, annotations):
    whole = batches(annotations, 18)
    shares = [batches(annotations, 18, rank=r, processes=processes) for r in range(processes)]
    for number, (images, targets) in enumerate(whole):
        for rank, share in enumerate(shares):
            mine, boxes = share[number]
            assert torch.equal(mine, images[rank::processes])
            for i in range(len(mine)):
                expected = targets[targets[:, 0] == rank + i * processes, 1:]
                assert torch.equal(boxes[boxes[:, 0] == i, 1:], expected)


def test_groups_of_large_batches_stay_together():
    """In each of two or four processes, those of its own images are all it has to decode."""
    for processes in (1, 2, 4):
        for rank in range(processes):
            for batch in EpochSampler(256, 64, 0, rank, processes):
                assert {i for key in batch for i in key.group} == {key.index for key in batch}
                assert {len(key.group) for key in batch} == {GROUP}
                assert all(key.index in key.group for key in batch)


def test_small_batches_take_in_what_follows():
    sampler = EpochSampler(42, 4, 0)
    order = [i for batch in sampler.batches() for i in batch]
    for number, batch in enumerate(sampler):
        (group,) = {key.group for key in batch}
        # the last ones go on at the beginning
        assert list(group) == [*order, *order][number * 4 : number * 4 + GROUP]
    assert {len(key.group) for batch in EpochSampler(5, 4, 0) for key in batch} == {5}


def test_mosaics_of_drawn_images_are_of_drawn_images(annotations, decoded):
    """--image-weights: what isn't drawn is in no mosaic either; the same image many times over is no obstacle."""
    for count in (6, 1):
        weights = np.array([1.0] * count + [0.0] * (40 - count))
        decoded.clear()
        assert len(batches(annotations, 16, weights=weights)) == 3
        assert len(decoded) == count


def test_pictures_that_a_transform_makes_smaller_are_a_batch(annotations):
    def halved(image, labels, rng):
        return image[::2, ::2], labels

    dataset, sampler = TrainSet(annotations, 64, HYP, transform=halved), EpochSampler(8, 4, 0)
    plain = next(iter(train_loader(TrainSet(annotations, 64, HYP), sampler, 0, False)))
    batch = next(iter(train_loader(dataset, sampler, 0, False)))
    assert torch.equal(batch.images, plain.images[:, :, ::2, ::2]) and torch.equal(batch.targets, plain.targets)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert plain.images.is_contiguous(memory_format=torch.channels_last)


def test_an_image_is_what_it_is_in_its_batch(annotations):
    loader = loader_of(annotations, 16)
    keys, batch = next(iter(loader.batch_sampler)), next(iter(loader))
    for i in (0, 7, 15):
        np.testing.assert_array_equal(loader.dataset[keys[i]].image, batch.images[i].permute(1, 2, 0).numpy())
    # by epoch and index alone its partners are any
    assert loader.dataset[2, keys[0].index].image.shape == (64, 64, 3)
