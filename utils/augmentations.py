"""A door: what programs written for YOLOv5 import from utils.augmentations."""

from engine.stock.loaders import letterbox

__all__ = ["letterbox"]
