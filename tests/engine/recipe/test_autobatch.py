"""The batch size that fits a device's memory."""

import pytest
import torch

from engine.recipe import autobatch
from engine.recipe.autobatch import largest_batch
from engine.training.options import TrainOptions
from engine.training.setup import set_up, try_steps
from engine.training.trainer import Trainer
from tests.helpers.training import options, trainer_of
from utils.device import OutOfMemory
from utils.errors import UserError


def test_the_largest_batch_that_fits():
    def measure(size):
        if size > 8:
            raise OutOfMemory("CUDA out of memory")
        return 100 + 30 * size

    assert largest_batch(measure, budget=1310) == 40
    assert largest_batch(measure, budget=200) == 3
    with pytest.raises(UserError, match="not even two images fit"):
        largest_batch(measure, budget=120)


def test_running_out_of_memory_is_known_by_the_name_of_every_release(monkeypatch):
    """PyTorch 2.4 has it in torch.cuda only."""
    monkeypatch.delattr(torch, "OutOfMemoryError")

    def measure(size):
        if size > 4:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return 10 * size

    assert largest_batch(measure, budget=90) == 9


def driver_of(monkeypatch, per_image: int, free: int) -> list[str]:
    """Let a driver stand in that has so many free bytes, of which a step takes some per image. The steps are real."""
    sizes = []

    def peak(call, _):
        images = []
        hook = torch.nn.modules.module.register_module_forward_pre_hook(
            lambda module, inputs: images.append(inputs[0].shape) if isinstance(module, torch.nn.Conv2d) else None
        )
        call()
        hook.remove()
        sizes.append(tuple(images[0]))
        return per_image * images[0][0]

    monkeypatch.setattr(autobatch, "free_memory", lambda _: free)
    monkeypatch.setattr(autobatch, "peak_memory", peak)
    return sizes


def test_a_measured_batch_size_trains_as_one_that_is_given(tiny_set, tmp_path, monkeypatch):
    """Stochastic depth draws from the global state, and BatchNorm counts: the measurement touches neither."""
    given = trainer_of(tiny_set, tmp_path, cfg="yolov5s_EfficientNetV2.yaml", batch_size=2)
    sizes = driver_of(monkeypatch, per_image=100, free=250)
    measured = trainer_of(tiny_set, tmp_path, cfg="yolov5s_EfficientNetV2.yaml", batch_size=-1)
    assert measured.options.batch_size == 2 and [size[0] for size in sizes] == [2, 4]
    for trainer in (given, measured):
        trainer.train_epoch()
    expected, found = (trainer.learner.state_dict() for trainer in (given, measured))
    for part in ("model", "ema", "gradients"):
        assert all(torch.equal(v, found[part][k]) for k, v in expected[part].items())
    assert given.state.last_update == measured.state.last_update


@pytest.mark.parametrize(("flags", "side"), [({}, 64), ({"multi_scale": True, "amp": "fp16"}, 96)])
def test_it_measures_the_largest_images_and_the_whole_step(flags, side, tiny_set, tmp_path, monkeypatch):
    sizes = driver_of(monkeypatch, per_image=100, free=350)
    done = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *args: done.append(1) or step(self, *args))
    run = set_up(TrainOptions.of(options(tiny_set, tmp_path, batch_size=-1, optimizer="AdamW", **flags)))
    assert [size[2:] for size in sizes] == [(side, side)] * len(sizes)
    # the weights change in both steps of each trial
    assert len(done) == 2 * len(sizes)
    assert run.learner.ema.updates == 0 and not run.learner.optimizer.state


def test_without_cuda_it_is_the_default(tiny_set, tmp_path, capsys):
    assert Trainer(set_up(TrainOptions.of(options(tiny_set, tmp_path, batch_size=-1)))).options.batch_size == 16
    assert "--batch-size -1 measures the memory of a CUDA device; on cpu it is 16" in capsys.readouterr().out


def test_the_generators_stand_where_they_stood(tiny_set, tmp_path):
    trainer = trainer_of(tiny_set, tmp_path)
    state = torch.get_rng_state()
    try_steps(trainer.learner.model, trainer.options, trainer.hyp, 2, 64, trainer.world, "off")
    assert torch.equal(torch.get_rng_state(), state)
