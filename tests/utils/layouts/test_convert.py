"""data/convert.py: Pascal VOC and COCO to YOLO's layout and back, with what is dropped named."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

import data.convert as convert
from tests.helpers.project import assert_user_error, command, command_here, shared
from tests.helpers.sets import make_set
from utils.data.coco import COCO_IDS, COCO_NAMES
from utils.data.config import image_files, read_data_yaml
from utils.data.index import index_images
from utils.errors import UserError
from utils.layouts.coco import split_name
from utils.layouts.voc import parse_xml


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def kinds(found) -> list[str]:
    return sorted(f.kind for f in found.faults)


def picture(path: Path, width=100, height=80) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))
    return path


def voc_object(name, *corners, difficult=0):
    tags = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=False))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{tags}</bndbox></object>"


def write_voc_file(root: Path, stem: str, *objects, size=(100, 80), head="") -> None:
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    picture(root / "JPEGImages" / f"{stem}.jpg")
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    text = f"{head}<annotation><filename>{stem}.jpg</filename>{sides}{''.join(objects)}</annotation>"
    (root / "Annotations" / f"{stem}.xml").write_text(text, encoding="utf-8")


# --- Pascal VOC --------------------------------------------------------------------


def test_real_voc_gives_exactly_the_labels_of_the_yolo_set(tmp_path, capsys):
    source, target = shared("datasets", "bccd-voc"), shared("datasets", "bccd")
    found = convert.run("voc", source, tmp_path / "out", images=str(target / "images"), link=True)
    ours, theirs = (files(root / "labels") for root in (tmp_path / "out", target))
    # of trainings on it caches may lie there
    assert ours == {name: text for name, text in theirs.items() if not name.endswith(".cache")}
    names = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out" / "images").rglob("*.jpg")}
    assert names == {str(p.relative_to(target)) for p in (target / "images").rglob("*.jpg")}
    assert kinds(found) == ["degenerate box"] * 2
    said = capsys.readouterr().out
    for words in ("BloodImage_00343.xml: object 4 (RBC, 181 329 181 329)", "BloodImage_00338.xml: object 13 (RBC, 504"):
        assert words in said and words in (tmp_path / "out" / "dropped.txt").read_text()
    assert "train: 205 images, 2804 boxes" in said and "val: 87 images, 1137 boxes" in said
    config = read_data_yaml(tmp_path / "out" / "data.yaml")
    assert list(config.names.values()) == ["Platelets", "RBC", "WBC"]
    assert len(image_files(config.splits["train"])) == 205


def test_what_voc_drops_is_named_with_its_reason(tmp_path, capsys):
    source = tmp_path / "voc"
    write_voc_file(
        source,
        "a",
        voc_object("dog", 10, 20, 50, 60),
        voc_object("dog", 5, 5, 5, 30),
        voc_object("dog", 90, 70, 130, 90),
        voc_object("dog", 150, 10, 160, 20),
        voc_object("cat", 1, 2, "x", 4),
        voc_object("cat", 1, 2),
        voc_object("owl", 1, 2, 30, 40),
        voc_object("dog", 1, 1, 9, 9, difficult=1),
    )
    write_voc_file(source, "b", size=None)
    write_voc_file(source, "c", voc_object("cat", 0, 0, 100, 80))
    (source / "JPEGImages" / "c.jpg").unlink()
    (source / "Annotations" / "d.xml").write_text("<annotation><object>")
    picture(source / "JPEGImages" / "d.jpg")
    write_voc_file(source, "e", voc_object("cat", 0, 0, 9, 9), head='<!DOCTYPE a [<!ENTITY e "x">]>')
    write_voc_file(source, "f", voc_object("cat", 0, 0, 50, 80))
    (source / "ImageSets" / "Main").mkdir(parents=True)
    (source / "ImageSets" / "Main" / "train.txt").write_text("a\nb\nc\nd\ne\nz\n")
    found = convert.run("voc", source, tmp_path / "out", names=["dog", "cat"], drop_difficult=True)
    assert kinds(found) == sorted(
        ["degenerate box", "box clipped", "box outside the image", "no box", "no box", "other class", "difficult"]
        + ["no image", "annotation refused", "annotation refused", "no annotation", "in no split"]
    )
    assert (tmp_path / "out" / "labels" / "train" / "a.txt").read_text() == (
        "0 0.300000 0.500000 0.400000 0.500000\n0 0.950000 0.937500 0.100000 0.125000\n"
    )
    assert (tmp_path / "out" / "labels" / "train" / "b.txt").read_text() == ""
    assert sorted(p.stem for p in (tmp_path / "out" / "images" / "train").iterdir()) == ["a", "b"]
    said = capsys.readouterr().out
    assert "a.xml: object 3 (dog, 90 70 130 90): reaches beyond 100x80 px; clipped" in said
    assert "e.xml: has a DOCTYPE" in said and "2 × annotation refused" in said
    assert len((tmp_path / "out" / "dropped.txt").read_text().splitlines()) == 12
    names = read_data_yaml(tmp_path / "out" / "data.yaml").names
    assert names == {0: "dog", 1: "cat"}


def test_entities_are_never_expanded():
    bomb = '<!DOCTYPE b [<!ENTITY a "x"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>'
    for data in (bomb.encode(), bomb.encode("utf-16"), b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><annotation/>'):
        with pytest.raises(ValueError, match="DOCTYPE"):
            parse_xml(data)
    assert parse_xml("<annotation><name>猫</name></annotation>".encode("utf-16")).findtext("name") == "猫"


def test_pixels_counted_from_one_and_a_suffix(tmp_path):
    write_voc_file(tmp_path / "voc", "a", voc_object("dog", 1, 1, 100, 80), voc_object("dog", 11, 21, 20, 40))
    found = convert.run("voc", tmp_path / "voc", tmp_path / "out", one_based=True, suffix="2007")
    text = (tmp_path / "out" / "labels" / "train2007" / "a.txt").read_text()
    assert text == "0 0.500000 0.500000 1.000000 1.000000\n0 0.150000 0.375000 0.100000 0.250000\n"
    assert found.faults == [] and not (tmp_path / "out" / "dropped.txt").exists()
    config = read_data_yaml(tmp_path / "out" / "data.yaml")
    assert config.splits["train"] == config.splits["val"] == [str(tmp_path / "out" / "images" / "train2007")]


def test_xml_files_beside_their_images(tmp_path):
    write_voc_file(tmp_path, "a", voc_object("dog", 0, 0, 50, 40))
    for path in ("Annotations/a.xml", "JPEGImages/a.jpg"):
        (tmp_path / path).rename(tmp_path / Path(path).name)
        (tmp_path / path).parent.rmdir()
    convert.run("voc", tmp_path, tmp_path / "out")
    assert (tmp_path / "out/labels/train/a.txt").read_text() == "0 0.250000 0.250000 0.500000 0.500000\n"


def test_yolo_to_voc_and_back_is_the_same(tmp_path):
    yaml = make_set(tmp_path / "set")
    for one_based in (False, True):
        voc, back = tmp_path / f"voc{one_based}", tmp_path / f"back{one_based}"
        convert.run("to-voc", yaml, voc, one_based=one_based)
        # the splits share their names 0.png …: in VOC's one folder the second gets another
        assert (voc / "ImageSets/Main/val.txt").read_text().split() == ["0-2", "1-2", "2-2", "3-2"]
        root = parse_xml((voc / "Annotations" / "0.xml").read_bytes())
        assert [root.findtext(f"size/{k}") for k in ("width", "height", "depth")] == ["96", "64", "3"]
        assert (voc / "JPEGImages" / root.findtext("filename")).is_file()
        found = convert.run("voc", voc, back, names=["rectangle", "disc"], one_based=one_based)
        assert found.faults == []
        for split in ("train", "val"):
            for path in (tmp_path / "set" / "labels" / split).iterdir():
                stem = path.stem if split == "train" else f"{path.stem}-2"
                here = np.loadtxt(back / "labels" / split / f"{stem}.txt", ndmin=2)
                # whole pixels: half a pixel at most for a centre
                np.testing.assert_allclose(here, np.loadtxt(path, ndmin=2), atol=0.51 / 64)
                np.testing.assert_array_equal(here[:, 0], np.loadtxt(path, ndmin=2)[:, 0])


def test_a_box_under_half_a_pixel_is_dropped_and_named(tmp_path):
    yaml = make_set(tmp_path / "set", train=1, val=1)
    (tmp_path / "set/labels/train/0.txt").write_text("0 0.5 0.5 0.004 0.5\n1 0.5 0.5 0.5 0.5\n")
    found = convert.run("to-voc", yaml, tmp_path / "voc")
    assert kinds(found) == ["degenerate box"] and "box 1 (rectangle)" in str(found.faults[0])
    assert (tmp_path / "voc/Annotations/0.xml").read_text().count("<object>") == 1


# --- COCO --------------------------------------------------------------------------


def write_coco_file(path: Path, **changes) -> Path:
    data = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 80}],
        "categories": [{"id": 5, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 5, "bbox": [10, 20, 40, 40], "iscrowd": 0}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data | changes))
    return path


def test_coco_to_yolo_with_what_it_drops(tmp_path, capsys):
    picture(tmp_path / "images" / "val2017" / "a.jpg")
    box = {"image_id": 7, "category_id": 2, "bbox": [0, 0, 50, 40]}
    annotations = [
        {"id": 1} | box,
        {"id": 2} | box | {"iscrowd": 1},
        {"id": 3} | box | {"bbox": [5, 5, 0, 9]},
        {"id": 4} | box | {"image_id": 99},
        {"id": 5} | box | {"category_id": 99},
        {"id": 6} | box | {"bbox": "wide"},
        {"id": 7} | box | {"image_id": 8},
        {"id": 71} | box | {"image_id": [8]},
        {"id": 72} | box | {"bbox": [float("nan"), 0, 5, 5]},
        {"id": 8} | box | {"category_id": 5, "bbox": [80, 60, 40, 40]},
    ]
    images = [
        {"id": 7, "file_name": "a.jpg", "width": 100, "height": 80},
        {"id": 8, "file_name": "gone.jpg", "width": 100, "height": 80},
        {"id": 9, "file_name": "../../../a.jpg", "width": 100, "height": 80},
        {"id": 10, "file_name": "/etc/passwd", "width": 100, "height": 80},
    ]
    source = write_coco_file(
        tmp_path / "annotations" / "instances_val2017.json", images=images, annotations=annotations
    )
    found = convert.run("coco", source, tmp_path / "out")
    assert (tmp_path / "out/labels/val2017/a.txt").read_text() == (
        "0 0.250000 0.250000 0.500000 0.500000\n1 0.900000 0.875000 0.200000 0.250000\n"
    )
    dropped = ["crowd", "unknown category", "no box", "its image is missing", "box clipped"]
    assert kinds(found) == sorted(dropped + ["degenerate box", "unknown image"] * 2 + ["no image"] * 3)
    assert "annotation 2: crowd; dropped" in capsys.readouterr().out
    assert read_data_yaml(tmp_path / "out/data.yaml").names == {0: "cat", 1: "dog"}  # by category number


def test_several_coco_files_are_several_splits(tmp_path):
    for split in ("train", "valid"):
        picture(tmp_path / split / "a.jpg")
        write_coco_file(tmp_path / split / "_annotations.coco.json")
    sources = [tmp_path / split / "_annotations.coco.json" for split in ("train", "valid")]
    convert.run("coco", sources, tmp_path / "out")
    assert sorted(files(tmp_path / "out" / "labels")) == ["train/a.txt", "val/a.txt"]
    write_coco_file(sources[1], categories=[{"id": 5, "name": "owl"}])
    with pytest.raises(UserError, match="category 5 is 'owl', in an earlier file 'dog'"):
        convert.run("coco", sources, tmp_path / "other")
    assert split_name(Path("x/instances_train2017.json")) == "train2017"
    assert split_name(Path("/x/test/annotations.json")) == "test"


def test_real_photographs_to_coco_and_back(tmp_path):
    """COCO's own 80 classes get COCO's numbers, and every label comes back."""
    source = shared("datasets", "coco-val128")
    chosen = sorted((source / "images").glob("*.jpg"))[:6]
    for image in chosen:
        for path in (image, source / "labels" / f"{image.stem}.txt"):
            target = tmp_path / "set" / path.parent.name / "val" / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    yaml = tmp_path / "set" / "data.yaml"
    yaml.write_text(json.dumps({"train": "images/val", "val": "images/val", "names": COCO_NAMES}))
    convert.run("to-coco", yaml, tmp_path / "coco", link=True)
    made = json.loads((tmp_path / "coco/annotations/instances_val.json").read_text())
    assert [c["id"] for c in made["categories"]] == COCO_IDS
    assert {i["id"] for i in made["images"]} == {int(p.stem) for p in chosen}
    convert.run("coco", tmp_path / "coco/annotations/instances_val.json", tmp_path / "back")
    index, again = (
        index_images([str(p) for p in sorted((root / "images/val").iterdir())], 80, None, "")
        for root in (tmp_path / "set", tmp_path / "back")
    )
    assert index.instances == again.instances > 20 and again.faults == []
    for one, other in zip(index.annotations, again.annotations, strict=True):
        np.testing.assert_allclose(one.labels, other.labels, atol=1e-5)


def test_numbers_agree_with_the_results_of_detection(tmp_path):
    """What to-coco writes and what --save-json writes name images and classes alike, so that COCO's tools fit them."""
    from utils.data.coco import coco_results, image_id

    yaml = make_set(tmp_path / "set", train=1, val=2)
    convert.run("to-coco", yaml, tmp_path / "coco")
    made = json.loads((tmp_path / "coco/annotations/instances_val.json").read_text())
    results = coco_results(image_id("1", set()), [[0, 0, 9, 9, 0.5, 1]], {0: "rectangle", 1: "disc"})
    assert results[0]["image_id"] in {i["id"] for i in made["images"]}
    assert {c["id"]: c["name"] for c in made["categories"]}[results[0]["category_id"]] == "disc"


# --- the command -------------------------------------------------------------------


def test_images_are_copied_or_linked(tmp_path):
    yaml = make_set(tmp_path / "set", train=1, val=1)
    convert.run("to-coco", yaml, tmp_path / "copied")
    convert.run("to-coco", yaml, tmp_path / "linked", link=True)
    copied, linked = (tmp_path / k / "images/train/0.png" for k in ("copied", "linked"))
    assert not copied.is_symlink() and linked.is_symlink()
    assert copied.read_bytes() == linked.read_bytes() == (tmp_path / "set/images/train/0.png").read_bytes()


def test_nothing_is_overwritten(tmp_path):
    write_voc_file(tmp_path / "voc", "a", voc_object("dog", 0, 0, 50, 40))
    convert.run("voc", tmp_path / "voc", tmp_path / "out")
    with pytest.raises(UserError, match="labels/train: is not empty"):
        convert.run("voc", tmp_path / "voc", tmp_path / "out")
    picture(tmp_path / "second/images/train/a.jpg", width=333, height=222)
    with pytest.raises(UserError, match="a.jpg: another image of that name"):
        convert.run("voc", tmp_path / "voc", tmp_path / "second")


def test_a_destination_that_can_not_be_written(tmp_path):
    write_voc_file(tmp_path / "voc", "a", voc_object("dog", 0, 0, 50, 40))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file/.*: can't be written"):
        convert.run("voc", tmp_path / "voc", tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("voc", "nowhere"), "nowhere: holds no XML files"),
        (("coco", "nowhere.json"), "nowhere.json: no such COCO file"),
        (("coco", "bad.json"), "bad.json: not JSON"),
        (("coco", "list.json"), "list.json: no COCO file: its JSON is no mapping"),
        (("coco", "odd.json"), "odd.json: no COCO file of boxes: `images` must be .* width"),
        (("to-voc", "nowhere.yaml"), "nowhere.yaml: no such data YAML"),
        (("voc", ["a", "b"]), "takes one source"),
    ],
)
def test_mistakes_are_named(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    Path("bad.json").write_text("{")
    Path("list.json").write_text("[]")
    Path("odd.json").write_text('{"images": [{"id": 1, "file_name": "a.jpg", "width": "wide"}]}')
    with pytest.raises(UserError, match=words):
        convert.run(*arguments, tmp_path / "out")
    with pytest.raises(UserError, match="--names: is for voc and split, not for coco"):
        convert.run("coco", "x.json", "out", names=["a"])
    with pytest.raises(TypeError, match="nmes"):
        convert.run("voc", "x", "out", nmes=["a"])


def test_the_command_line(tmp_path):
    write_voc_file(tmp_path / "voc", "a", voc_object("dog", 0, 0, 50, 40), voc_object("cat", 0, 0, 5, 5))
    flags = ["--images", tmp_path / "voc" / "JPEGImages", "--names", "cat", "dog"]
    result = command("data/convert.py", "voc", tmp_path / "voc", tmp_path / "out", *flags)
    assert result.returncode == 0, result.stderr
    assert "train: 1 images, 2 boxes" in result.stdout and "classes: 0 cat, 1 dog" in result.stdout
    assert result.stdout.endswith(f"\nnext: python train.py --data {tmp_path}/out/data.yaml\n")
    assert_user_error(
        command_here("data/convert.py", "coco", tmp_path / "voc", tmp_path / "x"),
        "is a folder, a COCO file was expected",
    )


@pytest.mark.parametrize("given", [("voc", [], "out"), ("voc", "in", ""), ("", "in", "out"), ("voc", "", "out")])
def test_nothing_is_no_place(given):
    with pytest.raises(UserError, match="empty"):
        convert.run(*given)


def test_numbers_and_names_of_a_coco_file_are_checked(tmp_path):
    images = [{"id": i, "file_name": "a.jpg", "width": 100, "height": 80} for i in range(5)]
    images[1]["width"], images[2]["height"] = float("nan"), 10**400
    images[3]["file_name"], images[4]["file_name"] = "x" * 5000 + ".jpg", "a\0.jpg"
    boxes = [[1, 2, 3, 4], [1, 2, float("inf"), 4], [10**400, 2, 3, 4], [float("nan"), 2, 3, 4]]
    annotations = [{"id": i, "image_id": 0, "category_id": 5, "bbox": box} for i, box in enumerate(boxes)]
    path = write_coco_file(tmp_path / "val.json", images=images, annotations=annotations)
    picture(tmp_path / "val" / "a.jpg")
    found = convert.run("coco", [path], tmp_path / "out")
    assert kinds(found) == ["degenerate box"] + ["no box"] * 2 + ["no image"] * 2 + ["no size"] * 2
    assert len(found.pictures) == 1 and len(found.pictures[0].boxes) == 1
    for name in ("\ud800", "a\nb"):
        path = write_coco_file(tmp_path / "val.json", categories=[{"id": 1, "name": name}])
        with pytest.raises(UserError, match="val.json: the name of category .* has control characters"):
            convert.run("coco", [path], tmp_path / "out2")
    path.write_text("[" + "9" * 10_000 + "]")
    with pytest.raises(UserError, match="val.json: not JSON: Exceeds the limit"):
        convert.run("coco", [path], tmp_path / "out2")


def test_files_of_a_layout_that_are_none_are_named(tmp_path):
    for stem in "abc":
        write_voc_file(tmp_path / "voc", stem, voc_object("x", 1, 1, 9, 9))
    os.mkfifo(tmp_path / "voc/Annotations/pipe.xml")
    (tmp_path / "voc/JPEGImages/b.jpg").unlink()
    os.mkfifo(tmp_path / "voc/JPEGImages/b.jpg")
    with open(tmp_path / "voc/JPEGImages/c.jpg", "wb") as file:
        file.truncate(1 << 40)
    found = convert.run("voc", tmp_path / "voc", tmp_path / "out")
    assert kinds(found) == ["annotation refused", "image refused", "image refused"]
    os.mkfifo(tmp_path / "val.json")
    with pytest.raises(UserError, match="val.json: is a pipe"):
        convert.run("coco", [tmp_path / "val.json"], tmp_path / "out2")
    (tmp_path / "voc/ImageSets/Main").mkdir(parents=True)
    os.mkfifo(tmp_path / "voc/ImageSets/Main/train.txt")
    with pytest.raises(UserError, match="train.txt: is a pipe"):
        convert.run("voc", tmp_path / "voc", tmp_path / "out2")


def test_sizes_and_encodings_of_xml_that_can_not_be(tmp_path):
    write_voc_file(tmp_path / "voc", "a", voc_object("x", "nan", 1, "1e999", 9), size=("1e999", "inf"))
    write_voc_file(tmp_path / "voc", "b", head='<?xml version="1.0" encoding="x-none"?>')
    found = convert.run("voc", tmp_path / "voc", tmp_path / "out")
    assert kinds(found) == ["annotation refused", "degenerate box"]
    assert found.pictures[0].size == (100, 80)


def test_images_whose_names_can_stand_in_no_list_get_others(tmp_path):
    yaml = make_set(tmp_path / "set", train=1, val=1)
    folder = tmp_path / "set/images/train"
    (folder / "0.png").rename(folder / os.fsdecode(b"\xff\n.png"))
    convert.run("to-voc", yaml, tmp_path / "voc")
    (name,) = (tmp_path / "voc/ImageSets/Main/train.txt").read_text().split()
    assert name == "__" and (tmp_path / "voc/JPEGImages/__.png").exists()
