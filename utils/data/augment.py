"""Augmentation of labelled images. Every draw comes from the generator that is passed in, never from global state.

    Scene, …   → mosaic4, mosaic9, Canvas.of → Canvas      laid out, not drawn yet
    Canvas     → random_affine               → labels      drawn once, at the size of the result

Inside this file everything is in pixels, from entry to exit:
    image uint8 [h, w, 3] RGB · labels float32 [n, 5] = class, x1, y1, x2, y2
    polygons, one per label or none at all: points float32 [k, 2], one polygon after the other, of ``counts`` int [n] points
"""

import math
from dataclasses import dataclass, field

import cv2
import numpy as np

GREY = 114
# pixels of an image whose colours are shifted at a time: what is in between stays in the processor's cache
STRIP = 1 << 16


def _no_points() -> np.ndarray:
    return np.zeros((0, 2), np.float32)


def _no_counts() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass
class Scene:
    """An image with its boxes and polygons."""

    image: np.ndarray
    labels: np.ndarray
    points: np.ndarray = field(default_factory=_no_points)
    counts: np.ndarray = field(default_factory=_no_counts)


@dataclass
class Canvas:
    """Images that are to be drawn on grey of ``shape`` (h, w), the later over the earlier, with the boxes of all.

    ``corners`` int [t, 2] is where the left upper corner (x, y) of each of the t images goes, and ``owner`` int [n] whose
    each label is. Labels and points are in pixels of the canvas, and do not leave it; images may.
    """

    shape: tuple[int, int]
    images: list[np.ndarray]
    corners: np.ndarray
    labels: np.ndarray
    owner: np.ndarray
    points: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, scene: Scene) -> "Canvas":
        """A scene that fills its canvas."""
        return lay_out([scene], [(0, 0)], scene.image.shape[:2])

    def drawn(self) -> np.ndarray:
        """The picture, uint8 [h, w, 3]."""
        height, width = self.shape
        picture = np.full((height, width, 3), GREY, np.uint8)
        for image, (left, top) in zip(self.images, self.corners.tolist(), strict=True):
            x, y = max(left, 0), max(top, 0)
            shown = image[y - top : max(height - top, 0), x - left : max(width - left, 0)]
            picture[y : y + shown.shape[0], x : x + shown.shape[1]] = shown
        return picture


def lay_out(scenes: list[Scene], corners: list[tuple[int, int]], shape: tuple[int, int]) -> Canvas:
    """Scenes with their left upper corners at ``corners`` (x, y) of a canvas of ``shape`` (h, w)."""
    places = np.array(corners, np.int64)
    owner = np.repeat(np.arange(len(scenes)), [len(s.labels) for s in scenes])
    limits = np.array([shape[1], shape[0]], np.float32)
    labels = np.concatenate([s.labels for s in scenes])
    labels[:, 1:] = (labels[:, 1:] + np.tile(places, 2)[owner]).clip(0, np.tile(limits, 2))
    points, counts = _no_points(), _no_counts()
    if any(len(s.counts) for s in scenes):
        # where some have polygons, the boxes of others are some, too
        whole = [s if len(s.counts) else Scene(s.image, s.labels, *_box_polygons(s.labels)) for s in scenes]
        points, counts = (np.concatenate([getattr(s, name) for s in whole]) for name in ("points", "counts"))
        points = (points + places[np.repeat(owner, counts)]).clip(0, limits).astype(np.float32)
    return Canvas(shape, [s.image for s in scenes], places, labels.astype(np.float32), owner, points, counts)


def _box_polygons(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The corners of boxes as points and counts, clockwise from the left upper one."""
    return labels[:, [1, 2, 3, 2, 3, 4, 1, 4]].reshape(-1, 2), np.full(len(labels), 4)


def to_pixels(labels: np.ndarray, size: tuple[float, float], pad: tuple[float, float] = (0, 0)) -> np.ndarray:
    """Normalised labels (class, x, y, w, h) → corners in pixels of an image of ``size`` (w, h) placed at ``pad`` (x, y)."""
    scale, shift = np.array([*size, *size], np.float32), np.array([*pad, *pad], np.float32)
    corners = np.concatenate((labels[:, 1:3] - labels[:, 3:5] / 2, labels[:, 1:3] + labels[:, 3:5] / 2), 1)
    return np.concatenate((labels[:, :1], corners * scale + shift), 1).astype(np.float32)


def to_normalised(labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Corners in pixels of an image of ``shape`` (h, w), clipped to it → class, x, y, w, h, normalised."""
    height, width = shape
    corners = labels[:, 1:].copy()
    corners[:, [0, 2]] = corners[:, [0, 2]].clip(0, width) / width
    corners[:, [1, 3]] = corners[:, [1, 3]].clip(0, height) / height
    centre, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    return np.concatenate((labels[:, :1], centre, size), 1).astype(np.float32)


# Laying out -------------------------------------------------------------------------------------------------------------


def mosaic4(tiles: list[Scene], size: int, rng: np.random.Generator) -> Canvas:
    """Four scenes around a random centre of a canvas twice ``size`` (YOLOv4, 2004.10934); each shows the corner at it."""
    x, y = (int(v) for v in rng.uniform(size / 2, size * 3 / 2, 2))
    (h0, w0), (h1, _), (_, w2), _ = (t.image.shape[:2] for t in tiles)
    return lay_out(tiles, [(x - w0, y - h0), (x, y - h1), (x - w2, y), (x, y)], (size * 2, size * 2))


def mosaic9(tiles: list[Scene], size: int, rng: np.random.Generator) -> Canvas:
    """Nine scenes, the first in the middle and the others around it edge to edge; a random part of twice ``size``."""
    (h0, w0), (h1, w1), (h2, _), (h3, _), _, (_, w5), (_, w6), (h7, w7), (h8, w8) = (t.image.shape[:2] for t in tiles)
    corners = [
        (0, 0),
        (0, -h1),  # above the first, and on clockwise
        (w1, -h2),
        (w0, 0),
        (w0, h3),
        (w0 - w5, h0),
        (w0 - w5 - w6, h0),
        (-w7, h0 - h7),
        (-w8, h0 - h7 - h8),
    ]
    left, top = (int(v) for v in rng.integers(0, size + 1, 2))
    moved = [(x + size - left, y + size - top) for x, y in corners]
    return lay_out(tiles, moved, (size * 2, size * 2))


def copy_paste(canvas: Canvas, probability: float, rng: np.random.Generator) -> Canvas:
    """Mirror a share of the polygons left-right and paste them where they hide less than 30 % of every other box."""
    count = round(probability * len(canvas.counts))
    if not count:
        return canvas
    image = canvas.drawn()
    mirrored = cv2.flip(image, 1)
    height, width = canvas.shape
    labels, points, counts = canvas.labels, [canvas.points], [canvas.counts]
    ends = canvas.counts.cumsum()
    for i in rng.choice(len(canvas.counts), count, replace=False):
        cls, x1, y1, x2, y2 = canvas.labels[i]
        box = np.array([width - x2, y1, width - x1, y2], np.float32)
        # of some nothing is on the canvas
        if (box[2:] - box[:2] < 1).any() or (_hidden_share(labels[:, 1:], box) >= 0.3).any():
            continue
        polygon = canvas.points[ends[i] - canvas.counts[i] : ends[i]] * [-1, 1] + [width, 0]
        left, top, right, bottom = (int(v) for v in (*np.floor(polygon.min(0)), *np.ceil(polygon.max(0)) + 1))
        mask = np.zeros((min(bottom, height) - top, min(right, width) - left), np.uint8)
        cv2.fillPoly(mask, [(polygon.round() - [left, top]).astype(np.int32)], 1)
        part = slice(top, top + mask.shape[0]), slice(left, left + mask.shape[1])
        image[part][mask > 0] = mirrored[part][mask > 0]
        labels = np.concatenate((labels, [[cls, *box]])).astype(np.float32)
        points.append(polygon.astype(np.float32))
        counts.append(canvas.counts[i : i + 1])
    return Canvas.of(Scene(image, labels, np.concatenate(points), np.concatenate(counts)))


def _hidden_share(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The share of each of ``boxes`` [n, 4] that ``box`` covers."""
    width = (np.minimum(boxes[:, 2], box[2]) - np.maximum(boxes[:, 0], box[0])).clip(0)
    height = (np.minimum(boxes[:, 3], box[3]) - np.maximum(boxes[:, 1], box[1])).clip(0)
    return width * height / ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) + 1e-9)


# Drawing ----------------------------------------------------------------------------------------------------------------


def random_affine(canvas: Canvas, out: np.ndarray, hyp: dict, rng: np.random.Generator) -> np.ndarray:
    """Rotate, zoom, shear, shift and tilt a canvas about its centre, flip it, and draw it on ``out`` uint8 [h, w, 3].

    Returns the labels [n, 5]. Boxes that become smaller than 2 px, keep less than a tenth of their area (a hundredth for
    polygons) or get thinner than 1:100 are dropped.
    """
    matrix, zoom = _random_matrix(canvas.shape, out.shape[:2], hyp, rng)
    straight = zoom and not (matrix[0, 1] or matrix[1, 0] or matrix[2, 0] or matrix[2, 1])
    boxes = (_draw_straight if straight else _draw_turned)(canvas, matrix, out)
    keep = _worth_keeping(canvas.labels[:, 1:] * zoom, boxes, 0.01 if len(canvas.counts) else 0.1)
    return np.concatenate((canvas.labels[:, :1], boxes), 1)[keep].astype(np.float32)


def _random_matrix(
    shape: tuple[int, int], out: tuple[int, int], hyp: dict, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """What leads from a canvas of ``shape`` (h, w) to an image of the size ``out`` (h, w), [3, 3], and the zoom in it."""
    tilt_x, tilt_y, angle, shear_x, shear_y, shift_x, shift_y = rng.uniform(-1, 1, 7)
    to_centre = np.eye(3)
    to_centre[:2, 2] = -shape[1] / 2, -shape[0] / 2
    tilt = np.eye(3)
    tilt[2, :2] = tilt_x * hyp["perspective"], tilt_y * hyp["perspective"]
    zoom = rng.uniform(1 - hyp["scale"], 1 + hyp["scale"])
    turn = np.eye(3)
    turn[:2] = cv2.getRotationMatrix2D((0, 0), angle * hyp["degrees"], zoom)
    shear = np.eye(3)
    shear[0, 1], shear[1, 0] = (math.tan(math.radians(v * hyp["shear"])) for v in (shear_x, shear_y))
    shift = np.eye(3)
    shift[:2, 2] = (0.5 + shift_x * hyp["translate"]) * out[1], (0.5 + shift_y * hyp["translate"]) * out[0]
    flip = np.eye(3)
    up_down, left_right = rng.random(2)
    if left_right < hyp["fliplr"]:
        flip[0] = -1, 0, out[1]
    if up_down < hyp["flipud"]:
        flip[1] = 0, -1, out[0]
    return flip @ shift @ shear @ turn @ tilt @ to_centre, zoom  # applied from right to left


def _draw_straight(canvas: Canvas, matrix: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Draw a canvas that is not turned: of each image the part that shows, resized to where it goes.

    Parts begin and end at whole pixels, both here and there, so what an image is scaled by is up to a pixel beside
    ``matrix``; its boxes move by what it is scaled by. Returns them, [n, 4], clipped to where their image shows.
    """
    limits = np.array([out.shape[1], out.shape[0]])
    scale, shift = matrix[[0, 1], [0, 1]], matrix[:2, 2]
    sizes = np.array([(image.shape[1], image.shape[0]) for image in canvas.images])
    first = canvas.corners.clip(0)
    last = np.minimum(canvas.corners + sizes, (canvas.shape[1], canvas.shape[0]))
    # of the images in the result: from low to high, which a flip makes from last to first
    ends = np.stack((first * scale + shift, last * scale + shift)).round(6)
    low, high = ends.min(0), ends.max(0)
    to_low, to_high = low.clip(0, limits).round(), high.clip(0, limits).round()
    # where an image ends within the result it is drawn to its end, else to the pixel that the edge of the result cuts
    cut = ((np.stack((to_low, to_high)) - shift) / scale).round(6)
    cut_low, cut_high = np.floor(cut.min(0)), np.ceil(cut.max(0))
    keeps_first, keeps_last = np.where(scale > 0, (low >= 0, high <= limits), (high <= limits, low >= 0))
    from_first = np.where(keeps_first, first, np.maximum(cut_low, first)).astype(int)
    from_last = np.where(keeps_last, last, np.minimum(cut_high, last)).astype(int)

    out[...] = GREY
    room, taken = (to_high - to_low).astype(int), from_last - from_first
    shown = ((room > 0) & (taken > 0)).all(1)
    flip = {(True, False): 1, (False, True): 0, (True, True): -1}.get(tuple(scale < 0))
    for i in np.flatnonzero(shown):
        (x1, y1), (x2, y2) = from_first[i] - canvas.corners[i], from_last[i] - canvas.corners[i]
        (left, top), (width, height) = to_low[i].astype(int), room[i]
        part = canvas.images[i][y1:y2, x1:x2]
        if flip is not None:
            part = cv2.flip(part, flip)
        place = out[top : top + height, left : left + width]
        cv2.resize(part, (int(width), int(height)), dst=place, interpolation=cv2.INTER_LINEAR)

    # an image that does not show has its boxes at one point
    scaled = np.where(shown[:, None], room / taken.clip(1), 0) * np.sign(scale)
    origin = np.where(scale > 0, to_low, to_high) - from_first * scaled
    areas = np.concatenate((to_low, to_high), 1)[canvas.owner]
    if len(canvas.counts):
        owner = np.repeat(canvas.owner, canvas.counts)
        return _extents(canvas.points * scaled[owner] + origin[owner], canvas.counts, areas)
    corners = canvas.labels[:, 1:].reshape(-1, 2, 2) * scaled[canvas.owner, None] + origin[canvas.owner, None]
    boxes = np.concatenate((corners.min(1), corners.max(1)), 1)
    return boxes.clip(np.tile(areas[:, :2], 2), np.tile(areas[:, 2:], 2))


def _draw_turned(canvas: Canvas, matrix: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Draw a canvas that is turned, sheared or tilted: as a whole, then warped. Returns the boxes [n, 4]."""
    size, grey = (out.shape[1], out.shape[0]), (GREY,) * 3
    # OpenCV counts from the middle of the first pixel, coordinates here from its corner
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    of_middles = np.linalg.inv(half) @ matrix @ half
    if matrix[2, 0] or matrix[2, 1]:
        cv2.warpPerspective(canvas.drawn(), of_middles, size, dst=out, borderValue=grey)
    else:
        cv2.warpAffine(canvas.drawn(), of_middles[:2], size, dst=out, borderValue=grey)
    points, counts = (canvas.points, canvas.counts) if len(canvas.counts) else _box_polygons(canvas.labels)
    projected = np.column_stack((points, np.ones(len(points)))) @ matrix.T
    moved = projected[:, :2] / projected[:, 2:]
    if len(canvas.counts):
        return _extents(moved, counts, np.tile((0, 0, *size), (len(counts), 1)))
    corners = moved.reshape(-1, 4, 2)
    return np.concatenate((corners.min(1), corners.max(1)), 1).clip(0, np.tile(size, 2))


def _extents(points: np.ndarray, counts: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """The boxes [n, 4] of what polygons show within ``areas`` [n, 4] (x1, y1, x2, y2); of nothing, a box without size.

    From left to right that is what lies between the upper and the lower edge of the area, clipped to left and right; and
    likewise from top to bottom.
    """
    ends = counts.cumsum()
    starts = ends - counts
    following = np.arange(1, len(points) + 1)
    following[ends - 1] = starts
    begin, step = points, points[following] - points
    low, high = np.split(np.repeat(areas, counts, axis=0), 2, axis=1)
    # an edge that neither rises nor falls is between the two, or isn't, as a whole
    slope = np.where(step == 0, 1e-9, step)
    shares = np.stack(((low - begin) / slope, (high - begin) / slope))
    enters, leaves = shares.min(0).clip(0), shares.max(0).clip(max=1)
    boxes = np.zeros((len(counts), 4))
    for axis, other in ((0, 1), (1, 0)):
        within = enters[:, other] <= leaves[:, other]
        reached = begin[:, axis] + step[:, axis] * np.stack((enters[:, other], leaves[:, other]))
        least = np.minimum.reduceat(np.where(within, reached.min(0), np.inf), starts)
        most = np.maximum.reduceat(np.where(within, reached.max(0), -np.inf), starts)
        anything = least <= most
        boxes[:, axis] = np.where(anything, least, 0).clip(areas[:, axis], areas[:, axis + 2])
        boxes[:, axis + 2] = np.where(anything, most, 0).clip(areas[:, axis], areas[:, axis + 2])
    return boxes


def _worth_keeping(before: np.ndarray, after: np.ndarray, area_share: float) -> np.ndarray:
    w1, h1 = before[:, 2] - before[:, 0], before[:, 3] - before[:, 1]
    w2, h2 = after[:, 2] - after[:, 0], after[:, 3] - after[:, 1]
    thin = np.maximum(w2 / (h2 + 1e-9), h2 / (w2 + 1e-9))
    return (w2 > 2) & (h2 > 2) & (w2 * h2 / (w1 * h1 + 1e-9) > area_share) & (thin < 100)


# Colours ----------------------------------------------------------------------------------------------------------------


def mixup(image: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> None:
    """Blend another image into one, at about equal parts (1710.09412). The boxes of both count."""
    share = rng.beta(32.0, 32.0)
    cv2.addWeighted(image, share, other, 1 - share, 0, dst=image)


def shift_colours(image: np.ndarray, hue: float, saturation: float, value: float, rng: np.random.Generator) -> None:
    """Multiply hue, saturation and value of an image by random factors within 1 ± the given gains, in its place."""
    if not (hue or saturation or value):
        return
    gains = (rng.uniform(-1, 1, 3) * [hue, saturation, value] + 1).clip(0)
    hues = (np.arange(256) * gains[0] % 180).astype(np.uint8)  # OpenCV's hue goes from 0 to 179
    rows = max(STRIP // image.shape[1], 1)
    for top in range(0, len(image), rows):
        strip = image[top : top + rows]
        hsv = cv2.cvtColor(strip, cv2.COLOR_RGB2HSV)
        h, s, v = cv2.split(hsv)
        cv2.LUT(h, hues, dst=h)
        cv2.convertScaleAbs(s, dst=s, alpha=gains[1])
        cv2.convertScaleAbs(v, dst=v, alpha=gains[2])
        cv2.cvtColor(cv2.merge((h, s, v), dst=hsv), cv2.COLOR_HSV2RGB, dst=strip)
