"""What the READMEs and docs/ say: in both languages the same commands, all of them commands that exist."""

import importlib
import re
import shlex
import subprocess

import pytest

from models.description.find import find_model_yaml
from tests.helpers.project import ROOT

ENGLISH, CHINESE = (ROOT / name for name in ("README.md", "README.zh-CN.md"))
TEXTS = [ENGLISH, *sorted(p for p in (ROOT / "docs").glob("*.md") if not p.name.endswith(".zh-CN.md"))]


def blocks(path) -> list[str]:
    return blocks_of_text(path.read_text(encoding="utf-8"))


def blocks_of_text(text: str) -> list[str]:
    return re.findall(r"```\w+\n(.*?)```", text, re.S)


def commands(path) -> list[list[str]]:
    """Every `python x.py …` of the file, in code blocks and in running text."""
    found = re.findall(r"python ((?:models/|data/)?\w+\.py[^`&\n]*)", path.read_text(encoding="utf-8"))
    return [shlex.split(line) for line in found]


@pytest.mark.parametrize("english", TEXTS, ids=lambda path: path.stem)
def test_both_languages_have_the_same_code_and_figures(english):
    chinese = english.with_suffix(".zh-CN.md")
    assert blocks(english) == blocks(chinese)
    assert commands(english) == commands(chinese)
    numbers = [re.findall(r"\d[\d,.]*\d", path.read_text(encoding="utf-8")) for path in (english, chinese)]
    assert [n for n in numbers[0] if "," in n or "." in n] == [n for n in numbers[1] if "," in n or "." in n]


def test_every_command_has_the_flags_it_is_shown_with():
    assert len(commands(ENGLISH)) >= 8
    for script, *flags in commands(ENGLISH):
        importlib.import_module(script.removesuffix(".py").replace("/", ".")).build_parser().parse_args(flags)


def test_ci_runs_the_command_of_the_readme():
    command = re.search(r"<!-- tests -->\n```bash\n(.*?)\n```", ENGLISH.read_text(), re.S).group(1)
    assert "requirements-dev.txt" in command and command.endswith("pytest -n 2")
    script = (ROOT / ".ci" / "run").read_text().replace("exec bash -euo pipefail -c", "echo RUN:")
    script = script.replace("if [ -e .venv ]; then", "if false; then").replace('"$(dirname "$0")/.."', f'"{ROOT}"')
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True).stdout
    assert f"RUN: {command}" in said


@pytest.mark.parametrize("language", ["", ".zh-CN"])
def test_the_page_of_the_house_names_what_there_is(language):
    """Every file and folder exists, and a class or function named beside its file stands in it."""
    text = (ROOT / "docs" / f"architecture{language}.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"(?<![\w./-])(?:(?:utils|models|engine|data|tests|bench)/[\w./-]*|\w+\.py)", text))
    for path in paths - {"options.py", "__init__.py"}:
        assert (ROOT / path).exists(), path
    beside = re.findall(r"(\w+) {2,}((?:utils|models|engine)/[\w/]+\.py)", "".join(blocks_of_text(text)))
    assert len(beside) > 25
    for name, path in beside:
        assert re.search(rf"^ *(def|class) {name}\b", (ROOT / path).read_text(encoding="utf-8"), re.M), (name, path)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (ROOT / "docs" / target).exists(), target


@pytest.mark.parametrize("path", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_files_that_are_named_exist(path):
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:models|data|utils)/[\w./-]+)`", text):
        if name != "data/images":
            assert (ROOT / name).exists(), name
    for name in re.findall(r"`(yolov\w[\w.-]*\.yaml)`", text):
        assert find_model_yaml(name)
