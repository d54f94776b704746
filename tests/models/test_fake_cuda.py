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
    "torchvision/googlenet",
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
    return DetectionModel(
        read_yaml(path) | {"yaml_file": path.name, "width_multiple": 0.25, "depth_multiple": 0.33}, nc=2
    )


def assert_runs_on_cuda(model: DetectionModel) -> None:
    """A step in mixed precision, three views of test-time augmentation, and inference in half precision."""
    # layers may be coarser than the head's coarsest level
    side = max(int(model.stride.max()), 32)
    loss = model.detect.loss(read_hyp("hyp.scratch-low.yaml"), side)
    with fake_cuda():
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


def test_a_step_waits_for_nothing_but_the_finite_scale():
    """Loss, clipping, optimiser, scaler and average together: what is left is the scaler's own look at its gradients."""
    hyp = read_hyp("hyp.scratch-low.yaml")
    with fake_cuda():
        model = DetectionModel(small()).to("cuda").train()
        loss, ema = model.detect.loss(hyp, 64), ModelEMA(model)
        optimizer = build_optimizer(model, hyp, 2, 1)
        scaler = torch.amp.GradScaler("cuda")
        images = torch.rand(2, 3, 64, 64).to("cuda")
        before = model.model[0].conv.weight.detach().clone()
        with host_syncs() as waits:
            with torch.amp.autocast("cuda"):
                maps = model(images)
            scaler.scale(loss(maps, TARGETS)[0]).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            ema.update(model)
        assert not torch.equal(before, model.model[0].conv.weight)
        assert [wait.rpartition(" ")[2] for wait in waits] == ["aten._local_scalar_dense"]


def test_suppression_waits_three_times_an_image():
    # for the candidates, for those that are confident, and for those that stay
    predictions = torch.rand(2, 50, 8)
    predictions[..., :4] *= 64
    expected = non_max_suppression(predictions, 0.1, 0.5, multi_label=True)
    with fake_cuda(), host_syncs() as waits:
        found = non_max_suppression(predictions.to("cuda", non_blocking=True), 0.1, 0.5, multi_label=True)
        assert len(waits) == 2 * 3
        assert all(torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    "mix",
    [
        lambda here, there: here + there,
        lambda here, there: torch.cat((here, there)),
        lambda here, there: torch.stack((here.sum(), there.sum())),
        lambda here, there: there[here.long().abs().clamp(max=0)],
        lambda here, there: here.numpy(),
    ],
)
def test_the_pretended_device_refuses_what_cuda_does(mix):
    with fake_cuda():
        there = torch.randn(3)
        here = there.to("cuda")
        with pytest.raises((RuntimeError, TypeError)):
            mix(here, there)


def test_the_pretended_device_takes_what_cuda_does():
    with fake_cuda():
        there = torch.randn(3)
        here = there.to("cuda")
        assert torch.equal((here + there.sum()).cpu(), there + there.sum())
        assert torch.equal(here[torch.tensor([2, 0])].cpu(), there[[2, 0]])
        assert torch.zeros(2, device="cuda").device == torch.device("cuda", 0)
        here[1:].fill_(4)
        assert here.tolist() == [there[0].item(), 4, 4]


@pytest.mark.parametrize(
    ("wait", "count"),
    [
        (lambda x: x.sum().item(), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: x[x > 0], 1),
        (lambda x: (x > 0).nonzero(), 1),
        (lambda x: torch.tensor([1.0], device=x.device), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: x + torch.tensor(1.0), 0),
        (lambda x: torch.tensor([1.0]).to(x.device, non_blocking=True) + x.new_zeros(4), 0),
        (lambda x: x.where(x > 0, 0).sort(), 0),
    ],
)
def test_waits_are_counted(wait, count):
    with fake_cuda():
        x = torch.randn(4).to("cuda")
        with host_syncs() as waits:
            wait(x)
    assert len(waits) == count
    assert all(line.startswith("tests/models/test_fake_cuda.py:") for line in waits)
