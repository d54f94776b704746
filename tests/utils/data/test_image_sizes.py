"""Sides of images are rounded up to the stride by one rule."""

import math

import numpy as np
import pytest
import torch

from engine.recipe.image_size import scaled_at_random
from models.tta import scale_image
from utils.data.dataset import batch_shapes
from utils.data.images import fit_size, usable_imgsz


@pytest.mark.parametrize(
    ("size", "stride", "fitted"),
    [
        (64, 32, 64),
        (65, 32, 96),
        (1, 32, 32),
        (0, 32, 0),
        (531.2, 32, 544),
        (64.00001, 64, 128),
        (np.float64(90), 32, 96),
    ],
)
def test_a_size_is_rounded_up_in_silence(size, stride, fitted, capsys):
    assert fit_size(size, stride) == fitted
    assert type(fit_size(size, stride)) is int
    assert capsys.readouterr().out == ""


def test_every_size_becomes_the_next_multiple():
    for stride in (8, 32, 48, 64):
        for size in range(1, 2000):
            assert fit_size(size, stride) == min(m for m in range(0, 2100, stride) if m >= size)


def test_a_flag_that_does_not_fit_is_announced(capsys):
    assert usable_imgsz(96, 32) == 96
    assert capsys.readouterr().out == ""
    assert usable_imgsz(70, 32) == 96
    assert capsys.readouterr().out == "warning: --imgsz 70 is no multiple of the largest stride 32; 96 is used\n"


class Factor:
    """A generator that draws one number, always."""

    def __init__(self, factor: float):
        self.factor = factor

    def uniform(self, low: float, high: float) -> float:
        return min(max(self.factor, low), high)


@pytest.mark.parametrize(("factor", "shape"), [(0.5, (32, 64)), (1.0, (64, 96)), (1.2, (96, 128)), (1.5, (96, 160))])
def test_multi_scale_keeps_to_the_stride(factor, shape):
    assert scaled_at_random(torch.zeros(1, 3, 64, 96), 32, Factor(factor)).shape[2:] == shape


def test_multi_scale_leaves_one_cell_at_least():
    assert scaled_at_random(torch.zeros(1, 3, 1, 32), 32, Factor(0.5)).shape[2:] == (32, 32)


def test_augmented_inference_pads_to_the_stride():
    assert scale_image(torch.zeros(1, 3, 640, 480), 0.83, 32).shape[2:] == (544, 416)


def test_shapes_of_batches_are_those_of_stock():
    """For all strides of stock the one rule gives the very values of ceil(side × size / stride + padding) × stride."""
    rng = np.random.default_rng(0)
    for stride in (32, 64, 128):
        for aspect in rng.uniform(0.2, 1.0, 200):
            expected = math.ceil(aspect * 640 / stride + 0.5) * stride
            assert batch_shapes([aspect], 640, 1, stride, 0.5)[0][0] == expected
