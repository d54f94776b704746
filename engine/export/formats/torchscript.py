"""TorchScript: traced, and run by PyTorch."""

import json
import warnings
from pathlib import Path

import torch

from engine.export import metadata
from engine.export.settings import Settings, tracing
from models.yolo import DetectionModel
from utils.extras import library_errors
from utils.files import replacing


class Reader:
    """A .torchscript file, by PyTorch."""

    on_cpu = ""

    def __init__(self, file: Path, device: torch.device):
        extra = {"config.txt": ""}
        warnings.filterwarnings("ignore", message=".*torch.jit.load.*deprecated", category=FutureWarning)
        with library_errors(f"{file}: can't be read as TorchScript"):
            self.module = torch.jit.load(str(file), map_location=device, _extra_files=extra).eval()
        self.metadata = metadata.read_json(file, extra["config.txt"])
        self.shape = ()
        self.device = device

    def run(self, images: torch.Tensor) -> torch.Tensor:
        # a tuple, as YOLOv5's files and ours give it; earlier ones of ours give the boxes alone
        result = self.module(images.to(self.device))
        return result[0] if isinstance(result, tuple | list) else result


class InTuple(torch.nn.Module):
    """``graph`` with its boxes in a tuple of one: what programs written for YOLOv5's files unpack."""

    def __init__(self, graph: torch.nn.Module):
        super().__init__()
        self.graph = graph

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.graph(images),)


def write(model: DetectionModel, file: Path, settings: Settings) -> Path:
    """TorchScript, traced."""
    with replacing(file) as temporary, tracing():
        traced = torch.jit.trace(InTuple(settings.graph(model)), (settings.images(model),), check_trace=False)
        traced.save(str(temporary), _extra_files={"config.txt": json.dumps(settings.metadata(model))})
    return file
