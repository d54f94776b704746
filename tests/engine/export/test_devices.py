"""Which device runs an exported file, and where a model is traced, whatever --device says.

There is no GPU and no TensorRT here: stand-ins note what they are asked, and answer as the libraries are documented to.
"""

import contextlib
import sys
from types import SimpleNamespace

import pytest
import torch

from engine.export.formats.table import FORMATS
from engine.export.formats.tensorrt import Reader
from engine.export.runtime import Runtime
from engine.export.settings import Settings
from tests.helpers.export import export_quietly, images, lively
from utils.errors import UserError
from utils.yaml_file import write_yaml

CUDA = "CUDAExecutionProvider"
SECOND = torch.device("cuda", 1)


@pytest.fixture(scope="module")
def onnx_file(weights, tmp_path_factory):
    own = tmp_path_factory.mktemp("devices") / "best.pt"
    own.write_bytes(weights.read_bytes())
    return export_quietly(own, "onnx")[0].file


def open_file(file, device: torch.device, monkeypatch, capsys, known: bool, loads: bool) -> tuple[list, str]:
    """The providers that a session is asked to have, and what is said, where ONNX Runtime knows and loads CUDA or not.

    The real one computes, on the CPU.
    """
    ort = pytest.importorskip("onnxruntime")
    real, asked = ort.InferenceSession, []

    class Session:
        def __init__(self, path, options, providers):
            asked.extend(providers)
            self.real = real(path, options, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return [CUDA, "CPUExecutionProvider"] if loads else ["CPUExecutionProvider"]

        def __getattr__(self, name):
            return getattr(self.real, name)

    monkeypatch.setattr(ort, "InferenceSession", Session)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA] * known + ["CPUExecutionProvider"])
    Runtime(file, device)
    return asked, capsys.readouterr().out


def test_onnx_runtime_takes_the_gpu_that_was_chosen(onnx_file, monkeypatch, capsys):
    asked, said = open_file(onnx_file, SECOND, monkeypatch, capsys, known=True, loads=True)
    assert asked == [(CUDA, {"device_id": 1}), "CPUExecutionProvider"] and not said
    asked, said = open_file(onnx_file, torch.device("cpu"), monkeypatch, capsys, known=True, loads=True)
    assert asked == ["CPUExecutionProvider"] and not said


@pytest.mark.parametrize(("known", "reason"), [(False, "pip install onnxruntime-gpu"), (True, "can't load its part")])
def test_onnx_runtime_that_falls_back_to_the_cpu_says_so(known, reason, onnx_file, monkeypatch, capsys):
    _, said = open_file(onnx_file, SECOND, monkeypatch, capsys, known=known, loads=False)
    (line,) = said.splitlines()
    assert line.startswith(f"note: {onnx_file} runs on the CPU, not on cuda:1: ") and reason in line


def test_libraries_of_the_cpu_say_so(onnx_file, capsys):
    Runtime(onnx_file, SECOND, dnn=True)
    assert capsys.readouterr().out.splitlines() == [
        f"note: {onnx_file} runs on the CPU, not on cuda:1: OpenCV runs it there"
    ]
    Runtime(onnx_file, torch.device("cpu"), dnn=True)
    assert not capsys.readouterr().out


# TensorRT ---------------------------------------------------------------------------------------------------------------


class FakeEngine:
    """An engine, its context and the stream of TensorRT 10: one to four images of 32 to 128 px, or what is static."""

    def __init__(self, static: tuple[int, ...] = ()):
        self.static = static
        self.current: list[torch.device] = []
        self.taken: list[tuple[int, ...]] = []
        self.works = True
        self.cuda_stream = 0

    def Logger(self, _):
        return self

    Logger.WARNING = 2

    def Runtime(self, _):
        return self

    def deserialize_cuda_engine(self, _):
        self.loaded_on = self.current[-1]
        return self

    def create_execution_context(self):
        return self

    def get_tensor_profile_shape(self, name, profile):
        assert (name, profile) == ("images", 0) and not self.static
        return [(1, 3, 32, 32), (2, 3, 64, 64), (4, 3, 128, 128)]

    def get_tensor_shape(self, name):
        if name == "images":
            return self.static or (-1, 3, -1, -1)
        return (self.taken[-1][0], 5, 7)

    def set_input_shape(self, _, shape):
        fits = shape == self.static if self.static else shape[0] <= 4 and all(32 <= side <= 128 for side in shape[2:])
        self.taken += [shape] * fits
        return fits

    def set_tensor_address(self, *_):
        return True

    def execute_async_v3(self, _):
        self.run_on = self.current[-1]
        return self.works

    def synchronize(self):
        pass


@pytest.fixture
def open_engine(tmp_path, monkeypatch):
    """A reader of an engine on the second GPU, whose tensors stay on the CPU."""

    def make(engine: FakeEngine) -> Reader:
        @contextlib.contextmanager
        def device(place):
            engine.current.append(place)
            yield
            engine.current.pop()

        monkeypatch.setitem(sys.modules, "tensorrt", engine)
        monkeypatch.setattr(torch.cuda, "device", device)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _: engine)
        file = tmp_path / "best.engine"
        file.write_bytes(b"plan")
        write_yaml(tmp_path / "best.engine.yaml", {"names": ["a", "b"], "dynamic": True, "imgsz": [64, 64]})
        reader = Reader(file, SECOND)
        reader.device = torch.device("cpu")
        return reader

    return make


def test_tensorrt_loads_and_runs_on_the_gpu_that_was_chosen(open_engine):
    reader = open_engine(engine := FakeEngine())
    reader.run(images(1, 64, 64))
    assert engine.loaded_on == SECOND and engine.run_on == reader.device and not engine.current


def test_tensorrt_gets_batches_in_portions_it_takes(open_engine):
    reader = open_engine(engine := FakeEngine())
    assert reader.run(images(10, 64, 96)).shape == (10, 5, 7)
    assert [shape[0] for shape in engine.taken] == [4, 4, 2]
    static = open_engine(engine := FakeEngine(static=(2, 3, 64, 64)))
    assert static.run(images(4, 64, 64)).shape == (4, 5, 7) and len(engine.taken) == 2


def test_tensorrt_that_refuses_is_told(open_engine):
    reader = open_engine(engine := FakeEngine())
    with pytest.raises(UserError, match="takes images of 1×3×32×32 to 4×3×128×128, not 1×3×160×64; export it anew"):
        reader.run(images(1, 160, 64))
    engine.works = False
    with pytest.raises(UserError, match="best.engine: TensorRT could not run it; its messages are above"):
        reader.run(images(1, 64, 64))


# Tracing ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ncnn", "tflite", "coreml"])
def test_converters_of_the_cpu_get_a_model_on_the_cpu(name, tmp_path, monkeypatch):
    """Stand-ins for the converters; the device that is asked for is one that no tensor is ever moved from."""
    seen = []

    def note(graph, inputs):
        seen.extend({tensor.device.type for tensor in [*graph.parameters(), *inputs]})
        return SimpleNamespace(run_decompositions=lambda _: None, export=lambda path: open(path, "wb").close())

    def pnnx(graph, _, inputs, fp16):
        note(graph, inputs)
        for suffix in ("param", "bin"):
            open(f"model.ncnn.{suffix}", "w").close()

    converted = SimpleNamespace(user_defined_metadata={}, save=lambda path: open(path, "w").close())
    core = SimpleNamespace(
        precision=SimpleNamespace(FLOAT16=16, FLOAT32=32),
        target=SimpleNamespace(iOS15=15),
        TensorType=lambda *_, **__: None,
        convert=lambda *_, **__: converted,
    )
    monkeypatch.setitem(sys.modules, "pnnx", SimpleNamespace(export=pnnx))
    monkeypatch.setitem(sys.modules, "litert_torch", SimpleNamespace(convert=note))
    monkeypatch.setitem(sys.modules, "coremltools", core)
    monkeypatch.setattr(torch.export, "export", note)
    kind = FORMATS[name]
    file = kind.write(
        lively("yolov5n.yaml"), tmp_path / f"best{kind.suffix}", Settings((64, 64), device=torch.device("meta"))
    )
    assert file.exists() and seen == ["cpu"]
