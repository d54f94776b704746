"""The losses of distillation, against figures worked out by hand."""

import math

import pytest
import torch

from utils.loss.distillation import (
    LEAST_SQUARE,
    SURE,
    answer_sums,
    bernoulli_divergence,
    channel_divergence,
    map_error,
    resampled_answers,
    resampled_maps,
)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_divergence_of_yes_or_no():
    found = bernoulli_divergence(torch.tensor([logit(0.5), logit(0.25)]), torch.tensor([logit(0.25), logit(0.25)]))
    # 1/4 ln(1/4 / 1/2) + 3/4 ln(3/4 / 1/2)
    assert found.tolist() == pytest.approx([0.25 * math.log(0.5) + 0.75 * math.log(1.5), 0], abs=1e-6)
    # no overflow where one is sure of the contrary
    assert bernoulli_divergence(torch.tensor([-80.0]), torch.tensor([80.0])).item() == pytest.approx(80)


def answers(*places: tuple[list[float], float, list[float]]) -> torch.Tensor:
    """Of one image and one anchor, the places in a row: box, objectness, classes, the last two as probabilities."""
    rows = [[*box, logit(objectness), *map(logit, classes)] for box, objectness, classes in places]
    return torch.tensor(rows).view(1, 1, 1, len(rows), -1)


def test_boxes_and_classes_count_by_the_objectness_of_the_teacher():
    teacher = answers(
        ([10, 10, 4, 4], 0.8, [0.25, 0.5]), ([30, 10, 4, 4], 0.5, [0.5, 0.5]), ([50, 10, 4, 4], 0.05, [0.5, 0.5])
    )
    # two boxes of 4 × 4 that share half of it; the same box; one far off, of which the teacher says that it is nothing
    student = answers(
        ([12, 10, 4, 4], 0.8, [0.5, 0.5]), ([30, 10, 4, 4], 0.25, [0.5, 0.5]), ([90, 90, 1, 9], 0.05, [0.9, 0.9])
    )
    (box, objectness, classes), weight = answer_sums(student, teacher)
    assert SURE == 0.1 and weight.item() == pytest.approx(1.3)
    # IoU 8 / 24, less the square of the distance by that of the diagonal of the hull, 6 × 4
    assert box.item() == pytest.approx(0.8 * (1 - (1 / 3 - 4 / 52)), rel=1e-5)
    quarter = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    half = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert objectness.item() == pytest.approx(half, rel=1e-5)
    assert classes.item() == pytest.approx(0.8 * quarter / 2, rel=1e-5)


def test_nothing_is_left_to_learn_where_both_say_the_same():
    torch.manual_seed(0)
    same = torch.randn(2, 3, 4, 5, 7)
    same[..., :4] = torch.rand(2, 3, 4, 5, 4) * 50 + 1
    sums, weight = answer_sums(same, same.clone())
    assert weight > 1 and sums.abs().max() < 1e-4


def test_divergence_of_channels():
    # the softmax of (4 ln 3, 0) by a temperature of 4 is 3/4, 1/4; that of (0, 0) is 1/2, 1/2; the second channel is the same
    teacher = torch.tensor([[[[4 * math.log(3), 0.0]], [[1.0, 2.0]]]])
    student = torch.tensor([[[[0.0, 0.0]], [[6.0, 7.0]]]])
    expected = 16 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2
    assert channel_divergence(student, teacher).tolist() == pytest.approx([expected], rel=1e-5)
    assert channel_divergence(teacher, teacher).tolist() == pytest.approx([0], abs=1e-6)


def test_error_of_maps_is_by_the_scale_of_the_teacher():
    teacher, made = torch.tensor([[[[3.0, 4.0]]], [[[0.0, 0.0]]]]), torch.tensor([[[[3.0, 2.0]]], [[[0.1, 0.1]]]])
    # 2² / (3² + 4²); of a teacher that says nothing by the least square
    assert map_error(made, teacher).tolist() == pytest.approx([4 / 25, 0.01 / LEAST_SQUARE])
    assert map_error(made * 7, teacher * 7)[0].item() == pytest.approx(4 / 25)


def test_of_several_places_the_surest_answers():
    grid = torch.arange(16.0).view(1, 4, 4, 1).repeat(1, 1, 1, 6)
    grid[0, :, :, 4] = torch.tensor([[0, 9, 1, 2], [3, 4, 5, 6], [8, 7, 0, 0], [1, 1, 0, 1.0]])
    small = resampled_answers(grid, (2, 2))
    assert small[0, :, :, 0].tolist() == [[1, 7], [8, 15]] and small[0, :, :, 4].tolist() == [[9, 6], [8, 1]]
    large = resampled_answers(small, (4, 4))
    assert large[0, :, :, 0].tolist() == [[1, 1, 7, 7], [1, 1, 7, 7], [8, 8, 15, 15], [8, 8, 15, 15]]
    assert resampled_answers(grid, (4, 4)) is grid


def test_maps_of_another_size():
    maps = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    assert resampled_maps(maps, (1, 1)).tolist() == [[[[4.0]]]] and resampled_maps(maps, (2, 2)) is maps
    assert resampled_maps(maps, (4, 4))[0, 0, 0].tolist() == [1.0, 1.5, 2.5, 3.0]
