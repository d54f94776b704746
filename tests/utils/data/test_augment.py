"""Augmentation moves boxes exactly as it moves what they frame."""

import numpy as np
import pytest

from engine.recipe.hyp import read_hyp
from utils.data.augment import (
    GREY,
    Canvas,
    Scene,
    copy_paste,
    lay_out,
    mixup,
    mosaic4,
    mosaic9,
    random_affine,
    shift_colours,
    to_normalised,
    to_pixels,
)

STILL = read_hyp("hyp.no-augmentation.yaml")
MOVED = STILL | {"scale": 0.5, "translate": 0.2, "fliplr": 0.5, "flipud": 0.5}
RED = (255, 0, 0)
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255)]
COLOURS += [(255, 255, 255), (255, 125, 0), (125, 0, 255)]


def scene(size=(120, 160), box=(30, 40, 80, 90), color=RED, cls=0) -> Scene:
    """A dark image with one bright rectangle, framed."""
    image = np.full((*size, 3), 20, np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = color
    return Scene(image, np.array([[cls, *box]], np.float32))


def with_polygons(original: Scene, *polygons) -> Scene:
    points = np.concatenate([np.array(p, np.float32) for p in polygons])
    return Scene(original.image, original.labels, points, np.array([len(p) for p in polygons]))


def drawn(canvas: Canvas | Scene, size, hyp, seed):
    """The picture that random_affine makes, and its labels."""
    out = np.full((*size, 3), 77, np.uint8)
    canvas = Canvas.of(canvas) if isinstance(canvas, Scene) else canvas
    return out, random_affine(canvas, out, hyp, np.random.default_rng(seed))


def extent(image, color=RED):
    """The box of the pixels near ``color``."""
    rows, columns = np.nonzero((np.abs(image.astype(int) - color) < 60).all(2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_pixels_and_back():
    labels = np.array([[1, 0.5, 0.25, 0.2, 0.1]], np.float32)
    np.testing.assert_allclose(to_pixels(labels, (200, 100), (10, 20)), [[1, 90, 40, 130, 50]])
    np.testing.assert_allclose(to_normalised(np.array([[1, 80, 20, 120, 30]], np.float32), (100, 200)), labels)


def test_boxes_are_clipped_to_the_image():
    np.testing.assert_allclose(
        to_normalised(np.array([[0, -50, 0, 100, 100]], np.float32), (100, 100))[0, 1:], [0.5, 0.5, 1, 1]
    )


@pytest.mark.parametrize(
    "change", [{"scale": 0.5}, {"translate": 0.2}, {"translate": 0.1, "scale": 0.3}, {"fliplr": 0.5, "flipud": 0.5}]
)
def test_the_affine_box_frames_the_moved_rectangle(change):
    for seed in range(20):
        image, labels = drawn(scene(), (128, 128), STILL | change, seed)
        if len(labels):
            np.testing.assert_allclose(labels[0, 1:], extent(image), atol=2)


@pytest.mark.parametrize("change", [{"degrees": 30}, {"shear": 15}, {"perspective": 0.001}])
def test_the_box_encloses_what_is_turned_sheared_or_tilted(change):
    moved = 0
    for seed in range(20):
        original = scene((128, 128), (15, 20, 60, 65))
        image, labels = drawn(original, (128, 128), STILL | {"fliplr": 0.5} | change, seed)
        np.testing.assert_allclose(labels[0, 1:], extent(image), atol=2.5)
        moved += not np.allclose(labels, original.labels, atol=1)
    assert moved > 10


def test_without_augmentation_nothing_moves():
    original = scene((128, 128))
    image, labels = drawn(original, (128, 128), STILL, 0)
    np.testing.assert_array_equal(image, original.image)
    np.testing.assert_allclose(labels, original.labels)


@pytest.mark.parametrize(
    ("flips", "expected"),
    [
        ({"flipud": 1.0}, (20, 50, 60, 70)),
        ({"fliplr": 1.0}, (140, 30, 180, 50)),
        ({"flipud": 1.0, "fliplr": 1.0}, (140, 50, 180, 70)),
        ({}, (20, 30, 60, 50)),
    ],
)
def test_flips_turn_image_and_labels_alike(flips, expected):
    original = scene((100, 200), (20, 30, 60, 50))
    image, labels = drawn(original, (100, 200), STILL | {"flipud": 0.0, "fliplr": 0.0} | flips, 0)
    np.testing.assert_allclose(labels[0, 1:], expected, atol=1e-3)
    assert extent(image) == expected
    turned = original.image[:: -1 if "flipud" in flips else 1, :: -1 if "fliplr" in flips else 1]
    np.testing.assert_array_equal(image, turned)


def test_boxes_that_leave_the_image_are_dropped():
    assert drawn(scene((128, 128), (120, 60, 128, 64)), (64, 64), STILL, 0)[1].shape == (0, 5)


def test_polygons_give_tighter_boxes_than_the_corners_of_their_box():
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.column_stack((64 + 30 * np.cos(angle), 64 + 30 * np.sin(angle))).astype(np.float32)
    original = scene((128, 128), (34, 34, 94, 94))
    turned = STILL | {"degrees": 45}
    loose = drawn(original, (128, 128), turned, 2)[1][0]
    tight = drawn(with_polygons(original, circle), (128, 128), turned, 2)[1][0]
    np.testing.assert_allclose(tight[1:], [34, 34, 94, 94], atol=1)
    assert loose[3] - loose[1] > 65  # the circle's width is 60


@pytest.mark.parametrize(
    ("polygon", "box"),
    [
        # a triangle that leaves through the lower side of the middle of the canvas, 50..150
        ([(100, 60), (140, 180), (60, 180)], (20, 10, 80, 100)),
        # one whose outline lies outside, all around
        ([(0, 0), (200, 0), (200, 200), (0, 200)], (0, 0, 100, 100)),
        # half of the picture: of its outline one side shows, and that is a line
        ([(100, 0), (200, 0), (200, 200), (100, 200)], (50, 0, 100, 100)),
        # wholly above
        ([(60, 0), (140, 0), (100, 40)], None),
    ],
)
def test_the_box_of_a_polygon_is_that_of_its_part_that_shows(polygon, box):
    original = scene((200, 200), (0, 0, 200, 200))
    for degrees in (0.0, 1e-9):
        labels = drawn(with_polygons(original, polygon), (100, 100), STILL | {"degrees": degrees}, 0)[1]
        np.testing.assert_allclose(labels[:, 1:], np.reshape(box or [], (-1, 4)), atol=7 if len(polygon) == 3 else 1e-3)


def tiles_of(count: int, rng: np.random.Generator, size: int) -> list[Scene]:
    """Images of several shapes, longer side ``size``, each with a rectangle of a colour of its own."""
    tiles = []
    for cls in range(count):
        short = int(rng.integers(size // 2, size + 1))
        h, w = (short, size) if rng.random() < 0.5 else (size, short)
        tiles.append(scene((h, w), (w // 8, h // 8, w - w // 4, h - h // 8), COLOURS[cls], cls))
    return tiles


@pytest.mark.parametrize(("mosaic", "count"), [(mosaic4, 4), (mosaic9, 9)])
@pytest.mark.parametrize("hyp", [STILL, MOVED])
def test_the_labels_of_a_mosaic_follow_its_pixels(mosaic, count, hyp):
    """Where nothing covers a rectangle, its pixels are the label to within one, and no part of it goes without one."""
    framed = 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        tiles = tiles_of(count, rng, 128)
        image, labels = drawn(mosaic(tiles, 128, rng), (128, 128), hyp, seed)
        for cls, color in enumerate(COLOURS[:count]):
            near = (np.abs(image.astype(int) - color) < 40).all(2)
            boxes = labels[labels[:, 0] == cls, 1:]
            # those that lost most of their area have no label any more
            if len(boxes) and (mosaic is mosaic4 or near.sum() > 0.95 * np.prod(boxes[0, 2:] - boxes[0, :2])):
                np.testing.assert_allclose(boxes[0], extent(image, color), atol=1.5)
                framed += 1
            elif mosaic is mosaic4:
                assert near.sum() < 0.15 * np.prod(tiles[cls].labels[0, 3:] - tiles[cls].labels[0, 1:3]) * 2.25
    assert framed > 40


def test_a_mosaic_that_is_turned_by_nothing_is_the_same():
    """Drawn as a whole and warped, and drawn image by image: the two ways agree."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        canvas = mosaic4(tiles_of(4, rng, 128), 128, rng)
        straight, turned = (drawn(canvas, (128, 128), MOVED | {"degrees": d}, seed) for d in (0.0, 1e-9))
        different = (np.abs(straight[0].astype(int) - turned[0]) > 40).any(2)
        # along the edges
        assert different.mean() < 0.06
        assert straight[1][:, 0].tolist() == turned[1][:, 0].tolist()
        # a pixel of an image is up to one and a half of the result
        np.testing.assert_allclose(straight[1], turned[1], atol=2)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_nothing_shows_between_the_images_of_a_mosaic(flip):
    """Four images that fill the canvas: of the grey below them there is nothing to be seen, at any zoom."""
    tiles = [Scene(np.full((200, 200, 3), c, np.uint8), np.zeros((0, 5), np.float32)) for c in COLOURS[:4]]
    hyp = STILL | {"scale": 0.5, "fliplr": flip, "flipud": flip}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x, y = rng.integers(70, 131, 2).tolist()
        corners = [(x - 200, y - 200), (x, y - 200), (x - 200, y), (x, y)]
        image, _ = drawn(lay_out(tiles, corners, (200, 200)), (100, 100), hyp, seed)
        assert {tuple(p) for p in image.reshape(-1, 3).tolist()} <= {*COLOURS[:4]}


def test_mosaic_puts_four_images_around_a_point():
    tiles = [scene((96, 128), (10, 10, 118, 86), color, cls) for cls, color in enumerate(COLOURS[:4])]
    canvas = mosaic4(tiles, 128, np.random.default_rng(5))
    image = canvas.drawn()
    assert image.shape == (256, 256, 3)
    for cls, color in enumerate(COLOURS[:4]):
        (box,) = canvas.labels[canvas.labels[:, 0] == cls, 1:]
        np.testing.assert_allclose(box, extent(image, color), atol=1)
    centres = (canvas.labels[:, 1:3] + canvas.labels[:, 3:]) / 2
    assert centres[0, 0] < centres[1, 0] and centres[0, 1] < centres[2, 1]
    assert (image == GREY).all(2).any()
    # what has been laid out is still as it was
    assert all(t.labels[0, 1:].tolist() == [10, 10, 118, 86] for t in tiles)


def test_mosaic_keeps_a_polygon_for_every_label():
    square = with_polygons(scene(), [(30, 40), (80, 40), (80, 90), (30, 90)])
    canvas = mosaic4([square, scene(), scene(), scene()], 160, np.random.default_rng(0))
    assert canvas.counts.tolist() == [4] * 4 and len(canvas.labels) == 4
    for polygon, box in zip(canvas.points.reshape(4, 4, 2), canvas.labels[:, 1:], strict=True):
        np.testing.assert_allclose([*polygon.min(0), *polygon.max(0)], box, atol=1e-3)
    for degrees in (0.0, 1e-9):
        boxes, plain = (
            drawn(mosaic4([first, scene(), scene(), scene()], 160, np.random.default_rng(0)), (160, 160), hyp, 3)[1]
            for first, hyp in ((square, MOVED | {"degrees": degrees}), (scene(), MOVED))
        )
        np.testing.assert_allclose(boxes, plain, atol=2)


def test_copy_paste_mirrors_polygons_into_free_space():
    original = with_polygons(scene((100, 200), (20, 30, 60, 70)), [(20, 30), (59, 30), (59, 69), (20, 69)])
    canvas = Canvas.of(original)
    out = copy_paste(canvas, 1.0, np.random.default_rng(0))
    np.testing.assert_allclose(out.labels[1], [0, 140, 30, 180, 70])
    assert out.counts.tolist() == [4, 4] and out.points[4:, 0].min() > 100
    pasted, untouched = out.drawn(), original.image
    assert (pasted[40, 150] == RED).all() and (untouched[40, 150] == 20).all()
    np.testing.assert_array_equal(np.delete(pasted, np.s_[140:182], 1), np.delete(untouched, np.s_[140:182], 1))
    assert copy_paste(canvas, 0.0, np.random.default_rng(0)) is canvas
    # its mirror image lies on itself: nothing is pasted
    centred = with_polygons(scene((100, 200), (80, 30, 120, 70)), [(80, 30), (120, 30), (120, 70)])
    assert len(copy_paste(Canvas.of(centred), 1.0, np.random.default_rng(0)).labels) == 1


def test_copy_paste_leaves_alone_what_lies_beyond_the_canvas():
    square = with_polygons(scene(), [(30, 40), (80, 40), (80, 90), (30, 90)])
    for corner in ((-100, 0), (0, -100), (200, 0), (0, 200), (-80, -90)):
        canvas = lay_out([square, square], [corner, (10, 10)], (200, 200))
        for seed in range(4):
            out = copy_paste(canvas, 1.0, np.random.default_rng(seed))
            assert len(out.labels) == 3 and np.ptp(out.labels[2, [1, 3]]) == 50
            assert out.counts.tolist() == [4] * 3 and len(out.points) == 12


def test_mixup_blends_images():
    first, second = scene(), scene(box=(90, 10, 150, 100), cls=1)
    image = first.image.copy()
    mixup(image, second.image, np.random.default_rng(0))
    assert 80 < image[60, 50, 0] < 200 and 80 < image[60, 120, 0] < 200 and image[5, 5, 0] == 20


def test_colours_shift_within_their_gains_and_not_at_all_without():
    def shifted(h, s, v, seed):
        image = np.full((300, 400, 3), (180, 90, 60), np.uint8)
        shift_colours(image, h, s, v, np.random.default_rng(seed))
        # everywhere alike, but for rounding, also in an image of several strips
        assert np.abs(image - image[0, 0].astype(int)).max() <= 1
        return image[0, 0].astype(int)

    assert shifted(0, 0, 0, 0).tolist() == [180, 90, 60]
    values = [shifted(0, 0, 0.4, s).max() for s in range(50)]
    assert min(values) >= 180 * 0.6 - 2 and max(values) <= 180 * 1.4 + 2
    assert max(values) - min(values) > 80
    hues = [shifted(0.5, 0, 0, s) for s in range(20)]
    assert {c.max() for c in hues} <= {179, 180, 181} and len({tuple(c) for c in hues}) > 5
    greys = [shifted(0, 2.0, 0, s) for s in range(20)]
    assert min(np.ptp(c) for c in greys) == 0 and max(np.ptp(c) for c in greys) > 150


def test_the_same_generator_gives_the_same_picture():
    hyp = read_hyp("hyp.scratch-high.yaml")
    (a, labels), (b, same) = (drawn(scene(), (96, 96), hyp, 7) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(labels, same)
