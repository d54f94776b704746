"""Files that are replaced whole or not at all, and names that are not taken."""

import os
import time
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.files import free_path, read_text, replacing, require_file, safe_name, system, unique_name, write_table


def test_a_file_takes_the_place_of_the_one_before_in_one_step(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old" and temporary.suffix == ".csv"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_was_there_stays_when_writing_breaks_off(error, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("ne")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("before", ["folder", "file", "nothing"])
def test_a_folder_takes_the_place_of_what_was_there(before, tmp_path):
    path = tmp_path / "model_openvino"
    if before == "folder":
        path.mkdir()
        (path / "old.xml").write_text("old")
    elif before == "file":
        path.write_text("old")
    with replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "new.xml").write_text("new")
    assert [p.name for p in path.iterdir()] == ["new.xml"] and list(tmp_path.iterdir()) == [path]


def test_a_file_never_takes_the_place_of_a_folder(tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "a.txt").write_text("mine")
    with pytest.raises(OSError), replacing(folder) as temporary:
        temporary.write_text("cache")
    assert (folder / "a.txt").read_text() == "mine" and list(tmp_path.iterdir()) == [folder]


def held_open(monkeypatch, name: str, times: int) -> list[str]:
    """Let os.replace refuse to replace ``name`` so many times, as Windows does while another program has it open.

    A stand-in: other systems never refuse that. Returns the refusals, which grow; nobody waits between them.
    """
    refused, replace = [], os.replace

    def refuse(source, target):
        if Path(target).name == name and len(refused) < times:
            refused.append(str(target))
            raise PermissionError(13, "Access is denied", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return refused


def test_a_file_that_a_scanner_reads_is_replaced_a_moment_later(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    path.write_text("old")
    refused = held_open(monkeypatch, path.name, times=3)
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert len(refused) == 3 and path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_table_that_a_spreadsheet_holds_is_left_alone_with_one_line(tmp_path, monkeypatch, capsys):
    path = tmp_path / "results.csv"
    assert write_table(path, [["epoch"], [0]])
    refused = held_open(monkeypatch, path.name, times=4)
    assert not write_table(path, [["epoch"], [0], [1]])
    assert len(refused) == 4 and path.read_text().split() == ["epoch", "0"] and list(tmp_path.iterdir()) == [path]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"note: {path} can't be replaced now (Access is denied")
    assert write_table(path, [["epoch"], [0], [1], [2]])
    assert path.read_text().split() == ["epoch", "0", "1", "2"]


def test_names_that_are_taken_are_numbered_before_the_suffix():
    taken: list[str] = []
    for stem, suffix in (("a", ".jpg"), ("a", ".jpg"), ("a", ".png"), ("a-2", ".jpg"), ("a", ".jpg"), ("b.c", "")):
        taken.append(unique_name(stem, taken, suffix))
    assert taken == ["a.jpg", "a-2.jpg", "a.png", "a-2-2.jpg", "a-3.jpg", "b.c"]
    assert unique_name("b.c", taken) == "b.c-2"


def test_a_free_path_is_one_where_nothing_is(tmp_path):
    assert free_path(tmp_path / "a.jpg") == tmp_path / "a.jpg"
    (tmp_path / "a.jpg").touch()
    # whoever wrote there would write to where it points
    (tmp_path / "a2.jpg").symlink_to(tmp_path / "elsewhere")
    assert free_path(tmp_path / "a.jpg") == tmp_path / "a3.jpg"
    (tmp_path / "v1.0").mkdir()
    assert free_path(tmp_path / "v1.0", "-") == tmp_path / "v1.0-2"


def test_only_regular_files_are_read(tmp_path):
    file, pipe = tmp_path / "a.yaml", tmp_path / "pipe"
    file.write_text("nc: 3")
    os.mkfifo(pipe)
    assert require_file(str(file), "data file") == file
    assert require_file(file, "data file", most=5) == file
    for path, word in [
        (tmp_path / "none.yaml", "no such data file"),
        (file / "below", "no such data file"),
        (tmp_path, "is a folder"),
        (pipe, "is a pipe"),
        (Path("/dev/zero"), "device"),
        (tmp_path / ("n" * 5000), "too long"),
        (f"{file}\0", "null"),
    ]:
        with pytest.raises(UserError, match=word) as refused:
            require_file(path, "data file")
        assert len(str(refused.value)) < 400
    with pytest.raises(UserError, match="has 5 bytes; a data file of more than 4"):
        require_file(file, "data file", most=4)


def test_text_is_read_up_to_its_limit_whatever_size_the_system_tells(tmp_path):
    """Files of /proc have a size of 0; some give errors when they are read, some go on and on."""
    (tmp_path / "a.txt").write_bytes("\ufeffä\n".encode())
    assert read_text(tmp_path / "a.txt", "list", 6) == "ä\n"
    for file, most, words in (
        (tmp_path / "a.txt", 5, "has 6 bytes; a list of more than 5 bytes is not read"),
        ("/proc/self/mem", 100, "can't be read: "),
        ("/proc/self/maps", 100, "a list of more than 100 bytes is not read"),
    ):
        if os.path.exists(file):
            with pytest.raises(UserError) as raised:
                read_text(file, "list", most)
            assert words in str(raised.value)


def test_a_pointer_of_git_lfs_is_told(tmp_path):
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 4067523\n"
    (tmp_path / "yolov5n.pt").write_text(pointer)
    with pytest.raises(UserError, match="yolov5n.pt: is a Git LFS pointer, .*: run git lfs pull"):
        require_file(tmp_path / "yolov5n.pt", "checkpoint")


def test_what_killed_processes_have_left_is_cleared_away(tmp_path):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    other_system = ".00000000-1.last.pt"
    kept = [f".{system()}-{os.getppid()}.last.pt", other_system, ".1.last.pt", f"{system()}-{child}.last.pt", "a.txt"]
    gone = [f".{system()}-{child}.last.pt", f".{system()}-{os.getpid()}.best.pt"]
    for name in [*kept, *gone]:
        (tmp_path / name).write_text("half")
    (tmp_path / f".{system()}-{child}.model_openvino").mkdir()
    with replacing(tmp_path / "table.csv") as temporary:
        temporary.write_text("whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*kept, "table.csv"])


def test_names_that_every_system_takes():
    kept = ["a", "a b", "猫", "a.jpg", "..a", "-rf", "console", "x" * 200]
    assert [safe_name(name) for name in kept] == kept
    for name, safe in (
        ("..", "_"), (".", "_"), ("", "_"), ("a/../b", "a_.._b"), ("C:\\x", "C__x"), ("a. ", "a"),
        ("CON", "_CON"), ("nul.txt", "_nul.txt"),
        ("a\0b\n\x1b", "a_b__"), ("\udcff", "_"), ("x" * 300, "x" * 200), ("图" * 100, "图" * 66),
    ):  # fmt: skip
        assert safe_name(name) == safe
