"""Every model on a CUDA device that tests/helpers/fake_cuda.py pretends: nothing is computed on two devices at once, and
neither a step nor an inference makes the host wait for the GPU."""

import pytest
import torch

from engine.recipe.ema import ModelEMA
from engine.recipe.hyp import read_hyp
from engine.recipe.optimizer import build_optimizer
from models.description.find import model_yamls
from models.load import use_half
from models.yolo import DetectionModel
from tests.helpers.descriptions import small
from tests.helpers.fake_cuda import FakeCuda, fake_cuda
from tests.helpers.syncs import host_syncs
from utils.boxes import non_max_suppression
from utils.yaml_file import read_yaml

NETWORKS = [
    "torchvision/mobilenet_v3_small",
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/mnasnet0_5",
    "torchvision/squeezenet1_1",
    "torchvision/regnet_y_400mf",
    "timm/mobilenetv4_conv_small_050",
    "timm/tf_efficientnet_lite0",
    "timm/ghostnet_050",
    "timm/repvgg_a0",
    "timm/pvt_v2_b0",
]
TARGETS = torch.tensor([[0, 0, 0.5, 0.5, 0.3, 0.3], [1, 1, 0.4, 0.4, 0.2, 0.5], [1, 0, 0.41, 0.4, 0.2, 0.5]])


def narrow(path) -> DetectionModel:
    """The rows of a model YAML, a third as deep and a quarter as wide."""
    return DetectionModel(read_yaml(path) | {"yaml_file": path.name, "width_multiple": 0.25, "depth_multiple": 0.33}, nc=2)


def assert_runs_on_cuda(model: DetectionModel) -> None:
    """A step in mixed precision, three views of test-time augmentation, and inference in half precision."""
    side = int(model.stride.max()) * 2
    loss = model.detect.loss(read_hyp("hyp.scratch-low.yaml"), side)
    with fake_cuda(values=False):
        model.to("cuda", memory_format=torch.channels_last)
        images = torch.rand(2, model.yaml["ch"], side, side).to("cuda").contiguous(memory_format=torch.channels_last)
        with host_syncs() as waits:
            with torch.amp.autocast("cuda"):
                maps = model.train()(images)
            total, items = loss(maps, TARGETS)
            total.backward()
            assert maps[0].dtype == torch.float16 and isinstance(items, FakeCuda)
            assert all(isinstance(p.grad, FakeCuda) for p in model.detect.parameters())
            with torch.no_grad():
                boxes = model.eval()(images, augment=True)[0]
                use_half(model)
                again = model(images)[0]
        assert waits == []
        assert isinstance(boxes, FakeCuda) and boxes.dtype == again.dtype == torch.float32


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in model_yamls()])
def test_every_yaml(path):
    assert_runs_on_cuda(narrow(path))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_by_name(name):
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    assert_runs_on_cuda(DetectionModel("yolov5n.yaml", nc=2, backbone=name))
