"""A detector as it is exported: images in, one tensor of boxes out, with the suppression inside if asked for."""

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn

from models.load import use_half
from models.yolo import DetectionModel
from utils.boxes import CLASS_OFFSET, nms


class ExportGraph(nn.Module):
    """What an exporter traces: a fused copy of ``model``. Images [b, ch, h, w], float32, 0..1 → one of

    boxes [b, n, nc + 5]         x, y, w, h, objectness, classes: what YOLOv5's exports give
    (boxes, *maps)               with ``maps``: and per level the raw map [b, anchors, ny, nx, nc + 5], before sigmoid
    detections [b, max_det, 6]   with ``nms``: x1 y1 x2 y2 conf class by falling confidence, then rows of zeros;
                                 the best class of each box, with ``multi_label`` every one above ``conf_thres``

    ``half``: see use_half; images and boxes are float32 either way.
    """

    def __init__(
        self,
        model: DetectionModel,
        nms: bool = False,
        multi_label: bool = False,
        conf_thres: float = 0.25,
        iou_thres: float = 0.45,
        max_det: int = 300,
        maps: bool = False,
        half: bool = False,
    ):
        super().__init__()
        self.model = join_zeros(deepcopy(model).fuse().float())
        self.nms = nms
        self.multi_label = multi_label and model.detect.nc > 1  # with a single class both mean the same
        self.conf_thres = conf_thres
        self.iou_thres = iou_thres
        self.max_det = max_det
        self.maps = maps
        self.register_buffer("classes", torch.arange(model.detect.nc), persistent=False)
        if half:
            use_half(self.model)

    def fix_size(self, images: torch.Tensor) -> None:
        """From now on images have the size of these: the head computes once what follows from it."""
        sizes = []
        hook = self.model.detect.register_forward_pre_hook(lambda _, maps: sizes.extend(x.shape[2:] for x in maps[0]))
        self.model(images)
        hook.remove()
        self.model.detect.fix_sizes(sizes)

    def forward(self, images: torch.Tensor):
        boxes, maps = self.model(images)
        if self.nms:
            return self.suppress(boxes)
        return (boxes, *maps) if self.maps else boxes

    def suppress(self, boxes: torch.Tensor) -> torch.Tensor:
        """What utils.boxes.non_max_suppression does, in operations of fixed shapes."""
        xy, wh = boxes[..., :2], boxes[..., 2:4] / 2
        corners = torch.cat((xy - wh, xy + wh), 2)
        scores = boxes[..., 5:] * boxes[..., 4:5]
        if self.multi_label:  # each box once for every class
            corners = corners[:, :, None].expand(-1, -1, len(self.classes), -1).flatten(1, 2)
            conf, cls = scores.flatten(1), self.classes.expand(scores.shape).flatten(1)
        else:
            conf, cls = scores.max(2)
        cls = cls[..., None].to(conf.dtype)
        moved = corners + cls * CLASS_OFFSET
        chosen = Suppression.apply(moved, conf[:, None], self.max_det, self.iou_thres, self.conf_thres)
        kept = conf * 0  # new zeros would be stored in the file, 8 MB of them for every class of 25,200 boxes
        kept[chosen[:, 0], chosen[:, 2]] = 1.0
        conf = (conf * kept)[..., None]
        rows = F.pad(torch.cat((corners, conf, cls), 2), (0, 0, 0, self.max_det))  # a small image has fewer boxes
        best = rows[..., 4].topk(self.max_det)[1]
        rows = rows.gather(1, best[..., None].expand(-1, -1, 6))
        return rows * (rows[..., 4:5] > 0).to(rows.dtype)


class JoinedZeros(nn.ZeroPad2d):
    """nn.ZeroPad2d by concatenation. ONNX Runtime merges a padding into the max-pool that follows it, whose padding is −∞
    and not 0: yolov3-tiny would give other boxes there."""

    def forward(self, x):
        left, right, top, bottom = self.padding
        for dimension, before, after in ((3, left, right), (2, top, bottom)):
            line = torch.zeros_like(x.narrow(dimension, 0, 1))
            x = torch.cat([line] * before + [x] + [line] * after, dimension)
        return x


def join_zeros(model: DetectionModel) -> DetectionModel:
    """Let every nn.ZeroPad2d of ``model`` pad by concatenation, in place."""
    for module in model.modules():
        if type(module) is nn.ZeroPad2d:
            module.__class__ = JoinedZeros
    return model


class Suppression(torch.autograd.Function):
    """ONNX's NonMaxSuppression: boxes [b, n, 4], scores [b, 1, n] → [m, 3], each the image, 0, and the box's index."""

    @staticmethod
    def forward(ctx, boxes, scores, max_det, iou_thres, conf_thres):
        chosen = [torch.zeros(0, 3, dtype=torch.int64, device=boxes.device)]
        for i, (corners, (conf,)) in enumerate(zip(boxes, scores, strict=True)):
            candidates = (conf > conf_thres).nonzero().squeeze(1)
            keep = nms(corners[candidates], conf[candidates], iou_thres)[:max_det]
            index = candidates[keep]
            chosen.append(torch.stack((torch.full_like(index, i), torch.zeros_like(index), index), 1))
        return torch.cat(chosen)

    @staticmethod
    def symbolic(g, boxes, scores, max_det, iou_thres, conf_thres):
        return g.op(
            "NonMaxSuppression",
            boxes,
            scores,
            g.op("Constant", value_t=torch.tensor([max_det])),
            g.op("Constant", value_t=torch.tensor([iou_thres])),
            g.op("Constant", value_t=torch.tensor([conf_thres])),
        )
