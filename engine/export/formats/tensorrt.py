"""TensorRT engines."""

from pathlib import Path

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

    def __init__(self, file: Path, device: torch.device):
        trt = load_extra("tensorrt", f"{file}: running it")
        if device.type != "cuda":
            raise UserError(f"{file}: TensorRT needs an NVIDIA GPU; choose it with --device 0")
        self.metadata = metadata.read_yaml_beside(file.with_name(f"{file.name}.yaml"))
        self.engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(file.read_bytes())
        if self.engine is None:
            raise UserError(f"{file}: was built for another GPU or TensorRT; export it anew on this machine")
        self.shape = ()
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


def write(model: DetectionModel, file: Path, settings: Settings) -> Path:
    """A TensorRT engine for the GPU it is built on, from our ONNX, whose precisions it keeps (TensorRT 10 or later).

    The file is TensorRT's own plan, which other programs load, too; its metadata lies beside it as a YAML.
    """
    trt = load_extra("tensorrt", "the export to TensorRT")
    if settings.device.type != "cuda":
        raise UserError("TensorRT builds on the GPU that will run the engine; choose it with --device 0")
    onnx_file = write_onnx(model, file.with_suffix(".onnx"), settings)
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_file)):
        raise UserError(f"TensorRT can't read {onnx_file}: {parser.get_error(0)}")
    config = builder.create_builder_config()
    if settings.dynamic:
        profile = builder.create_optimization_profile()
        profile.set_shape("images", *engine_shapes(model, settings))
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise UserError("TensorRT could not build the engine; its messages are above")
    with replacing(file) as temporary:
        temporary.write_bytes(plan)
        write_yaml(file.with_name(f"{file.name}.yaml"), settings.metadata(model))
    return file


def engine_shapes(model: DetectionModel, settings: Settings) -> tuple[tuple[int, ...], ...]:
    """Least, usual and largest input of a dynamic engine: from one image of one stride to --batch-size at twice --imgsz."""
    ch, stride = model.yaml["ch"], int(model.stride.max())
    height, width = settings.imgsz
    return (1, ch, stride, stride), (settings.batch, ch, height, width), (settings.batch, ch, 2 * height, 2 * width)
