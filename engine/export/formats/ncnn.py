"""ncnn: its .param and .bin in a folder, written by pnnx."""

import os
from pathlib import Path

import numpy as np
import torch

from engine.export import metadata
from engine.export.settings import Settings, tracing
from models.yolo import DetectionModel
from utils.errors import UserError
from utils.extras import load_extra
from utils.files import remove, replacing
from utils.yaml_file import write_yaml


class Reader:
    """A folder …_ncnn_model, by ncnn on the CPU."""

    on_cpu = "ncnn runs it there"

    def __init__(self, file: Path, device: torch.device):
        self.ncnn = load_extra("ncnn", f"{file}: running it")
        self.metadata = metadata.read_yaml_beside(file)
        self.net = self.ncnn.Net()
        self.net.opt.num_threads = torch.get_num_threads()
        if self.net.load_param(str(file / "model.ncnn.param")) or self.net.load_model(str(file / "model.ncnn.bin")):
            raise UserError(f"{file}: ncnn can't read model.ncnn.param and model.ncnn.bin there")
        self.shape = (1, None, None, None)
        self.device = device

    def run(self, images: torch.Tensor) -> torch.Tensor:
        pixels = np.ascontiguousarray(images[0].cpu().numpy())  # a Mat only points to it, so it has to stay
        extractor = self.net.create_extractor()
        failed = extractor.input("in0", self.ncnn.Mat(pixels))
        status, result = extractor.extract("out0")
        if failed or status:
            raise UserError("ncnn finds no in0 and out0 in it, or can't compute the one from the other")
        return torch.from_numpy(np.array(result))[None].to(self.device)


def write(model: DetectionModel, file: Path, settings: Settings) -> Path:
    """ncnn's .param and .bin in a folder, by pnnx; ``half`` keeps the weights in float16. One image at a time."""
    if settings.batch > 1:
        raise UserError(f"--batch-size {settings.batch}: ncnn takes one image at a time")
    pnnx = load_extra("pnnx", "the export to ncnn")
    settings = settings.on_cpu()
    with replacing(file) as folder, tracing():
        folder.mkdir()
        before = Path.cwd()
        try:
            os.chdir(folder)  # it writes its intermediate files to where it is called
            pnnx.export(settings.without_half().graph(model), "model.pt", (settings.images(model),), fp16=settings.half)
        finally:
            os.chdir(before)
        kept = {"model.ncnn.param", "model.ncnn.bin"}
        if not all((folder / name).is_file() for name in kept):
            raise UserError("pnnx could not convert the model; its messages are above")
        for path in folder.iterdir():
            if path.name not in kept:
                remove(path)
        write_yaml(folder / "metadata.yaml", settings.metadata(model))
    return file
