"""Test-time augmentation: three views, merged."""

import torch
from torch import nn

from models.yolo import DetectionModel
from tests.helpers.descriptions import small
from tests.helpers.models import random_statistics


def test_test_time_augmentation_merges_three_views():
    torch.manual_seed(0)
    model = random_statistics(DetectionModel(small())).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        plain, merged = model(image)[0], model(image, augment=True)[0]
        _, maps = model(image)
    first = maps[0][0, ..., 0].numel()
    # the first view without its coarsest level leads the result
    torch.testing.assert_close(merged[:, :first], plain[:, :first])
    sizes = [64, -(-64 * 0.83 // 8) * 8, -(-64 * 0.67 // 8) * 8]
    fine, coarse = [2 * (s / 4) ** 2 for s in sizes], [2 * (s / 8) ** 2 for s in sizes]
    assert merged.shape[1] == fine[0] + fine[1] + coarse[1] + coarse[2]


def test_the_flipped_view_is_flipped_back():
    class Constant(nn.Module):
        i, f = 0, -1
        stride = torch.tensor([32.0])

        def forward(self, x):
            box = torch.tensor([[[10.0, 20, 4, 6, 1, 1]]])
            return box.clone(), [torch.zeros(1, 1, 1, 1, 6)]

    model = DetectionModel(small()).eval()
    model.model = nn.Sequential(Constant())
    merged = model(torch.zeros(1, 3, 64, 64), augment=True)[0][0]
    expected = [
        [10, 20, 4, 6],
        [64 - 10 / 0.83, 20 / 0.83, 4 / 0.83, 6 / 0.83],
        [10 / 0.67, 20 / 0.67, 4 / 0.67, 6 / 0.67],
    ]
    torch.testing.assert_close(merged[:, :4], torch.tensor(expected))
