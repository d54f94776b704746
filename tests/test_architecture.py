"""The house stands: imports point downwards, rooms stay small, commands start light, nothing is evaluated or unpickled.

Which room stands on which floor is written in bench/house.py.
"""

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench.house import COMMANDS as COMMAND_ROOM
from bench.house import DOORS, ROWS, arrows, draw, imported_names, imports, module_name, reached, room, sources
from tests.helpers.models import make_weights
from tests.helpers.project import COMMANDS, ROOT, command

MOST_FILES, MOST_LINES = 14, 450
LONGER = {"models/common.py": 800}  # its classes are what write-ups paste into and quote


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


SOURCES = sources()
TESTS = sorted((ROOT / "tests").rglob("*.py"))
OURS = [*sources(), *sorted((ROOT / "bench").rglob("*.py")), *TESTS]
GRAPH = imports()


def test_there_is_something_to_check():
    assert len(SOURCES) > 100 and len(TESTS) > 40
    assert sum(len(targets) for targets in GRAPH.values()) > 300
    assert {name for _, rooms in ROWS for name in rooms} == {room(path)[1] for path in SOURCES}  # no room is empty


# Floors and rooms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_point_downwards(path):
    """To a row further down, or to the file's own room; from a command to no other command."""
    row, own = room(path)
    allowed = {
        target for target in GRAPH.get(path, ()) if room(target)[0] > row or room(target)[1] == own != COMMAND_ROOM
    }
    assert not {place(target) for target in GRAPH.get(path, set()) - allowed}


def test_there_are_no_circles():
    done: set[Path] = set()

    def visit(path: Path, way: tuple[Path, ...]) -> None:
        assert path not in way, " → ".join(map(module_name, [*way, path]))
        if path not in done:
            for target in sorted(GRAPH[path]):
                visit(target, (*way, path))
            done.add(path)

    for path in GRAPH:
        visit(path, ())


def test_nothing_goes_through_a_door():
    doors = {ROOT / door for door in DOORS}
    assert all(path.exists() for path in doors)
    assert not {(place(path), place(door)) for path in set(GRAPH) - doors for door in GRAPH[path] & doors}


def test_every_file_is_reached_from_a_command():
    """Or from a door: what neither leads to is dead."""
    assert not {place(path) for path in set(GRAPH) - reached()}


def test_no_folder_holds_too_many_files():
    found = [path for name in ("utils", "models", "engine", "tests", "bench") for path in (ROOT / name).rglob("*.py")]
    folders = Counter(path.parent for path in [*found, *ROOT.glob("*.py")] if place(path) not in DOORS)
    assert not {place(folder): count for folder, count in folders.items() if count > MOST_FILES}


@pytest.mark.parametrize("path", OURS, ids=place)
def test_every_file_says_what_it_is_for_and_is_read_in_one_sitting(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= LONGER.get(place(path), MOST_LINES)


def test_a_name_stands_in_one_place():
    """No ``__init__.py`` hands on what stands elsewhere."""
    assert not {place(path) for path in OURS if path.name == "__init__.py"} - set(DOORS)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


@pytest.mark.parametrize("path", OURS, ids=place)
def test_no_private_name_is_imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "write the whole name of the module"
            ours = node.module.split(".")[0] in {"utils", "models", "engine", "bench", "tests"}
            assert not ours or not [alias.name for alias in node.names if is_private(alias.name)]


@pytest.mark.parametrize("path", sources(), ids=place)
def test_no_private_name_is_taken_from_an_imported_module_or_class(path):
    """Neither ``module._name`` nor ``Class._name`` of what another file holds."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ours = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in {"utils", "models", "engine"}
        for alias in node.names
    }
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_private(node.attr)]
    assert not {ast.unparse(node) for node in attributes if ast.unparse(node.value) in ours}


@pytest.mark.parametrize("path", TESTS, ids=place)
def test_no_test_imports_a_test(path):
    """Nor a conftest: what several need stands in tests/helpers/."""
    names = {name for name in imported_names(ast.parse(path.read_text(encoding="utf-8"))) if name.startswith("tests")}
    allowed = {module_name(helper) for helper in (ROOT / "tests" / "helpers").glob("*.py")}
    # neither is a test: both run the commands as the arena does
    if ROOT / "tests" / "fuzz" in path.parents or path.stem == "kill_storm":
        allowed |= {"tests.fuzz", *map(module_name, (ROOT / "tests" / "fuzz").rglob("*.py"))}
    assert not {name for name in names if name not in allowed and name.rpartition(".")[0] not in allowed}


def test_tests_stand_in_the_rooms_they_test():
    folders = {path.parent.relative_to(ROOT / "tests") for path in TESTS} - {
        Path("helpers"),
        Path("fuzz"),
        Path("fuzz/parts"),
    }
    assert not {str(folder) for folder in folders if not (ROOT / folder).is_dir()}


def test_the_picture_is_drawn_from_the_imports(tmp_path):
    rows = {name: row for row, (_, rooms) in enumerate(ROWS) for name in rooms}
    found = arrows()
    assert len(found) > 40 and not {pair for pair in found if rows[pair[0]] >= rows[pair[1]]}
    draw(tmp_path / "house.png")
    assert (tmp_path / "house.png").stat().st_size < 200_000
    assert (ROOT / "docs" / "architecture.png").stat().st_size < 200_000


# Commands ---------------------------------------------------------------------------------------------------------------


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


def test_detection_starts_with_pytorch_and_opencv_alone(tmp_path):
    """Each of these takes up to as long as PyTorch to import: torchvision's networks, the compiler and its SymPy, curves."""
    weights = make_weights(tmp_path / "model.pt", seed=0)
    code = (
        "import sys, detect\n"
        f"detect.run(weights={str(weights)!r}, source='data/images/shapes_001.jpg', imgsz=64, conf_thres=.001, nosave=True)\n"
        "print({'torchvision.ops', 'torch._dynamo', 'sympy', 'matplotlib'} & set(sys.modules))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.endswith("set()\n"), result.stdout + result.stderr
    assert "(no detections)" not in result.stdout


@pytest.mark.parametrize("script", [*COMMANDS, "models/yolo.py"])
def test_commands_run_from_anywhere(script, tmp_path):
    assert command(script, "--help", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_nothing_is_evaluated_or_unpickled(path):
    text = path.read_text()
    assert not re.search(r"(?<![\w.])(eval|exec)\(", text)
    assert "pickle.load" not in text
    for call in re.findall(r"torch\.load\([^)]*\)", text):
        assert "weights_only=True" in call
    assert ".cuda(" not in text


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
