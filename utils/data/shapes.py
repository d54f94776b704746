"""The small detection set that comes with the project: pictures of shapes, drawn on first use instead of downloaded."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from utils.console.progress import track
from utils.errors import UserError

CLASSES = ("circle", "square", "triangle", "star", "ring")  # data/shapes.yaml names them in this order
IMAGES = {"train": 1600, "val": 60}
IMAGE_SIZE = 192  # pixels, both sides
SEED = 0
# Raise it whenever the pictures change, so that a set drawn earlier is not taken for this one. Those of "val" are what
# published figures were measured on: they stay as they are, and each of "train" as well, however many there are.
VERSION = 2

# How hard the set is. Ranges are (lowest, highest), both included.
SHAPES = (2, 7)  # labelled shapes in an image
LOOK_ALIKES = (0, 2)  # unlabelled shapes in an image: what a detector must learn to leave alone
CLUTTER = (1, 3)  # soft patches in the background, and as many lines
EMPTY_EVERY = 14  # every 14th image holds no labelled shape
SIZE = (40, 100)  # longer side of a shape's box in pixels, log-uniform
SMALL_SIZE, SMALL_SHARE = (16, 40), 0.08  # … and this share of the labelled shapes is small instead
CONTRAST = (100, 200)  # distance in RGB (0..255 each) of a shape's mean colour from its surroundings
LOW_CONTRAST, LOW_CONTRAST_SHARE = (35, 80), 0.06  # … and this share of the shapes is hard to make out
HUES = (0, 220, 120, 50, 290)  # degrees: the typical hue of each class, give or take HUE_SPREAD
HUE_SPREAD = 25
TYPICAL_SHARE = 0.75  # of its shapes have it, and as many look-alikes that of some class: colour helps, and misleads
TEXTURE = (0, 35)  # how far a texture's two colours lie from their mean, in each channel
TILT = (0.85, 1.0)  # a shape is seen from a slant: squeezed by this factor in some direction
MIN_INSIDE = 0.7  # the share of a shape that the image's border must leave
MIN_VISIBLE = 0.6  # the share of a labelled shape that border and later shapes together must leave
LOOK_ALIKE_VISIBLE = 0.95  # the same for a look-alike: what tells it from a labelled shape must not be hidden
BLUR = (0.0, 0.9)  # standard deviation in pixels
BRIGHTNESS = (0.75, 1.2)
NOISE = (2.0, 9.0)  # standard deviation of the sensor noise, of 255

MARGIN = 48  # masks are drawn with this much room around the image, to know what the border cuts off
TRIES = 30  # places tried for a shape before the scene goes without it
MANIFEST = "README.txt"


def make_shapes(root: Path, progress: bool = True) -> Path:
    """Draw the set into ``root``: images/{train,val}/*.jpg and labels/{train,val}/*.txt. Takes seconds.

    Returns ``root``; at once where the set is already there. The set is built in a temporary folder beside ``root`` and
    moved into place when complete, so ``root`` never holds half of it, and several processes may call this at once.
    With the same versions of numpy and cv2 the files are the same to the byte on every run.
    Raises UserError when ``root`` exists and holds anything but this set (nothing is overwritten) or cannot be created.
    """
    root = Path(root)
    if root.exists():
        _check_is_ours(root)
        return root
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent)
    except OSError as e:
        raise UserError(f"{root}: cannot be created ({e.strerror}: {e.filename}); choose another `path:`") from None
    with temporary as folder:
        built = Path(folder) / root.name  # one level deeper: the temporary folder itself is private to its owner
        _write_set(built, progress)
        try:
            built.rename(root)
        except OSError:
            if not root.exists():
                raise
            _check_is_ours(root)  # another process was faster
    return root


def _manifest() -> str:
    counts = " and ".join(f"{n} {split}" for split, n in IMAGES.items())
    return (
        f"Shapes, version {VERSION}\n\n"
        f"{counts} images of {IMAGE_SIZE}x{IMAGE_SIZE} pixels, drawn by utils/data/shapes.py (seed {SEED}).\n"
        f"Classes: {', '.join(CLASSES)}. A label line is: class x y w h, relative to the image.\n"
        "Delete this folder and the set is drawn anew on its next use.\n"
    )


def _check_is_ours(root: Path) -> None:
    """Raise UserError unless ``root`` holds the set that this file draws."""
    manifest = root / MANIFEST
    if not manifest.is_file():
        raise UserError(
            f"{root}: exists, but is not the shapes set (it has no {MANIFEST}); move it away or choose another `path:`"
        )
    found, expected = (text.partition("\n")[0] for text in (manifest.read_text("utf-8", "replace"), _manifest()))
    if found != expected:
        raise UserError(
            f"{manifest}: says {found!r}, {expected!r} was expected; move {root} away and the set is drawn anew"
        )


def _write_set(folder: Path, progress: bool) -> None:
    """Write all images and labels, then the manifest that declares the set complete."""
    jobs = [(split, index) for split, count in IMAGES.items() for index in range(count)]
    for split in IMAGES:
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
    for split, index in track(jobs, "drawing the shapes set", not progress, unit="image"):
        scene = draw_scene(split, index)
        stem = f"{split}_{index:03d}"
        bgr = cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR)
        jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 93])[1]
        (folder / "images" / split / f"{stem}.jpg").write_bytes(jpeg.tobytes())
        lines = [f"{int(c)} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for c, x, y, w, h in scene.labels]
        (folder / "labels" / split / f"{stem}.txt").write_bytes("".join(lines).encode())
    (folder / MANIFEST).write_bytes(_manifest().encode())


# ---------------------------------------------------------------------------------------------------------- one scene


class Scene(NamedTuple):
    """One picture and what is known about its n labelled shapes, in the order in which they were painted."""

    image: np.ndarray  # uint8 [h, w, 3], RGB
    labels: np.ndarray  # float32 [n, 5]: class, x, y, w, h, normalised
    masks: np.ndarray  # bool [n, h, w]: each shape inside the image, as if nothing covered it
    visible: np.ndarray  # float32 [n]: the share of each whole shape that is seen


def draw_scene(split: str, index: int) -> Scene:
    """Draw image ``index`` of ``split`` ("train" or "val"): a function of (SEED, split, index) alone.

    Layout and paint have a random stream each, so that other contrast, clutter or noise leave the labels as they are.
    """
    layout, paint = (np.random.default_rng((SEED, list(IMAGES).index(split), index, stream)) for stream in (0, 1))
    canvas = _background(paint)
    is_empty = index % EMPTY_EVERY == EMPTY_EVERY - 1
    labelled_count = 0 if is_empty else layout.integers(*SHAPES, endpoint=True)
    names = layout.choice(CLASSES, labelled_count).tolist()
    names += layout.choice(list(LOOK_ALIKE_OUTLINES), layout.integers(*LOOK_ALIKES, endpoint=True)).tolist()
    layout.shuffle(names)

    placed: list[_Shape] = []
    for name in names:
        place = _find_place(layout, name, placed)
        if place is None:
            continue
        alpha, shape = place
        _paint_shape(paint, canvas, alpha, name)
        for below in placed:
            below.claim &= ~shape.mask
        placed.append(shape)

    labelled = [shape for shape in placed if shape.name in CLASSES]
    labels = [[CLASSES.index(shape.name), *_box(shape.mask)] for shape in labelled]
    return Scene(
        image=_photograph(paint, canvas),
        labels=np.array(labels, np.float32).reshape(-1, 5),
        masks=np.array([shape.mask for shape in labelled], bool).reshape(-1, IMAGE_SIZE, IMAGE_SIZE),
        visible=np.array([shape.claim.sum() / shape.area for shape in labelled], np.float32),
    )


@dataclass
class _Shape:
    """A shape in its place. Its claim is what must be seen of it: itself if it is labelled.

    A look-alike claims its convex hull with a rim around it, nearly whole: a broken ring with a shape over its gap
    would pass for a ring, a half-disc with a shape against its straight side for a circle that is half hidden.
    """

    name: str
    mask: np.ndarray  # bool [h, w]: the part inside the image
    claim: np.ndarray  # bool [h, w]: the claim inside the image, less what later shapes cover
    area: int  # pixels of the whole claim, beyond the border too

    @property
    def least(self) -> float:
        return MIN_VISIBLE if self.name in CLASSES else LOOK_ALIKE_VISIBLE


def _find_place(rng: np.random.Generator, name: str, placed: list[_Shape]) -> tuple[np.ndarray, _Shape] | None:
    """Try random places for a shape until border and overlap leave enough of it and of those below.

    Returns its coverage (uint8 [h, w], 0..255) and the shape; None if no place was found.
    """
    size = _draw_size(rng, name)  # once: smaller ones would pass more often
    for _ in range(TRIES):
        contours = _pose(rng, OUTLINES[name](rng), size)
        whole = _fill(contours, IMAGE_SIZE + 2 * MARGIN, offset=MARGIN)
        claim = whole
        if name not in CLASSES:
            hull = cv2.convexHull(np.float32(contours[0]))[:, 0]
            claim = cv2.dilate(_fill([hull], len(whole), offset=MARGIN), np.ones((7, 7), np.uint8))
        inside = np.s_[MARGIN:-MARGIN, MARGIN:-MARGIN]
        shape = _Shape(name, whole[inside] > 127, claim[inside] > 127, np.count_nonzero(claim > 127))
        is_inside = np.count_nonzero(shape.claim) >= max(MIN_INSIDE, shape.least) * shape.area
        if is_inside and all(np.count_nonzero(s.claim & ~shape.mask) >= s.least * s.area for s in placed):
            return whole[inside], shape
    return None


def _draw_size(rng: np.random.Generator, name: str) -> float:
    """Longer side of the box in pixels. Look-alikes are never small: a tiny hexagon cannot be told from a circle."""
    is_small = name in CLASSES and rng.random() < SMALL_SHARE
    return float(np.exp(rng.uniform(*np.log(SMALL_SIZE if is_small else SIZE))))


def _box(mask: np.ndarray) -> np.ndarray:
    """Tight box of a bool mask [h, w]: x, y, w, h (centre and size), normalised."""
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    return np.array([x + w / 2, y + h / 2, w, h]) / IMAGE_SIZE


# ---------------------------------------------------------------------------------------------------------- outlines
# An outline is a list of contours, float [n, 2]; what lies inside two contours is a hole. Scale and place are free:
# `_pose` sets them.


def _arc(radius: float, start: float = 0.0, stop: float = 2 * np.pi, n: int = 72) -> np.ndarray:
    angle = np.linspace(start, stop, n)
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def _polygon(corners: int) -> np.ndarray:
    return _arc(1.0, n=corners + 1)[:-1]


def _star(points: int, inner: float) -> np.ndarray:
    star = _polygon(2 * points)
    star[1::2] *= inner
    return star


def _rounded_rectangle(width: float, radius: float) -> np.ndarray:
    """Of height 2 and the given width, corners rounded by ``radius``."""
    centres = [(1, 1), (-1, 1), (-1, -1), (1, -1)]
    corners = [_arc(radius, i * np.pi / 2, (i + 1) * np.pi / 2, 12) for i in range(4)]
    inset = np.array([width / 2 - radius, 1 - radius])
    return np.concatenate([corner + inset * centre for corner, centre in zip(corners, centres, strict=True)])


def _broken_ring(inner: float, gap: float) -> np.ndarray:
    return np.concatenate([_arc(1, 0, 2 * np.pi - gap), _arc(inner, 2 * np.pi - gap, 0)])


def _cross(arm: float) -> np.ndarray:
    quarter = np.array([(1, -arm), (1, arm), (arm, arm)])
    turn = np.array([(0, 1), (-1, 0)])  # points are rows: a quarter turn
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, i) for i in range(4)])


CLASS_OUTLINES = {
    "circle": lambda rng: [_arc(1)],
    "square": lambda rng: [_polygon(4)],
    "triangle": lambda rng: [_polygon(3)],
    "star": lambda rng: [_star(5, rng.uniform(0.38, 0.52))],
    "ring": lambda rng: [_arc(1), _arc(rng.uniform(0.5, 0.72))],
}
LOOK_ALIKE_OUTLINES = {
    "hexagon": lambda rng: [_polygon(6)],
    "ellipse": lambda rng: [_arc(1) * (1, rng.uniform(0.4, 0.55))],
    "half-disc": lambda rng: [_arc(1, 0, np.pi)],
    "rounded rectangle": lambda rng: [_rounded_rectangle(rng.uniform(2.0, 4.0), rng.uniform(0.5, 0.75))],
    "bar": lambda rng: [_rounded_rectangle(rng.uniform(3.4, 6.0), 0.0)],
    "rhombus": lambda rng: [_polygon(4) * (1, rng.uniform(0.4, 0.55))],
    "trapezium": lambda rng: [np.array([(-1, 0.6), (1, 0.6), (rng.uniform(0.35, 0.6), -0.6), (-0.5, -0.6)])],
    "cross": lambda rng: [_cross(rng.uniform(0.25, 0.4))],
    "burst": lambda rng: [_star(int(rng.integers(7, 10)), rng.uniform(0.55, 0.75))],
    "broken ring": lambda rng: [_broken_ring(rng.uniform(0.5, 0.72), rng.uniform(1.0, 2.0))],
    "frame": lambda rng: [_polygon(4), _polygon(4) * rng.uniform(0.5, 0.7)],
}
OUTLINES = CLASS_OUTLINES | LOOK_ALIKE_OUTLINES


def _rotation(angle: float) -> np.ndarray:
    return np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])


def _pose(rng: np.random.Generator, contours: list[np.ndarray], size: float) -> list[np.ndarray]:
    """Turn, tilt and place an outline; the longer side of its box becomes ``size`` pixels. Returns (x, y) in pixels."""
    tilt = np.diag([1.0, rng.uniform(*TILT)])
    turn = _rotation(rng.uniform(0, 2 * np.pi)) @ tilt @ _rotation(rng.uniform(0, 2 * np.pi))
    turned = [contour @ turn for contour in contours]
    low, high = turned[0].min(0), turned[0].max(0)
    scale = size / (high - low).max()
    room = size / 2 * (2 * MIN_INSIDE - 1)  # from the centre to the border; `_find_place` decides
    centre = rng.uniform(room, IMAGE_SIZE - room, 2)
    return [(contour - (low + high) / 2) * scale + centre for contour in turned]


def _fill(contours: list[np.ndarray], side: int, offset: float = 0.0) -> np.ndarray:
    """Coverage (uint8 [side, side], 0..255) of an outline in pixels, moved by ``offset``; edges are antialiased."""
    shift = 4  # cv2 takes fixed-point coordinates: 1/16 pixel. A pixel's centre has whole coordinates, hence the half.
    points = [np.rint((contour + offset - 0.5) * 2**shift).astype(np.int32) for contour in contours]
    return cv2.fillPoly(np.zeros((side, side), np.uint8), points, 255, cv2.LINE_AA, shift)


# ------------------------------------------------------------------------------------------------- paint and pictures
# The canvas is float32 [h, w, 3], RGB 0..255, and painted in place.


def _paint_shape(rng: np.random.Generator, canvas: np.ndarray, alpha: np.ndarray, name: str) -> None:
    """Paint a shape in colours that stand out from its surroundings by a drawn contrast, most often of a class's hue."""
    around = (cv2.dilate(alpha, np.ones((9, 9), np.uint8)) > 0) & (alpha == 0)
    surroundings = canvas[around].mean(0)
    contrast = rng.uniform(*(LOW_CONTRAST if rng.random() < LOW_CONTRAST_SHARE else CONTRAST))
    if rng.random() < TYPICAL_SHARE:
        hue = HUES[CLASSES.index(name)] if name in CLASSES else rng.choice(HUES)
        colours = [_colour_of_hue(rng, hue) for _ in range(8)]
        colour = min(colours, key=lambda c: abs(np.linalg.norm(c - surroundings) - contrast))
    else:
        colour = _colour_at_distance(rng, surroundings, contrast)
    _paint(rng, canvas, alpha, colour)


def _colour_of_hue(rng: np.random.Generator, hue: float) -> np.ndarray:
    """A random RGB colour (0..255) near ``hue`` (degrees), from dull to bright."""
    hue = (hue + rng.uniform(-HUE_SPREAD, HUE_SPREAD)) % 360
    hsv = np.array([[[hue, rng.uniform(0.45, 1), rng.uniform(0.35, 1)]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0] * 255


def _colour_at_distance(rng: np.random.Generator, colour: np.ndarray, distance: float) -> np.ndarray:
    """A random colour about ``distance`` away from ``colour`` in RGB; channels that would overflow go the other way."""
    direction = rng.normal(size=3)
    step = direction * distance / np.linalg.norm(direction)
    overflows = np.abs(colour + step - 127.5) > 127.5
    return np.clip(np.where(overflows, colour - step, colour + step), 0, 255)


def _paint(rng: np.random.Generator, canvas: np.ndarray, alpha: np.ndarray, colour: np.ndarray) -> None:
    """Blend a random texture of mean ``colour`` into the canvas where ``alpha`` (uint8 [h, w]) covers it."""
    x, y, w, h = cv2.boundingRect(alpha)
    half_difference = rng.uniform(-1, 1, 3) * rng.uniform(*TEXTURE)
    low, high = np.float32(colour - half_difference), np.float32(colour + half_difference)
    texture = low + _pattern(rng, h, w)[..., None] * (high - low)
    window = canvas[y : y + h, x : x + w]
    window += (alpha[y : y + h, x : x + w, None] / np.float32(255)) * (texture - window)


def _pattern(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """Stripes, checks, dots, noise or a gradient at a random angle: float32 [h, w], 0..1."""
    kind = rng.choice(["stripes", "checks", "dots", "noise", "gradient"])
    if kind == "noise":
        cell = rng.integers(1, 6)
        noise = rng.random((h // cell + 2, w // cell + 2), np.float32)
        return cv2.resize(noise, (w, h), interpolation=cv2.INTER_LINEAR)
    y, x = np.ogrid[:h, :w]
    c, s = np.float32(_rotation(rng.uniform(0, 2 * np.pi))[0])
    u, v = c * np.float32(x) + s * np.float32(y), c * np.float32(y) - s * np.float32(x)
    if kind == "gradient":
        return (u - u.min()) / (np.ptp(u) + 1)
    frequency = np.float32(2 * np.pi / rng.uniform(5, 22))  # radians a pixel
    su, sv = np.sin(u * frequency), np.sin(v * frequency)
    wave = {"stripes": su, "checks": su * sv * 2, "dots": su + sv - 0.8}[str(kind)]
    return np.clip(0.5 + 2 * wave, 0, 1)


def _background(rng: np.random.Generator) -> np.ndarray:
    """A cluttered canvas without any shape: soft clouds of colour, textured patches with irregular outlines, lines."""
    canvas = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), rng.uniform(60, 195) + rng.uniform(-25, 25, 3), np.float32)
    for cells, strength in ((3, 26), (8, 14), (40, 7)):
        grey, tint = rng.normal(0, strength, (cells, cells, 1)), rng.normal(0, strength * 0.5, (cells, cells, 3))
        clouds = (grey + tint).astype(np.float32)
        canvas += cv2.resize(clouds, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_CUBIC)
    canvas = np.clip(canvas, 0, 255)
    for _ in range(rng.integers(*CLUTTER, endpoint=True)):
        patch = cv2.GaussianBlur(_fill([_blob(rng)], IMAGE_SIZE), (0, 0), rng.uniform(0.7, 6))
        _paint(rng, canvas, cv2.convertScaleAbs(patch, alpha=rng.uniform(0.3, 0.9)), _near(rng, canvas))
        line = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
        ends = rng.integers(0, IMAGE_SIZE, (2, 2)).tolist()
        cv2.line(line, *ends, int(rng.integers(90, 230)), int(rng.integers(1, 4)), cv2.LINE_AA)
        _paint(rng, canvas, line, _near(rng, canvas))
    return canvas


def _near(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """A colour that suits the canvas: one of its pixels, moved."""
    return _colour_at_distance(rng, canvas[tuple(rng.integers(0, IMAGE_SIZE, 2))], rng.uniform(15, 100))


def _blob(rng: np.random.Generator) -> np.ndarray:
    """A closed wavy outline that is none of the shapes: float [n, 2], pixels."""
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    waves = sum(rng.uniform(0.1, 0.3) * np.sin(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4))
    radius = rng.uniform(12, 60) * (1 + waves)
    return np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None] + rng.uniform(0, IMAGE_SIZE, 2)


def _photograph(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """What a plain camera makes of the canvas: blur, exposure, sensor noise. Returns uint8 [h, w, 3]."""
    sigma = rng.uniform(*BLUR)
    image = cv2.GaussianBlur(canvas, (0, 0), sigma) if sigma > 0.2 else canvas
    noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(*NOISE))
    return np.clip(image * np.float32(rng.uniform(*BRIGHTNESS)) + noise + 0.5, 0, 255).astype(np.uint8)
