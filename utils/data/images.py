"""Images: which files are images, reading one, fitting one into a network's input shape, and what a network takes."""

import math
from pathlib import Path

import cv2
import numpy as np
import torch

from utils.data.headers import (
    HEAD,
    LIMIT_VARIABLE,
    HeaderError,
    announced_size,
    begins_as_image,
    check_whole,
    most_pixels,
)
from utils.errors import UserError
from utils.files import why_unreadable

# fmt: off
IMAGE_SUFFIXES = {".avif", ".bmp", ".dib", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png",
                  ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
VIDEO_SUFFIXES = {".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
                  ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"}
# fmt: on

MOST_BYTES = 1 << 30  # of an image file
MIN_SIDE = 10  # pixels; anything smaller is a broken thumbnail or a spacer, and vanishes at stride 32
# what the sides of a JPEG can be divided by in decoding → OpenCV's flag for it
REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
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

    Raises ImageError with the reason when the file is missing, no regular file, empty, cut off, not an image, has a side
    under 10 px, or announces more pixels than most_pixels(): such a file is not decoded.
    """
    return read_near(path, None)[0]


def read_near(path: str | Path, size: int | None) -> tuple[np.ndarray, tuple[int, int]]:
    """Read an image as read_image does, and its native size (h, w), upright.

    A JPEG whose longer side is at least two, four or eight times ``size`` is decoded at a half, a quarter or an eighth of
    its size: that is cheaper, and averages where resizing would leave out pixels. Raises ImageError as read_image does.
    """
    # Bytes first, decoding second: cv2.imread can't open every path that has non-ASCII letters in it.
    data = _read_bytes(path)
    try:
        check_whole(data)
        width, height = announced_size(data)
    except HeaderError as e:
        raise ImageError(str(e)) from None
    if width * height > most_pixels():
        raise ImageError(
            f"{width}x{height} pixels: more than {most_pixels():,} are not decoded; "
            f"shrink it, or set {LIMIT_VARIABLE} to a higher number"
        )
    divisor = _divisor(data, width, height, size)
    try:
        image = _decode(np.frombuffer(data, np.uint8), divisor)
    except (cv2.error, MemoryError) as e:
        # without OpenCV's version and the path of its source: «OpenCV(5.0.0) /io/…/loadsave.cpp:75: error: (-215:…»
        said = str(e).rpartition(": error: ")[2]
        raise ImageError(f"not decodable: {' '.join(said.split())}") from None
    if divisor == 1:
        return image, image.shape[:2]
    upright = image.shape[:2] == (-(-height // divisor), -(-width // divisor))
    return image, (height, width) if upright else (width, height)


def _divisor(data: bytes, width: int, height: int, size: int | None) -> int:
    """By how much the sides of an image are divided when it is decoded."""
    if size is None or not data.startswith(b"\xff\xd8"):
        return 1
    for divisor in REDUCED:
        # where both sides come out equal, one can't see whether it was turned
        told = width == height or -(-width // divisor) != -(-height // divisor)
        if max(width, height) >= size * divisor and told and min(width, height) >= MIN_SIDE * divisor:
            return divisor
    return 1


def _read_bytes(path: str | Path) -> bytes:
    """All of a file that begins as an image does. Raises ImageError."""
    if reason := why_unreadable(path, "file", MOST_BYTES):
        raise ImageError(reason)
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
            if not head:
                raise ImageError("empty file")
            if not begins_as_image(head):
                raise ImageError("not an image, or a damaged one")
            file.seek(0)
            return file.read()
    except OSError as e:
        raise ImageError(e.strerror or str(e)) from None


def _decode(encoded: np.ndarray, divisor: int = 1) -> np.ndarray:
    """Bytes of an image file, uint8 [n] → uint8 [h, w, 3] RGB, its sides divided by 1 or, of a JPEG, one of REDUCED.

    Raises ImageError, cv2.error and MemoryError.
    """
    image = cv2.imdecode(encoded, REDUCED.get(divisor, cv2.IMREAD_COLOR))
    if image is None:  # TIFFs of float or 32-bit samples have no 8-bit reading
        image = cv2.imdecode(encoded, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
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


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Scale samples of another type to 8 bit: 0..1 and 0..255 by convention, anything brighter by its maximum."""
    if image.dtype == np.uint8:
        return image
    # by strips of rows: all at once, the numbers in between would take eight times the room
    strips = [image[top : top + 256] for top in range(0, len(image), 256)]
    brightest = max(_finite(strip).max() for strip in strips)
    factor = 255 if brightest <= 1 else 255 / brightest if brightest > 255 else 1
    return np.concatenate([(_finite(strip) * factor).clip(0, 255).round().astype(np.uint8) for strip in strips])


def _finite(image: np.ndarray) -> np.ndarray:
    return np.nan_to_num(image.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def fit_size(size: float, stride: int) -> int:
    """The side of an image in pixels, rounded up to a multiple of the model's largest stride."""
    return math.ceil(size / stride) * stride


def usable_imgsz(imgsz: int, stride: int) -> int:
    """The size that --imgsz asks for, as ``fit_size`` rounds it, with a warning where it does."""
    fitted = fit_size(imgsz, stride)
    if fitted != imgsz:
        print(f"warning: --imgsz {imgsz} is no multiple of the largest stride {stride}; {fitted} is used")
    return fitted
