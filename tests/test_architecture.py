"""The house stands: imports point downwards, commands start light, nothing is evaluated or unpickled."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.project import ROOT, command

FLOORS = {"utils": 1, "models": 2, "models.yolo": 3, "models.load": 3, "engine": 4, "command": 5}
COMMANDS = ["train.py", "val.py", "detect.py", "export.py", "benchmarks.py", "data/convert.py"]
ENTRIES = [*COMMANDS, "hubconf.py"]  # what other code may start from, and no other code imports
SOURCES = [p for room in ("utils", "models", "engine") for p in (ROOT / room).rglob("*.py")] + [
    ROOT / entry for entry in ENTRIES
]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def floor(module: str) -> int:
    if module in FLOORS:
        return FLOORS[module]
    return FLOORS["command"] if f"{module.replace('.', '/')}.py" in ENTRIES else FLOORS[module.split(".")[0]]


def imports(path: Path) -> set[str]:
    """The project's modules that a file imports, anywhere in it."""
    found = set()
    known = {module_name(p) for p in SOURCES}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return (found & known) - {"utils", "models", "engine"}


def test_there_is_something_to_check():
    assert len(SOURCES) > 30


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_never_point_upwards(path):
    own = module_name(path)
    above = {name for name in imports(path) if floor(name) > floor(own)}
    assert not above
    if floor(own) == FLOORS["command"]:
        assert not {name for name in imports(path) if floor(name) == FLOORS["command"]}


def test_there_are_no_circles():
    graph = {module_name(p): imports(p) for p in SOURCES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join([*path, module])
        if module not in done:
            for name in graph[module]:
                visit(name, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("script", COMMANDS)
def test_help_imports_nothing_heavy(script):
    code = (
        f"import sys, runpy; sys.argv = [{script!r}, '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as e: assert e.code == 0\n"
        "heavy = {'torch', 'cv2', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert "usage:" in result.stdout


@pytest.mark.parametrize("script", [*COMMANDS, "models/yolo.py"])
def test_commands_run_from_anywhere(script, tmp_path):
    assert command(script, "--help", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_nothing_is_evaluated_or_unpickled(path):
    text = path.read_text()
    assert not re.search(r"(?<![\w.])(eval|exec)\(", text)
    assert "pickle.load" not in text
    for call in re.findall(r"torch\.load\([^)]*\)", text):
        assert "weights_only=True" in call
    assert ".cuda(" not in text


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_every_file_says_what_it_is_for_and_stays_readable(path):
    text = path.read_text()
    if text:
        assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= (800 if path.name == "common.py" else 500)


def test_no_import_takes_away_cores():
    """PyTorch computes with as many threads after the commands' modules are loaded as before."""
    code = (
        "import torch; before = torch.get_num_threads()\n"
        "import engine.training.trainer, engine.evaluation.validator, engine.detection.predictor, engine.export.exporter\n"
        "assert torch.get_num_threads() == before, torch.get_num_threads()\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert result.returncode == 0, result.stderr
