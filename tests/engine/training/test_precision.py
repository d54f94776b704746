"""Mixed precision: what --amp stands for, that it learns, is found out where it is broken, and is kept by a resume."""

from dataclasses import replace

import pytest
import torch

import train
from engine.training import precision
from engine.training.options import TrainOptions
from engine.training.precision import choose_precision, mixed, mixed_fault
from engine.training.setup import set_up
from engine.training.trainer import Trainer
from models.yolo import DetectionModel
from tests.helpers.training import hyp_file, options, trainer_of
from utils.checkpoint import read_checkpoint, save_checkpoint
from utils.distributed import World
from utils.errors import UserError

CPU, CUDA, MPS = map(torch.device, ("cpu", "cuda", "mps"))


@pytest.fixture
def model() -> DetectionModel:
    torch.manual_seed(0)
    return DetectionModel("yolov5n.yaml", nc=2)


def nonsense_in_half(model: DetectionModel) -> DetectionModel:
    """Stands for GPUs such as the GTX 16xx, whose convolutions in float16 give NaN."""
    model.model[4].register_forward_hook(
        lambda _, inputs, out: out * float("nan") if out.dtype != torch.float32 else out
    )
    return model


@pytest.mark.parametrize(("amp", "scaled"), [("bf16", False), ("fp16", True)])
def test_it_trains_close_to_full_precision(amp, scaled, tiny_set, tmp_path):
    """Float16 on the CPU goes the way of CUDA, loss scale and all."""
    losses, kinds = [], []
    for name in ("off", amp):
        trainer = trainer_of(tiny_set, tmp_path, amp=name)
        trainer.learner.model.model[2].register_forward_hook(lambda _, inputs, out: kinds.append(out.dtype))
        trainer.train_epoch()
        losses.append(trainer.state.mean_losses)
        assert all(p.isfinite().all() and p.dtype == torch.float32 for p in trainer.learner.model.parameters())
        assert trainer.learner.ema.updates > 0
    assert trainer.learner.scaler.is_enabled() is scaled
    assert kinds == [torch.float32] * 2 + [{"bf16": torch.bfloat16, "fp16": torch.float16}[amp]] * 2
    torch.testing.assert_close(losses[0], losses[1], rtol=0.05, atol=0)
    assert not torch.equal(losses[0], losses[1])


def test_bfloat16_on_the_cpu_learns(tiny_set, tmp_path):
    still = dict.fromkeys(("mosaic", "translate", "scale", "fliplr", "hsv_h", "hsv_s", "hsv_v", "warmup_epochs"), 0.0)
    hyp = hyp_file(tmp_path, **still, nominal_batch=8, lr0=0.005)
    trainer = trainer_of(tiny_set, tmp_path, amp="bf16", batch_size=8, epochs=40, hyp=hyp, optimizer="AdamW")
    losses = []
    for _ in range(15):
        trainer.train_epoch()
        losses.append(float(trainer.state.mean_losses.sum()))
        trainer.state.epoch_done()
    assert max(losses[-3:]) < 0.5 * losses[0]


def test_off_enters_no_autocast(monkeypatch, tiny_set, tmp_path):
    """PyTorch 2.4 has none for MPS, and raises even where it is not enabled."""

    def refuse(*_, **__):
        raise RuntimeError("User specified an unsupported autocast device_type 'mps'")

    monkeypatch.setattr(torch.amp, "autocast", refuse)
    trainer_of(tiny_set, tmp_path, amp="off").train_epoch()
    with pytest.raises(RuntimeError), mixed(CPU, "bf16"):
        pass


def test_a_trial_finds_nothing_wrong_where_nothing_is(model):
    before, drawn = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    assert [mixed_fault(model, 64, CPU, name) for name in ("off", "bf16", "fp16")] == ["", "", ""]
    # it is a trial on a copy, which draws nothing
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()) and not model.model[0].conv.weight.grad
    assert torch.equal(torch.get_rng_state(), drawn)


def test_a_trial_finds_values_that_are_no_numbers_and_such_as_are_wrong(model):
    assert mixed_fault(nonsense_in_half(model), 64, CPU, "fp16") == "fp16 gives values here that are no numbers"
    wrong = DetectionModel("yolov5n.yaml", nc=2)
    wrong.detect.m[0].register_forward_hook(lambda _, inputs, out: -out if out.dtype == torch.float16 else out)
    assert "off float32 here" in mixed_fault(wrong, 64, CPU, "fp16")


def test_auto_is_float16_on_cuda_and_off_where_that_is_broken(model, monkeypatch, capsys):
    """The trial runs on the CPU, which stands for the GPU there."""
    trial = mixed_fault
    monkeypatch.setattr(precision, "mixed_fault", lambda model, imgsz, _, name: trial(model, imgsz, CPU, name))
    world = World(device=CUDA)
    assert choose_precision("auto", model, 64, world) == "fp16"
    assert not capsys.readouterr().out
    assert choose_precision("auto", nonsense_in_half(model), 64, world) == "off"
    assert capsys.readouterr().out == "--amp auto: mixed precision is off: fp16 gives values here that are no numbers\n"
    # a resumed run keeps to what it began in, unless it began on another kind of device
    assert choose_precision("auto", model, 64, world, "cuda fp16") == "fp16"
    assert choose_precision("auto", model, 64, world, "cpu bf16") == "off"
    assert choose_precision("off", model, 64, world, "cuda fp16") == "off"


@pytest.mark.parametrize("there", [True, False])
def test_bfloat16_on_cuda_where_the_gpu_has_it(there, model, monkeypatch):
    """The answers of a driver."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: there)
    monkeypatch.setattr(precision, "describe_device", lambda _: "CUDA:0 (GTX 1660, 6 GiB)")
    if there:
        assert choose_precision("bf16", model, 64, World(device=CUDA)) == "bf16"
        return
    with pytest.raises(UserError, match=r"--amp bf16: CUDA:0 \(GTX 1660, 6 GiB\) has no bfloat16; take --amp fp16"):
        choose_precision("bf16", model, 64, World(device=CUDA))


def test_all_processes_compute_alike(model, monkeypatch):
    monkeypatch.setattr(World, "any", lambda self, flag: True)
    monkeypatch.setattr(precision, "mixed_fault", lambda *_: "")
    assert choose_precision("auto", model, 64, World(device=CUDA)) == "off"


def test_elsewhere_auto_is_off(model, monkeypatch, capsys):
    for native, words in ((False, ""), (True, "--amp bf16")):
        monkeypatch.setattr(precision, "computes_bf16", lambda native=native: native)
        assert choose_precision("auto", model, 64, World()) == "off"
        said = capsys.readouterr().out
        assert words in said and bool(said) is native
    assert choose_precision("auto", model, 64, World(device=MPS)) == "off"
    with pytest.raises(UserError, match="--amp fp16: mixed precision is for CUDA and the CPU; on mps leave it out"):
        choose_precision("fp16", model, 64, World(device=MPS))


def test_fastest_is_auto_and_bfloat16_on_a_processor_that_has_it(model, monkeypatch, capsys):
    for native in (False, True):
        monkeypatch.setattr(precision, "computes_bf16", lambda native=native: native)
        assert choose_precision("fastest", model, 64, World()) == ("bf16" if native else "off")
    assert choose_precision("fastest", model, 64, World(device=MPS)) == "off"
    # a resumed run keeps to what it began in
    assert choose_precision("fastest", model, 64, World(), "cpu off") == "off"
    # one process of several can't
    monkeypatch.setattr(World, "any", lambda self, flag: True)
    assert choose_precision("fastest", model, 64, World()) == "off"
    assert not capsys.readouterr().out
    monkeypatch.setattr(precision, "mixed_fault", lambda *_: "")
    monkeypatch.setattr(World, "any", lambda self, flag: flag)
    assert choose_precision("fastest", model, 64, World(device=CUDA)) == "fp16"


def test_no_such_precision():
    with pytest.raises(UserError, match="--amp int4: no such choice; there are auto fastest off fp16 bf16"):
        TrainOptions.of({"amp": "int4"})


def stopped(trainer: Trainer, batches: int) -> Trainer:
    """A trainer that stands after so many batches of its first epoch, and has saved."""

    class Enough(Exception):
        pass

    def stop():
        if trainer.state.batches_done == batches:
            raise Enough

    due, trainer.save_if_due = trainer.save_if_due, stop
    with pytest.raises(Enough):
        trainer.train_epoch()
    trainer.save_if_due = due
    trainer.save()
    return trainer


def resumed(trainer: Trainer, **changes) -> Trainer:
    return Trainer(set_up(TrainOptions.of({"resume": str(trainer.weights / "last.pt"), "device": "cpu"} | changes)))


def accumulating(tiny_set, tmp_path, amp: str) -> Trainer:
    """Batches of 2, of which three make an update: after the second of them gradients are waiting."""
    hyp = hyp_file(tmp_path, nominal_batch=6, warmup_epochs=0.0)
    return trainer_of(tiny_set, tmp_path, batch_size=2, epochs=2, hyp=hyp, amp=amp)


@pytest.mark.parametrize("amp", ["fp16", "bf16"])
def test_a_resumed_run_goes_on_in_its_precision_to_the_same_bits(amp, tiny_set, tmp_path):
    first = stopped(accumulating(tiny_set, tmp_path, amp), 2)
    second = resumed(first)
    assert second.learner.amp == amp and second.learner.scaler.is_enabled() is (amp == "fp16")
    for trainer in (first, second):
        trainer.train_epoch()
    states = [trainer.learner.model.state_dict() for trainer in (first, second)]
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_gradients_are_saved_without_the_loss_scale(tiny_set, tmp_path):
    """So that a run saved within an accumulation goes on without a scaler, as on another device, or with another scale."""
    first = accumulating(tiny_set, tmp_path, "fp16")
    first.learner.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    stopped(first, 2)
    scaled = {k: p.grad for k, p in first.learner.model.named_parameters() if p.grad is not None}
    saved = read_checkpoint(first.weights / "last.pt").training["gradients"]
    assert all(torch.equal(saved[k] * 1024, g) for k, g in scaled.items()) and len(scaled) > 100
    without = resumed(first, amp="off").learner
    assert not without.scaler.is_enabled()
    assert all(torch.equal(p.grad, saved[k]) for k, p in without.model.named_parameters() if k in saved)
    again = resumed(first).learner
    assert all(torch.equal(p.grad, scaled[k]) for k, p in again.model.named_parameters() if k in saved)


def test_gradients_of_a_run_without_a_scaler_get_the_scale_of_the_new_one(tiny_set, tmp_path):
    first = stopped(accumulating(tiny_set, tmp_path, "off"), 2)
    learner = resumed(first, amp="fp16").learner
    scale = learner.scaler.get_scale()
    grads = {k: p.grad for k, p in first.learner.model.named_parameters() if p.grad is not None}
    assert scale > 1 and len(grads) > 100
    assert all(torch.equal(p.grad, grads[k] * scale) for k, p in learner.model.named_parameters() if k in grads)


@pytest.mark.parametrize("amp", ["fp16", "off"])
def test_checkpoints_of_earlier_releases_have_the_scale_in_their_gradients(amp, tiny_set, tmp_path):
    first = stopped(accumulating(tiny_set, tmp_path, amp), 2)
    last = first.weights / "last.pt"
    saved = dict(read_checkpoint(last).training)
    grads = {k: p.grad for k, p in first.learner.model.named_parameters() if p.grad is not None}
    del saved["precision"]
    args = {k: v for k, v in saved["args"].items() if k != "amp"}
    save_checkpoint(last, saved | {"gradients": grads, "args": args})
    # earlier releases trained in fp16 where CUDA was; here it has to be said
    learner = resumed(first, amp=amp).learner
    assert all(torch.equal(p.grad, grads[k]) for k, p in learner.model.named_parameters() if k in grads)
    scale = saved["scaler"].get("scale", 1.0)
    learner = resumed(first, amp="off").learner
    assert all(torch.equal(p.grad, grads[k] / scale) for k, p in learner.model.named_parameters() if k in grads)


def test_what_a_resume_says_of_the_precision_holds(tiny_set, tmp_path):
    first = stopped(accumulating(tiny_set, tmp_path, "bf16"), 2)
    assert resumed(first).options.amp == "bf16"
    assert resumed(first, amp="off").learner.amp == "off"


@pytest.mark.parametrize("amp", ["bf16", "off"])
def test_a_run_that_diverges_in_mixed_precision_is_told_to_leave_it(amp, tiny_set, tmp_path):
    hyp = hyp_file(tmp_path, lr0=1e6, weight_decay=1e6, nominal_batch=2, warmup_epochs=0.0)
    with pytest.raises(UserError, match=r"epoch \d, batch \d: the loss is (nan|inf); ") as error:
        train.run(**options(tiny_set, tmp_path, hyp=hyp, epochs=3, amp=amp))
    assert ("; add --amp off, lower lr0" in str(error.value)) is (amp != "off")


def test_validation_on_cuda_is_as_precise_as_the_training(tiny_set, tmp_path, monkeypatch):
    """The device stands for a GPU; what would be evaluated there is looked at instead."""
    found = {}

    def look(model, *_, **__):
        found[amp] = {model.model[0].conv.weight.dtype, model.detect.m[0].weight.dtype}
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.training.trainer.evaluate", look)
    for amp in ("off", "fp16", "bf16"):
        trainer = trainer_of(tiny_set, tmp_path, amp=amp)
        trainer.world = replace(trainer.world, device=CUDA)
        with pytest.raises(KeyboardInterrupt):
            trainer.validate()
    assert found == {"off": {torch.float32}, "fp16": {torch.float16, torch.float32}, "bf16": {torch.float32}}
