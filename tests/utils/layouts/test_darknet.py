"""CVAT's "YOLO 1.1" export, as the tool writes it: lists with a folder that isn't there, labels beside the images."""

from pathlib import Path

import cv2
import numpy as np
import pytest

import data.convert as convert
from utils.data.config import cache_path, image_files, index_split, read_data_yaml
from utils.errors import UserError

PREFIXED = "data/obj_train_data/frame_{:06d}.jpg"


def export(root: Path, frames: int = 4, line: str = PREFIXED, valid: bool = False) -> Path:
    """A made-up export of ``frames`` images of 64×48 px: a cat in each, and from the third on a dog, too."""
    folder = root / "obj_train_data"
    folder.mkdir(parents=True)
    for i in range(frames):
        cv2.imwrite(str(folder / f"frame_{i:06d}.jpg"), np.full((48, 64, 3), 40 * i, np.uint8))
        rows = ["0 0.5 0.5 0.25 0.5", *["1 0.250000 0.250000 0.1 0.1"] * (i > 1)]
        (folder / f"frame_{i:06d}.txt").write_text("\n".join(rows) + "\n")
    (root / "obj.names").write_text("cat\ndog\n")
    (root / "train.txt").write_text("".join(f"{line.format(i)}\n" for i in range(frames)))
    settings = ["classes = 2", "train = data/train.txt", "names = data/obj.names", "backup = backup/"]
    if valid:
        (root / "valid.txt").write_text(line.format(0) + "\n")
        settings.insert(2, "valid = data/valid.txt")
    (root / "obj.data").write_text("\n".join(settings) + "\n")
    return root


@pytest.mark.parametrize("below", ["", "images/cvat"])
def test_an_export_is_read_as_it_is(tmp_path, capsys, below):
    """Below a folder called `images`, too, which has nothing to do with the set's layout."""
    root = export(tmp_path / below / "task")
    yaml = convert.run("darknet", root, root)
    assert yaml == root / "data.yaml"
    said = capsys.readouterr().out
    assert (
        "task/train.txt: 4 of 4 entries, such as data/obj_train_data/frame_000000.jpg, lie beside it without their first part: "
        f"taken is {root}/obj_train_data/frame_000000.jpg"
    ) in said
    assert "train: 4 images" in said and "has no list for val; " in said and "data/convert.py split" in said
    config = read_data_yaml(yaml)
    assert config.names == {0: "cat", 1: "dog"} and config.splits["val"] == [str(root / "train.txt")]
    index = index_split(config, "train")
    assert [Path(a.image) for a in index.annotations] == sorted((root / "obj_train_data").glob("*.jpg"))
    assert index.instances == 6 and index.missing == 0 and not index.faults
    assert "note:" not in capsys.readouterr().out, (
        "it is told twice, or what is kept for the next time can't be written"
    )
    assert cache_path(config, "train", ".cache").is_file()


def test_an_entry_that_is_where_it_says_is_left(tmp_path, capsys):
    root = export(tmp_path, line="obj_train_data/frame_{:06d}.jpg")
    (root / "data/obj_train_data").mkdir(parents=True)
    (root / "data/obj_train_data/frame_000000.jpg").touch()
    (root / "train.txt").write_text(
        "data/obj_train_data/frame_000000.jpg\nobj_train_data/frame_000001.jpg\nno/where.jpg\n"
    )
    found = [str(Path(image).relative_to(root)) for image in image_files([str(root / "train.txt")])]
    assert found == ["data/obj_train_data/frame_000000.jpg", "obj_train_data/frame_000001.jpg", "no/where.jpg"]
    assert "note:" not in capsys.readouterr().out


def test_a_list_for_validation(tmp_path, capsys):
    root = export(tmp_path / "task", valid=True)
    config = read_data_yaml(convert.run("darknet", root / "obj.data", tmp_path / "other"))
    assert config.splits == {"train": [str(root / "train.txt")], "val": [str(root / "valid.txt")]}
    assert "stands in its place" not in capsys.readouterr().out
    with pytest.raises(UserError, match=r"other/data\.yaml: is there already"):
        convert.run("darknet", root, tmp_path / "other")


def test_labels_lie_in_labels_where_there_is_such_a_folder(tmp_path):
    """A text beside an image is then no label file."""
    root = export(tmp_path / "images")
    (tmp_path / "labels/obj_train_data").mkdir(parents=True)
    (tmp_path / "labels/obj_train_data/frame_000001.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    index = index_split(read_data_yaml(convert.run("darknet", root, tmp_path / "out")), "train")
    assert (index.instances, index.missing) == (1, 3)


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        (
            "obj.data",
            "classes = 3\ntrain = train.txt\nnames = obj.names",
            "obj.data: classes is 3, and obj.names names 2",
        ),
        ("obj.data", "classes = 2\nnames = data/obj.names", "obj.data: names no list of images"),
        ("obj.data", "classes = 2", "obj.data: names no file of classes"),
        ("obj.data", "train = a.txt\nnames = obj.names", "a.txt: no such folder, list or image"),
        ("obj.data", "train = a.txt\nnames = b.names", "b.names: no such list of classes"),
        ("obj.names", "cat\n\ndog\n", "obj.names: an empty line; it has a class a line"),
        ("obj.names", "", "obj.names: no names"),
        ("more.data", "", "holds 2 .data files; name the obj.data"),
    ],
)
def test_exports_that_are_none_are_named(tmp_path, file, text, words):
    root = export(tmp_path / "task", frames=1)
    (root / file).write_text(text)
    with pytest.raises(UserError, match=words):
        convert.run("darknet", root, tmp_path / "out")
    assert not (tmp_path / "out").exists()
