"""Anchors: their order over the levels."""

import torch


def anchors_in_stride_order(anchors: torch.Tensor, strides: torch.Tensor) -> torch.Tensor:
    """Anchors [levels, na, 2] in pixels, turned around where their sizes fall while the strides rise (or the reverse)."""
    areas = anchors.prod(-1).mean(-1)
    rising = (areas[-1] - areas[0]) * (strides[-1] - strides[0])
    return anchors.flip(0) if rising < 0 else anchors
