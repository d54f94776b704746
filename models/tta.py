"""Test-time augmentation: one image seen three ways."""

import torch
import torch.nn.functional as F
from torch import nn

from utils.data.images import fit_size


def forward_augment(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, None]:
    """Full size, 0.83 flipped, 0.67: boxes of all three, in the pixels of the images ``x`` [b, ch, h, w].

    The coarsest level of the full image and the finest of the smallest are left out: there the other scales see better.
    """
    height, width = x.shape[2:]
    merged = []
    for ratio, flip in ((1.0, False), (0.83, True), (0.67, False)):
        image = scale_image(x.flip(3) if flip else x, ratio, int(model.stride.max()))
        boxes, maps = model.forward_once(image)
        boxes[..., :4] /= ratio
        if flip:
            boxes[..., 0] = width - boxes[..., 0]
        counts = [m[0, ..., 0].numel() for m in maps]
        if len(counts) > 1 and ratio == 1.0:
            boxes = boxes[:, : -counts[-1]]
        elif len(counts) > 1 and ratio == 0.67:
            boxes = boxes[:, counts[0] :]
        merged.append(boxes)
    return torch.cat(merged, 1), None


def scale_image(x: torch.Tensor, ratio: float, multiple: int) -> torch.Tensor:
    """Resize images [b, c, h, w] by ``ratio`` and pad right and bottom to a multiple, with the grey of ImageNet's mean."""
    if ratio == 1.0:
        return x
    height, width = x.shape[2:]
    x = F.interpolate(x, size=(int(height * ratio), int(width * ratio)), mode="bilinear", align_corners=False)
    target = [fit_size(side * ratio, multiple) for side in (height, width)]
    return F.pad(x, (0, target[1] - x.shape[3], 0, target[0] - x.shape[2]), value=0.447)
