"""A door: what programs written for YOLOv5 import from utils.general."""

from engine.stock.boxes import (
    clip_boxes,
    non_max_suppression,
    scale_boxes,
    xywh2xyxy,
    xywhn2xyxy,
    xyxy2xywh,
    xyxy2xywhn,
)
from engine.stock.general import (
    LOGGER,
    Profile,
    attempt_download,
    check_file,
    check_img_size,
    check_imshow,
    check_requirements,
    check_suffix,
    colorstr,
    increment_path,
    print_args,
    set_logging,
    strip_optimizer,
)
from utils.paths import ROOT

# the names of releases before 7
scale_coords, clip_coords = scale_boxes, clip_boxes

__all__ = [
    "LOGGER",
    "ROOT",
    "Profile",
    "attempt_download",
    "check_file",
    "check_img_size",
    "check_imshow",
    "check_requirements",
    "check_suffix",
    "clip_boxes",
    "clip_coords",
    "colorstr",
    "increment_path",
    "non_max_suppression",
    "print_args",
    "scale_boxes",
    "scale_coords",
    "set_logging",
    "strip_optimizer",
    "xywh2xyxy",
    "xywhn2xyxy",
    "xyxy2xywh",
    "xyxy2xywhn",
]
