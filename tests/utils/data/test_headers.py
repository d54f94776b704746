"""What image files announce before they are decoded."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from utils.data.headers import LIMIT_VARIABLE, HeaderError, announced_size, begins_as_image, most_pixels
from utils.data.images import ImageError, read_image
from utils.errors import UserError

SUFFIXES = [".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm", ".pgm", ".gif", ".jp2", ".avif"]


def encoded(suffix: str, width: int = 53, height: int = 37) -> bytes:
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    try:
        return cv2.imencode(suffix, image[..., 0] if suffix == ".pgm" else image)[1].tobytes()
    except cv2.error:
        pytest.skip(f"this OpenCV writes no {suffix}")


def png(width: int, height: int) -> bytes:
    """A whole PNG of a few bytes that announces so many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_size_of_every_format(suffix):
    data = encoded(suffix)
    assert begins_as_image(data[:16])
    assert announced_size(data) == (53, 37)


def test_the_size_of_formats_that_opencv_does_not_write():
    lossless = cv2.imencode(".webp", np.zeros((37, 53, 3), np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    assert lossless[12:16] == b"VP8L" and announced_size(lossless) == (53, 37)
    extended = (
        b"RIFF\0\0\0\0WEBPVP8X" + struct.pack("<II", 10, 0) + (52).to_bytes(3, "little") + (36).to_bytes(3, "little")
    )
    assert announced_size(extended) == (53, 37)
    os2 = b"BM" + bytes(12) + struct.pack("<IHH", 12, 53, 37)
    assert announced_size(os2) == (53, 37)
    entries = struct.pack(">HHQQHHQQ", 256, 4, 1, 53 << 32, 257, 3, 1, 37 << 48)
    assert announced_size(b"MM\0+\0\x08\0\0" + struct.pack(">QQ", 16, 2) + entries) == (53, 37)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_headers_that_break_off_or_lie_are_refused(suffix):
    data = encoded(suffix)
    with pytest.raises(HeaderError):
        announced_size(data[:5])
    # offsets and counts of a directory beyond any file
    with pytest.raises(HeaderError):
        announced_size(b"II+\0\x08\0\0\0" + b"\xff" * 40)


def test_a_few_bytes_that_announce_a_huge_picture_are_not_decoded(tmp_path, monkeypatch):
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png(20_000, 20_000))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ImageError, match=f"20000x20000 pixels: more than 268,435,456 .* {LIMIT_VARIABLE}"):
        read_image(bomb)


def test_the_environment_sets_the_limit(tmp_path, monkeypatch):
    file = tmp_path / "a.png"
    file.write_bytes(encoded(".png"))
    monkeypatch.setenv(LIMIT_VARIABLE, str(53 * 37 - 1))
    with pytest.raises(ImageError, match="53x37 pixels: more than 1,960 are not decoded"):
        read_image(file)
    monkeypatch.setenv(LIMIT_VARIABLE, str(53 * 37))
    assert read_image(file).shape == (37, 53, 3)
    for wrong in ("many", "-1", "1e9", "9" * 30):
        monkeypatch.setenv(LIMIT_VARIABLE, wrong)
        with pytest.raises(UserError, match=f"{LIMIT_VARIABLE}={wrong}: set a number of pixels"):
            most_pixels()


def test_the_canvases_of_an_animated_png_count():
    def png(*chunks):
        body = b"".join(len(b).to_bytes(4, "big") + n + b + zlib.crc32(n + b).to_bytes(4, "big") for n, b in chunks)
        return b"\x89PNG\r\n\x1a\n" + body

    header = (b"IHDR", struct.pack(">IIBBBBB", 100, 50, 8, 4, 0, 0, 0))
    assert announced_size(png(header, (b"IDAT", b""))) == (100, 50)
    assert announced_size(png(header, (b"acTL", bytes(8)), (b"IDAT", b""))) == (100, 200)
