"""Reading images and fitting them into a network's input."""

import json
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.helpers.project import SHARED
from utils.data.dataset import load_resized, resized_shape
from utils.data.images import (
    ImageError,
    is_image,
    is_video,
    letterbox,
    read_image,
    read_near,
    stack_images,
    to_float,
    to_uint8,
)

REFERENCE = SHARED / "reference" / "letterbox.json"


def gradient(height: int, width: int) -> np.ndarray:
    """An RGB image whose channels differ and whose sides can be told apart."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x // width, 255 * y // height, np.full_like(x, 40)], axis=-1).astype(np.uint8)


def encode(image: np.ndarray, suffix: str) -> bytes:
    """Image file of RGB or grey pixels."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 and image.shape[2] == 3 else image
    options = [cv2.IMWRITE_JPEG_QUALITY, 100] if suffix == ".jpg" else []
    return cv2.imencode(suffix, bgr, options)[1].tobytes()


def with_exif(jpeg: bytes, orientation: int, thumbnail: bytes = b"") -> bytes:
    """A JPEG with an EXIF segment that holds an orientation and, behind it, a thumbnail."""
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    payload = b"Exif\0\0" + tiff + thumbnail
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


def refusal(path: Path, data: bytes) -> str:
    """The reason for which a file of these bytes is refused."""
    path.write_bytes(data)
    with pytest.raises(ImageError) as e:
        read_image(path)
    return str(e.value)


def test_suffixes_decide_whatever_their_case():
    assert is_image("a/b.JPG") and is_image(Path("x.webp")) and is_image("b.Tiff")
    assert is_video("clip.MP4") and is_video("a.mkv") and is_video("a.gif")
    assert not is_image("labels/a.txt") and not is_image("jpg") and not is_image("a.mp4") and not is_video("a.png")


def test_reads_rgb(tmp_path):
    image = gradient(20, 30)
    file = tmp_path / "größe 図.png"  # a path that cv2.imread fails on under Windows
    file.write_bytes(encode(image, ".png"))
    read = read_image(file)
    assert read.dtype == np.uint8 and read.flags.c_contiguous
    assert (read == image).all()


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".tiff", ".webp", ".ppm"])
def test_reads_other_formats(tmp_path, suffix):
    image = gradient(40, 30)
    (tmp_path / "image").write_bytes(encode(image, suffix))  # the content decides, not the name
    assert np.abs(read_image(tmp_path / "image").astype(int) - image).mean() < 3


def test_grey_alpha_16_bit_and_float(tmp_path):
    file = tmp_path / "image"
    grey = gradient(20, 30)[..., 0]
    file.write_bytes(encode(grey, ".png"))
    assert (read_image(file) == grey[..., None]).all() and read_image(file).shape == (20, 30, 3)

    alpha = np.dstack([gradient(20, 30)[..., ::-1], np.zeros((20, 30), np.uint8)])  # BGRA, fully transparent
    file.write_bytes(encode(alpha, ".png"))
    assert (read_image(file) == gradient(20, 30)).all()

    deep = gradient(20, 30).astype(np.uint16) * 257
    file.write_bytes(encode(deep, ".png"))
    assert (read_image(file) == gradient(20, 30)).all()

    fractions = grey.astype(np.float32) / 255
    file.write_bytes(encode(fractions, ".tiff"))
    assert (read_image(file) == grey[..., None]).all()


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_orientation_is_applied(tmp_path, orientation, turns):
    image = gradient(48, 64)
    file = tmp_path / "a.jpg"
    file.write_bytes(with_exif(encode(image, ".jpg"), orientation))
    upright = np.rot90(image, turns)
    read = read_image(file)
    assert read.shape == upright.shape
    assert np.abs(read.astype(int) - upright).mean() < 3


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(
    ("shape", "size", "read"),
    [
        ((480, 640), 320, (240, 320)),
        ((480, 640), 321, (480, 640)),
        ((481, 643), 160, (121, 161)),
        ((644, 322), 64, (81, 41)),
        # one can't see whether 320 × 320 was turned, so that is decoded as it is
        ((640, 639), 300, (640, 639)),
        ((640, 640), 300, (320, 320)),
        # no side becomes smaller than 10
        ((64, 640), 64, (16, 160)),
    ],
)
def test_training_decodes_large_jpegs_at_a_part_of_their_size(tmp_path, orientation, shape, size, read):
    file = tmp_path / "a.jpg"
    file.write_bytes(with_exif(encode(gradient(*shape), ".jpg"), orientation))
    image, native = read_near(file, size)
    turned = slice(None, None, -1 if orientation > 4 else 1)
    assert image.shape == (*read[turned], 3) and native == shape[turned]
    whole = read_image(file)
    assert whole.shape[:2] == native
    small = cv2.resize(whole, image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - small).mean() < 2
    resized, as_before = load_resized(str(file), size, training=True)
    assert as_before == native and resized.shape[:2] == resized_shape(native, size)


def test_only_jpegs_and_only_for_training_are_decoded_at_a_part_of_their_size(tmp_path):
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 255, (400, 300, 3), np.uint8), (5, 5), 1)
    for suffix in (".jpg", ".png", ".webp", ".bmp"):
        file = tmp_path / f"a{suffix}"
        file.write_bytes(encode(noise, suffix))
        whole = read_image(file)
        assert read_near(file, 100)[0].shape == ((100, 75, 3) if suffix == ".jpg" else whole.shape)
        by_area = cv2.resize(whole, (75, 100), interpolation=cv2.INTER_AREA)
        assert (load_resized(str(file), 100, training=False)[0] == by_area).all()
        linear = cv2.resize(whole, (75, 100), interpolation=cv2.INTER_LINEAR)
        trained_on = load_resized(str(file), 100, training=True)[0].astype(int)
        if suffix == ".jpg":
            # and that loses less than resizing does
            assert np.abs(trained_on - by_area).mean() < np.abs(linear - by_area.astype(int)).mean() / 2
        else:
            assert (trained_on == linear).all()


def test_a_truncated_jpeg_is_refused_at_a_part_of_its_size_too(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode(gradient(200, 400), ".jpg")[:-9])
    with pytest.raises(ImageError, match="truncated JPEG"):
        read_near(tmp_path / "a.jpg", 50)


def test_truncated_jpeg_is_refused_even_with_a_whole_thumbnail(tmp_path, capfd):
    thumbnail = encode(gradient(16, 16), ".jpg")
    jpeg = with_exif(encode(gradient(100, 200), ".jpg"), 1, thumbnail)
    assert thumbnail.endswith(b"\xff\xd9")
    for length in (len(jpeg) - 1, len(jpeg) - 2, len(jpeg) * 2 // 3, len(thumbnail) + 60, 3):
        assert refusal(tmp_path / "a.jpg", jpeg[:length]) == "truncated JPEG"
    assert capfd.readouterr().err == ""

    (tmp_path / "a.jpg").write_bytes(jpeg + b"\0\0appended by a camera")
    assert read_image(tmp_path / "a.jpg").shape == (100, 200, 3)


def test_progressive_jpeg_with_restart_markers_is_complete(tmp_path):
    bgr = gradient(100, 200)[..., ::-1]
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 4]
    jpeg = cv2.imencode(".jpg", bgr, options)[1].tobytes()
    assert b"\xff\xd0" in jpeg and jpeg.count(b"\xff\xda") > 1
    (tmp_path / "a.jpg").write_bytes(jpeg)
    assert read_image(tmp_path / "a.jpg").shape == (100, 200, 3)
    assert refusal(tmp_path / "a.jpg", jpeg[:-40]) == "truncated JPEG"


def test_damaged_png_is_refused(tmp_path, capfd):
    png = encode(gradient(100, 200), ".png")
    assert refusal(tmp_path / "a.png", png[:-12]) == "truncated PNG"
    assert refusal(tmp_path / "a.png", png[: len(png) // 2]) == "truncated PNG"
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    assert refusal(tmp_path / "a.png", bytes(flipped)) == "damaged PNG"
    assert capfd.readouterr().err == ""


def test_other_refusals_name_their_reason(tmp_path):
    assert refusal(tmp_path / "a.jpg", b"") == "empty file"
    assert "not an image" in refusal(tmp_path / "a.jpg", b"<html>404 not found</html>")
    assert "not an image" in refusal(tmp_path / "a.bmp", encode(gradient(20, 20), ".bmp")[:200])
    assert refusal(tmp_path / "a.png", encode(gradient(9, 30), ".png")) == "30x9 pixels: smaller than 10 px"
    (tmp_path / "a.png").write_bytes(encode(gradient(10, 10), ".png"))
    assert read_image(tmp_path / "a.png").shape == (10, 10, 3)
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "b.jpg")
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)


LETTERBOXES = [  # input shape, new_shape, auto, scaleup → shape, ratio, padding
    ((480, 640), (640, 640), True, True, (480, 640), 1.0, (0.0, 0.0)),
    ((333, 500), (640, 640), True, True, (448, 640), 1.28, (0.0, 11.0)),
    ((333, 500), (320, 416), False, True, (320, 416), 0.832, (0.0, 21.5)),
    ((333, 500), (640, 640), False, False, (640, 640), 1.0, (70.0, 153.5)),
    ((1080, 1920), (640, 640), True, True, (384, 640), 1 / 3, (0.0, 12.0)),
    ((100, 37), (640, 640), True, True, (640, 256), 6.4, (9.5, 0.0)),
]


@pytest.mark.parametrize(("shape", "new_shape", "auto", "scaleup", "out", "ratio", "pad"), LETTERBOXES)
def test_letterbox_geometry(shape, new_shape, auto, scaleup, out, ratio, pad):
    image, ratios, padding = letterbox(np.zeros((*shape, 3), np.uint8), new_shape, auto=auto, scaleup=scaleup)
    assert image.shape == (*out, 3)
    assert ratios == (ratio, ratio)
    assert padding == pad


def test_letterbox_equals_the_reference():
    if not REFERENCE.is_file():
        pytest.skip("the reference figures are not beside this repository")
    cases = json.loads(REFERENCE.read_text())
    assert len(cases) == 24
    for case in cases:
        settings = {key: case[key] for key in ("auto", "scaleup") if key in case}
        image, ratio, pad = letterbox(np.zeros((*case["shape"], 3), np.uint8), tuple(case["new_shape"]), **settings)
        assert [list(image.shape[:2]), list(ratio), list(pad)] == [case["out"], case["ratio"], case["pad"]], case


def test_letterbox_pixels():
    image, _, (pad_x, pad_y) = letterbox(np.full((333, 500, 3), 7, np.uint8), (320, 416), auto=False)
    assert (pad_x, pad_y) == (0.0, 21.5)
    assert (image[:21] == 114).all() and (image[21:298] == 7).all() and (image[298:] == 114).all()

    original = gradient(64, 96)
    same, _, _ = letterbox(original, 96)
    assert (same == original).all()  # fits already: not resampled
    small, ratio, _ = letterbox(original, 48, stride=16)
    assert small.shape == (32, 48, 3) and ratio == (0.5, 0.5)
    assert (small == cv2.resize(original, (48, 32), interpolation=cv2.INTER_LINEAR)).all()


def test_a_batch_of_images_and_what_a_network_takes():
    """Every value divided by 255, as numpy divides it; in the memory format that convolutions are fast in."""
    images = [np.arange(8 * 32 * 3, dtype=np.uint8).reshape(8, 32, 3), np.zeros((8, 32, 3), np.uint8)]
    batch = stack_images(images)
    assert batch.shape == (2, 3, 8, 32) and batch.is_contiguous(memory_format=torch.channels_last)
    pixels = to_float(batch)
    assert pixels.dtype == torch.float32 and pixels.is_contiguous(memory_format=torch.channels_last)
    assert (pixels[0].numpy() == images[0].transpose(2, 0, 1).astype(np.float32) / 255).all()
    assert to_float(batch, torch.device("cpu"), torch.float64)[0, 0, 0, 1] == 3 / 255


def test_what_is_no_regular_file_is_named_and_never_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    with open(tmp_path / "endless.jpg", "wb") as file:
        file.truncate(1 << 40)
    for name, words in (
        ("pipe.jpg", "is a pipe, device or socket"),
        ("device.jpg", "is a pipe, device or socket"),
        ("endless.jpg", "a file of more than 1,073,741,824 bytes is not read"),
        ("a\0b.jpg", "can't be a file: embedded null byte"),
        ("x" * 300, "can't be a file: File name too long"),
    ):
        with pytest.raises(ImageError, match=words):
            read_image(f"{tmp_path}/{name}")


def test_what_opencv_refuses_is_said_without_a_second_error(tmp_path):
    """Its own words begin with its version, a path on another machine and «error:»."""
    file = tmp_path / "wide.tiff"
    cv2.imwrite(str(file), np.zeros((8, 8, 3), np.uint8), [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    data = bytearray(file.read_bytes())
    (directory,) = struct.unpack_from("<I", data, 4)
    # its first entry, the width: one more than OpenCV's own limit
    assert struct.unpack_from("<H", data, directory + 2) == (256,)
    struct.pack_into("<HHII", data, directory + 2, 256, 4, 1, 2**20 + 1)
    file.write_bytes(data)
    with pytest.raises(ImageError, match="^not decodable: .*IO_MAX_IMAGE_WIDTH") as raised:
        read_image(file)
    assert "error:" not in str(raised.value)


def test_samples_of_another_type_are_scaled_as_a_whole_however_many_rows_there_are():
    deep = np.arange(600 * 4, dtype=np.float32).reshape(600, 4)
    deep[0, 0] = np.nan
    assert (to_uint8(deep) == (np.nan_to_num(deep).astype(np.float64) * (255 / 2399)).round()).all()
