"""Folders of runs get names that are not taken, within their project."""

from pathlib import Path

import pytest

from utils.errors import UserError
from utils.paths import new_run_folder, seen_from_here


def test_a_name_that_is_taken_is_numbered(tmp_path):
    made = [new_run_folder(tmp_path / "runs", name) for name in ("exp", "exp", "exp", "a/b", "a/b")]
    assert [str(folder.relative_to(tmp_path)) for folder in made] == [
        "runs/exp",
        "runs/exp2",
        "runs/exp3",
        "runs/a/b",
        "runs/a/b2",
    ]
    assert new_run_folder(tmp_path / "runs", "exp", exist_ok=True) == made[0]


def test_a_file_of_that_name_stays(tmp_path):
    (tmp_path / "exp").write_text("mine")
    assert new_run_folder(tmp_path, "exp").name == "exp2"
    with pytest.raises(UserError, match="can't be made"):
        new_run_folder(tmp_path, "exp", exist_ok=True)
    assert (tmp_path / "exp").read_text() == "mine"


@pytest.mark.parametrize("project", ["a file", "a link to nothing", "a" * 300])
def test_a_folder_that_cannot_be_made_is_one_line(project, tmp_path):
    (tmp_path / "a file").write_text("")
    (tmp_path / "a link to nothing").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="the run's folder can't be made .*; choose another --project or --name"):
        new_run_folder(tmp_path / project, "exp")


def test_a_file_below_the_current_folder_is_named_from_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert seen_from_here(tmp_path / "data" / "cats.yaml") == str(Path("data", "cats.yaml"))
    assert seen_from_here(tmp_path.parent / "cats.yaml") == str(tmp_path.parent / "cats.yaml")
