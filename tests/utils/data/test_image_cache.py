"""Caches of decoded images go to loading processes, forked or spawned as on Windows, without being copied."""

import multiprocessing
import pickle
import sys
from functools import partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from tests.helpers.training import trainer_of
from utils.data import image_cache
from utils.data.albument import make_transform
from utils.data.dataset import load_resized
from utils.data.image_cache import cached
from utils.data.labels import Annotation


@pytest.fixture(params=["spawn", "fork"])
def start_method(request):
    """How processes start others, as the system would have it."""
    if request.param not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system knows no {request.param}")
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


def test_loading_processes_are_handed_the_cache(start_method, tiny_set, tmp_path):
    read = trainer_of(tiny_set, tmp_path).data
    expected = [[batch.images for batch in loader] for loader in (read.train_loader, read.val_loader)]
    train = trainer_of(tiny_set, tmp_path, workers=2, cache="ram").data.train_loader
    val = trainer_of(tiny_set, tmp_path, workers=2, cache="disk").data.val_loader
    assert train.dataset.load.pixels.is_shared() == (start_method == "spawn")
    # what can still be loaded has been before
    for image in tiny_set.parent.glob("images/*/*.png"):
        image.unlink()
    for loader, images in zip((train, val), expected, strict=True):
        assert loader.num_workers > 0
        found = [batch.images for batch in loader]
        assert len(found) == len(images) > 0
        assert all(torch.equal(a, b) for a, b in zip(found, images, strict=True))


@pytest.mark.parametrize("shape", [(64, 96), (97, 61), (33, 100), (640, 427), (1000, 999)])
@pytest.mark.parametrize("size", [64, 100, 640])
def test_every_image_has_room_in_memory(shape, size, tmp_path):
    """As long as it has the size that was noted; one that has grown since is read anew."""
    path = str(tmp_path / "a.png")
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    cv2.imwrite(path, image)
    load = partial(load_resized, size=size, training=True)
    annotations = [Annotation(path, shape, np.zeros((0, 5), np.float32), []) for _ in range(2)]
    kept = cached(load, annotations, size, "ram", tmp_path, "train")
    expected = load(path)
    cv2.imwrite(path, image.transpose(1, 0, 2))
    assert np.array_equal(kept(path)[0], expected[0]) and kept(path)[1] == expected[1]
    annotations[0].shape = annotations[1].shape = (10, 1000)
    kept = cached(load, annotations, size, "ram", tmp_path, "train")
    assert np.array_equal(kept(path)[0], load(path)[0]) and kept(path)[1] == load(path)[1]


@pytest.mark.parametrize(("copies", "fits"), [(1, True), (4, False)])
def test_every_process_of_a_machine_needs_its_own_memory(copies, fits, tmp_path, monkeypatch, capsys):
    path = str(tmp_path / "a.png")
    cv2.imwrite(path, np.zeros((64, 64, 3), np.uint8))
    monkeypatch.setattr(image_cache, "available_memory", lambda: 64 * 64 * 3 * 3)
    load = partial(load_resized, size=64, training=True)
    annotations = [Annotation(path, (64, 64), np.zeros((0, 5), np.float32), [])]
    kept = image_cache.cached(load, annotations, 64, "ram", tmp_path, "train", copies)
    assert (kept is not load) == fits == ("--cache ram needs" not in capsys.readouterr().out)


class Pipeline:
    """Blackens an image: in the place of albumentations' own pipeline."""

    def __init__(self, steps, bbox_params):
        pass

    def set_random_seed(self, seed: int) -> None:
        pass

    def __call__(self, image, bboxes, classes) -> dict:
        return {"image": image * 0, "bboxes": bboxes, "classes": classes}


def test_albumentations_go_to_spawned_processes(monkeypatch):
    """A stand-in for the package, whose own pipelines can be pickled."""
    steps = dict.fromkeys(["Blur", "MedianBlur", "ToGray", "CLAHE", "BboxParams"], lambda **_: None)
    monkeypatch.setitem(sys.modules, "albumentations", SimpleNamespace(Compose=Pipeline, **steps))
    transform = pickle.loads(pickle.dumps(make_transform(None)))
    labels = np.array([[1, 0.5, 0.5, 0.2, 0.2]], np.float32)
    image, found = transform(np.ones((8, 8, 3), np.uint8), labels, np.random.default_rng(0))
    assert not image.any() and np.array_equal(found, labels)
