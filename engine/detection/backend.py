"""DetectMultiBackend: a detector of any format under the name, and with the attributes, that YOLOv5's programs know."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from engine.detection.detector import Detector, load_detector
from engine.export.formats.table import is_exported
from utils.plots.feature_maps import FeatureMaps


class Predictions(list):
    """[predictions [b, n, nc + 5], raw maps] of a batch, as YOLOv5 7 gives them; of use as the tensor that releases before it
    gave, where only its values are asked for."""

    def cpu(self) -> torch.Tensor:
        """The predictions, on the CPU."""
        return self[0].cpu()


class DetectMultiBackend(nn.Module):
    """A checkpoint, several, or an exported file: ``pred = model(im)`` for ``im`` [b, 3, h, w], 0..1.

    ``model`` is what it holds, a DetectionModel where it was a single checkpoint; ``stride`` its largest, ``names``
    {class: name}, ``pt`` whether it runs in PyTorch as layers, ``jit``, ``onnx`` and ``engine`` whether it is such a file,
    ``fp16`` whether its layers compute in half precision. ``data`` is taken and not needed: names travel with the weights.
    ``trust`` runs TorchScript and TensorRT files of others, which are programs.
    Raises UserError for files that are no detectors.
    """

    def __init__(
        self,
        weights: str | Path | Sequence[str | Path] = "yolov5s.pt",
        device: torch.device = torch.device("cpu"),  # noqa: B008, a constant
        dnn: bool = False,
        data: str | Path | None = None,
        fp16: bool = False,
        fuse: bool = True,
        trust: bool = False,
    ):
        super().__init__()
        first = str(weights if isinstance(weights, str | Path) else weights[0])
        pt = not is_exported(first)
        # a CPU computes in single precision, and an exported file in its own
        half = fp16 and pt and device.type != "cpu"
        self._hold(load_detector(weights, device, half, dnn, trust, settled=False), device, pt, half)
        self.jit, self.onnx, self.engine = (first.endswith(s) for s in (".torchscript", ".onnx", ".engine"))
        self.dnn = dnn

    @classmethod
    def around(cls, model: Detector) -> "DetectMultiBackend":
        """One that holds a detector that is there already."""
        backend = cls.__new__(cls)
        nn.Module.__init__(backend)
        device = next((p.device for p in getattr(model, "parameters", list)()), torch.device("cpu"))
        backend._hold(model, device, pt=isinstance(model, nn.Module), half=False)
        backend.jit = backend.onnx = backend.engine = backend.dnn = False
        return backend

    def _hold(self, model: Detector, device: torch.device, pt: bool, half: bool) -> None:
        self.model = model
        self.device = device
        self.names = model.names
        self.stride = int(model.stride.max())
        self.pt, self.fp16 = pt, half

    def forward(
        self, im: torch.Tensor, augment: bool = False, visualize: str | Path | bool = False
    ) -> torch.Tensor | list:
        """Predictions [b, n, nc + 5] for non_max_suppression; of a checkpoint a list of these and of the raw maps.

        ``visualize``: a folder for pictures of the feature maps.
        """
        hooks = FeatureMaps(self.model.model) if visualize else None
        predictions, maps = self.model(im, augment=augment)
        if hooks:
            hooks.save(Path(visualize))
        return Predictions([predictions, maps]) if self.pt else predictions

    def warmup(self, imgsz: Sequence[int] = (1, 3, 640, 640)) -> None:
        """Run once on zeros [b, 3, h, w] where there is something to warm, on a GPU."""
        if self.device.type != "cpu":
            self.forward(torch.zeros(*imgsz, device=self.device))
