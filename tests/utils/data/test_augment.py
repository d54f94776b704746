"""Augmentation moves boxes exactly as it moves what they frame."""

import numpy as np
import pytest

from engine.recipe.hyp import read_hyp
from utils.data.augment import (
    Scene,
    copy_paste,
    mixup,
    mosaic4,
    random_affine,
    random_flips,
    shift_colours,
    to_normalised,
    to_pixels,
)

STILL = read_hyp("hyp.no-augmentation.yaml")
RED = (255, 0, 0)


def scene(size=(120, 160), box=(30, 40, 80, 90), color=RED, cls=0) -> Scene:
    """A dark image with one bright rectangle, framed."""
    image = np.full((*size, 3), 20, np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = color
    return Scene(image, np.array([[cls, *box]], np.float32))


def extent(image, color=RED):
    """The box of the pixels near ``color``."""
    rows, columns = np.nonzero((np.abs(image.astype(int) - color) < 60).all(2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_pixels_and_back():
    labels = np.array([[1, 0.5, 0.25, 0.2, 0.1]], np.float32)
    pixels, segments = to_pixels(labels, [np.array([[0, 0], [1, 1]], np.float32)], (200, 100), (10, 20))
    np.testing.assert_allclose(pixels, [[1, 90, 40, 130, 50]])
    np.testing.assert_allclose(segments[0], [[10, 20], [210, 120]])
    np.testing.assert_allclose(to_normalised(np.array([[1, 80, 20, 120, 30]], np.float32), (100, 200)), labels)


def test_boxes_are_clipped_to_the_image():
    np.testing.assert_allclose(
        to_normalised(np.array([[0, -50, 0, 100, 100]], np.float32), (100, 100))[0, 1:], [0.5, 0.5, 1, 1]
    )


@pytest.mark.parametrize(
    "change", [{"scale": 0.5}, {"translate": 0.2}, {"shear": 0.0, "translate": 0.1, "scale": 0.3}, {"degrees": 0.0}]
)
def test_the_affine_box_frames_the_moved_rectangle(change):
    for seed in range(20):
        out = random_affine(scene(), (128, 128), STILL | change, np.random.default_rng(seed))
        assert out.image.shape == (128, 128, 3)
        if len(out.labels):
            np.testing.assert_allclose(out.labels[0, 1:], extent(out.image), atol=2)


@pytest.mark.parametrize("change", [{"degrees": 30}, {"shear": 15}, {"perspective": 0.001}])
def test_the_box_encloses_what_is_turned_sheared_or_tilted(change):
    moved = 0
    for seed in range(20):
        original = scene((128, 128), (15, 20, 60, 65))
        out = random_affine(original, (128, 128), STILL | change, np.random.default_rng(seed))
        np.testing.assert_allclose(out.labels[0, 1:], extent(out.image), atol=2.5)
        moved += not np.allclose(out.labels, original.labels, atol=1)
    assert moved > 10


def test_without_augmentation_nothing_moves():
    original = scene((128, 128))
    out = random_affine(original, (128, 128), STILL, np.random.default_rng(0))
    np.testing.assert_array_equal(out.image, original.image)
    np.testing.assert_allclose(out.labels, original.labels)


def test_boxes_that_leave_the_image_are_dropped():
    out = random_affine(scene((128, 128), (120, 60, 128, 64)), (64, 64), STILL, np.random.default_rng(0))
    assert out.labels.shape == (0, 5)


def test_polygons_give_tighter_boxes_than_the_corners_of_their_box():
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.column_stack((64 + 30 * np.cos(angle), 64 + 30 * np.sin(angle))).astype(np.float32)
    original = scene((128, 128), (34, 34, 94, 94))
    turned = STILL | {"degrees": 45}
    rng = np.random.default_rng(3)
    loose = random_affine(original, (128, 128), turned, np.random.default_rng(3)).labels[0]
    tight = random_affine(Scene(original.image, original.labels, [circle]), (128, 128), turned, rng).labels[0]
    np.testing.assert_allclose(tight[1:], [34, 34, 94, 94], atol=1)
    assert loose[3] - loose[1] > 65  # the circle's width is 60


def test_mosaic_puts_four_images_around_a_point():
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
    tiles = [scene((96, 128), (10, 10, 118, 86), color, cls) for cls, color in enumerate(colors)]
    out = mosaic4(tiles, 128, np.random.default_rng(5))
    assert out.image.shape == (256, 256, 3)
    for cls, color in enumerate(colors):
        (box,) = out.labels[out.labels[:, 0] == cls, 1:]
        np.testing.assert_allclose(box, extent(out.image, color), atol=1)
    centres = (out.labels[:, 1:3] + out.labels[:, 3:]) / 2
    assert centres[0, 0] < centres[1, 0] and centres[0, 1] < centres[2, 1]


def test_mosaic_keeps_a_polygon_for_every_label():
    with_polygon = scene()
    with_polygon.segments = [np.array([[30, 40], [80, 40], [80, 90], [30, 90]], np.float32)]
    out = mosaic4([with_polygon, scene(), scene(), scene()], 160, np.random.default_rng(0))
    assert len(out.segments) == len(out.labels) == 4
    for polygon, box in zip(out.segments, out.labels[:, 1:], strict=True):
        np.testing.assert_allclose([*polygon.min(0), *polygon.max(0)], box, atol=1e-3)


def test_copy_paste_mirrors_polygons_into_free_space():
    original = scene((100, 200), (20, 30, 60, 70))
    original.segments = [np.array([[20, 30], [59, 30], [59, 69], [20, 69]], np.float32)]
    out = copy_paste(original, 1.0, np.random.default_rng(0))
    np.testing.assert_allclose(out.labels[1], [0, 140, 30, 180, 70])
    assert (out.image[40, 150] == RED).all() and (original.image[40, 150] == 20).all()
    assert len(copy_paste(original, 0.0, np.random.default_rng(0)).labels) == 1
    centred = scene((100, 200), (80, 30, 120, 70))  # its mirror image lies on itself: nothing is pasted
    centred.segments = [np.array([[80, 30], [120, 30], [120, 70]], np.float32)]
    assert len(copy_paste(centred, 1.0, np.random.default_rng(0)).labels) == 1


def test_mixup_blends_images_and_joins_boxes():
    out = mixup(scene(), scene(box=(90, 10, 150, 100), cls=1), np.random.default_rng(0))
    assert out.labels[:, 0].tolist() == [0, 1]
    assert 80 < out.image[60, 50, 0] < 200


def test_flips_turn_image_and_labels_alike():
    original = scene((100, 200), (20, 30, 60, 50))
    labels = to_normalised(original.labels, (100, 200))
    for up_down, left_right, expected in (
        (1, 0, (20, 50, 60, 70)),
        (0, 1, (140, 30, 180, 50)),
        (0, 0, (20, 30, 60, 50)),
    ):
        image, flipped = random_flips(original.image, labels, up_down, left_right, np.random.default_rng(0))
        pixels, _ = to_pixels(flipped, [], (200, 100), (0, 0))
        np.testing.assert_allclose(pixels[0, 1:], expected, atol=1e-3)
        assert extent(image) == expected


def test_colours_shift_within_their_gains_and_not_at_all_without():
    image = np.full((4, 4, 3), (180, 90, 60), np.uint8)
    assert shift_colours(image, 0, 0, 0, np.random.default_rng(0)) is image
    values = [int(shift_colours(image, 0, 0, 0.4, np.random.default_rng(s)).max()) for s in range(50)]
    assert min(values) >= 180 * 0.6 - 2 and max(values) <= 180 * 1.4 + 2
    assert max(values) - min(values) > 80


def test_the_same_generator_gives_the_same_picture():
    hyp = read_hyp("hyp.scratch-high.yaml")
    a, b = (random_affine(scene(), (96, 96), hyp, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(a.image, b.image)
    np.testing.assert_array_equal(a.labels, b.labels)
