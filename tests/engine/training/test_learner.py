"""A step of learning on a GPU: how often the host waits for it, and what it is told where something goes wrong.

The GPU is pretended, see tests/helpers/fake_cuda.py: nothing here says how fast anything is.
"""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine.recipe.ema import ModelEMA
from engine.training.setup import build_learner
from engine.training.trainer import Trainer
from models.yolo import DetectionModel
from tests.helpers.fake_cuda import CUDA, fake_cuda
from tests.helpers.syncs import host_syncs
from tests.helpers.training import hyp_file, trainer_of
from utils.device import OutOfMemory
from utils.errors import UserError


def on_cuda(trainer: Trainer, amp: str) -> Trainer:
    """Move a trainer of the CPU to the pretended device."""
    trainer.world = replace(trainer.world, device=CUDA)
    options, model, batches = trainer.options, trainer.learner.model.to(CUDA), len(trainer.data.train_loader)
    trainer.learner = build_learner(model, options, trainer.hyp, batches, trainer.data.imgsz, trainer.world, amp)
    return trainer


@pytest.mark.parametrize(("amp", "most"), [("off", 1), ("fp16", 2)])
def test_a_step_waits_for_the_device_once_or_twice(amp, most, tiny_set, tmp_path, monkeypatch):
    """All that the host needs it reads at once; with a loss scale PyTorch's scaler reads once more. A bar that shows the
    losses, the way of the targets to the device, and the average wait for nothing."""
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 0)
    trainer = trainer_of(tiny_set, tmp_path, hyp=hyp_file(tmp_path, nominal_batch=4), batch_size=4, epochs=2)
    with fake_cuda(), host_syncs() as found:
        on_cuda(trainer, amp)
        # at the usual scale the first gradients overflow, which takes one look more
        if amp == "fp16":
            trainer.learner.scaler = torch.amp.GradScaler("cuda", init_scale=16.0)
        found.clear()
        trainer.train_epoch()
    batches = trainer.state.batches_done
    assert batches == 2 and trainer.learner.ema.updates == 2
    assert trainer.state.mean_losses.device.type == "cpu" and trainer.state.mean_losses.isfinite().all()
    assert 0 < len(found) <= most * batches, found


class Calls(TorchDispatchMode):
    """Counts the operations that are asked for, by name."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func.overloadpacket))
        return func(*args, **(kwargs or {}))


def test_the_average_is_a_few_calls_and_the_same_to_the_bit():
    torch.manual_seed(0)
    model = DetectionModel("yolov5n.yaml", nc=2).train()
    ema = ModelEMA(model)
    expected = {k: v.clone() for k, v in ema.model.state_dict().items()}
    for _ in range(2):
        model(torch.rand(2, 3, 64, 64))
        for p in model.parameters():
            p.data += torch.randn_like(p)
        with Calls() as calls:
            ema.update(model)
        decay = ema.decay * (1 - torch.tensor(-ema.updates / ema.tau, dtype=torch.float64).exp().item())
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                expected[name].lerp_(value, 1 - decay)
            else:
                expected[name].copy_(value)
    assert [name for name in calls.names if "detach" not in name] == ["aten._foreach_lerp_", "aten._foreach_copy_"]
    assert all(torch.equal(v, expected[k]) for k, v in ema.model.state_dict().items())


def test_saved_gradients_are_brought_into_the_layout_of_the_weights(tiny_set, tmp_path):
    trainer = trainer_of(tiny_set, tmp_path)
    learner = trainer.learner
    for parameter in learner.model.parameters():
        parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape))
    saved = learner.state_dict()
    saved["gradients"] = {name: gradient.contiguous() for name, gradient in saved["gradients"].items()}
    learner.load_state_dict(saved)
    for name, parameter in learner.model.named_parameters():
        assert parameter.grad.stride() == parameter.stride(), name
        assert torch.equal(parameter.grad, saved["gradients"][name]), name


def test_nothing_is_computed_in_float64(tiny_set, tmp_path):
    """MPS has none."""

    class NoDouble(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            for tensor in found if isinstance(found, tuple | list) else [found]:
                assert not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.float64, func
            return found

    trainer = trainer_of(tiny_set, tmp_path, optimizer="AdamW", hyp=hyp_file(tmp_path, nominal_batch=4))
    with NoDouble():
        trainer.train_epoch()
        trainer.validate()
    assert trainer.learner.ema.updates == 2


@pytest.mark.parametrize("amp", ["off", "fp16"])
def test_running_out_of_memory_says_what_to_lower(amp, tiny_set, tmp_path):
    trainer = trainer_of(tiny_set, tmp_path, amp=amp)

    def no_memory(*_):
        raise OutOfMemory("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has")

    trainer.learner.loss = no_memory
    words = r"epoch 0, batch 0: CPU \(\d+ threads?\) is out of memory; lower --batch-size 4 or --imgsz 64"
    with pytest.raises(UserError, match=words) as error:
        trainer.guarded(trainer.train_epoch)
    assert (", or add --amp fp16" in str(error.value)) is (amp == "off")


@pytest.mark.parametrize(
    ("flags", "fixed"),
    [({}, True), ({"multi_scale": True}, False), ({"rect": True}, False), ({"deterministic": True}, False)],
)
def test_convolutions_are_tried_out_where_images_have_one_size(flags, fixed, tiny_set, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    # it would hold for what comes after, too
    monkeypatch.setattr("engine.training.setup.be_deterministic", lambda: None)
    trainer = trainer_of(tiny_set, tmp_path, **flags)
    seen = []

    def note(*_):
        seen.append(torch.backends.cudnn.benchmark)

    trainer.learner.model.register_forward_hook(note)
    trainer.learner.ema.model.register_forward_hook(note)
    trainer.train_epoch()
    trainer.validate()
    # two batches of training, then validation
    assert seen[:2] == [fixed] * 2 and len(seen) > 2 and not any(seen[2:])
