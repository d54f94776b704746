"""What image files say of themselves, read before anything is decoded: their size, and whether they are whole.

A file of a few bytes can announce a picture that fills the memory. Decoders believe it; here it is read first.
"""

import os
import re
import struct
import zlib
from collections.abc import Callable

from utils.errors import UserError, shown

# environment: OpenCV has a limit of its own by this name, 2**30 where it isn't set
LIMIT_VARIABLE = "OPENCV_IO_MAX_IMAGE_PIXELS"
MOST_PIXELS = 1 << 28
# of a file, that the signatures below look at
HEAD = 16

# A marker is FF and a code. In compressed data FF is followed by 00 (a data byte FF) or D0–D7 (restart), and FF may be
# repeated as filling.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_EOI, _TEM = 0xD9, 0x01
# frame headers: C0 to CF, but for the tables of Huffman codes, arithmetic conditions, and a reserved one
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)")


class HeaderError(Exception):
    """The beginning of a file is not that of an image, or breaks off; the message is the reason."""


def most_pixels() -> int:
    """The most pixels that an image may have to be decoded. Raises UserError where the environment sets no number."""
    value = os.environ.get(LIMIT_VARIABLE) or str(MOST_PIXELS)
    if not (value.isascii() and value.isdecimal()) or len(value) > 18:
        raise UserError(f"{LIMIT_VARIABLE}={shown(value)}: set a number of pixels, such as {MOST_PIXELS}, or unset it")
    return int(value)


def begins_as_image(head: bytes) -> bool:
    """Whether the first HEAD bytes of a file are those of a format that is read."""
    return any(re.match(signature, head, re.DOTALL) for signature, _ in _FORMATS)


def announced_size(data: bytes) -> tuple[int, int]:
    """(width, height) that the header of an image file announces, in pixels, before it is turned upright.

    Raises HeaderError where there is no header that could be read.
    """
    for signature, read in _FORMATS:
        if re.match(signature, data[:HEAD], re.DOTALL):
            try:
                return read(data)
            except (struct.error, IndexError, ValueError, OverflowError):
                raise HeaderError("damaged header") from None
    raise HeaderError("not an image, or a damaged one")


def check_whole(data: bytes) -> None:
    """Raise HeaderError for a JPEG that is cut off, and for a PNG that is cut off or damaged."""
    if data.startswith(b"\xff\xd8") and not _jpeg_complete(data):
        raise HeaderError("truncated JPEG")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(data)


# The formats -------------------------------------------------------------------------------------------------------------


def _jpeg_size(data: bytes) -> tuple[int, int]:
    position = 2
    while match := _JPEG_MARKER.search(data, position):
        position = match.end()
        if match[1][0] in _FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 3)
            return width, height
        if match[1][0] != _TEM:
            position += int.from_bytes(data[position : position + 2], "big")
    raise ValueError


def _png_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    # OpenCV decodes an animated one onto four canvases, one above the other as far as memory is concerned
    return width, height * (4 if b"acTL" in data[:1024] else 1)


def _bmp_size(data: bytes) -> tuple[int, int]:
    of_os2 = struct.unpack_from("<I", data, 14)[0] == 12
    width, height = struct.unpack_from("<HH" if of_os2 else "<ii", data, 18)
    return abs(width), abs(height)


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _tiff_size(data: bytes) -> tuple[int, int]:
    """From the first directory, which is the one that is decoded."""
    order = "<" if data.startswith(b"II") else ">"
    # (place of the directory's offset, its type), type of the count, (length of an entry, place of its value in it)
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    place, count, length, value = ((8, "Q"), "Q", 20, 12) if big else ((4, "I"), "H", 12, 8)
    start = struct.unpack_from(order + place[1], data, place[0])[0]
    entries = struct.unpack_from(order + count, data, start)[0]
    found: dict[int, int] = {}
    types = {1: "B", 3: "H", 4: "I", 16: "Q"}
    for entry in range(start + struct.calcsize(count), start + struct.calcsize(count) + entries * length, length):
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        if tag in (256, 257) and kind in types:
            found.setdefault(tag, struct.unpack_from(order + types[kind], data, entry + value)[0])
        if len(found) == 2:
            return found[256], found[257]
    raise ValueError


def _pnm_size(data: bytes) -> tuple[int, int]:
    found = _PNM.match(data[:4096])
    if not found:
        raise ValueError
    return int(found[1]), int(found[2])


def _jpeg2000_size(data: bytes) -> tuple[int, int]:
    """The largest of the codestreams, each of which begins with its size on a grid and the corner it starts from."""
    starts = [m.end() for m in re.finditer(rb"\xff\x4f\xff\x51", data)]
    return _largest(struct.unpack_from(">II", data, start + 4) for start in starts)


def _avif_size(data: bytes) -> tuple[int, int]:
    """The largest of the images in the file."""
    return _largest(struct.unpack_from(">II", data, m.end() + 4) for m in re.finditer(rb"ispe", data))


def _largest(sizes) -> tuple[int, int]:
    return max(sizes, key=lambda size: size[0] * size[1])


# how a file begins → what reads its size; others that OpenCV knows (OpenEXR, Radiance, Sun …) are not read
_FORMATS: list[tuple[bytes, Callable[[bytes], tuple[int, int]]]] = [
    (rb"\xff\xd8", _jpeg_size),
    (rb"\x89PNG\r\n\x1a\n", _png_size),
    (rb"BM", _bmp_size),
    (rb"RIFF....WEBP", _webp_size),
    (rb"II[*+]\0|MM\0[*+]", _tiff_size),
    (rb"P[1-6]\s", _pnm_size),
    (rb"GIF8[79]a", lambda data: struct.unpack_from("<HH", data, 6)),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", _jpeg2000_size),
    (rb"....ftyp", _avif_size),
]


def _jpeg_complete(data: bytes) -> bool:
    """Whether a JPEG's own end marker is there.

    Segments are skipped by their length, so the end marker of a thumbnail inside the EXIF segment doesn't count; what
    follows the end marker (some cameras append data) doesn't matter.
    """
    position = 2
    while match := _JPEG_MARKER.search(data, position):
        code = match[1][0]
        if code == _EOI:
            return True
        position = match.end()
        if code != _TEM:  # all other markers left carry a length, which counts its own two bytes
            position += int.from_bytes(data[position : position + 2], "big")
    return False


def _check_png(data: bytes) -> None:
    """Raise HeaderError where a PNG lacks its end chunk or has a damaged chunk that decoding needs."""
    position = 8
    while len(data) >= position + 12:
        length = int.from_bytes(data[position : position + 4], "big")
        name = data[position + 4 : position + 8]
        end = position + 8 + length
        if name == b"IEND":
            return
        needed = name[:1].isupper()
        if needed and zlib.crc32(memoryview(data)[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise HeaderError("damaged PNG" if end + 4 <= len(data) else "truncated PNG")
        position = end + 4
    raise HeaderError("truncated PNG")
