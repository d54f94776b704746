"""What lies where in a picture, and in which colour."""

import cv2
import numpy as np


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 114, np.uint8)


def read(path) -> np.ndarray:
    """An image file as RGB."""
    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def near(image: np.ndarray, color: tuple[int, int, int], tolerance: int = 0) -> np.ndarray:
    """Mask [h, w] of the pixels of a colour."""
    low, high = np.array(color) - tolerance, np.array(color) + tolerance
    return cv2.inRange(np.ascontiguousarray(image), low, high) > 0


def extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x1 y1 x2 y2 of the true pixels, all inclusive."""
    ys, xs = np.nonzero(mask)
    return xs.min(), ys.min(), xs.max(), ys.max()


def color_count(image: np.ndarray) -> int:
    return len(np.unique(image.reshape(-1, 3)[::7] @ np.array([1, 256, 65536])))
