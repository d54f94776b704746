"""Augmentation of labelled images. Every draw comes from the generator that is passed in, never from global state.

Inside this file a scene is in pixels, from entry to exit:
    image uint8 [h, w, 3] RGB · labels float32 [n, 5] = class, x1, y1, x2, y2 · segments, one polygon [k, 2] per label, or []
"""

import math
from dataclasses import dataclass, field

import cv2
import numpy as np

GREY = 114


@dataclass
class Scene:
    """An image and its boxes in pixels; ``segments`` has a polygon for every label, or is empty."""

    image: np.ndarray
    labels: np.ndarray
    segments: list[np.ndarray] = field(default_factory=list)


def to_pixels(labels: np.ndarray, segments: list[np.ndarray], size: tuple[float, float], pad: tuple[float, float]):
    """Normalised labels (class, x, y, w, h) and polygons → corners and points in pixels of an image of ``size`` (w, h)
    placed at ``pad`` (x, y)."""
    scale, shift = np.array([*size, *size], np.float32), np.array([*pad, *pad], np.float32)
    corners = np.concatenate((labels[:, 1:3] - labels[:, 3:5] / 2, labels[:, 1:3] + labels[:, 3:5] / 2), 1)
    moved = [segment * scale[:2] + shift[:2] for segment in segments]
    return np.concatenate((labels[:, :1], corners * scale + shift), 1).astype(np.float32), moved


def to_normalised(labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Corners in pixels of an image of ``shape`` (h, w), clipped to it → class, x, y, w, h, normalised."""
    height, width = shape
    corners = labels[:, 1:].copy()
    corners[:, [0, 2]] = corners[:, [0, 2]].clip(0, width) / width
    corners[:, [1, 3]] = corners[:, [1, 3]].clip(0, height) / height
    centre, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    return np.concatenate((labels[:, :1], centre, size), 1).astype(np.float32)


def mosaic4(tiles: list[Scene], size: int, rng: np.random.Generator) -> Scene:
    """Four scenes around a random centre of a canvas twice ``size`` (YOLOv4, 2004.10934); each shows the corner at it."""
    centre_x, centre_y = (int(v) for v in rng.uniform(size / 2, size * 3 / 2, 2))
    canvas = np.full((size * 2, size * 2, 3), GREY, np.uint8)
    placed = []
    for i, tile in enumerate(tiles):
        h, w = tile.image.shape[:2]
        left = centre_x - w if i % 2 == 0 else centre_x
        top = centre_y - h if i < 2 else centre_y
        placed.append(_place(canvas, tile, left, top))
    return _join(canvas, placed)


def mosaic9(tiles: list[Scene], size: int, rng: np.random.Generator) -> Scene:
    """Nine scenes, the first in the middle and the others around it edge to edge; a random part of twice ``size``."""
    canvas = np.full((size * 3, size * 3, 3), GREY, np.uint8)
    (h0, w0), (h1, w1), (h2, _), (h3, _), _, (_, w5), (_, w6), (h7, w7), (h8, w8) = (t.image.shape[:2] for t in tiles)
    corners = [
        (size, size),
        (size, size - h1),  # above the first, and on clockwise
        (size + w1, size - h2),
        (size + w0, size),
        (size + w0, size + h3),
        (size + w0 - w5, size + h0),
        (size + w0 - w5 - w6, size + h0),
        (size - w7, size + h0 - h7),
        (size - w8, size + h0 - h7 - h8),
    ]
    placed = [_place(canvas, tile, left, top) for tile, (left, top) in zip(tiles, corners, strict=True)]
    whole = _join(canvas, placed)
    left, top = (int(v) for v in rng.integers(0, size + 1, 2))
    part = np.ascontiguousarray(canvas[top : top + 2 * size, left : left + 2 * size])
    labels = whole.labels - np.array([0, left, top, left, top], np.float32)
    segments = [s - np.array([left, top], np.float32) for s in whole.segments]
    return _clipped(Scene(part, labels, segments), 2 * size)


def _place(canvas: np.ndarray, tile: Scene, left: int, top: int) -> Scene:
    """Draw a scene with its corner at (left, top), cut to the canvas; returns it in the canvas's pixels."""
    h, w = tile.image.shape[:2]
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + w, canvas.shape[1]), min(top + h, canvas.shape[0])
    if x2 > x1 and y2 > y1:
        canvas[y1:y2, x1:x2] = tile.image[y1 - top : y2 - top, x1 - left : x2 - left]
    labels = tile.labels + np.array([0, left, top, left, top], np.float32)
    return Scene(canvas, labels, [s + np.array([left, top], np.float32) for s in tile.segments])


def _join(canvas: np.ndarray, placed: list[Scene]) -> Scene:
    labels = np.concatenate([p.labels for p in placed])
    with_polygons = any(p.segments for p in placed)
    segments = [s for p in placed for s in (p.segments or _box_polygons(p.labels))] if with_polygons else []
    return _clipped(Scene(canvas, labels, segments), canvas.shape[0])


def _box_polygons(labels: np.ndarray) -> list[np.ndarray]:
    return [np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32) for _, x1, y1, x2, y2 in labels]


def _clipped(scene: Scene, side: int) -> Scene:
    scene.labels[:, 1:] = scene.labels[:, 1:].clip(0, side)
    scene.segments = [s.clip(0, side) for s in scene.segments]
    return scene


def copy_paste(scene: Scene, probability: float, rng: np.random.Generator) -> Scene:
    """Mirror a share of the polygons left-right and paste them where they hide less than 30 % of every other box."""
    count = round(probability * len(scene.segments))
    if not count:
        return scene
    width = scene.image.shape[1]
    image, labels, segments = scene.image.copy(), scene.labels, list(scene.segments)
    mirrored = scene.image[:, ::-1]
    for i in rng.choice(len(scene.segments), count, replace=False):
        cls, x1, y1, x2, y2 = labels[i]
        box = np.array([width - x2, y1, width - x1, y2], np.float32)
        if (_hidden_share(labels[:, 1:], box) < 0.3).all():
            polygon = np.column_stack((width - scene.segments[i][:, 0], scene.segments[i][:, 1])).astype(np.float32)
            mask = np.zeros(image.shape[:2], np.uint8)
            cv2.fillPoly(mask, [polygon.round().astype(np.int32)], 1)
            image[mask > 0] = mirrored[mask > 0]
            labels = np.concatenate((labels, [[cls, *box]])).astype(np.float32)
            segments.append(polygon)
    return Scene(image, labels, segments)


def _hidden_share(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The share of each of ``boxes`` [n, 4] that ``box`` covers."""
    width = (np.minimum(boxes[:, 2], box[2]) - np.maximum(boxes[:, 0], box[0])).clip(0)
    height = (np.minimum(boxes[:, 3], box[3]) - np.maximum(boxes[:, 1], box[1])).clip(0)
    return width * height / ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) + 1e-9)


def random_affine(scene: Scene, size: tuple[int, int], hyp: dict, rng: np.random.Generator) -> Scene:
    """Rotate, zoom, shear, shift and tilt about the centre, onto an image of ``size`` (h, w).

    Boxes that become smaller than 2 px, keep less than a tenth of their area (a hundredth for polygons) or get thinner
    than 1:100 are dropped.
    """
    height, width = scene.image.shape[:2]
    out_height, out_width = size

    def spread(limit: float) -> float:
        return rng.uniform(-limit, limit)

    to_centre = np.eye(3)
    to_centre[:2, 2] = -width / 2, -height / 2
    tilt = np.eye(3)
    tilt[2, :2] = spread(hyp["perspective"]), spread(hyp["perspective"])
    zoom = rng.uniform(1 - hyp["scale"], 1 + hyp["scale"])
    turn = np.eye(3)
    turn[:2] = cv2.getRotationMatrix2D((0, 0), spread(hyp["degrees"]), zoom)
    shear = np.eye(3)
    shear[0, 1], shear[1, 0] = (math.tan(math.radians(spread(hyp["shear"]))) for _ in range(2))
    shift = np.eye(3)
    shift[:2, 2] = (0.5 + spread(hyp["translate"])) * out_width, (0.5 + spread(hyp["translate"])) * out_height
    matrix = shift @ shear @ turn @ tilt @ to_centre  # applied from right to left

    image = scene.image
    if (height, width) != size or not np.allclose(matrix, np.eye(3)):
        grey = (GREY,) * 3
        if hyp["perspective"]:
            image = cv2.warpPerspective(image, matrix, dsize=(out_width, out_height), borderValue=grey)
        else:
            image = cv2.warpAffine(image, matrix[:2], dsize=(out_width, out_height), borderValue=grey)
    if not len(scene.labels):
        return Scene(image, scene.labels)

    limits = np.array([out_width, out_height], np.float32)
    polygons = scene.segments or _box_polygons(scene.labels)
    moved = [_transform(_densified(p) if scene.segments else p, matrix) for p in polygons]
    boxes = np.array([_extent(p, limits) if scene.segments else [*p.min(0), *p.max(0)] for p in moved], np.float32)
    boxes = boxes.clip(0, np.tile(limits, 2))
    keep = _worth_keeping(scene.labels[:, 1:] * zoom, boxes, 0.01 if scene.segments else 0.1)
    labels = np.concatenate((scene.labels[:, :1], boxes), 1)[keep]
    segments = [p.clip(0, limits) for p, kept in zip(moved, keep, strict=True) if kept] if scene.segments else []
    return Scene(image, labels, segments)


def _transform(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    projected = np.column_stack((points, np.ones(len(points)))) @ matrix.T
    return (projected[:, :2] / projected[:, 2:]).astype(np.float32)


def _densified(polygon: np.ndarray, points: int = 1000) -> np.ndarray:
    """The closed outline sampled at many points, so that what lies inside the image gives a tight box."""
    closed = np.concatenate((polygon, polygon[:1]))
    where = np.linspace(0, len(polygon), points)
    return np.column_stack([np.interp(where, np.arange(len(closed)), closed[:, axis]) for axis in (0, 1)])


def _extent(points: np.ndarray, limits: np.ndarray) -> list[float]:
    inside = points[((points >= 0) & (points <= limits)).all(1)]
    return [*inside.min(0), *inside.max(0)] if len(inside) else [0.0] * 4


def _worth_keeping(before: np.ndarray, after: np.ndarray, area_share: float) -> np.ndarray:
    w1, h1 = before[:, 2] - before[:, 0], before[:, 3] - before[:, 1]
    w2, h2 = after[:, 2] - after[:, 0], after[:, 3] - after[:, 1]
    thin = np.maximum(w2 / (h2 + 1e-9), h2 / (w2 + 1e-9))
    return (w2 > 2) & (h2 > 2) & (w2 * h2 / (w1 * h1 + 1e-9) > area_share) & (thin < 100)


def mixup(first: Scene, second: Scene, rng: np.random.Generator) -> Scene:
    """Two scenes blended at about equal parts (1710.09412), with the boxes of both."""
    share = rng.beta(32.0, 32.0)
    image = (first.image * share + second.image * (1 - share)).astype(np.uint8)
    return Scene(image, np.concatenate((first.labels, second.labels)))


def shift_colours(
    image: np.ndarray, hue: float, saturation: float, value: float, rng: np.random.Generator
) -> np.ndarray:
    """Multiply hue, saturation and value by random factors within 1 ± the given gains."""
    if not (hue or saturation or value):
        return image
    gains = rng.uniform(-1, 1, 3) * [hue, saturation, value] + 1
    ramp = np.arange(256)
    tables = [
        (ramp * gains[0]) % 180,  # OpenCV's hue goes from 0 to 179
        (ramp * gains[1]).clip(0, 255),
        (ramp * gains[2]).clip(0, 255),
    ]
    channels = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
    shifted = [cv2.LUT(channel, table.astype(np.uint8)) for channel, table in zip(channels, tables, strict=True)]
    return cv2.cvtColor(cv2.merge(shifted), cv2.COLOR_HSV2RGB)


def random_flips(image: np.ndarray, labels: np.ndarray, up_down: float, left_right: float, rng: np.random.Generator):
    """Flip image and normalised labels (class, x, y, w, h), each way with its probability."""
    labels = labels.copy()
    if rng.random() < up_down:
        image = image[::-1]
        labels[:, 2] = 1 - labels[:, 2]
    if rng.random() < left_right:
        image = image[:, ::-1]
        labels[:, 1] = 1 - labels[:, 1]
    return np.ascontiguousarray(image), labels
