"""What is said of the images of a run before it begins."""

import re

import pytest

from tests.helpers.training import trainer_of
from utils.data.config import read_data_yaml


@pytest.mark.parametrize(
    ("val", "words"),
    [
        ("images/train", "8 of the 8 images of val are images of train, too"),
        ("val.txt", "2 of the 3 images of val are images of train, too"),
        ("images/val", None),
    ],
)
def test_images_of_both_train_and_val_are_told_once(val, words, tiny_set, tmp_path, capsys):
    root = read_data_yaml(tiny_set).root
    (root / "val.txt").write_text("./images/val/0.png\n./images/train/0.png\n./images/train/../train/1.png\n")
    yaml = tiny_set.with_name("mine.yaml")
    yaml.write_text(tiny_set.read_text().replace("val: images/val", f"val: {val}"))
    trainer_of(yaml, tmp_path)
    warnings = re.findall(r"^warning: .*", capsys.readouterr().out, re.M)
    assert len(warnings) == (words is not None)
    if words:
        assert warnings[0].startswith(f"warning: {yaml}: {words}: ") and "data/convert.py split" in warnings[0]
