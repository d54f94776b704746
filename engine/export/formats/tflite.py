"""TensorFlow Lite, by LiteRT."""

from pathlib import Path

import torch

from engine.export import metadata
from engine.export.metadata import append_zip
from engine.export.settings import Settings, tracing
from models.yolo import DetectionModel
from utils.extras import library_errors, load_extra
from utils.files import replacing


class Reader:
    """A .tflite file, by LiteRT on the CPU."""

    on_cpu = "LiteRT runs it there"

    def __init__(self, file: Path, device: torch.device):
        litert = load_extra("ai_edge_litert.interpreter", f"{file}: running it", "ai-edge-litert")
        self.metadata = metadata.read_zip(file)
        with library_errors(f"{file}: can't be read as TensorFlow Lite"):
            self.interpreter = litert.Interpreter(str(file), num_threads=torch.get_num_threads())
            self.interpreter.allocate_tensors()
            taken = self.interpreter.get_input_details()[0]
            self.input, self.shape = taken["index"], tuple(map(int, taken["shape"]))
            self.output = self.interpreter.get_output_details()[0]["index"]
        self.device = device

    def run(self, images: torch.Tensor) -> torch.Tensor:
        self.interpreter.set_tensor(self.input, images.cpu().numpy())
        self.interpreter.invoke()
        return torch.from_numpy(self.interpreter.get_tensor(self.output)).to(self.device)


def write(model: DetectionModel, file: Path, settings: Settings) -> Path:
    """TensorFlow Lite, by LiteRT; images go in as [batch, ch, h, w], as everywhere here."""
    litert_torch = load_extra("litert_torch", "the export to TensorFlow Lite", "litert-torch")
    settings = settings.on_cpu()
    with replacing(file) as temporary, tracing():
        litert_torch.convert(settings.graph(model), (settings.images(model),)).export(str(temporary))
        append_zip(temporary, settings.metadata(model))
    return file
