"""A batch of images with their boxes, in one picture."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from utils.plots.draw import draw_boxes, draw_tag, save_image
from utils.plots.figure import shortened

MAX_SIDE = 1920  # of a grid of images, in pixels


MIN_SCORE = 0.25  # predictions below it would cover the image


def plot_images(
    images: np.ndarray | Sequence[np.ndarray],
    targets: np.ndarray | None,
    path: str | Path,
    names: dict[int, str],
    titles: list[str] | None = None,
    scores: np.ndarray | None = None,
    max_images: int = 16,
) -> Path:
    """A grid of the batch's first images with their boxes; its longer side is at most 1920 pixels.

    images: uint8 [b, h, w, 3] RGB. targets: float32 [n, 6] = image index in the batch, class, x, y, w, h, normalised
    by h and w. titles: the file of each image; its stem goes into a corner. scores: [n]; boxes below 0.25 are hidden.
    """
    images = images[:max_images]
    if len(images) == 0:
        images = [np.full((320, 320, 3), 255, np.uint8)]
    targets = np.zeros((0, 6), np.float32) if targets is None else np.asarray(targets).reshape(-1, 6)
    if scores is not None:
        scores = np.asarray(scores)
        targets, scores = targets[scores >= MIN_SCORE], scores[scores >= MIN_SCORE]

    height, width = images[0].shape[:2]
    columns = int(np.ceil(len(images) ** 0.5))
    rows = int(np.ceil(len(images) / columns))
    scale = min(1.0, MAX_SIDE / max(rows * height, columns * width))
    height, width = max(int(height * scale), 1), max(int(width * scale), 1)

    grid = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for i, image in enumerate(images):
        cell = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) if scale < 1 else image
        mine = targets[:, 0] == i
        x, y, w, h = (targets[mine, 2:6] * [width, height, width, height]).T
        boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
        cell = draw_boxes(cell, boxes, targets[mine, 1], names, None if scores is None else scores[mine])
        if titles is not None:
            _draw_title(cell, Path(titles[i]).stem)
        cell[0, :] = cell[:, 0] = 255  # a white line between neighbours
        row, column = divmod(i, columns)
        grid[row * height : (row + 1) * height, column * width : (column + 1) * width] = cell
    return save_image(path, grid)


def _draw_title(cell: np.ndarray, title: str) -> None:
    """Write the title in the lower left corner: labels of boxes crowd the upper edge."""
    size = max(10, cell.shape[0] // 40)
    longest = max(int(0.9 * cell.shape[1] / (0.6 * size)), 8)  # a letter is about 0.6 sizes wide
    draw_tag(cell, shortened(title, longest), 1, cell.shape[0], size, (40, 40, 40))
