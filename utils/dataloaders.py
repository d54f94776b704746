"""A door: what programs written for YOLOv5 import from utils.dataloaders."""

from engine.stock.loaders import LoadImages, LoadStreams, letterbox
from utils.data.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES

# without the dot, as stock has them
IMG_FORMATS = tuple(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
VID_FORMATS = tuple(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))

__all__ = ["IMG_FORMATS", "VID_FORMATS", "LoadImages", "LoadStreams", "letterbox"]
