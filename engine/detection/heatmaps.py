"""Where a detector looked: heat maps of what its layers made of an image.

Explainer(model, device, thresholds, imgsz, method, layers)
    layercam    LayerCAM (Jiang et al., IEEE Transactions on Image Processing 30, 2021): for each detection, what each place
                of a map adds to its score: ReLU(gradient of the score) · activation, summed over the channels
    eigencam    EigenCAM (Muhammad and Yeasin, arXiv:2008.00299): the first principal component of a map's channels, which is
                of the image as a whole and knows of no detection; without gradients

Maps of several sizes are each scaled to a sum of one, enlarged to the finest, and averaged.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from engine.detection.detector import Detector
from engine.detection.pipeline import Pipeline, Thresholds
from models.backbones.backbone import Backbone, split_levels
from models.description.rows import take
from models.yolo import DetectionModel
from utils.boxes import scale_boxes, xywh2xyxy
from utils.data.images import to_float
from utils.errors import UserError, shown


class Explanation(NamedTuple):
    """Of one image: its ``detections`` [m, 6] in its own pixels, as the pipeline gives them, and the maps that belong to it.

    ``maps`` [m, h, w], one per detection, or [1, h, w] by EigenCAM, 0 and above, of the sum 1 or all 0; they cover the
    letterboxed image, and ``to_map`` [2, 3] leads from the image's own pixels to their cells.
    """

    detections: torch.Tensor
    maps: np.ndarray
    to_map: np.ndarray
    shape: tuple[int, int]

    def enlarged(self, heat: np.ndarray) -> np.ndarray:
        """One of the maps, or what was made of several, over the image as it is: [height, width]."""
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(heat, self.to_map, self.shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)

    def heat(self) -> np.ndarray:
        """All maps in one, over the image as it is, 0..1: of each place the highest, each map by its own maximum."""
        if not len(self.maps):
            return np.zeros(self.shape, np.float32)
        highest = self.maps.max((1, 2), keepdims=True)
        return self.enlarged((self.maps / np.where(highest > 0, highest, 1)).max(0))


class Explainer:
    """``explainer(image)`` for images uint8 [h, w, 3] RGB; ``model`` is a single checkpoint's, fused, in eval mode.

    ``layers``: numbers of layers, or levels such as P3 of a backbone that has them. By default LayerCAM takes the maps that
    the neck takes from the backbone: those that enter the head have a gradient in the detection's own cell alone, where the
    head is a 1×1 convolution. EigenCAM takes the maps that enter the head. Raises UserError for layers that have no map.
    """

    def __init__(
        self,
        model: Detector,
        device: torch.device,
        thresholds: Thresholds,
        imgsz: tuple[int, int],
        method: str = "layercam",
        layers: Sequence[str] | None = None,
    ):
        if not isinstance(model, DetectionModel):
            raise UserError("--explain: looks into the layers of one .pt model; give a single one as --weights")
        self.model = model
        self.device = device
        self.imgsz = imgsz
        self.method = method
        self.pipeline = Pipeline(model, device, thresholds)
        self.layers = [_layer(model, word) for word in layers] if layers else default_layers(model, method)

    @torch.enable_grad()
    def __call__(self, image: np.ndarray) -> Explanation:
        batch = self.pipeline.prepare([image], self.imgsz, auto=True)
        pixels = to_float(batch.images, self.device, torch.float32).requires_grad_(self.method == "layercam")
        predictions, maps = forward_with_maps(self.model, pixels, self.layers)
        thresholds = vars(self.pipeline.thresholds)
        found = self.model.suppress(predictions.detach().float(), **thresholds)[0]
        if self.method == "eigencam":
            fused = [fuse([principal_component(x.detach()[0].float()) for x in maps])]
        else:
            fused = [self.layercam(predictions, maps, detection) for detection in found]
        height, width = max(x.shape[2:] for x in maps)
        heat = torch.stack(fused) if fused else torch.zeros(0, height, width)
        (rw, rh), (dw, dh), native = batch.ratios[0], batch.pads[0], batch.natives[0]
        sx, sy = heat.shape[2] / pixels.shape[3], heat.shape[1] / pixels.shape[2]
        # of centres of pixels and cells, which lie half of one inside
        to_map = np.array([[rw * sx, 0, (rw / 2 + dw) * sx - 0.5], [0, rh * sy, (rh / 2 + dh) * sy - 0.5]])
        found = found.cpu()
        found[:, :4] = scale_boxes(found[:, :4], (rw, rh), (dw, dh), native)
        return Explanation(found, heat.cpu().numpy(), to_map, native)

    def layercam(self, predictions: torch.Tensor, maps: list[torch.Tensor], detection: torch.Tensor) -> torch.Tensor:
        """The map of one detection [6] among ``predictions`` [1, n, nc + 5]: at the finest of ``maps``, [h, w]."""
        scores = predictions[0, :, 4] * predictions[0, :, 5 + int(detection[5])]
        # which of the candidates the suppression kept
        with torch.no_grad():
            off = (xywh2xyxy(predictions[0, :, :4]) - detection[:4]).abs().amax(1) + (scores - detection[4]).abs()
            kept = int(off.argmin())
        gradients = torch.autograd.grad(scores[kept], maps, retain_graph=True, allow_unused=True)
        found = [
            torch.zeros_like(x[0, 0]) if gradient is None else (gradient.relu() * x.detach().relu())[0].sum(0)
            for gradient, x in zip(gradients, maps, strict=True)
        ]
        return fuse(found)


def forward_with_maps(
    model: DetectionModel, pixels: torch.Tensor, layers: Sequence[int | str]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The predictions [b, n, nc + 5] of images [b, 3, h, w], 0..1, and what ``layers`` gave on the way, [b, c, h, w] each.

    Raises UserError where one of these gave no map.
    """
    x, outputs, levels, kept = pixels, [], {}, {}
    for layer in model.model:
        x = layer(take(layer.f, x, outputs, levels))
        if layer.i == 0:
            levels, x = split_levels(layer, x)
            kept |= levels
        outputs.append(x)
        kept[layer.i] = x
    for name in layers:
        if not isinstance(kept[name], torch.Tensor) or kept[name].ndim != 4:
            raise UserError(f"--explain: layer {name} gives no map; name another one by --explain-layer")
    return x[0], [kept[name] for name in layers]


def default_layers(model: DetectionModel, method: str) -> list[int | str]:
    """What the first method looks at: all that rows behind the backbone take from it; the second: what the head takes."""
    rows = model.rows[-1:] if method == "eigencam" else model.rows[len(model.backbone) :]
    sources = {source for row in rows for source in row.source_indices()}
    if method == "layercam":
        sources = {source for source in sources if isinstance(source, str) or source < len(model.backbone)}
    return sorted(sources, key=str)


def _layer(model: DetectionModel, word: str) -> int | str:
    """The number of a layer, or the level, that a word of --explain-layer names."""
    first = model.model[0]
    levels = list(getattr(first, "levels" if isinstance(first, Backbone) else "map_names", ()))
    last = len(model.rows) - 2
    if word in levels:
        return word
    if re.fullmatch(r"\d{1,6}", word, re.ASCII) and int(word) <= last:
        return int(word)
    also = f", or one of {', '.join(levels)}" if levels else ""
    raise UserError(f"--explain-layer {shown(word)}: the layers before the head have the numbers 0 to {last}{also}")


def principal_component(channels: torch.Tensor) -> torch.Tensor:
    """How strongly each place of a map [c, h, w] has the first principal component of its channels: [h, w], 0 and above.

    The channels are centred, which the paper doesn't say: where they are not, the component is what all places have in
    common, the background. Its sign is arbitrary; taken is that by which the place farthest out is positive.
    """
    # not all devices decompose; of weights that a training has ruined, too
    places = channels.cpu().flatten(1).T.nan_to_num(0, 0, 0)
    places = places - places.mean(0)
    component = torch.linalg.svd(places, full_matrices=False)[2][0]
    found = places @ component
    return (found * found[found.abs().argmax()].sign()).relu().view(channels.shape[1:])


def fuse(maps: list[torch.Tensor]) -> torch.Tensor:
    """Maps [h, w] of several sizes in one of the finest's: each scaled to the sum 1, enlarged, and averaged."""
    size = max(tuple(heat.shape) for heat in maps)
    total = torch.zeros(size, device=maps[0].device)
    for heat in maps:
        heat = heat.float().nan_to_num(0, 0, 0)
        larger = F.interpolate(heat[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        if larger.sum() > 0:
            total += larger / larger.sum()
    return total / total.sum() if total.sum() > 0 else total
