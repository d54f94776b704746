"""What an export is asked for, and what every format's writer needs."""

import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from engine.export.graph import ExportGraph
from engine.export.metadata import describe
from models.yolo import DetectionModel
from utils.errors import UserError


@dataclass(frozen=True)
class Settings:
    """What the flags of export.py say; see there. ``imgsz`` is (height, width), ``device`` where the model is traced."""

    imgsz: tuple[int, int] = (640, 640)
    batch: int = 1
    opset: int = 17
    dynamic: bool = False
    nms: bool = False
    multi_label: bool = False
    conf_thres: float = 0.25
    iou_thres: float = 0.45
    max_det: int = 300
    half: bool = False
    maps: bool = False
    simplify: bool = False
    int8: bool = False
    data: str | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def without_half(self) -> "Settings":
        """For formats whose own tools reduce the precision."""
        return replace(self, half=False)

    def on_cpu(self) -> "Settings":
        """For formats whose own tools convert on the CPU."""
        return replace(self, device=torch.device("cpu"))

    def graph(self, model: DetectionModel) -> ExportGraph:
        """The fused copy of ``model`` to trace, on the device."""
        thresholds = (self.conf_thres, self.iou_thres, self.max_det)
        return ExportGraph(model, self.nms, self.multi_label, *thresholds, self.maps, self.half).eval().to(self.device)

    def images(self, model: DetectionModel) -> torch.Tensor:
        """Reproducible noise of the input's shape."""
        noise = torch.rand(self.batch, model.yaml["ch"], *self.imgsz, generator=torch.Generator().manual_seed(0))
        return noise.to(self.device)

    def metadata(self, model: DetectionModel) -> dict:
        """What travels with the file."""
        return describe(model, self.imgsz, self.batch, self.dynamic, self.nms)


def check_size(model: DetectionModel, imgsz: tuple[int, int]) -> None:
    """Raises UserError for a size that the strides don't divide."""
    stride = int(model.stride.max())
    if any(side < stride or side % stride for side in imgsz):
        raise UserError(f"--imgsz {imgsz[0]} {imgsz[1]}: must be multiples of the model's largest stride, {stride}")


@contextmanager
def tracing():
    """No gradients, and no warnings: about a newer exporter, and about sizes that a trace takes as constants."""
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
