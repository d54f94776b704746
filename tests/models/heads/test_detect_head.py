"""Detect: where its biases start, and its anchors in the order of its strides."""

import torch

from models.heads.anchors import anchors_in_stride_order
from models.yolo import DetectionModel
from tests.helpers.descriptions import small


def test_biases_start_from_the_expected_number_of_objects():
    model = DetectionModel(small())
    for conv, stride in zip(model.detect.m, (4, 8), strict=True):
        bias = conv.bias.view(2, -1)
        fan_in = conv.weight.shape[1]
        assert torch.allclose(bias[:, 4].exp(), torch.tensor(8 / (640 / stride) ** 2), rtol=2 * fan_in**-0.5)
    assert model.stride.tolist() == [4, 8]
    torch.testing.assert_close(model.detect.anchors[0] * 4, torch.tensor([[10.0, 13], [16, 30]]))


def test_anchors_are_turned_to_the_order_of_the_strides():
    model = DetectionModel(small(head=[*small()["head"][:-1], [[4, 7], 1, "Detect", ["nc", "anchors"]]]))
    assert model.stride.tolist() == [8, 4]
    assert model.detect.anchors[0, 0].tolist() == [33 / 8, 23 / 8]


def test_order_follows_the_strides():
    anchors = torch.tensor([[[30.0, 30]], [[10, 10]]])
    assert anchors_in_stride_order(anchors, torch.tensor([8.0, 16])).flatten().tolist() == [10, 10, 30, 30]
    assert anchors_in_stride_order(anchors, torch.tensor([16.0, 8])).flatten().tolist() == [30, 30, 10, 10]


def test_boxes_of_fixed_sizes_are_the_same_to_the_bit():
    model = DetectionModel(small()).eval()
    keys = list(model.state_dict())
    images = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        expected, maps = model(images)
        model.detect.fix_sizes([raw.shape[2:4] for raw in maps])
        assert torch.equal(model(images)[0], expected)
    assert list(model.state_dict()) == keys
