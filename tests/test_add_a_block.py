"""docs/add-a-block.md does what it says: every file, command and line of it, in a copy of the project."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.helpers.project import ROOT

DOCUMENT = (ROOT / "docs" / "add-a-block.md").read_text(encoding="utf-8")
STEPS = re.findall(r"(?:<!-- (\w+)(?:: (\S+))? -->\n)?```(\w+)\n(.*?)```", DOCUMENT, re.S)
# of a flag that is given twice the last counts
SHORTER = {
    "train.py": "--epochs 1 --imgsz 64 --workers 0 --noplots",
    "val.py": "--imgsz 64 --workers 0",
    "detect.py": "--imgsz 64",
}


def shell(line: str, folder) -> str:
    """Run one command line of the document, shortened; returns what it prints."""
    script = re.match(r"python (\S+)", line)
    if script:
        line = f"{sys.executable} {line.removeprefix('python ')} {SHORTER.get(script[1], '')}"
    result = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, f"{line}\n{result.stdout[-1000:]}\n{result.stderr[-2000:]}"
    return result.stdout


@pytest.mark.slow
def test_every_step_of_add_a_block_works(tmp_path):
    for name in ("models", "utils", "engine", "data"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "val.py", "detect.py"):
        shutil.copy(ROOT / name, tmp_path)
    said, done = "", []
    for kind, place, language, text in STEPS:
        if kind == "file":
            (tmp_path / place).write_text(text)
        elif kind == "expect":
            assert set(text.splitlines()) <= set(said.splitlines())
        elif kind == "line":  # of the table; with the class pasted as the document says
            source = (tmp_path / "convnext.py").read_text()
            with open(tmp_path / "models" / "common.py", "a") as f:
                f.write("\n\n" + source[source.index("class ") :])
            table = (tmp_path / place).read_text()
            assert '    # "YourBlock": None,\n' in table
            (tmp_path / place).write_text(table.replace('    # "YourBlock": None,\n', text))
        else:
            assert language == "bash" and not kind
            for line in text.strip().splitlines():
                said = shell(line, tmp_path)
                done.append(line.split()[1])
        if kind == "line":
            (tmp_path / "convnext.py").unlink()  # from here on it comes from the project
    assert done == ["-e", *"models/yolo.py train.py val.py detect.py models/yolo.py models/yolo.py".split()]
    assert (tmp_path / "runs" / "train" / "convnext" / "weights" / "best.pt").exists()
    assert "convnext summary: 193 layers, 2,372,125 parameters" in said  # the last command's: the same model


def test_the_weights_of_the_block_are_those_the_document_counts():
    source = next(text for kind, _, _, text in STEPS if kind == "file")
    assert "8·c² + 56·c" in DOCUMENT and "8·128² + 56·128 = 138,240" in DOCUMENT
    assert 8 * 128**2 + 56 * 128 == 138_240 and 3 * 138_240 == 414_720
    assert "def __init__(self, c1, c2, k=7, e=4)" in source
