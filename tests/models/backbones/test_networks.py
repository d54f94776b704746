"""Networks by name: which name means which network, and what can be read from it."""

import sys

import pytest
import torch

from models.backbones.networks import create_classifier, describe, resolve_name
from models.flops import count_parameters
from utils.errors import UserError


@pytest.mark.parametrize(
    ("name", "resolved"),
    [
        ("efficientnet", "torchvision/efficientnet_b0"),
        ("efficientnet-b3", "torchvision/efficientnet_b3"),
        ("efficientnetv2_s", "torchvision/efficientnet_v2_s"),
        ("efficientnetv2_m", "torchvision/efficientnet_v2_m"),
        ("efficientnetv2_l", "torchvision/efficientnet_v2_l"),
        ("resnet50", "torchvision/resnet50"),  # timm has one, too: torchvision comes first
        ("timm/resnet50", "timm/resnet50"),
        ("darknet53", "timm/darknet53"),
        ("cspdarknet53", "timm/cspdarknet53"),
        ("mobilenetv4_conv_small", "timm/mobilenetv4_conv_small"),
        ("torchvision/efficientnet_v2_s", "torchvision/efficientnet_v2_s"),
    ],
)
def test_names(name, resolved):
    assert resolve_name(name) == resolved


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet51", ["backbone resnet51", "no such network", "resnet50"]),
        ("mobilenetv4_conv_smal", ["did you mean", "mobilenetv4_conv_small"]),
        ("torchvision/mobilenetv4_conv_small", ["no such network"]),
        ("hub/resnet50", ["torchvision/… or timm/…", "not from hub"]),
        ("fasterrcnn_resnet50_fpn", ["no such network"]),  # a detector of torchvision is no backbone
    ],
)
def test_unknown_names_list_the_nearest(name, words):
    with pytest.raises(UserError) as error:
        resolve_name(name)
    for word in words:
        assert word in str(error.value)


def test_without_timm_its_networks_are_offered_for_installation(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # what `import timm` finds where it is not installed
    with pytest.raises(UserError, match="pip install timm"):
        resolve_name("mobilenetv4_conv_small")
    with pytest.raises(UserError, match="pip install timm"):
        resolve_name("timm/resnet50")
    assert resolve_name("resnet18") == "torchvision/resnet18"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("efficientnetv2_s", 21_458_488), ("efficientnetv2_m", 54_139_356), ("efficientnetv2_l", 118_515_272)],
)
def test_the_papers_networks_have_the_papers_size(name, parameters):
    with torch.device("meta"):
        assert count_parameters(create_classifier(name))[0] == parameters


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18", [64, 128, 256, 512]),
        ("efficientnet_b0", [24, 40, 112, 320]),  # without the 1280 channels that only the classifier needs
        ("shufflenet_v2_x1_0", [24, 116, 232, 464]),
        ("mnasnet0_5", [16, 24, 48, 160]),
        ("densenet121", [256, 512, 1024, 1024]),
        ("swin_t", [96, 192, 384, 768]),
        ("timm/swin_tiny_patch4_window7_224", [96, 192, 384, 768]),
        ("timm/mobilenetv4_conv_small", [32, 64, 96, 960]),
        ("timm/cspdarknet53", [128, 256, 512, 1024]),
    ],
)
def test_channels_and_strides_of_the_levels(name, channels):
    levels = {k: level for k, level in describe(name).levels.items() if k != "P1"}
    assert list(levels) == ["P2", "P3", "P4", "P5"]
    assert [level.channels for level in levels.values()] == channels
    assert [level.stride for level in levels.values()] == [4, 8, 16, 32]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vit_b_16", ["torchvision/vit_b_16", "can't take images of 256×320"]),
        ("timm/vit_tiny_patch16_224", ["can't take images of 256×320"]),
        ("timm/vit_small_patch16_dinov3", ["no pyramid", "all have stride 16"]),
        ("timm/maxvit_tiny_tf_224", ["can't take images of 256×320", "window"]),
        ("alexnet", ["no pyramid of features"]),
        ("timm/mixer_s16_224", ["timm/mixer_s16_224"]),
    ],
)
def test_networks_that_cannot_be_backbones(name, words):
    with pytest.raises(UserError) as error:
        describe(name)
    for word in words:
        assert word in str(error.value)
