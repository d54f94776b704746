"""Metadata beside an exported model."""

import zipfile

import pytest

from engine.export.metadata import (
    MOST_CLASSES,
    MOST_TEXT,
    append_zip,
    read_json,
    read_values,
    read_yaml_beside,
    read_zip,
)
from utils.errors import UserError
from utils.yaml_file import write_yaml

VALUES = {"stride": 32, "names": {0: "盘", 1: "disc"}, "imgsz": [64, 96], "batch": 1, "dynamic": False, "nms": True}


def test_what_is_written_is_read_from_the_file_or_its_folder(tmp_path):
    write_yaml(tmp_path / "metadata.yaml", VALUES)
    assert read_yaml_beside(tmp_path / "metadata.yaml") == read_yaml_beside(tmp_path) == VALUES


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "metadata.yaml: a metadata file holds `key: value` lines"),
        ("names: [a, b", "metadata.yaml, line 1: not valid YAML"),
        ("stride: 32\nstride: 64\n", "`stride` is given twice"),
        ("stride: 32\n", "carries no class names"),
    ],
)
def test_a_damaged_file_is_a_mistake_of_the_user(text, words, tmp_path):
    (tmp_path / "metadata.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        read_yaml_beside(tmp_path)


NAMES = {"names": ["a", "b"]}


def test_values_may_be_texts_and_most_may_be_missing():
    defaults = {"stride": 32, "dynamic": True, "nms": False, "batch": 1}
    assert read_values("x", NAMES) == {"names": {0: "a", 1: "b"}} | defaults
    texts = {
        "names": "{0: 'a', 1: 2}",
        "stride": "16.0",
        "imgsz": "(64, 96)",
        "batch": "3",
        "dynamic": "True",
        "other": "x",
    }
    assert read_values("x", texts) == {
        "names": {0: "a", 1: "2"},
        "stride": 16,
        "imgsz": [64, 96],
        "batch": 3,
        "dynamic": True,
        "nms": False,
    }
    assert read_values("x", {"names": {"0": "\x1b[31m"}})["names"] == {0: "\\x1b[31m"}


@pytest.mark.parametrize(
    ("key", "values"),
    [
        (
            "names",
            [{1: "a"}, {0: "a", 2: "b"}, {"x": "a"}, [["a"]], "range(9)", ["a"] * (MOST_CLASSES + 1), "[" * 10**5],
        ),
        ("names", ["-" * 10**5 + "1", "1+" * 10**5 + "1", "{{}: 0}", "{0: 'a'}" + " " * MOST_TEXT, 7, {}, "'ab'"]),
        (
            "stride",
            [0, -32, 1025, 2.5, True, "None", float("nan"), float("inf"), 10**5000, "9" * 5000, "x" * 10**6, [32]],
        ),
        (
            "imgsz",
            [
                [64],
                [64, 64, 64],
                [0, 64],
                [64, -1],
                [64, 9000],
                64,
                "64",
                {0: 64, 1: 64},
                [64, "a"],
                [float("nan")] * 2,
            ],
        ),
        ("batch", [0, -1, 10**9, "many", 1.5, [1]]),
        ("dynamic", [0, "yes", "1", []]),
        ("nms", [1, "on", {}]),
        ("task", ["segment", 1, "['detect']"]),
    ],
)
def test_values_that_can_not_be_are_one_error(key, values):
    for value in values:
        with pytest.raises(UserError) as error:
            read_values("best.onnx", {"names": ["a"], key: value})
        assert str(error.value).startswith("best.onnx: ") and key.removeprefix("n") in str(error.value)
        assert len(str(error.value)) < 600


def test_a_batch_has_no_more_pixels_than_memory_can_hold():
    assert read_values("x", NAMES | {"imgsz": [640, 640], "batch": 128})["batch"] == 128
    with pytest.raises(UserError, match="at most 52,428,800 pixels"):
        read_values("x", NAMES | {"imgsz": [640, 640], "batch": 129})
    # only an example there
    assert read_values("x", NAMES | {"imgsz": [640, 640], "batch": 129, "dynamic": True})
    with pytest.raises(UserError, match="no imgsz"):
        read_values("x", NAMES | {"dynamic": False})


def test_metadata_that_are_no_mapping(tmp_path):
    for text in ("", "[1, 2]", "null", "[" * 10**5, "9" * 5000, "{", b"\xff\xfe", "{}"):
        with pytest.raises(UserError, match="x: (its metadata are|carries no class names)"):
            read_json(tmp_path / "x", text)
    with pytest.raises(UserError, match="its metadata have 2,000,000 characters"):
        read_json(tmp_path / "x", " " * 2_000_000)


def test_metadata_in_an_archive(tmp_path):
    file = tmp_path / "best.tflite"
    file.write_bytes(b"TFL3" * 100)
    with pytest.raises(UserError, match="carries no class names"):
        read_zip(file)
    append_zip(file, VALUES)
    assert read_zip(file) == VALUES
    sound = file.read_bytes()
    # its directory is at the end
    for at in range(400, len(sound), 3):
        file.write_bytes(sound[:at] + bytes([sound[at] ^ 0xFF]) + sound[at + 1 :])
        try:
            read_zip(file)
        except UserError as e:
            assert str(e).startswith(f"{file}: ")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", " " * 50_000_000)
    with pytest.raises(UserError, match="its metadata have 1,048,577 characters"):
        read_zip(file)
    with zipfile.ZipFile(file, "w"):
        pass
    with pytest.raises(UserError, match="its metadata can't be read"):
        read_zip(file)
