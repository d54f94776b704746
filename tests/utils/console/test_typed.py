"""Commands that are printed work as they are typed."""

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.helpers.project import ROOT
from utils.console.typed import command_line, quoted

AWKWARD = ["a b", "it's", 'say "x"', "*.jpg", "$HOME", "a;b", "猫", "", "-1", "back\\slash"]


def test_a_shell_takes_a_line_apart_into_its_words():
    said = subprocess.run(["sh", "-c", quoted("printf", "%s\\n", *AWKWARD)], capture_output=True, text=True).stdout
    assert said.split("\n")[:-1] == AWKWARD


def test_in_the_folder_of_the_project_a_script_is_named_alone(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert command_line("val.py", "--imgsz", 64) == "python val.py --imgsz 64"
    assert command_line("train.py", "--resume", processes=2) == "torchrun --nproc_per_node 2 train.py --resume"
    assert command_line("val.py", "--weights", ROOT / "runs" / "best.pt") == "python val.py --weights runs/best.pt"


def test_elsewhere_by_its_path_and_what_lies_below_from_there(tmp_path, monkeypatch):
    here = tmp_path / "here it is"
    here.mkdir()
    monkeypatch.chdir(here)
    below, beside, dashed = here / "runs" / "best.pt", tmp_path / "best.pt", here / "-x" / "best.pt"
    words = shlex.split(command_line("val.py", *[below, beside, dashed, Path("runs") / "last.pt"]))
    assert words == ["python", f"{ROOT}/val.py", "runs/best.pt", str(beside), str(dashed), "runs/last.pt"]


@pytest.mark.parametrize("word", ["0", "screen"])
def test_a_text_stays_as_it_is(word, tmp_path, monkeypatch):
    """It may be a source that is no file."""
    monkeypatch.chdir(tmp_path)
    assert command_line("detect.py", "--source", word).endswith(f"detect.py --source {word}")
