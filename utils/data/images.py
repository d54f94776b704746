"""Images: which files are images, reading one, fitting one into a network's input shape, and what a network takes."""

import math
import re
import zlib
from pathlib import Path

import cv2
import numpy as np
import torch

from utils.errors import UserError

# fmt: off
IMAGE_SUFFIXES = {".avif", ".bmp", ".dib", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png",
                  ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
VIDEO_SUFFIXES = {".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
                  ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"}
# fmt: on

MIN_SIDE = 10  # pixels; anything smaller is a broken thumbnail or a spacer, and vanishes at stride 32
PADDING_COLOUR = (114, 114, 114)  # the grey that YOLOv5's weights have seen around every image

# A decoder that fails is reported as an ImageError; what OpenCV prints besides would only cut through progress bars.
(cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging).setLogLevel(0)  # OpenCV 5 moved it; 0 is silent


class ImageError(UserError):
    """A file that can't be used as an image. The message is the short reason, without the path."""


def is_image(path: str | Path) -> bool:
    """Whether the suffix is that of an image format."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def is_video(path: str | Path) -> bool:
    """Whether the suffix is that of a video format (animated GIFs count as videos)."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as uint8 [h, w, 3] RGB, turned upright by its EXIF orientation.

    Grey becomes three equal channels, alpha is dropped, 16-bit values keep their high byte, float samples 0..1 become
    0..255. A file cut off in transfer is refused: decoders fill the missing part with grey, and a network would learn
    that as background.

    Raises ImageError with the reason when the file is missing, empty, cut off, not an image, or has a side under 10 px.
    """
    # Bytes first, decoding second: cv2.imread can't open every path that has non-ASCII letters in it.
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise ImageError("no such file") from None
    except OSError as e:
        raise ImageError(e.strerror or str(e)) from None
    if not data:
        raise ImageError("empty file")
    if data.startswith(b"\xff\xd8") and not _jpeg_complete(data):
        raise ImageError("truncated JPEG")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(data)

    encoded = np.frombuffer(data, np.uint8)
    try:
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        if image is None:  # TIFFs of float or 32-bit samples have no 8-bit reading
            image = cv2.imdecode(encoded, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    except (cv2.error, MemoryError) as e:
        raise ImageError(f"not decodable: {' '.join(str(e).split())}") from None
    if image is None:
        raise ImageError("not an image, or a damaged one")

    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ImageError(f"{width}x{height} pixels: smaller than {MIN_SIDE} px")
    image = to_uint8(image)
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)


def letterbox(
    image: np.ndarray,
    new_shape: int | tuple[int, int] = 640,
    auto: bool = True,
    scaleup: bool = True,
    stride: int = 32,
    color: tuple[int, int, int] = PADDING_COLOUR,
) -> tuple[np.ndarray, tuple[float, float], tuple[float, float]]:
    """Resize an image [h, w, 3] to fit into ``new_shape`` (h, w), keeping its proportions, and pad the rest with ``color``.

    With ``auto`` the padding goes only to the next multiple of ``stride``, so the result may be smaller than
    ``new_shape``; without it the result has exactly that shape. Without ``scaleup`` small images are not enlarged.

    Returns the image, the ratios (width, height) it was scaled by, and the padding (x, y) in pixels on each side. A
    padding of 21.5 means 21 pixels on the left or top and 22 on the right or bottom.
    """
    height, width = image.shape[:2]
    new_height, new_width = (new_shape, new_shape) if isinstance(new_shape, int) else new_shape
    ratio = min(new_height / height, new_width / width)
    if not scaleup:
        ratio = min(ratio, 1.0)
    inner_width, inner_height = max(round(width * ratio), 1), max(round(height * ratio), 1)
    pad_width, pad_height = new_width - inner_width, new_height - inner_height
    if auto:
        pad_width, pad_height = pad_width % stride, pad_height % stride

    if (inner_height, inner_width) != (height, width):
        image = cv2.resize(image, (inner_width, inner_height), interpolation=cv2.INTER_LINEAR)
    left, top = pad_width // 2, pad_height // 2
    image = cv2.copyMakeBorder(image, top, pad_height - top, left, pad_width - left, cv2.BORDER_CONSTANT, value=color)
    return image, (ratio, ratio), (pad_width / 2, pad_height / 2)


def stack_images(images: list[np.ndarray]) -> torch.Tensor:
    """Images uint8 [h, w, 3] of one shape → a batch uint8 [b, 3, h, w], in channels_last memory."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def to_float(
    images: torch.Tensor, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """A batch uint8, 0..255 → what a network takes: ``dtype``, 0..1, on ``device`` (default: where it is)."""
    # bytes travel, and become floats where they arrive: a quarter of the way
    return images.to(device=device, non_blocking=True).to(dtype) / 255


# A marker is FF and a code. In compressed data FF is followed by 00 (a data byte FF) or D0–D7 (restart), and FF may be
# repeated as filling.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_EOI, _TEM = 0xD9, 0x01


def _jpeg_complete(data: bytes) -> bool:
    """Whether a JPEG's own end marker is there.

    Segments are skipped by their length, so the end marker of a thumbnail inside the EXIF segment doesn't count; what
    follows the end marker (some cameras append data) doesn't matter.
    """
    position = 2
    while match := _JPEG_MARKER.search(data, position):
        code = match[1][0]
        if code == _EOI:
            return True
        position = match.end()
        if code != _TEM:  # all other markers left carry a length, which counts its own two bytes
            position += int.from_bytes(data[position : position + 2], "big")
    return False


def _check_png(data: bytes) -> None:
    """Raise ImageError where a PNG lacks its end chunk or has a damaged chunk that decoding needs."""
    position = 8
    while len(data) >= position + 12:
        length = int.from_bytes(data[position : position + 4], "big")
        name = data[position + 4 : position + 8]
        end = position + 8 + length
        if name == b"IEND":
            return
        needed = name[:1].isupper()
        if needed and zlib.crc32(memoryview(data)[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ImageError("damaged PNG" if end + 4 <= len(data) else "truncated PNG")
        position = end + 4
    raise ImageError("truncated PNG")


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Scale samples of another type to 8 bit: 0..1 and 0..255 by convention, anything brighter by its maximum."""
    if image.dtype == np.uint8:
        return image
    image = np.nan_to_num(image.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    brightest = image.max()
    if brightest <= 1:
        image = image * 255
    elif brightest > 255:
        image = image * (255 / brightest)
    return image.clip(0, 255).round().astype(np.uint8)


def fit_size(size: float, stride: int) -> int:
    """The side of an image in pixels, rounded up to a multiple of the model's largest stride."""
    return math.ceil(size / stride) * stride


def usable_imgsz(imgsz: int, stride: int) -> int:
    """The size that --imgsz asks for, as ``fit_size`` rounds it, with a warning where it does."""
    fitted = fit_size(imgsz, stride)
    if fitted != imgsz:
        print(f"warning: --imgsz {imgsz} is no multiple of the largest stride {stride}; {fitted} is used")
    return fitted
