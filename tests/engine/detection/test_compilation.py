"""--compile: the same figures from code of the model's own, made once for images of any number and size."""

import os
import shutil
import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from torch import nn

import train
import val
from engine.detection.compilation import compile_detector, compile_errors, compile_layers
from engine.detection.detector import Ensemble, load_detector
from engine.training.compiled import MaxPool2d, NormalisedSiLU, Upsample, suit_compiler
from engine.training.options import TrainOptions
from engine.training.setup import set_up
from engine.training.trainer import Trainer
from models.common import Conv
from models.yolo import DetectionModel
from tests.helpers.descriptions import TINY, small
from tests.helpers.models import lively, own_checkpoint
from tests.helpers.project import ROOT, assert_user_error, command
from tests.helpers.sets import make_set
from tests.helpers.training import hyp_file, options, rows, stopped_at
from utils.checkpoint import read_checkpoint, save_checkpoint
from utils.errors import UserError
from utils.yaml_file import write_yaml

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler")


@pytest.fixture
def cfg(tmp_path) -> str:
    write_yaml(tmp_path / "tiny.yaml", TINY)
    return str(tmp_path / "tiny.yaml")


def test_without_a_compiler_it_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"--compile: needs a C\+\+ compiler, and there is none \(g\+\+, clang\+\+, "):
        compile_layers(nn.Identity())
    monkeypatch.setenv("CXX", "nothing-of-that-name")
    with pytest.raises(UserError, match=r"none \(nothing-of-that-name\)"):
        compile_layers(nn.Identity())


def test_code_that_can_not_be_made_is_one_line_and_other_errors_stay():
    said = "--compile: no code can be made of this model here: .*; leave --compile out"
    with pytest.raises(UserError, match=said), compile_errors():
        raise torch._dynamo.exc.Unsupported("no such thing\nin a long story")
    with pytest.raises(RuntimeError, match="of ours"), compile_errors():
        raise RuntimeError("of ours")


@needs_compiler
@pytest.mark.slow
def test_one_code_serves_every_shape_and_computes_the_same():
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = lively(DetectionModel(TINY), torch.rand(2, 3, 96, 64)).fuse()
    both = Ensemble([model])
    with torch.inference_mode():
        shapes = [(2, 3, 96, 64), (3, 3, 64, 96), (2, 3, 64, 64), (5, 3, 128, 96)]
        # in memory as images come
        batches = [torch.rand(shape).to(memory_format=torch.channels_last) for shape in shapes]
        expected = [model(batch)[0] for batch in batches]
        # a break in the graph would be an error
        torch.compile(model, backend="eager", fullgraph=True)(batches[0])
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        compile_detector(both, CPU, 2, 96)
        for batch, boxes in zip(batches, expected, strict=True):
            torch.testing.assert_close(both(batch)[0], boxes, rtol=1e-4, atol=1e-3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@needs_compiler
@pytest.mark.slow
def test_a_compiled_training_learns_the_same_and_resumes_exactly(tmp_path, capsys):
    torch._dynamo.reset()
    # with all that is trained in another way when it is compiled
    head = [[-1, 1, "nn.Upsample", ["None", 2, "nearest"]], [[-1, 3], 1, "Detect", ["nc", "anchors"]]]
    backbone = [*TINY["backbone"], [-1, 1, "SPPF", [16, 5]]]
    write_yaml(tmp_path / "pooling.yaml", TINY | {"backbone": backbone, "head": head})
    # the last batch is smaller
    data = make_set(tmp_path / "set", train=11, val=2, size=(64, 64))
    hyp = hyp_file(tmp_path, nominal_batch=4, warmup_epochs=0.0)
    flags = options(data, tmp_path, cfg=str(tmp_path / "pooling.yaml"), batch_size=4, epochs=3, hyp=hyp)
    plain = train.run(**flags, name="plain")
    torch._dynamo.utils.counters.clear()
    whole = train.run(**flags, name="whole", compile=True)
    assert "--compile: the first batch took" in capsys.readouterr().out
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    for before, after in zip(rows(plain), rows(whole), strict=True):
        for name in ("train/box_loss", "train/obj_loss", "train/cls_loss"):
            assert float(after[name]) == pytest.approx(float(before[name]), rel=0.02), name
    last = stopped_at(Trainer(set_up(TrainOptions.of(flags | {"name": "stopped", "compile": True}))), 1, 1)
    stopped = train.run(resume=str(last), device="cpu")
    assert (stopped / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    models = [read_checkpoint(folder / "weights" / "last.pt").model for folder in (whole, stopped)]
    assert all(torch.equal(a, b) for a, b in zip(*(model.values() for model in models), strict=True))


@needs_compiler
@pytest.mark.slow
def test_stages_make_it_compile_once_more_and_a_teacher_goes_with_it(cfg, tmp_path, capsys):
    data = make_set(tmp_path / "set", train=8, val=2, size=(64, 64))
    own_checkpoint(tmp_path / "teacher.pt", cfg=cfg, names={0: "disc", 1: "rectangle"})
    hyp = hyp_file(tmp_path, nominal_batch=4, warmup_epochs=0.0, distill_cwd=1.0)
    flags = options(data, tmp_path, cfg=cfg, batch_size=4, epochs=2, hyp=hyp, teacher=[str(tmp_path / "teacher.pt")])
    plain = train.run(**flags, progressive=2, name="plain")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = train.run(**flags, progressive=2, name="compiled", compile=True)
    assert "stage 2 of 2" in capsys.readouterr().out
    # of the model at both sizes; what the teacher adds is computed beside it
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3
    for before, after in zip(rows(plain), rows(compiled), strict=True):
        for name in ("train/box_loss", "train/distill_loss"):
            assert float(after[name]) == pytest.approx(float(before[name]), rel=0.02), name


@needs_compiler
@pytest.mark.slow
def test_several_processes_compile_too(cfg, tmp_path):
    data = make_set(tmp_path / "set", train=8, val=2, size=(64, 64))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", ROOT / "train.py"]
    words = ["--data", data, "--cfg", cfg, "--imgsz", 64, "--batch-size", 4, "--epochs", 1, "--workers", 0, "--noplots"]
    words += ["--device", "cpu", "--compile", "--project", tmp_path / "runs"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, [*launch, *words])], capture_output=True, text=True, timeout=400, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("--compile: the first batch took") == 1
    assert float(rows(tmp_path / "runs" / "exp")[0]["train/obj_loss"]) > 0


@needs_compiler
@pytest.mark.slow
def test_validation_compiled_finds_the_same(cfg, tmp_path, capsys):
    data = make_set(tmp_path / "set", train=1, val=7)
    model = own_checkpoint(tmp_path / "tiny.pt", cfg=cfg, names={0: "disc", 1: "rectangle"})
    # sure of some places
    for conv in model.detect.m:
        conv.bias.data.view(2, -1)[:, 4:] = 1.0
    save_checkpoint(
        tmp_path / "tiny.pt", read_checkpoint(tmp_path / "tiny.pt").training | {"model": model.state_dict()}
    )
    flags = {"weights": [str(tmp_path / "tiny.pt")], "data": str(data), "imgsz": 64, "batch_size": 4, "workers": 0}
    plain, compiled = (val.run(**flags, device="cpu", project=str(tmp_path), compile=c) for c in (False, True))
    assert "--compile: took" in capsys.readouterr().out
    assert plain.confusion.sum() > 20 and (compiled.confusion == plain.confusion).all()
    assert compiled.map50 == pytest.approx(plain.map50, abs=1e-3)


def test_exported_files_are_not_compiled(tiny_set, cfg, tmp_path):
    own_checkpoint(tmp_path / "tiny.pt", cfg=cfg)
    model = load_detector(tmp_path / "tiny.pt", CPU)
    assert isinstance(model, DetectionModel)
    command("export.py", "--weights", tmp_path / "tiny.pt", "--include", "torchscript", "--imgsz", 64)
    result = command(
        *(
            "val.py",
            "--weights",
            tmp_path / "tiny.torchscript",
            "--data",
            tiny_set,
            "--compile",
            "--trust",
            "--device",
            "cpu",
        )
    )
    assert_user_error(result, "--compile: is for checkpoints (.pt)")


# The layers that are trained on a CPU, beside those they stand for -------------------------------------------------------


def learn(model: nn.Module, images: torch.Tensor) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """The maps of a step in training, and the gradients by their names."""
    maps = model.train()(images)
    sum((m * m).sum() for m in maps).backward()
    return maps, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("frozen", [(), ("model.0.", "model.1.")])
def test_they_compute_the_same_in_training_and_after(frozen):
    torch.manual_seed(0)
    plain = DetectionModel(small())
    for name, parameter in plain.named_parameters():
        parameter.requires_grad = not name.startswith(frozen or "nothing")
    suited = deepcopy(plain)
    suit_compiler(suited)
    kinds = [type(m) for m in suited.modules()]
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in plain.modules())
    assert kinds.count(NormalisedSiLU) == norms > 10 and kinds.count(MaxPool2d) == kinds.count(Upsample) == 1
    assert list(suited.state_dict()) == list(plain.state_dict())
    images = torch.rand(4, 3, 64, 96)
    (maps, gradients), (found, found_gradients) = learn(plain, images), learn(suited, images)
    torch.testing.assert_close(found, maps, rtol=1e-4, atol=1e-4)
    assert set(gradients) == set(found_gradients)
    for name, gradient in gradients.items():
        apart = (found_gradients[name] - gradient).norm() / gradient.norm()
        assert apart < 1e-3, name
    for (name, buffer), after in zip(plain.named_buffers(), suited.buffers(), strict=True):
        torch.testing.assert_close(after, buffer, rtol=1e-4, atol=1e-5, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(suited.eval()(images)[0], plain.eval()(images)[0], rtol=1e-4, atol=1e-3)


def test_a_step_in_bfloat16_is_as_near_to_float32_as_it_was():
    apart = []
    for seed in range(6):
        torch.manual_seed(seed)
        exact, images = DetectionModel(small()), torch.rand(4, 3, 64, 96)
        plain, suited = deepcopy(exact), deepcopy(exact)
        suit_compiler(suited)
        _, expected = learn(exact, images)
        with torch.autocast("cpu", torch.bfloat16):
            found = [learn(model, images)[1] for model in (plain, suited)]
        apart.append([[(side[name] - g).norm() / g.norm() for name, g in expected.items()] for side in found])
    before, after = torch.tensor(apart).mean((0, 2))
    assert 0 < after < 1.15 * before < 0.3


def test_the_variance_of_large_numbers_is_kept():
    bn, silu = nn.BatchNorm2d(2, momentum=0.1), nn.SiLU()
    suited = nn.Sequential(deepcopy(bn), silu)
    suit_compiler(suited)
    torch.manual_seed(0)
    x = torch.randn(4, 2, 32, 32) + torch.tensor([3000.0, -3000.0]).view(2, 1, 1)
    # from where the running mean has come near
    for norm in (bn, suited[0]):
        norm.running_mean.copy_(torch.tensor([2900.0, -3010.0]))
    torch.testing.assert_close(suited(x), silu(bn(x)), rtol=1e-2, atol=2e-3)
    torch.testing.assert_close(suited[0].running_var, bn.running_var, rtol=1e-3, atol=0)


def test_one_value_of_a_channel_is_refused_as_by_pytorch():
    suited = nn.Sequential(nn.BatchNorm2d(2), nn.SiLU())
    suit_compiler(suited)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        suited(torch.rand(1, 2, 1, 1))


def test_other_layers_stay_as_they_are():
    class Own(Conv):
        def forward(self, x):
            return self.act(self.conv(x)) + self.bn(x)

    kept = [
        nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.BatchNorm2d(4, momentum=None), nn.SiLU()),
        nn.Sequential(nn.BatchNorm2d(4, affine=False), nn.SiLU()),
        nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False), nn.SiLU()),
        Own(4, 4),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(3, dilation=2),
        nn.MaxPool2d((2, 1)),
        nn.Upsample(scale_factor=1.5),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Upsample(size=(8, 8)),
    ]
    model = nn.ModuleList(deepcopy(kept))
    suit_compiler(model)
    for before, after in zip(kept, model, strict=True):
        assert [type(m) for m in before.modules()] == [type(m) for m in after.modules()]


@pytest.mark.parametrize("window", [(5, 1, 2), (2, 2, 0), (3, 2, 1)])
def test_pools_and_upsampling_have_the_same_gradients(window):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.MaxPool2d(*window), nn.Upsample(None, 2.0))
    suited = deepcopy(plain)
    suit_compiler(suited)
    x = torch.randn(2, 3, 12, 10)
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    found, expected = suited(leaves[0]), plain(leaves[1])
    weights = torch.randn_like(expected)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert torch.equal(found, expected)
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)
