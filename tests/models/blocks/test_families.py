"""Backbones written as rows are the published networks: with the weights of torchvision's or timm's, the same features."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import torchvision
from torch import nn

from models.flops import count_parameters
from models.yolo import DetectionModel
from tests.helpers.models import lively
from tests.helpers.project import ROOT
from utils.errors import UserError
from utils.yaml_file import read_yaml


class Network(NamedTuple):
    """A network that a YAML claims to be."""

    source: Callable[[], nn.Module]  # its feature extractor, from somebody else's library
    levels: dict[int, int]  # stride → child of the feature extractor whose output has it; the last is the deepest


def torchvision_features(name: str) -> nn.Module:
    return getattr(torchvision.models, name)().features


def shufflenet(name: str) -> nn.Module:
    net = getattr(torchvision.models, name)()
    return nn.Sequential(net.conv1, net.maxpool, net.stage2, net.stage3, net.stage4, net.conv5)


def timm_features(name: str) -> nn.Module:
    net = pytest.importorskip("timm").create_model(name)
    return nn.Sequential(net.conv_stem, net.bn1, getattr(net, "act1", nn.Identity()), *net.blocks)


NETWORKS = {
    "yolov5s_MobileNetV3-small": Network(lambda: torchvision_features("mobilenet_v3_small"), {8: 3, 16: 8, 32: 12}),
    "yolov5s_MobileNetV3-large": Network(lambda: torchvision_features("mobilenet_v3_large"), {8: 6, 16: 12, 32: 16}),
    "yolov5s_ShuffleNetV2-x0.5": Network(lambda: shufflenet("shufflenet_v2_x0_5"), {8: 2, 16: 3, 32: 5}),
    "yolov5s_ShuffleNetV2-x1.0": Network(lambda: shufflenet("shufflenet_v2_x1_0"), {8: 2, 16: 3, 32: 5}),
    "yolov5s_ShuffleNetV2-x1.5": Network(lambda: shufflenet("shufflenet_v2_x1_5"), {8: 2, 16: 3, 32: 5}),
    "yolov5s_ShuffleNetV2-x2.0": Network(lambda: shufflenet("shufflenet_v2_x2_0"), {8: 2, 16: 3, 32: 5}),
    "yolov5s_EfficientNet-B0": Network(lambda: torchvision_features("efficientnet_b0"), {8: 3, 16: 5, 32: 8}),
    "yolov5s_EfficientNetV2-S": Network(lambda: torchvision_features("efficientnet_v2_s"), {8: 3, 16: 5, 32: 7}),
    "yolov5s_GhostNet": Network(lambda: timm_features("ghostnet_100"), {8: 7, 16: 9, 32: 12}),
    "yolov5s_MobileNetV4-conv-small": Network(lambda: timm_features("mobilenetv4_conv_small"), {8: 4, 16: 5, 32: 7}),
}


def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    """The mapping: both networks list the same tensors of the same shapes in the order in which data flows."""
    theirs, ours = source.state_dict(), target.state_dict()
    shapes = [[tuple(t.shape) for t in tensors.values()] for tensors in (theirs, ours)]
    assert shapes[0] == shapes[1]
    target.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))


def features_by_stride(layers: nn.Sequential, image: torch.Tensor, taken: set[int]) -> dict[int, torch.Tensor]:
    found = {}
    with torch.no_grad():
        x = image
        for i, layer in enumerate(layers):
            x = layer(x)
            if i in taken:
                found[image.shape[2] // x.shape[2]] = x
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_backbone_is_the_published_network(name):
    torch.manual_seed(0)
    network = NETWORKS[name]
    source = network.source()
    image = torch.rand(2, 3, 128, 96)
    lively(source, image)
    model = DetectionModel(f"{name}.yaml").eval()
    rows = len(model.yaml["backbone"]) - 1  # all but SPPF, which belongs to YOLOv5
    backbone = model.model[:rows]
    assert count_parameters(backbone)[0] == count_parameters(source)[0]
    copy_in_order(source, backbone)

    # the levels that the neck takes: what its Concat rows name, and the last layer before SPPF
    taken = {s for row in model.rows if row.block == "Concat" for s in row.source_indices() if s < rows} | {rows - 1}
    ours = features_by_stride(backbone, image, taken)
    theirs = features_by_stride(source, image, set(network.levels.values()))
    assert sorted(ours) == sorted(theirs) == [8, 16, 32] == sorted(network.levels)
    for stride, features in theirs.items():
        assert (features[0] - features[1]).abs().max() > 0.01  # it is the image that they speak of
        assert (ours[stride] - features).abs().max() < 1e-4, stride


@pytest.mark.parametrize("name", ["yolov5s_EfficientNet-B0", "yolov5s_EfficientNetV2-S"])
def test_stochastic_depth_is_the_papers(name):
    ours = [m.drop_path.p for m in DetectionModel(f"{name}.yaml").modules() if hasattr(m, "drop_path")]
    source = [m.stochastic_depth.p for m in NETWORKS[name].source().modules() if hasattr(m, "stochastic_depth")]
    assert [p for p in ours if p] == pytest.approx([p for p, o in zip(source, ours, strict=True) if o])
    assert max(ours) > 0.15


def test_batchnorm_constants_are_stocks_except_where_the_yaml_says_otherwise():
    model = DetectionModel("yolov5s_EfficientNet-B0.yaml")
    constants = [
        {(m.eps, m.momentum) for m in layer.modules() if isinstance(m, nn.BatchNorm2d)} for layer in model.model
    ]
    backbone = len(model.yaml["backbone"])
    assert set().union(*constants[:backbone]) == {(1e-5, 0.03)}
    assert set().union(*constants[backbone:]) == {(1e-3, 0.03)}
    stock = DetectionModel("yolov5s_EfficientNetV2.yaml")
    assert {(m.eps, m.momentum) for m in stock.modules() if isinstance(m, nn.BatchNorm2d)} == {(1e-3, 0.03)}


@pytest.mark.parametrize("batchnorm", [1, {"epsilon": 1e-5}, {"eps": "1e-5"}, {"eps": 0.0}])
def test_batchnorm_constants_that_cannot_be(batchnorm):
    description = read_yaml(ROOT / "models" / "yolov5n.yaml") | {"batchnorm": batchnorm, "yaml_file": "my.yaml"}
    with pytest.raises(UserError, match=r"my.yaml: batchnorm is .* as in {eps: 1.0e-5, momentum: 0.1}"):
        DetectionModel(description)
