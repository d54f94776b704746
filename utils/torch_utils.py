"""A door: what programs written for YOLOv5 import from utils.torch_utils."""

from engine.stock.general import select_device, smart_inference_mode, time_sync

# the name of releases before 6
time_synchronized = time_sync

__all__ = ["select_device", "smart_inference_mode", "time_sync", "time_synchronized"]
