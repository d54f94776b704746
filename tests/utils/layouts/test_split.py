"""data/convert.py split: shares, classes, groups, and that nothing is moved."""

import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

import data.convert as convert
from tests.helpers.project import command_here
from tests.helpers.sets import make_set
from utils.data.config import image_files, index_split, read_data_yaml
from utils.errors import UserError
from utils.layouts.split import group_images, stratify, whole_shares

SHARES = [0.8, 0.1, 0.1]


def images_and_classes(seed: int, images: int, classes: int) -> list[set[int]]:
    """Classes of images, few of which are in most of them, as in sets of real scenes; some images have none."""
    rng = np.random.default_rng(seed)
    often = 1 / np.arange(1, classes + 1) ** 1.3
    return [set(rng.choice(classes, rng.integers(0, 5), p=often / often.sum()).tolist()) for _ in range(images)]


def per_split(found: list[int], classes: list[set[int]], cls: int | None = None) -> np.ndarray:
    """Images of each split, of a class if one is given."""
    return np.bincount([s for s, of in zip(found, classes, strict=True) if cls is None or cls in of], minlength=3)


@pytest.mark.parametrize("seed", range(5))
def test_splits_have_their_shares_of_images_and_of_every_class(seed):
    classes = images_and_classes(seed, 600 + 7 * seed, 20)
    found = stratify([[i] for i in range(len(classes))], classes, SHARES, seed)
    wanted = np.array(SHARES) * len(classes)
    assert np.abs(per_split(found, classes) - wanted).max() <= 1
    for cls in range(20):
        have = per_split(found, classes, cls)
        if have.sum() >= 10:
            assert have.min() >= 1
        assert np.abs(have - np.array(SHARES) * have.sum()).max() <= 2.5, (cls, have)


def test_chance_alone_does_worse():
    """What the method is for: the worst class of all is hit within its share, where shuffling leaves splits without it."""
    classes = images_and_classes(0, 600, 20)
    found = stratify([[i] for i in range(600)], classes, SHARES, 0)
    shuffled = np.random.default_rng(0).permutation(found).tolist()
    worst = [
        max(np.abs(per_split(part, classes, c) / per_split(part, classes, c).sum() - SHARES).max() for c in range(20))
        for part in (found, shuffled)
    ]
    assert worst[0] < 0.12 < worst[1]


def test_small_sets_have_every_class_everywhere():
    """Of these 23 images the one pass leaves a class out of a split, which exchanging two images mends."""
    for seed in range(150):
        rng = np.random.default_rng(seed)
        images, kinds = int(rng.integers(20, 60)), int(rng.integers(2, 10))
        classes = [set(rng.choice(kinds, rng.integers(0, 3)).tolist()) for _ in range(images)]
        found = stratify([[i] for i in range(images)], classes, SHARES, seed)
        assert np.abs(per_split(found, classes) - np.array(SHARES) * images).max() <= 1
        for cls in range(kinds):
            have = per_split(found, classes, cls)
            assert have.min() >= 1 or have.sum() < 10


def test_groups_stay_together():
    rng = np.random.default_rng(0)
    ends = np.cumsum(rng.integers(1, 30, 40)).tolist()
    units = [list(range(a, b)) for a, b in zip([0, *ends], ends, strict=False)]
    classes = images_and_classes(1, ends[-1], 6)
    found = stratify(units, classes, SHARES, 0)
    assert all(len({found[image] for image in unit}) == 1 for unit in units)
    assert np.abs(per_split(found, classes) - np.array(SHARES) * len(classes)).max() <= 30
    # as few groups as splits: one each
    few = stratify([[0, 1], [2], [3, 4, 5]], classes[:6], SHARES, 0)
    assert {few[0], few[2], few[3]} == {0, 1, 2} and few[0] == few[1] and few[3] == few[4] == few[5]


def test_which_images_are_a_group():
    images = [
        "a/clip1_0001.jpg",
        "a/clip1_0002.png",
        "b/clip1-3.jpg",
        "a/clip2_0001.jpg",
        "b/still.jpg",
        "b/clip1_x.jpg",
    ]
    assert group_images(images, "name") == [[0, 1, 2], [3], [4], [5]]
    assert group_images(images, "folder") == [[0, 1, 3], [2, 4, 5]]
    assert group_images(images, "") == [[0], [1], [2], [3], [4], [5]]


@pytest.mark.parametrize(
    ("count", "shares", "parts"),
    [(100, [0.71, 0.29], [71, 29]), (10, SHARES, [8, 1, 1]), (19, SHARES, [15, 2, 2]), (3, [0.5, 0.5], [2, 1])],
)
def test_whole_shares(count, shares, parts):
    assert whole_shares(count, shares) == parts


def lists_of(folder: Path) -> dict[str, list[str]]:
    return {path.stem: path.read_text().splitlines() for path in sorted(folder.glob("*.txt"))}


def test_a_set_is_split_anew(tmp_path, capsys):
    yaml = make_set(tmp_path / "set", train=16, val=4)
    (tmp_path / "set/labels/train/3.txt").write_text("")
    before = {path: path.read_bytes() for path in (tmp_path / "set").rglob("*") if path.is_file()}
    made = convert.run("split", yaml, tmp_path / "set" / "parts")
    said = capsys.readouterr().out
    assert re.search(r"^ +train +val +test\n *class +images +boxes", said, re.M)
    assert re.search(r"^rectangle +15 +15 +2 +2 +2 +2\n", said, re.M) and re.search(
        r"^all +16 +30 +2 +4 +2 +4\n", said, re.M
    )
    assert all(path.read_bytes() == content for path, content in before.items())

    config = read_data_yaml(made)
    assert config.names == {0: "rectangle", 1: "disc"}
    parts = {split: image_files(entries) for split, entries in config.splits.items()}
    assert {split: len(part) for split, part in parts.items()} == {"train": 16, "val": 2, "test": 2}
    every = [image for part in parts.values() for image in part]
    assert len(set(every)) == 20 and all(os.path.exists(image) for image in every)
    assert index_split(config, "train").instances == 30 and index_split(config, "val").instances == 4
    # the set may be moved as a whole, where the lists lie in it
    convert.run("split", yaml.rename(tmp_path / "set/whole.yaml"), tmp_path / "set", shares=[0.5, 0.5])
    lists = lists_of(tmp_path / "set")
    assert list(lists) == ["train", "val"] and all(line.startswith("./images/") for line in lists["train"])


def test_the_same_seed_gives_the_same_lists(tmp_path):
    yaml = make_set(tmp_path / "set", train=16, val=4)
    lists = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        convert.run("split", yaml, tmp_path / name, seed=seed)
        lists.append(lists_of(tmp_path / name))
    assert lists[0] == lists[1] != lists[2]
    assert lists[0]["val"][0].startswith(f"{tmp_path}/set/images/")


def frames(folder: Path, *names: str) -> None:
    """Images with their labels beside them."""
    folder.mkdir()
    for i, name in enumerate(names):
        cv2.imwrite(str(folder / f"{name}.jpg"), np.full((32, 32, 3), i, np.uint8))
        (folder / f"{name}.txt").write_text(f"{i % 2} 0.5 0.5 0.5 0.5\n")


def test_a_folder_with_its_labels(tmp_path, capsys):
    frames(tmp_path / "my set", *(f"clip{i // 4}_{i:04d}" for i in range(20)))
    with pytest.raises(UserError, match="my set: its classes have no names: give them in their order"):
        convert.run("split", tmp_path / "my set", tmp_path / "out")
    convert.run("split", tmp_path / "my set", tmp_path / "out", names=["cat", "dog"], groups="name")
    found = lists_of(tmp_path / "out")
    clips = {split: {re.search(r"clip\d", line)[0] for line in lines} for split, lines in found.items()}
    assert sorted(map(len, clips.values())) == [1, 1, 3] and len(set.union(*clips.values())) == 5
    # the classes, as labelling tools leave them
    (tmp_path / "my set/classes.txt").write_text("cat\ndog\n")
    assert read_data_yaml(convert.run("split", tmp_path / "my set", tmp_path / "more")).names == {0: "cat", 1: "dog"}
    assert "the classes are those of" in capsys.readouterr().out


def test_an_export_with_images_to_train_alone(tmp_path):
    """CVAT's "Ultralytics YOLO" export: a data YAML without `val`, and a list that says data/images/train/0.png."""
    yaml = make_set(tmp_path / "set", train=10, val=1)
    (tmp_path / "set/train.txt").write_text("".join(f"data/images/train/{i}.png\n" for i in range(10)))
    yaml.write_text("names: {0: rectangle, 1: disc}\npath: .\ntrain: train.txt\n")
    convert.run("split", yaml, tmp_path / "parts", shares=[0.8, 0.2])
    found = lists_of(tmp_path / "parts")
    assert {split: len(lines) for split, lines in found.items()} == {"train": 8, "val": 2}
    assert all(Path(line).is_file() for lines in found.values() for line in lines)


def test_classes_of_few_images_are_told(tmp_path, capsys):
    frames(tmp_path / "set", *map(str, range(10)))
    (tmp_path / "set/0.txt").write_text("2 0.5 0.5 0.5 0.5\n")
    convert.run("split", tmp_path / "set", tmp_path / "out", names=["cat", "dog", "owl"], shares=[0.5, 0.5])
    assert "note: not in every split, for want of images: owl (1)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"shares": [0.5, 0.4]}, "--shares 0.5 0.4: two or three shares that sum up to 1"),
        ({"shares": [1.0]}, "--shares 1: two or three shares"),
        ({"shares": [1.0, 0.0]}, "--shares 0.0: must be above 0"),
        ({"groups": "color"}, "--groups color: no such choice; there are name folder"),
        ({"groups": "folder"}, "set: has 1 groups by folder, too few for 3 splits"),
        ({"link": True}, "--link: is for voc and coco"),
        ({"names": []}, "--names: is empty"),
    ],
)
def test_mistakes_are_named(tmp_path, given, words):
    frames(tmp_path / "set", *map(str, range(4)))
    with pytest.raises(UserError, match=words):
        convert.run("split", tmp_path / "set", tmp_path / "out", **{"names": ["cat", "dog"], **given})
    assert not (tmp_path / "out").exists()


def test_flags_of_a_split_are_for_a_split():
    for given in ({"shares": [0.5, 0.5]}, {"groups": "name"}, {"seed": 1}):
        with pytest.raises(UserError, match=f"--{next(iter(given))}: is for split, not for coco"):
            convert.run("coco", "x.json", "out", **given)


def test_nothing_is_overwritten(tmp_path):
    yaml = make_set(tmp_path / "set")
    (tmp_path / "set/val.txt").write_text("mine")
    with pytest.raises(UserError, match=r"set/data\.yaml: is there already"):
        convert.run("split", yaml, tmp_path / "set")
    yaml = yaml.rename(tmp_path / "set" / "whole.yaml")
    with pytest.raises(UserError, match=r"set/val\.txt: is there already"):
        convert.run("split", yaml, tmp_path / "set")
    assert not (tmp_path / "set/train.txt").exists() and (tmp_path / "set/val.txt").read_text() == "mine"
    with pytest.raises(UserError, match="--names: the classes are those of"):
        convert.run("split", yaml, tmp_path / "out", names=["a", "b"])


@pytest.mark.parametrize("name", [b"a\nb", b"a\xff"])
def test_names_that_can_stand_in_no_list(tmp_path, name):
    frames(tmp_path / "set", "1", "2", "3")
    (tmp_path / "set/3.jpg").rename(tmp_path / "set" / os.fsdecode(name + b".jpg"))
    with pytest.raises(UserError, match="can stand in no list; rename it"):
        convert.run("split", tmp_path / "set", tmp_path / "out", names=["cat", "dog"])
    assert not (tmp_path / "out").exists()


def test_the_command_line(tmp_path):
    yaml = make_set(tmp_path / "set")
    words = ["split", yaml, tmp_path / "out", "--shares", "0.75", "0.25", "--groups", "--seed", "3"]
    result = command_here("data/convert.py", *words)
    # the names are numbers: each its own group
    assert result.returncode == 0, result.stderr
    assert "written to" in result.stdout and sorted(map(len, lists_of(tmp_path / "out").values())) == [3, 9]
