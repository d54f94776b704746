"""Label files, and the index of a split with its cache."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.data.index import index_images, labels_digest
from utils.data.labels import Fault, label_file, label_path, parse_label_text
from utils.errors import UserError


def make_image(path: Path, shape: tuple[int, int] = (20, 30)) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.full((*shape, 3), 90, np.uint8))[1].tobytes())
    return str(path)


def make_set(root: Path, labels: dict[str, str | None]) -> list[str]:
    """Images with these names, and their label files where the text is not None."""
    images = []
    for name, text in labels.items():
        images.append(make_image(root / "images" / f"{name}.png"))
        if text is not None:
            file = root / "labels" / f"{name}.txt"
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
    return images


def replace_unnoticed(file: str | Path, data: bytes) -> None:
    """Overwrite a file with bytes of the same length, keeping its modification time."""
    before = os.stat(file)
    assert len(data) == before.st_size
    Path(file).write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def assert_same(a, b):
    assert [(x.image, x.shape) for x in a.annotations] == [(x.image, x.shape) for x in b.annotations]
    for x, y in zip(a.annotations, b.annotations, strict=True):
        assert x.labels.dtype == y.labels.dtype == np.float32
        np.testing.assert_array_equal(x.labels, y.labels)
        assert len(x.segments) == len(y.segments)
        for p, q in zip(x.segments, y.segments, strict=True):
            np.testing.assert_array_equal(p, q)
    assert (a.faults, a.missing, a.empty) == (b.faults, b.missing, b.empty)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("set/images/train/a.jpg", "set/labels/train/a.txt"),
        ("/x/images/y/images/a.b.png", "/x/images/y/labels/a.b.txt"),
        ("images/a.JPG", "labels/a.txt"),
        ("photos/a.jpg", "photos/a.txt"),
        ("my_images/images.jpg", "my_images/images.txt"),
        ("a.jpg", "a.txt"),
        ("./set//images/./a.jpg", "set/labels/a.txt"),
        ("../images/../b/.a.jpg", "../labels/../b/.a.txt"),
        # no image, and a list may hold it
        ("/", "/.txt"),
    ],
)
def test_label_path(image, label):
    assert label_path(image) == label_path(Path(image)) == Path(label)
    assert label_file(image) == label


def test_rows_of_boxes():
    text = "\ufeff0 0.5 0.5 0.25 0.5\r\n\r\n2\t0.1 0.2\t0.1 0.1  \r\n1.0 1 1 1e-1 .5"
    labels, segments, faults = parse_label_text(text, nc=3)
    assert labels.dtype == np.float32
    expected = [[0, 0.5, 0.5, 0.25, 0.5], [2, 0.1, 0.2, 0.1, 0.1], [1, 1, 1, 0.1, 0.5]]
    np.testing.assert_array_equal(labels, np.array(expected, np.float32))
    assert segments == [] and faults == []


def test_no_rows():
    labels, segments, faults = parse_label_text("\n \n", nc=3)
    assert labels.shape == (0, 5) and segments == [] and faults == []


def test_polygons_become_boxes_of_their_extent():
    labels, segments, faults = parse_label_text("1 0.1 0.2 0.5 0.2 0.3 0.8\n0 0.5 0.5 0.2 0.4\n", nc=2)
    assert faults == []
    np.testing.assert_allclose(labels, [[1, 0.3, 0.5, 0.4, 0.6], [0, 0.5, 0.5, 0.2, 0.4]], atol=1e-7)
    np.testing.assert_allclose(segments[0], [[0.1, 0.2], [0.5, 0.2], [0.3, 0.8]], atol=1e-7)
    np.testing.assert_allclose(segments[1], [[0.4, 0.3], [0.6, 0.3], [0.6, 0.7], [0.4, 0.7]], atol=1e-7)
    assert all(s.dtype == np.float32 for s in segments)


def test_two_polygons_of_one_extent_are_two_objects():
    labels, segments, faults = parse_label_text("0 0 0 1 0 1 1\n0 0 0 1 1 0 1\n", nc=1)
    assert len(labels) == len(segments) == 2 and faults == []


def test_rounding_is_clipped_silently():
    labels, _, faults = parse_label_text("0 0.5 -0.0009 1.0009 0.5", nc=1)
    np.testing.assert_array_equal(labels, [[0, 0.5, 0, 1, 0.5]])
    assert faults == []


@pytest.mark.parametrize(
    ("row", "kind", "words"),
    [
        ("0 0.5 0.5 0.5", "column count", "4 columns"),
        ("0 0.5 0.5 0.5 0.5 0.9", "column count", "6 columns (is the last one a saved confidence?)"),
        ("0 .1 .1 .2 .2 .3 .3 .4", "column count", "8 columns"),
        ("cat 0.5 0.5 0.5 0.5", "not a number", "'cat' is not a number"),
        ("0 0.5 nan 0.5 0.5", "not a number", "'nan'"),
        ("0 0.5 0.5 inf 0.5", "not a number", "'inf'"),
        ("0 0,5 0.5 0.5 0.5", "not a number", "'0,5'"),
        ("1.5 0.5 0.5 0.5 0.5", "class", "class 1.5 is not an integer"),
        ("-1 0.5 0.5 0.5 0.5", "class", "class -1, but nc is 3"),
        ("7 0.5 0.5 0.5 0.5", "class", "class 7, but nc is 3"),
        ("3 0.5 0.5 0.5 0.5", "class", "class 3, but nc is 3"),
        ("0 320 0.5 0.5 0.5", "coordinate", "x is 320, outside 0..1"),
        ("0 0.5 0.5 0.5 1.0011", "coordinate", "h is 1.0011"),
        ("0 0.5 -0.0011 0.5 0.5", "coordinate", "y is -0.0011"),
        ("0 .1 .1 .2 .2 .3 1.3", "coordinate", "y3 is 1.3"),
        ("0 0.5 0.5 0 0.5", "box size", "width 0"),
        ("0 0.5 0.5 0.5 -0.0005", "box size", "height 0"),
        ("0 .1 .1 .2 .1 .3 .1", "box size", "height 0"),
        ("1 0.25 0.25 0.1 0.1", "duplicate row", "the same as line 1"),
    ],
)
def test_a_faulty_row_is_reported_and_skipped(row, kind, words):
    text = f"1 0.25 0.25 0.1 0.1\n\n{row}\n2 0.75 0.75 0.1 0.1\n"
    labels, _, faults = parse_label_text(text, nc=3, file="labels/a.txt")
    assert labels[:, 0].tolist() == [1, 2]
    assert [(f.kind, f.file, f.line) for f in faults] == [(kind, "labels/a.txt", 3)]
    assert words in faults[0].detail
    assert str(faults[0]).startswith("labels/a.txt line 3: ") and str(faults[0]).endswith("; line skipped")


def test_message_of_a_fault():
    fault = parse_label_text("0 .5 .5 .5 .5\n\n7 .5 .5 .5 .5", nc=3, file="labels/a.txt")[2][0]
    assert str(fault) == "labels/a.txt line 3: class 7, but nc is 3; line skipped"
    assert str(Fault("image refused", "a.jpg", None, "empty file")) == "a.jpg: empty file"


def test_index_keeps_order_and_counts(tmp_path):
    labels = {"d": "0 .5 .5 .5 .5\n1 .5 .5 .5 .5\n", "a": None, "c": " \n", "b": "1 .1 .1 .1 .1\n"}
    images = make_set(tmp_path, labels)
    make_image(tmp_path / "images/d.png", (40, 50))
    relative = os.path.relpath(images[3])
    index = index_images([*images, images[0], relative], nc=2, cache=None, description="val", workers=3)
    assert [a.image for a in index.annotations] == images
    assert [a.shape for a in index.annotations] == [(40, 50), (20, 30), (20, 30), (20, 30)]
    assert [len(a.labels) for a in index.annotations] == [2, 0, 0, 1]
    assert (index.instances, index.missing, index.empty, index.faults) == (3, 1, 1, [])
    assert index.summary == "4 images, 3 boxes, 1 without a label file, 1 with an empty one, 0 faults"


def test_index_shape_is_that_of_the_upright_image(tmp_path):
    jpeg = cv2.imencode(".jpg", np.zeros((20, 30, 3), np.uint8))[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6
    (tmp_path / "a.jpg").write_bytes(jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:])
    index = index_images([str(tmp_path / "a.jpg")], nc=1, cache=None, description="val")
    assert index.annotations[0].shape == (30, 20)


def test_index_reports_faults_with_file_and_line(tmp_path, capsys):
    images = make_set(tmp_path, {"a": "0 .5 .5 .5 .5\n9 .5 .5 .5 .5\n", "b": "0 .5 .5 .5 .5", "c": None, "d": None})
    Path(images[1]).write_bytes(Path(images[1]).read_bytes()[:-12])
    (tmp_path / "labels/c.txt").write_bytes("0 .5 .5 .5 .5 é".encode("latin-1"))
    (tmp_path / "labels/d.txt").mkdir()
    gone = str(tmp_path / "images/gone.png")
    index = index_images([*images, gone], nc=2, cache=None, description="train")
    assert [a.image for a in index.annotations] == images[:1]
    found = [(f.kind, f.file, f.line) for f in index.faults]
    assert found == [
        ("class", str(tmp_path / "labels/a.txt"), 2),
        ("image refused", images[1], None),
        ("not UTF-8", str(tmp_path / "labels/c.txt"), None),
        ("label file unreadable", str(tmp_path / "labels/d.txt"), None),
        ("image refused", gone, None),
    ]

    capsys.readouterr()
    index.print_faults(limit=2)
    assert capsys.readouterr().out.splitlines() == [
        f"warning: {tmp_path}/labels/a.txt line 2: class 9, but nc is 2; line skipped",
        f"warning: {images[1]}: truncated PNG; image left out",
        "warning: 5 faults in all: 2 × image refused, 1 × class, 1 × not UTF-8, 1 × label file unreadable",
    ]


def test_index_without_a_usable_image_is_an_error(tmp_path):
    images = make_set(tmp_path, {"a": None})
    Path(images[0]).write_bytes(b"")
    with pytest.raises(UserError, match=r"images: none of 1 images is usable; .*a\.png: empty file"):
        index_images(images, nc=2, cache=tmp_path / "x.cache", description="train")


def test_background_only_is_allowed(tmp_path):
    index = index_images(make_set(tmp_path, {"a": None, "b": ""}), nc=2, cache=None, description="val")
    assert (len(index.annotations), index.instances, index.missing, index.empty) == (2, 0, 1, 1)


SET = {
    "a": "0 .5 .5 .5 .5\n1 .5 .5 .5 .5\n9 .5 .5 .5 .5\n",
    "b": "1 0.1 0.2 0.5 0.2 0.3 0.8\n0 0.5 0.5 0.2 0.4\n",
    "c": None,
    "d": "",
    "e": "1 .5 .5 .1 .1\n",
}


def test_cache_holds_everything_and_decodes_nothing(tmp_path):
    images = make_set(tmp_path, SET)
    Path(images[4]).write_bytes(b"broken")
    cache = tmp_path / "labels/train.cache"
    first = index_images(images, nc=2, cache=cache, description="train")
    assert len(first.faults) == 2 and (first.missing, first.empty) == (1, 1)
    assert sorted(p.name for p in cache.parent.iterdir()) == ["a.txt", "b.txt", "d.txt", "e.txt", "train.cache"]

    replace_unnoticed(images[0], bytes(os.path.getsize(images[0])))  # would be refused if it were read
    replace_unnoticed(tmp_path / "labels/b.txt", SET["b"].replace("0.8", "0.9").encode())
    assert_same(first, index_images(images, nc=2, cache=cache, description="train"))
    anew = index_images(images, nc=2, cache=None, description="train")
    assert len(anew.annotations) == len(first.annotations) - 1


def test_cache_notices_changes(tmp_path):
    images = make_set(tmp_path, SET)
    cache = tmp_path / "labels/train.cache"

    def index(files=images, nc=2):
        return index_images(files, nc=nc, cache=cache, description="train")

    assert index().instances == 5
    (tmp_path / "labels/a.txt").write_text("0 .5 .5 .5 .5\n")  # other size
    assert index().instances == 4
    os.utime(tmp_path / "labels/b.txt", ns=(1, 1))  # other time only: read again, with the same result
    assert index().instances == 4
    (tmp_path / "labels/c.txt").write_text("0 .5 .5 .5 .5\n")  # new label file
    assert (index().instances, index().missing) == (5, 0)
    (tmp_path / "labels/b.txt").unlink()
    assert (index().instances, index().missing) == (3, 1)
    make_image(Path(images[0]), (50, 60))
    assert index().annotations[0].shape == (50, 60)
    assert index(nc=1).instances == 2
    assert [a.image for a in index(images[::-1]).annotations] == images[::-1]


@pytest.mark.parametrize("content", [b"", b"not a cache", "truncated", "flipped", "npy", "pickle", "foreign npz"])
def test_unusable_cache_is_rebuilt(tmp_path, content):
    images = make_set(tmp_path, SET)
    cache = tmp_path / "train.cache"
    first = index_images(images, nc=2, cache=cache, description="train")
    good = cache.read_bytes()
    if isinstance(content, bytes):
        cache.write_bytes(content)
    elif content == "truncated":
        cache.write_bytes(good[: len(good) // 2])
    elif content == "flipped":
        at = good.index(b"line skipped")
        cache.write_bytes(good[:at] + b"#" + good[at + 1 :])
    else:
        with open(cache, "wb") as f:
            if content == "npy":
                np.save(f, np.zeros(3))
            elif content == "pickle":
                np.save(f, {"hash": 1})
            else:
                np.savez(f, a=np.zeros(3))
    assert_same(first, index_images(images, nc=2, cache=cache, description="train"))
    assert cache.read_bytes() == good


def test_cache_that_cannot_be_written_is_a_note(tmp_path, capsys):
    images = make_set(tmp_path, {"a": "0 .5 .5 .5 .5\n"})
    (tmp_path / "file").write_text("mine")
    for cache in (tmp_path / "file/train.cache", tmp_path / "nowhere/train.cache", tmp_path / "labels"):
        assert index_images(images, nc=1, cache=cache, description="train").instances == 1
        out = capsys.readouterr().out
        assert out.startswith(f"note: {cache} can't be written") and out.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "images", "labels"]


def test_label_files_that_are_none_leave_their_images_out(tmp_path):
    images = make_set(tmp_path, {"a": "0 0.5 0.5 0.2 0.2\n", "b": None, "c": None, "d": None})
    os.mkfifo(tmp_path / "labels/b.txt")
    (tmp_path / "labels/c.txt").symlink_to("nowhere")
    with open(tmp_path / "labels/d.txt", "wb") as file:
        file.truncate(1 << 40)
    index = index_images(images, nc=1, cache=None, description="val")
    assert [Path(a.image).stem for a in index.annotations] == ["a"] and index.missing == 0
    assert [(Path(f.file).name, f.kind) for f in index.faults] == [(f"{n}.txt", "label file unreadable") for n in "bcd"]
    for fault, words in zip(index.faults, ("is a pipe", "no such label file", "is not read"), strict=True):
        assert words in fault.detail and fault.detail.endswith("its image is left out")


def test_a_cache_that_was_made_up_is_not_believed(tmp_path):
    """Of the right key, whatever else it says; and one that is a pipe."""
    images = make_set(tmp_path, {"a": "0 0.5 0.5 0.2 0.2\n", "b": "1 0.1 0.1 0.9 0.1 0.9 0.9\n"})
    cache = tmp_path / "train.cache"
    first = index_images(images, nc=2, cache=cache, description="train")
    with np.load(cache) as archive:
        good = dict(archive)
    for name, wrong in (
        ("positions", np.array([0, 99])),
        ("positions", np.array([1, 0])),
        ("shapes", np.array([[-1, 10], [10, 10]])),
        ("labels", np.full_like(good["labels"], 7)),
        ("labels", np.full_like(good["labels"], np.nan)),
        ("labels", good["labels"].astype(np.float64)),
        ("label_counts", np.array([-1, 3])),
        ("point_counts", np.array([1 << 40])),
        ("segment_counts", np.array([0, 5])),
        ("rest", np.frombuffer(b"[" * 5000, np.uint8)),
        ("rest", np.frombuffer(b'{"faults": 1}', np.uint8)),
    ):
        with open(cache, "wb") as file:
            np.savez(file, **good | {name: wrong})
        assert_same(first, index_images(images, nc=2, cache=cache, description="train"))
    with open(cache, "wb") as file:
        np.savez_compressed(file, **good | {"points": np.zeros((1 << 20, 2), np.float32)})
    assert_same(first, index_images(images, nc=2, cache=cache, description="train"))
    cache.unlink()
    os.mkfifo(cache)
    assert_same(first, index_images(images, nc=2, cache=cache, description="train"))


def test_an_image_whose_name_is_no_text_counts_like_any_other(tmp_path):
    """Linux has names of any bytes: a run on such an image once ended in a traceback when its labels were digested."""
    odd = Path(os.fsdecode(os.fsencode(tmp_path / "images") + b"/\xff\xfe.png"))
    plain = make_image(tmp_path / "images" / "a.png")
    odd.write_bytes(Path(plain).read_bytes())
    annotations = index_images([plain, str(odd)], nc=1, cache=None, description="train").annotations
    assert len(annotations) == 2
    assert labels_digest(annotations) != labels_digest(annotations[:1])
