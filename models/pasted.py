"""Which definition of a block is used, where there is more than one: write-ups have their classes pasted, imported, or both."""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from torch import nn

from models.description.names import INNER, SHIPPED
from models.description.rules import Block

# rooms whose classes are no blocks of rows, though models/yolo.py imports some
ROOMS = ("models.backbones.", "models.heads.", "models.description.", "models.yolo", "torch.", "utils.")


def find_block(name: str, files: tuple[ModuleType, ...], own: dict[str, Any]) -> Block | None:
    """What a row's name stands for: a class that extends nn.Module, or a function, which may build one.

    ``own``: the names of models/yolo.py, where write-ups import their blocks; then ``files``, models/common.py first, so that
    a class pasted there comes before ours of another file.
    """
    imported = own.get(name)
    if is_block(imported) and not f"{imported.__module__}.".startswith(ROOMS):
        return imported
    found = ((file.__name__, getattr(file, name, None)) for file in files)
    # of functions only those that are defined there: others are what the file's own code calls
    blocks = (
        block for file, block in found if is_block(block) and (isinstance(block, type) or block.__module__ == file)
    )
    return next(blocks, None)


def is_block(found: Any) -> bool:
    """Whether a row may name this."""
    return isinstance(found, FunctionType) or (isinstance(found, type) and issubclass(found, nn.Module))


def is_replaced(block: Block, name: str) -> bool:
    """Whether ``block`` stands in the place of the project's own of that name."""
    return name in SHIPPED and (block.__module__ != SHIPPED[name] or name in twice_defined(SHIPPED[name]))


def is_foreign(kind: type[nn.Module]) -> bool:
    """Whether a class is neither the project's own nor a library's: pasted, imported, or of a plugin."""
    module, name = kind.__module__, kind.__name__
    if module == "models.common":
        return name not in INNER and SHIPPED.get(name) != module or name in twice_defined(module)
    return not f"{module}.".startswith(("torch.", "torchvision.", "timm.", "models.blocks.", *ROOMS))


def told(block: Block, name: str) -> str:
    """The line that says which definition of a replaced block is used."""
    module, own = block.__module__, SHIPPED[name]
    if module == own:
        lines = twice_defined(own)[name]
        return (
            f"{_file(own)} has {name} in lines {' and '.join(map(str, lines))}: the last is used, by rows and by blocks that "
            "name it, and the built-in block is not"
        )
    return f"{name} is that of {_file(module)}; the built-in one of {_file(own)} is not used"


@cache
def twice_defined(module: str) -> dict[str, list[int]]:
    """The names that a file of blocks gives to a class and then again: the lines of each."""
    lines, classes = defaultdict(list), set()
    path = Path(__file__).resolve().parents[1] / _file(module)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            lines[node.name].append(node.lineno)
            classes |= {node.name} if isinstance(node, ast.ClassDef) else set()
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                lines[alias.asname or alias.name].append(node.lineno)
    return {name: where for name, where in lines.items() if len(where) > 1 and name in classes}


def _file(module: str) -> str:
    return f"{module.replace('.', '/')}.py"
