"""YAML files are read where they are regular files of a sensible size, and written whole or not at all."""

from pathlib import Path

import pytest

from utils.errors import UserError
from utils.yaml_file import MOST_BYTES, read_yaml, write_yaml


@pytest.mark.parametrize("file", ["/dev/zero", "/proc/self/mem", "/", "huge.yaml"])
def test_what_cannot_be_a_yaml_file_is_one_line(file, tmp_path):
    with open(tmp_path / "huge.yaml", "wb") as f:
        f.truncate(MOST_BYTES + 1)
    with pytest.raises(UserError, match="model YAML"):
        read_yaml(tmp_path / file, "model YAML")


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_yaml(tmp_path / "opt.yaml", {"epochs": 3})
    write = Path.write_text

    def broken_off(self, text, **kwargs):
        write(self, text[:4], **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", broken_off)
    with pytest.raises(KeyboardInterrupt):
        write_yaml(tmp_path / "opt.yaml", {"epochs": 4})
    assert read_yaml(tmp_path / "opt.yaml") == {"epochs": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["opt.yaml"]
