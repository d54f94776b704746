"""The image size in training: --multi-scale."""

import torch

from utils.data.images import fit_size

LEAST, MOST = 0.5, 1.5


def largest_size(imgsz: int, stride: int) -> int:
    """The longest side that ``scaled_at_random`` makes of ``imgsz``."""
    return fit_size(int(imgsz * MOST), stride)


def scaled_at_random(images: torch.Tensor, stride: int, rng) -> torch.Tensor:
    """A batch [b, c, h, w] resized by a random factor of 0.5 to 1.5, its sides rounded up to multiples of ``stride``."""
    factor = rng.uniform(LEAST, MOST)
    size = [max(fit_size(int(side * factor), stride), stride) for side in images.shape[2:]]
    if size == list(images.shape[2:]):
        return images
    return torch.nn.functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
