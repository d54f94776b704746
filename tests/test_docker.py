"""The Dockerfile, as far as it can be checked without building it: what it copies, installs and runs is there."""

import json
import re
import shlex
from fnmatch import fnmatch

import pytest

from tests.helpers.project import COMMANDS, ROOT

KNOWN = {"ARG", "FROM", "ENV", "RUN", "WORKDIR", "COPY", "CMD"}


def instructions() -> list[tuple[str, str]]:
    """(instruction, its arguments), continued lines joined, comments left out."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def copied() -> list[str]:
    """Every file and folder of the project that lands in the image."""
    patterns = [pattern for word, rest in instructions() if word == "COPY" for pattern in rest.split()[:-1]]
    found = {pattern: [str(p.relative_to(ROOT)) for p in ROOT.glob(pattern)] for pattern in patterns}
    assert all(found.values()), found
    return [path for paths in found.values() for path in paths]


def ignored(path: str) -> bool:
    patterns = [line for line in (ROOT / ".dockerignore").read_text().split("\n") if line and line[0] != "#"]
    return any(fnmatch(path, p.removeprefix("**/")) or path.startswith(f"{p}/") for p in patterns)


def test_every_line_is_an_instruction():
    assert {word for word, _ in instructions()} == KNOWN


def test_the_device_is_a_build_argument_that_picks_one_of_two_bases():
    bases = [rest for word, rest in instructions() if word == "FROM"]
    stages = {base.split(" AS ")[1]: base.split(" AS ")[0] for base in bases[:-1]}
    assert set(stages) == {"cpu", "cuda"} and bases[-1] == "${DEVICE}"
    assert instructions()[0] == ("ARG", "DEVICE=cpu")  # before the first FROM, or no FROM sees it
    assert "cuda" in stages["cuda"] and all(":" in image for image in stages.values())  # each at a fixed version


def test_what_is_copied_is_not_ignored():
    assert len(copied()) >= 10
    for path in copied():
        assert not ignored(path), path
    assert ignored("runs/train/exp") and ignored(".git/config") and ignored("yolov5s.pt")


def test_everything_a_command_needs_is_copied():
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.glob("*.py"))} - {"tests", "bench"}
    assert rooms <= set(copied()), rooms
    assert {command for command in COMMANDS if "/" not in command} <= set(copied())


def test_the_requirements_are_installed_after_they_are_copied():
    words = [f"{word} {rest}" for word, rest in instructions()]
    copy = next(i for i, line in enumerate(words) if line.startswith("COPY") and "requirements.txt" in line)
    install = next(i for i, line in enumerate(words) if "pip install -r requirements.txt" in line)
    code = next(i for i, line in enumerate(words) if line.startswith("COPY") and "utils" in line)
    assert copy < install < code  # a change of code doesn't install everything anew


def test_the_command_of_the_image_and_those_of_its_comments_exist():
    (entry,) = [json.loads(rest) for word, rest in instructions() if word == "CMD"]
    assert entry[0] == "python" and entry[1] in copied()
    shown = re.findall(r"python (\w+\.py)( [^\n]*)?", (ROOT / "Dockerfile").read_text())
    assert len(shown) >= 2
    for script, rest in shown:
        assert script in copied()
        parser = __import__(script.removesuffix(".py")).build_parser()
        parser.parse_args(shlex.split(rest))


@pytest.mark.parametrize("word", ["apt-get update", "rm -rf /var/lib/apt/lists"])
def test_package_lists_do_not_stay_in_the_image(word):
    (line,) = [rest for kind, rest in instructions() if kind == "RUN" and "apt-get" in rest]
    assert word in line
