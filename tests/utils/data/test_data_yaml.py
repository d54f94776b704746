"""Data YAMLs, the images they lead to, and downloads."""

import os
from pathlib import Path

import pytest
import yaml

from tests.helpers.sets import make_zip
from utils.data.config import DATA, image_files, prepare_data, read_data_yaml, source_of
from utils.data.index import index_images
from utils.download import is_url
from utils.errors import UserError
from utils.sources.sources import Sources


def write_yaml(file: Path, **keys) -> Path:
    """A data YAML with entries and names, unless ``keys`` say otherwise (None: leave the key out)."""
    data = {"train": "images/train", "val": "images/val", "names": ["cat", "dog"], **keys}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({key: value for key, value in data.items() if value is not None}, sort_keys=False))
    return file


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def make_folders(root: Path, *names: str) -> None:
    for name in names or ("images/train", "images/val"):
        (root / name).mkdir(parents=True)


def error_of(file: Path) -> str:
    with pytest.raises(UserError) as e:
        read_data_yaml(file)
    assert str(file) in str(e.value)
    return str(e.value)


# --- reading -----------------------------------------------------------------


def test_names_as_list_and_as_mapping(tmp_path):
    for names in (["cat", "dog"], {0: "cat", 1: "dog"}, {1: "dog", 0: "cat"}, {"0": "cat", "1": "dog"}):
        config = read_data_yaml(write_yaml(tmp_path / "set.yaml", names=names, nc=2))
        assert config.names == {0: "cat", 1: "dog"} and list(config.names) == [0, 1]
        assert config.nc == 2
    assert read_data_yaml(write_yaml(tmp_path / "set.yaml", names=["cat", 7])).names == {0: "cat", 1: "7"}


HOSTILE = {
    "a superscript as a number": ({"names": {"²": "cat", "1": "dog"}}, "names are numbered ², 1"),
    "a number of no class": ({"names": {0.5: "cat", None: "dog"}}, "names are numbered 0.5, None"),
    "a list as a name": ({"names": [["a"] * 500, "dog"]}, "the name of class 0 is read as ['a', 'a'"),
    "a name of many characters": ({"names": ["x" * 5000, "dog"]}, "a name is one line of at most 200 characters"),
    "a name of two lines": ({"names": ["a\nb", "dog"]}, "a name is one line"),
    "classes that are a list": ({"nc": [2] * 500}, "nc is [2, 2"),
    "a path of many characters": ({"train": "x" * 5000}, "an entry has at most 4,096 characters"),
    "a walk that branches at every level": ({"val": "**/**/**/*.jpg"}, "`**` at most twice"),
    "entries within entries": ({"val": [["images"] * 500]}, "`val:` is [['images', "),
    "a folder that is a list": ({"path": ["x"] * 500}, "`path:` is ['x', 'x'"),
    "a download that is a number": ({"download": 5}, "`download:` is 5; a text"),
    "a download of lists": ({"download": {"a": [["x"]]}}, "`download:` is [['x']]; a text"),
    "a download to everywhere": ({"download": {"../" * 500: "x"}}, "`download:` would fill '../../"),
    "a set that is made by a list": ({"generate": ["shapes"]}, "generate: ['shapes'] is unknown"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_no_data_yaml_holds_is_shown_short(kind, tmp_path):
    keys, words = HOSTILE[kind]
    message = error_of(write_yaml(tmp_path / "set.yaml", **keys))
    assert words in message and len(message) < 600 + len(str(tmp_path))


@pytest.mark.parametrize("name", ["x" * 5000, "pipe"])
def test_what_is_no_file_is_no_data_yaml(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with pytest.raises(UserError, match="no such data YAML|is a pipe, device or socket; a data YAML is a regular file"):
        read_data_yaml(name)


def test_nc_must_agree_with_names(tmp_path):
    message = error_of(write_yaml(tmp_path / "set.yaml", nc=3))
    assert "nc is 3, but there are 2 names" in message


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"names": None}, "no class names"),
        ({"names": "cat"}, "no class names"),
        ({"names": {1: "cat", 2: "dog"}}, "names are numbered 1, 2; they must be 0 to 1"),
        ({"names": ["yes", False]}, "the name of class 1 is read as False; put it into quotes"),
        ({"train": None}, "no `train:`"),
        ({"val": None}, "no `val:`"),
        ({"val": 3}, "`val:` is 3"),
        ({"path": ["a"]}, "`path:` is ['a']"),
        ({"generate": "noise"}, "generate: 'noise' is unknown"),
        ({"download": [1]}, "`download:` is [1]"),
        ({"download": {"../..": "https://a/b.zip"}}, "'../..', which lies outside `path:`"),
        ({"download": {"/etc": "https://a/b.zip"}}, "'/etc', which lies outside `path:`"),
    ],
)
def test_mistakes_are_named(tmp_path, keys, words):
    assert words in error_of(write_yaml(tmp_path / "set.yaml", **keys))


def test_splits_are_absolute(tmp_path):
    elsewhere = str(tmp_path / "other/images")
    make_folders(tmp_path / "set", "images/a", "images/b", "images/val")
    file = write_yaml(tmp_path / "set.yaml", path="set", train=["images/a", "images/b"], test=elsewhere)
    config = read_data_yaml(file)
    root = tmp_path / "set"
    assert config.root == root and config.file == file
    assert config.splits == {
        "train": [str(root / "images/a"), str(root / "images/b")],
        "val": [str(root / "images/val")],
        "test": [elsewhere],
    }


def test_path_is_tried_against_yaml_then_current_folder(tmp_path, monkeypatch):
    file = write_yaml(tmp_path / "yamls/set.yaml", path="data/set")
    monkeypatch.chdir(tmp_path)
    assert read_data_yaml(file).root == tmp_path / "yamls/data/set"  # nowhere yet: where a download would go
    make_folders(tmp_path / "data/set")
    assert read_data_yaml("yamls/set.yaml").root == tmp_path / "data/set"
    make_folders(tmp_path / "yamls/data/set", "images/val")
    assert read_data_yaml(file).root == tmp_path / "data/set"  # has train and val, the other only val
    make_folders(tmp_path / "yamls/data/set", "images/train")
    assert read_data_yaml(file).root == tmp_path / "yamls/data/set"


def test_without_path_entries_count_from_the_yaml(tmp_path, monkeypatch):
    make_folders(tmp_path / "set")
    file = write_yaml(tmp_path / "set/data.yaml")
    assert read_data_yaml(file).splits["val"] == [str(tmp_path / "set/images/val")]
    file = write_yaml(tmp_path / "elsewhere/data.yaml")
    monkeypatch.chdir(tmp_path / "set")
    assert read_data_yaml(file).splits["val"] == [str(tmp_path / "set/images/val")]


def test_entries_one_folder_too_high_are_found(tmp_path):
    make_folders(tmp_path / "export", "train/images", "valid/images")
    file = write_yaml(tmp_path / "export/data.yaml", train="../train/images", val="../valid/images")
    config = read_data_yaml(file)
    assert config.splits["train"] == [str(tmp_path / "export/train/images")]
    assert prepare_data(config) is config


def test_links_in_paths_are_kept(tmp_path):
    make_folders(tmp_path / "store/jpegs", "train", "val")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/images").symlink_to(tmp_path / "store/jpegs")
    config = read_data_yaml(write_yaml(tmp_path / "set.yaml", path="set"))
    assert config.splits["val"] == [str(tmp_path / "set/images/val")]  # labels are found by the name `images`


# --- the project's own YAMLs ---------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nc", "first", "last"),
    [
        ("bccd", 3, "Platelets", "WBC"),
        ("coco", 80, "person", "toothbrush"),
        ("coco128.yaml", 80, "person", "toothbrush"),
        ("VOC", 20, "aeroplane", "tvmonitor"),
        ("data/VisDrone.yaml", 10, "pedestrian", "motor"),
    ],
)
def test_shipped_yamls(tmp_path, monkeypatch, name, nc, first, last):
    monkeypatch.chdir(tmp_path)  # found by name from anywhere
    config = read_data_yaml(name)
    assert config.file.parent == DATA
    assert (config.nc, config.names[0], config.names[nc - 1]) == (nc, first, last)
    assert len(set(config.names.values())) == nc
    assert all(is_url(url) for _, url in config.download)


def test_coco_names_and_downloads():
    config = read_data_yaml("coco")
    known = {2: "car", 9: "traffic light", 11: "stop sign", 16: "dog", 39: "bottle", 62: "tv", 77: "teddy bear"}
    assert {i: config.names[i] for i in known} == known
    assert config.names == read_data_yaml("coco128").names
    folders = [os.path.relpath(folder, config.root) for folder, _ in config.download]
    assert folders == ["images", "images", "."]
    assert config.root.name == "coco"


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match="coco129: no such data YAML.*VOC.*bccd.*coco, coco128"):
        read_data_yaml("coco129")


# --- the images of a split -------------------------------------------------------


def test_images_of_folders(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    touch(
        a / "2.jpg", a / "10.PNG", a / "sub/1.jpg", a / "notes.txt", a / ".hidden.jpg", a / ".cache/x.jpg", b / "0.bmp"
    )
    (a / "sub/up").symlink_to(a)  # a circle
    (a / "z").symlink_to(b)
    found = [os.path.relpath(image, tmp_path) for image in image_files([str(a)])]
    assert found == ["a/10.PNG", "a/2.jpg", "a/sub/1.jpg", "a/z/0.bmp"]
    assert image_files([str(b), str(a / "2.jpg")]) == [str(b / "0.bmp"), str(a / "2.jpg")]
    assert image_files([str(a / "*.[jP]*")]) == [str(a / "10.PNG"), str(a / "2.jpg")]


def test_images_of_a_list(tmp_path, monkeypatch):
    touch(tmp_path / "set/images/a.jpg", tmp_path / "set/images/b.jpg", tmp_path / "here.jpg")
    absolute = str(tmp_path / "set/images/a.jpg")
    lines = f"\ufeff./images/b.jpg\r\n\r\n{absolute}\nhere.jpg\nimages/b.jpg\n ./images/gone.jpg "
    (tmp_path / "set/val.txt").write_text(lines, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    b = str(tmp_path / "set/images/b.jpg")
    expected = [b, absolute, str(tmp_path / "here.jpg"), b, str(tmp_path / "set/images/gone.jpg")]
    assert image_files([str(tmp_path / "set/val.txt")]) == expected


@pytest.mark.parametrize(
    ("val", "source"),
    [
        ("images/val", "images/val"),
        (["images/val", "images/more"], "images/val"),
        # detect.py looks at the images of a folder, and not below it
        ("images", "images/more"),
        ("images/val/a.jpg", "images/val/a.jpg"),
        ("images/*/*.jpg", "images/*/*.jpg"),
        ("images/val/*", "images/val"),
        ("val.txt", "val.txt"),
        ("val.lst", "images/val"),
    ],
)
def test_what_detection_takes_for_a_split(tmp_path, val, source):
    touch(tmp_path / "images/val/a.jpg", tmp_path / "images/more/b.jpg", tmp_path / "images/.hidden.jpg")
    for name in ("val.txt", "val.lst"):
        (tmp_path / name).write_text("./images/val/a.jpg\n")
    config = read_data_yaml(write_yaml(tmp_path / "set.yaml", train="images", val=val))
    assert source_of(config, "val") == str(tmp_path / source)
    assert Sources(source_of(config, "val")).files[0].endswith(".jpg")


def test_backslashes_of_windows_part_folders(tmp_path, monkeypatch):
    make_folders(tmp_path / "set")
    touch(tmp_path / "set" / "images" / "train" / "a.jpg")
    keys = {"path": ".\\set", "train": "images\\train", "val": ["images\\val"], "test": "images\\t*"}
    config = read_data_yaml(write_yaml(tmp_path / "set.yaml", **keys))
    folder = str(tmp_path / "set" / "images")
    assert config.splits == {"train": [f"{folder}/train"], "val": [f"{folder}/val"], "test": [f"{folder}/t*"]}
    file = tmp_path / "set" / "train.txt"
    file.write_text(".\\images\\train\\a.jpg\nimages\\train\\a.jpg\n")
    assert image_files([str(file)]) == [f"{folder}/train/a.jpg"] * 2
    # the list's folder, not the current one, as for ./
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "images" / "train" / "a.jpg")
    assert image_files([str(file)])[0] == f"{folder}/train/a.jpg"
    # a file of that very name is taken
    odd = tmp_path / "set" / "b\\c.jpg"
    touch(odd)
    file.write_text(f"{odd}\n")
    assert image_files([str(file)]) == [str(odd)]


def test_backslashes_in_double_quotes_are_explained(tmp_path):
    file = write_yaml(tmp_path / "set.yaml")
    file.write_text(file.read_text() + 'path: "C:\\data\\cats"\n')
    assert "write the path with slashes" in error_of(file)


def test_images_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="gone: no such folder, list or image"):
        image_files([str(tmp_path), str(tmp_path / "gone")])
    touch(tmp_path / "a.mp4")
    with pytest.raises(UserError, match=r"no images there \(files that end in \.avif"):
        image_files([str(tmp_path)])
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\0")
    with pytest.raises(UserError, match="list.txt: neither an image nor a list"):
        image_files([str(tmp_path / "list.txt")])


# --- getting the data --------------------------------------------------------------


def test_missing_data_without_a_source(tmp_path):
    config = read_data_yaml(write_yaml(tmp_path / "set.yaml", path="set"))
    with pytest.raises(UserError, match=r"set\.yaml: `.*/set/images/train` does not exist; put the data there"):
        prepare_data(config)
    make_folders(tmp_path / "set", "images/val")
    config = read_data_yaml(config.file)
    with pytest.raises(UserError, match="images/train` does not exist"):
        prepare_data(config)
    assert prepare_data(config, splits=("val",)) is config


def test_scripts_are_not_run(tmp_path):
    touched = tmp_path / "touched"
    for script in (f"import pathlib; pathlib.Path({str(touched)!r}).touch()", f"bash -c 'touch {touched}'"):
        config = read_data_yaml(write_yaml(tmp_path / "set.yaml", path="set", download=script))
        with pytest.raises(
            UserError, match="is a script, which is not run; get the data by hand and put it in .*/set,"
        ):
            prepare_data(config)
    assert not touched.exists()
    make_folders(tmp_path / "set")
    assert prepare_data(read_data_yaml(config.file)).root == tmp_path / "set"  # nor asked for where the data is there


@pytest.mark.parametrize("top", ["set/", ""])
def test_download_of_a_set(tmp_path, capsys, top):
    members = {f"{top}images/train/a.jpg": "A", f"{top}images/val/b.jpg": "B"}
    (tmp_path / "remote").mkdir()
    url = make_zip(tmp_path / "remote/all.zip", **members).as_uri()
    config = prepare_data(read_data_yaml(write_yaml(tmp_path / "here/set.yaml", path="data/set", download=url)))
    root = tmp_path / "here/data/set"
    assert image_files(config.splits["train"]) == [str(root / "images/train/a.jpg")]
    assert (root / "images/val/b.jpg").read_text() == "B"
    assert [p.name for p in root.parent.iterdir()] == ["set"]  # the archive is gone
    assert f"downloading {url} to {root}" in capsys.readouterr().out


def test_download_into_folders(tmp_path):
    (tmp_path / "remote").mkdir()
    images = make_zip(tmp_path / "remote/train2017.zip", **{"train2017/a.jpg": "A"}).as_uri()
    lists = make_zip(tmp_path / "remote/labels.zip", **{"set/t.txt": "./images/train2017/a.jpg"}).as_uri()
    file = write_yaml(
        tmp_path / "set.yaml", path="set", train="t.txt", val="t.txt", download={"images": [images], ".": lists}
    )
    config = prepare_data(read_data_yaml(file))
    (image,) = image_files(config.splits["val"])
    assert Path(image) == tmp_path / "set/images/train2017/a.jpg" and Path(image).read_text() == "A"


def test_download_that_does_not_hold_the_entries(tmp_path):
    url = make_zip(tmp_path / "all.zip", **{"pictures/a.jpg": "A"}).as_uri()
    config = read_data_yaml(write_yaml(tmp_path / "here/set.yaml", path="set", download=url))
    with pytest.raises(UserError, match="fetched, but `.*/set/images/train` still does not exist"):
        prepare_data(config)


@pytest.mark.parametrize("path", ["/", "//", ".", ""])
def test_a_path_without_a_name_is_no_data_yaml(path):
    with pytest.raises(UserError, match="no such data YAML; give a path, or a name"):
        read_data_yaml(path)


def test_nothing_is_fetched_to_what_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    keys = {"path": str(tmp_path / "file"), "train": "a", "val": "b", "names": ["a"]}
    for how in ({"download": "http://127.0.0.1:9/x.zip"}, {"generate": "shapes"}):
        with pytest.raises(UserError, match=r"`path:` is .*file, which is no folder; name one"):
            prepare_data(read_data_yaml(write_yaml(tmp_path / "set.yaml", **keys, **how)))
    assert (tmp_path / "file").read_text() == "mine"


def test_generated_set(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.data.shapes.IMAGES", {"train": 6, "val": 3})
    keys = yaml.safe_load((DATA / "shapes.yaml").read_text())
    config = prepare_data(read_data_yaml(write_yaml(tmp_path / "set.yaml", **{**keys, "path": "drawn"})))
    assert config.root == tmp_path / "drawn"
    assert len(image_files(config.splits["train"])) > len(image_files(config.splits["val"])) > 0


def test_lists_that_are_no_lists_are_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with open(tmp_path / "endless.txt", "wb") as file:
        file.truncate(1 << 40)
    for name, words in (("pipe.txt", "is a pipe"), ("endless.txt", "is not read")):
        with pytest.raises(UserError, match=f"{name}: .*{words}"):
            image_files([str(tmp_path / name)])
    (tmp_path / "odd.txt").write_bytes(b"a\0b.jpg\n" + b"x" * 100_000 + b".jpg\n./c.jpg\n")
    odd = image_files([str(tmp_path / "odd.txt")])
    assert len(odd) == 3 and odd[2] == f"{tmp_path}/c.jpg"
    with pytest.raises(UserError, match="none of 3 images is usable; .*can't be a file"):
        index_images(odd, 1, None, "val")


def test_a_link_to_a_folder_above_the_set_is_not_followed(tmp_path):
    touch(tmp_path / "elsewhere" / "b.jpg", tmp_path / "set" / "a.jpg")
    (tmp_path / "set" / "up.jpg").symlink_to(tmp_path)
    (tmp_path / "set" / "root").symlink_to("/")
    (tmp_path / "set" / "beside").symlink_to(tmp_path / "elsewhere")
    assert image_files([str(tmp_path / "set")]) == [str(tmp_path / "set" / name) for name in ("a.jpg", "beside/b.jpg")]
