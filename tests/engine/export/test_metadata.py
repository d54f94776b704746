"""Metadata beside an exported model."""

import pytest

from engine.export.metadata import read_yaml_beside
from utils.errors import UserError
from utils.yaml_file import write_yaml

VALUES = {"stride": 32, "names": {0: "盘", 1: "disc"}, "imgsz": [64, 96], "dynamic": False, "nms": True}


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
