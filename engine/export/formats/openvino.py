"""OpenVINO: its .xml and .bin in a folder, float or int8."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from engine.export import metadata
from engine.export.calibration import calibration_images
from engine.export.formats.onnx import write as write_onnx
from engine.export.settings import Settings
from models.yolo import DetectionModel
from utils.errors import UserError
from utils.extras import library_errors, load_extra
from utils.files import replacing
from utils.yaml_file import write_yaml


class Reader:
    """A folder …_openvino_model, by OpenVINO on the CPU."""

    on_cpu = "OpenVINO runs it there"

    def __init__(self, file: Path, device: torch.device):
        openvino = load_extra("openvino", f"{file}: running it")
        graphs = sorted(file.glob("*.xml"))
        if not graphs:
            raise UserError(f"{file}: holds no .xml of OpenVINO")
        self.metadata = metadata.read_yaml_beside(file)
        # by default float32 would be rounded to bfloat16 on processors that have it
        hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        with library_errors(f"{file}: can't be read as OpenVINO"):
            self.model = openvino.Core().compile_model(str(graphs[0]), "CPU", hints)
            sides = self.model.input(0).partial_shape
        self.shape = tuple(side.get_length() if side.is_static else None for side in sides)
        self.device = device

    def run(self, images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.array(self.model(images.cpu().numpy())[0])).to(self.device)


def write(model: DetectionModel, file: Path, settings: Settings) -> Path:
    """OpenVINO's .xml and .bin in a folder. ``half`` keeps the weights in float16; ``int8`` quantises weights and
    activations by NNCF, with up to 300 training images of ``data`` to find their ranges. The head is left as it is."""
    openvino = load_extra("openvino", "the export to OpenVINO")
    with replacing(file) as folder, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder.mkdir()
        # float16 is how OpenVINO stores; how it computes is chosen where it runs
        converted = openvino.convert_model(str(write_onnx(model, Path(scratch, "model.onnx"), settings.without_half())))
        if settings.int8:
            converted = quantize(converted, model, settings)
        graph = folder / f"{file.name.removesuffix('_openvino_model')}.xml"
        openvino.save_model(converted, str(graph), compress_to_fp16=settings.half)
        write_yaml(folder / "metadata.yaml", settings.metadata(model))
    return file


def quantize(converted, model: DetectionModel, settings: Settings):
    """An OpenVINO model in int8, but for the head and what follows, where pixels and scores share a tensor."""
    images = calibration_images(settings.data, settings.imgsz, settings.batch)
    nncf = load_extra("nncf", "--int8")
    ignored = nncf.IgnoredScope(patterns=[rf"/model/model\.{model.detect.i}/.*", "^/[^/]*$"], validate=False)
    preset = nncf.QuantizationPreset.MIXED  # SiLU gives negative values, too
    return nncf.quantize(converted, nncf.Dataset(images), preset=preset, subset_size=len(images), ignored_scope=ignored)
