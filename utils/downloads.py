"""A door: what programs written for YOLOv5 import from utils.downloads."""

from engine.stock.general import attempt_download
from utils.download import is_url

__all__ = ["attempt_download", "is_url"]
