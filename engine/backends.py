"""Runtimes that a model can be exported to, each behind the same two names.

    metadata     what travels with the file, see engine/metadata.py
    run(images)  float32 [b, ch, h, w], 0..1, on any device → float32 [b, n, nc + 5] or [b, max_det, 6]

All but PyTorch's are optional packages, imported when a file asks for them. Each uses as many threads as PyTorch does.
"""

import json
import warnings
from pathlib import Path

import cv2
import numpy as np
import torch

from engine import metadata
from utils.errors import UserError
from utils.extras import load_extra


class TorchScriptBackend:
    """A .torchscript file, by PyTorch."""

    def __init__(self, file: Path, device: torch.device):
        extra = {"config.txt": ""}
        try:
            warnings.filterwarnings("ignore", message=".*torch.jit.load.*deprecated", category=FutureWarning)
            self.module = torch.jit.load(str(file), map_location=device, _extra_files=extra).eval()
            values = json.loads(extra["config.txt"])
        except (RuntimeError, ValueError) as e:
            raise UserError(f"{file}: can't be read as TorchScript: {str(e).splitlines()[0]}") from None
        self.metadata = metadata.read_values(file, values)
        self.device = device

    def run(self, images: torch.Tensor) -> torch.Tensor:
        result = self.module(images.to(self.device))
        return result[0] if isinstance(result, tuple | list) else result


class OnnxRuntimeBackend:
    """An .onnx file, by ONNX Runtime."""

    def __init__(self, file: Path, device: torch.device):
        ort = load_extra("onnxruntime", f"{file}: running it without --dnn")
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
        providers = [p for p in wanted if p in ort.get_available_providers()]
        if wanted and not providers:
            print(f"note: this onnxruntime knows no CUDA (pip install onnxruntime-gpu); {file} runs on the CPU")
        try:
            self.session = ort.InferenceSession(str(file), options, providers=[*providers, "CPUExecutionProvider"])
        except Exception as e:  # its exceptions have no common base but Exception
            raise UserError(f"{file}: can't be read as ONNX: {str(e).splitlines()[0]}") from None
        self.input = self.session.get_inputs()[0]
        values = dict(self.session.get_modelmeta().custom_metadata_map)
        shape = self.input.shape
        if "imgsz" not in values and all(isinstance(side, int) for side in shape):
            values |= {"imgsz": list(shape[2:]), "batch": shape[0]}
        self.metadata = metadata.read_values(file, values)
        self.device = device

    def run(self, images: torch.Tensor) -> torch.Tensor:
        result = self.session.run(None, {self.input.name: images.cpu().numpy()})[0]
        return torch.from_numpy(result).to(self.device)


class OpenCVBackend:
    """An .onnx file, by cv2.dnn, which comes with the project's own requirements."""

    def __init__(self, file: Path, device: torch.device):
        self.metadata = metadata.read_values(file, metadata.read_onnx_properties(file))
        if self.metadata["nms"]:
            raise UserError(f"{file}: has the suppression inside, which OpenCV can't run; export without --nms")
        cv2.setNumThreads(torch.get_num_threads())
        try:
            self.net = cv2.dnn.readNetFromONNX(str(file))
        except cv2.error as e:
            raise UserError(
                f"{file}: OpenCV {cv2.__version__} can't read it ({e.err}); export without --dynamic"
            ) from None
        self.device = device

    def run(self, images: torch.Tensor) -> torch.Tensor:
        self.net.setInput(images.cpu().numpy())
        return torch.from_numpy(self.net.forward()).to(self.device)


class OpenVINOBackend:
    """A folder …_openvino_model, by OpenVINO on the CPU."""

    def __init__(self, file: Path, device: torch.device):
        openvino = load_extra("openvino", f"{file}: running it")
        graphs = sorted(file.glob("*.xml"))
        if not graphs:
            raise UserError(f"{file}: holds no .xml of OpenVINO")
        self.metadata = metadata.read_yaml_beside(file)
        # by default float32 would be rounded to bfloat16 on processors that have it
        hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        self.model = openvino.Core().compile_model(str(graphs[0]), "CPU", hints)
        self.device = device

    def run(self, images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.array(self.model(images.cpu().numpy())[0])).to(self.device)


class NcnnBackend:
    """A folder …_ncnn_model, by ncnn on the CPU."""

    def __init__(self, file: Path, device: torch.device):
        self.ncnn = load_extra("ncnn", f"{file}: running it")
        self.metadata = metadata.read_yaml_beside(file)
        self.net = self.ncnn.Net()
        self.net.opt.num_threads = torch.get_num_threads()
        if self.net.load_param(str(file / "model.ncnn.param")) or self.net.load_model(str(file / "model.ncnn.bin")):
            raise UserError(f"{file}: ncnn can't read model.ncnn.param and model.ncnn.bin there")
        self.device = device

    def run(self, images: torch.Tensor) -> torch.Tensor:
        pixels = np.ascontiguousarray(images[0].cpu().numpy())  # a Mat only points to it, so it has to stay
        extractor = self.net.create_extractor()
        extractor.input("in0", self.ncnn.Mat(pixels))
        return torch.from_numpy(np.array(extractor.extract("out0")[1]))[None].to(self.device)


class TFLiteBackend:
    """A .tflite file, by LiteRT on the CPU."""

    def __init__(self, file: Path, device: torch.device):
        litert = load_extra("ai_edge_litert.interpreter", f"{file}: running it", "ai-edge-litert")
        self.metadata = metadata.read_zip(file)
        try:
            self.interpreter = litert.Interpreter(str(file), num_threads=torch.get_num_threads())
        except ValueError as e:
            raise UserError(f"{file}: can't be read as TensorFlow Lite: {str(e).splitlines()[0]}") from None
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]["index"]
        self.output = self.interpreter.get_output_details()[0]["index"]
        self.device = device

    def run(self, images: torch.Tensor) -> torch.Tensor:
        self.interpreter.set_tensor(self.input, images.cpu().numpy())
        self.interpreter.invoke()
        return torch.from_numpy(self.interpreter.get_tensor(self.output)).to(self.device)


class CoreMLBackend:
    """An .mlpackage, by Core ML, which only macOS has."""

    def __init__(self, file: Path, device: torch.device):
        coremltools = load_extra("coremltools", f"{file}: running it")
        self.model = coremltools.models.MLModel(str(file))
        self.metadata = metadata.read_values(file, dict(self.model.user_defined_metadata))
        self.device = device

    def run(self, images: torch.Tensor) -> torch.Tensor:
        try:
            result = self.model.predict({"images": images.cpu().numpy()})
        except Exception as e:  # "Model prediction is only supported on macOS", as a bare Exception
            raise UserError(f"Core ML can't run it here: {str(e).splitlines()[0]}") from None
        return torch.from_numpy(np.asarray(result["output0"], np.float32)).to(self.device)


class TensorRTBackend:
    """An .engine, by TensorRT 10 or later, on the kind of GPU it was built on."""

    def __init__(self, file: Path, device: torch.device):
        trt = load_extra("tensorrt", f"{file}: running it")
        if device.type != "cuda":
            raise UserError(f"{file}: TensorRT needs an NVIDIA GPU; choose it with --device 0")
        self.metadata = metadata.read_yaml_beside(file.with_name(f"{file.name}.yaml"))
        self.engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(file.read_bytes())
        if self.engine is None:
            raise UserError(f"{file}: was built for another GPU or TensorRT; export it anew on this machine")
        self.context = self.engine.create_execution_context()
        self.device = device

    def run(self, images: torch.Tensor) -> torch.Tensor:
        images = images.to(self.device).contiguous()
        self.context.set_input_shape("images", tuple(images.shape))
        output = torch.empty(tuple(self.context.get_tensor_shape("output0")), device=self.device)
        self.context.set_tensor_address("images", images.data_ptr())
        self.context.set_tensor_address("output0", output.data_ptr())
        self.context.execute_async_v3(torch.cuda.current_stream(self.device).cuda_stream)
        torch.cuda.current_stream(self.device).synchronize()  # the images may be freed when this returns
        return output


def open_backend(file: Path, device: torch.device, dnn: bool):
    """The backend for an exported file, by its name."""
    kinds = {
        ".torchscript": TorchScriptBackend,
        ".onnx": OpenCVBackend if dnn else OnnxRuntimeBackend,
        ".tflite": TFLiteBackend,
        ".mlpackage": CoreMLBackend,
        ".engine": TensorRTBackend,
        "_openvino_model": OpenVINOBackend,
        "_ncnn_model": NcnnBackend,
    }
    kind = next((backend for ending, backend in kinds.items() if file.name.endswith(ending)), None)
    if kind is None:
        raise UserError(f"{file}: no model that can be run; known are .pt and {' '.join(kinds)}")
    if dnn and kind is not OpenCVBackend:
        raise UserError(f"--dnn: runs ONNX files, and {file} is none; make one: export.py --include onnx")
    if not file.exists():
        raise UserError(f"{file}: no such file")
    return kind(file, device)
