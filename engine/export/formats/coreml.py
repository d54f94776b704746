"""Core ML's .mlpackage."""

from pathlib import Path

import numpy as np
import torch

from engine.export import metadata
from engine.export.settings import Settings, tracing
from models.yolo import DetectionModel
from utils.errors import UserError
from utils.extras import library_errors, load_extra
from utils.files import replacing


class Reader:
    """An .mlpackage, by Core ML, which only macOS has, and which chooses what computes."""

    on_cpu = ""

    def __init__(self, file: Path, device: torch.device):
        coremltools = load_extra("coremltools", f"{file}: running it")
        with library_errors(f"{file}: can't be read as Core ML"):
            self.model = coremltools.models.MLModel(str(file))
        self.metadata = metadata.read_values(file, dict(self.model.user_defined_metadata))
        self.shape = ()
        self.device = device

    def run(self, images: torch.Tensor) -> torch.Tensor:
        try:
            result = self.model.predict({"images": images.cpu().numpy()})
        except Exception as e:  # "Model prediction is only supported on macOS", as a bare Exception
            raise UserError(f"Core ML can't run it here: {str(e).splitlines()[0]}") from None
        return torch.from_numpy(np.asarray(result["output0"], np.float32)).to(self.device)


def write(model: DetectionModel, file: Path, settings: Settings) -> Path:
    """Core ML's .mlpackage (an ML program: macOS 12, iOS 15 or later); ``half`` computes in float16."""
    coremltools = load_extra("coremltools", "the export to Core ML")
    precision = coremltools.precision.FLOAT16 if settings.half else coremltools.precision.FLOAT32
    settings = settings.on_cpu()
    with replacing(file) as temporary, tracing():
        # by torch.export, not by a trace: its converter cannot take a trace's arithmetic on sizes
        program = torch.export.export(
            settings.without_half().graph(model), (settings.images(model),)
        ).run_decompositions({})
        converted = coremltools.convert(
            program,
            inputs=[coremltools.TensorType("images", shape=(settings.batch, model.yaml["ch"], *settings.imgsz))],
            outputs=[coremltools.TensorType("output0")],
            convert_to="mlprogram",
            compute_precision=precision,
            minimum_deployment_target=coremltools.target.iOS15,
        )
        converted.user_defined_metadata.update({k: str(v) for k, v in settings.metadata(model).items()})
        converted.save(str(temporary))
    return file
