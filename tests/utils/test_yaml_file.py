"""YAML files that no one wrote for good: each ends as one line that names the file and the line."""

from pathlib import Path

import pytest

from utils.errors import UserError, one_line
from utils.yaml_file import MOST_BYTES, MOST_DEPTH, MOST_VALUES, read_yaml, write_yaml


@pytest.fixture
def said(tmp_path):
    """``said(text)``: the error that a file of this text gives, without its folder."""

    def read(text: str) -> str:
        file = tmp_path / "my.yaml"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(UserError) as caught:
            read_yaml(file)
        message = one_line(caught.value)
        assert len(message) < 1000 and message.isprintable()
        return message.removeprefix(f"{tmp_path}/")

    return read


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
UNREADABLE = {
    "a list as a key": ("? [a]\n: b", 1, "found unhashable key"),
    "a mapping as a key": ("a: 1\nb: {{c: 1}: 2}", 2, "found unhashable key"),
    "no whole number": ("a: !!int abc", 1, "can't be read as int"),
    "an empty whole number": ("a: !!int ''", 1, "can't be read as int"),
    "no number": ("a: !!float x", 1, "can't be read as float"),
    "neither yes nor no": ("a: !!bool abc", 1, "can't be read as bool"),
    "no mapping": ("a: !!map abc", 1, "expected a mapping node"),
    "a date by its tag": ("a: !!timestamp 2024-13-45", 1, "tag 'tag:yaml.org,2002:timestamp' is unknown here"),
    "bytes": ("a: !!binary aGVsbG8=", 1, "tag 'tag:yaml.org,2002:binary' is unknown here"),
    "a call": ("a: !!python/object/apply:os.system [ls]", 1, "os.system' is unknown here"),
    "thousands of digits": (f"a: 1\nb: {'9' * 5000}", 2, "a number of more than 100 characters"),
    "a number of base 60 without end": (f"a: 1{':1' * 10_000}", 1, "a number of more than 100 characters"),
    "ten thousand brackets": (f"a: {'[' * 10_000}", 1, f"more than {MOST_DEPTH} levels"),
    "a thousand mappings": (f"a: {'{a: ' * 1000}", 1, f"more than {MOST_DEPTH} levels"),
    "a billion laughs": (LAUGHS, 5, f"more than {MOST_VALUES:,} values"),
    "a list that holds itself": ("a: &a [*a]", 1, "`a` holds itself"),
    "a mapping merged into itself": ("a: &a\n  <<: *a", 2, "`a` holds itself"),
    "a number merged": ("a:\n  b: {<<: 3}", 2, "expected a mapping or list of mappings for merging"),
    "a character that is not there": ('a: "\\U00110000"', 1, "chr() arg not in range"),
    "half a surrogate pair": ('a: "\\ud83d"', 1, "a text with the character '\\ud83d'"),
    "the NUL character": ("a: 1\nb: \0", 2, "the character '\\x00'"),
    "the NUL character as an escape": ('a: 1\nb: "\\0"', 2, "a text with the character '\\x00'"),
    "what controls a terminal": ('a: "\\e[31m"', 1, "a text with the character '\\x1b'"),
    "a long name that is not there": (f"a: *{'x' * 5000}", 1, "found undefined alias 'xxx"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_names_its_line(kind, said):
    text, line, words = UNREADABLE[kind]
    message = said(text)
    assert message.startswith(f"my.yaml, line {line}: not valid YAML: ") and words in message


def test_a_list_of_many_aliases_is_counted_at_every_place(said):
    base = f"a: &a [{', '.join(['1'] * 400)}]\n"
    assert "values" in said(f"{base}b: [{', '.join(['*a'] * 300)}]")


def test_a_file_of_no_end_and_one_too_large_are_not_read(tmp_path):
    with pytest.raises(UserError, match=r"/dev/zero: is a pipe, device or socket; a model YAML is a regular file"):
        read_yaml("/dev/zero", "model YAML")
    large = tmp_path / "large.yaml"
    large.write_text("#" * (MOST_BYTES + 1))
    with pytest.raises(UserError, match=f"a data YAML of more than {MOST_BYTES:,} bytes is not read"):
        read_yaml(large, "data YAML")


def test_another_encoding_is_told(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_bytes("a: 1".encode("utf-16"))
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 0\); save the data YAML as UTF-8"):
        read_yaml(file, "data YAML")


def test_values_are_plain(tmp_path):
    """A date and a lone `=` are texts, so a class may be called by them; anchors and merges work."""
    file = tmp_path / "my.yaml"
    file.write_text("names: [2024-01-05, =, 猫]\nbase: &b {x: 1}\nouter: {inner: &d {<<: *b, x: 2}}\nthird: {<<: *d}\n")
    read = read_yaml(file)
    assert read["names"] == ["2024-01-05", "=", "猫"]
    assert read["outer"] == {"inner": {"x": 2}} and set(read["third"]) == {"x"}
    write_yaml(file, read)
    assert read_yaml(file) == read


def test_as_many_names_as_any_data_set_has_are_read(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(f"names: [{', '.join(f'a class {number}' for number in range(22_000))}]")
    assert len(read_yaml(file)["names"]) == 22_000


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
