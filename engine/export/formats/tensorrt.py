"""TensorRT engines."""

import tempfile
from pathlib import Path
from types import ModuleType

import torch

from engine.export import metadata
from engine.export.formats.onnx import write as write_onnx
from engine.export.settings import Settings
from models.yolo import DetectionModel
from utils.errors import UserError
from utils.extras import load_extra
from utils.files import replacing
from utils.yaml_file import write_yaml


class Reader:
    """An .engine, by TensorRT 10 or later, on the kind of GPU it was built on."""

    on_cpu = ""

    def __init__(self, file: Path, device: torch.device):
        trt = load_extra("tensorrt", f"{file}: running it")
        if device.type != "cuda":
            raise UserError(f"{file}: TensorRT needs an NVIDIA GPU; choose it with --device 0")
        self.metadata = metadata.read_yaml_beside(file.with_name(f"{file.name}.yaml"))
        # TensorRT takes the current GPU, not the one of the images
        with torch.cuda.device(device):
            self.engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(file.read_bytes())
            if self.engine is None:
                raise UserError(f"{file}: was built for another GPU or TensorRT; export it anew on this machine")
            self.context = self.engine.create_execution_context()
        self.shape = ()
        self.file = file
        self.device = device
        shape = tuple(self.engine.get_tensor_shape("images"))
        # least, usual and largest shape
        self.limits = self.engine.get_tensor_profile_shape("images", 0) if -1 in shape else [shape] * 3

    def run(self, images: torch.Tensor) -> torch.Tensor:
        most = self.limits[2][0]
        with torch.cuda.device(self.device):
            return torch.cat([self._run_portion(portion) for portion in images.split(most)])

    def _run_portion(self, images: torch.Tensor) -> torch.Tensor:
        """Of no more images than the engine takes. Raises UserError where it refuses, which TensorRT tells by False."""
        images = images.to(self.device).contiguous()
        if not self.context.set_input_shape("images", tuple(images.shape)):
            least, _, largest = ("×".join(map(str, shape)) for shape in self.limits)
            raise UserError(
                f"{self.file}: takes images of {least} to {largest}, not {'×'.join(map(str, images.shape))}; "
                "export it anew with --dynamic and a larger --imgsz"
            )
        output = torch.empty(tuple(self.context.get_tensor_shape("output0")), device=self.device)
        stream = torch.cuda.current_stream(self.device)
        done = (
            self.context.set_tensor_address("images", images.data_ptr())
            and self.context.set_tensor_address("output0", output.data_ptr())
            and self.context.execute_async_v3(stream.cuda_stream)
        )
        if not done:
            raise UserError(f"{self.file}: TensorRT could not run it; its messages are above")
        stream.synchronize()  # the images may be freed when this returns
        return output


def write(model: DetectionModel, file: Path, settings: Settings) -> Path:
    """A TensorRT engine for the GPU it is built on, from our ONNX, whose precisions it keeps (TensorRT 10 or later).

    The file is TensorRT's own plan, which other programs load, too; its metadata lies beside it as a YAML.
    """
    trt = load_extra("tensorrt", "the export to TensorRT")
    if settings.device.type != "cuda":
        raise UserError("TensorRT builds on the GPU that will run the engine; choose it with --device 0")
    # not beside the engine, where an .onnx of the user's may lie
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, torch.cuda.device(settings.device):
        plan = build(trt, write_onnx(model, Path(scratch, "model.onnx"), settings), model, settings)
    with replacing(file) as temporary:
        temporary.write_bytes(plan)
        write_yaml(file.with_name(f"{file.name}.yaml"), settings.metadata(model))
    return file


def build(trt: ModuleType, onnx_file: Path, model: DetectionModel, settings: Settings):
    """The plan of an engine. Raises UserError where TensorRT can't read the ONNX or build it."""
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_file)):
        raise UserError(f"TensorRT can't read the ONNX of this model: {parser.get_error(0)}")
    config = builder.create_builder_config()
    if settings.dynamic:
        profile = builder.create_optimization_profile()
        profile.set_shape("images", *engine_shapes(model, settings))
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise UserError("TensorRT could not build the engine; its messages are above")
    return plan


def engine_shapes(model: DetectionModel, settings: Settings) -> tuple[tuple[int, ...], ...]:
    """Least, usual and largest input of a dynamic engine: from one image of one stride to --batch-size at twice --imgsz."""
    ch, stride = model.yaml["ch"], int(model.stride.max())
    height, width = settings.imgsz
    return (1, ch, stride, stride), (settings.batch, ch, height, width), (settings.batch, ch, 2 * height, 2 * width)
