"""Blocks of your own, from a Python file that is named on the command line: ``--plugins my_blocks.py``.

    from models.plugins import register_block

    @register_block                       # fed as its constructor's first parameters suggest
    class MyBlock(nn.Module):
        def __init__(self, c1, c2, k=3): ...

    @register_block("repeats")            # or as it is told; the rules stand in models/yolo.py
    @register_block(rule="keep", name="MyName")

A file that registers nothing is taken as if it were pasted into models/common.py: rows can name its classes, those of a name
that a block of the project has come before that, and what models/common.py imports is there.

The file is your own code and is imported as such. Checkpoints hold its path and never its code.
"""

import importlib.util
import inspect
import os
import sys
import traceback
import zlib
from collections.abc import Callable, Collection
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from torch import nn

from models import common
from models.description.rules import RULES, Block
from models.heads.table import HEADS
from models.pasted import is_block
from utils.errors import UserError, shown


class Plugin(NamedTuple):
    """A registered block."""

    block: Block
    rule: str | None  # None: inferred for each row
    origin: str  # the file of its class


PLUGINS: dict[str, Plugin] = {}
_shipped: set[str] = set()
_loaded: set[str] = set()  # the files that load_plugins has imported


def reserve(names: Collection[str]) -> None:
    """Keep the names of the project's own blocks: no plugin can take them."""
    _shipped.update(names)
    for name in _shipped & set(PLUGINS):
        raise UserError(f"{PLUGINS[name].origin}: {_taken(name)}")


def register_block(
    block: type[nn.Module] | str | None = None, *, rule: str | None = None, name: str | None = None
) -> Callable | type[nn.Module]:
    """Class decorator: rows of a model YAML can name the block from here on.

    ``rule``, also as the only positional argument, says how rows feed it (channels, repeats, keep or plain); without it
    that is inferred. ``name`` is what rows call it, the class's own name if not given. Registering a
    class of the same file again replaces it. Raises UserError for a name that is taken.
    """
    if isinstance(block, str):
        block, rule = None, block
    if block is None:
        return lambda cls: register_block(cls, rule=rule, name=name)
    if not (inspect.isclass(block) and issubclass(block, nn.Module)):
        raise UserError(f"@register_block stands above {block!r}; it belongs above a class that extends nn.Module")
    if rule not in (None, *RULES):
        raise UserError(f"@register_block: there is no rule {rule!r}; there are {', '.join(RULES)}")
    name = name or block.__name__
    origin = str(getattr(sys.modules.get(block.__module__), "__file__", block.__module__))
    if name in _shipped:
        raise UserError(_taken(name))
    if name in PLUGINS and PLUGINS[name].origin != origin:
        raise UserError(f"{name} is registered by {PLUGINS[name].origin} already; rename one, or use name=")
    PLUGINS[name] = Plugin(block, rule, origin)
    return block


def _taken(name: str) -> str:
    return f'{name} is a block of the project itself; rename yours, or register it under another name: name="My{name}"'


def load_plugins(files: list[str]) -> list[str]:
    """Import each file, which registers its blocks; returns their full paths. What earlier calls loaded goes.

    Without files, all stays as it is. Raises UserError, naming the file and its line, for one that is missing, breaks, or
    registers nothing.
    """
    paths = [Path(os.path.realpath(os.path.expanduser(file))) for file in files]
    for file, path in zip(files, paths, strict=True):
        if not os.path.isfile(path) or path.suffix != ".py":
            raise UserError(f"--plugins {shown(file)}: no such Python file; where it has moved, name its new place")
    if paths:
        for name in [name for name, plugin in PLUGINS.items() if plugin.origin in _loaded]:
            del PLUGINS[name]
    for path in paths:
        _loaded.add(str(path))
        module = _import(path)
        if not any(plugin.origin == str(path) for plugin in PLUGINS.values()):
            _take_all(module, path)
    return [str(path) for path in paths]


def _take_all(module: ModuleType, path: Path) -> None:
    """Register what a file without @register_block defines, as if it were pasted into models/common.py."""
    own = {k: v for k, v in vars(module).items() if is_block(v) and v.__module__ == module.__name__ and k not in HEADS}
    if not any(inspect.isclass(block) for block in own.values()):
        raise UserError(f"--plugins {path}: holds no class that extends nn.Module, so no block")
    for name, block in own.items():
        PLUGINS[name] = Plugin(block, None, str(path))


def _import(path: Path) -> ModuleType:
    module_name = f"plugin_{path.stem}_{zlib.crc32(bytes(path)):x}"  # files of one name in two folders are two modules
    spec = importlib.util.spec_from_file_location(module_name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    # the names that pasted code takes for granted
    vars(module).update({name: value for name, value in vars(common).items() if not name.startswith("__")})
    try:
        spec.loader.exec_module(module)
    # The user's own code may raise anything, and the user can mend it.
    except Exception as e:
        del sys.modules[module_name]
        lines = [f.lineno for f in traceback.extract_tb(e.__traceback__) if Path(f.filename) == path]
        line = e.lineno if isinstance(e, SyntaxError) and Path(e.filename or "") == path else lines[-1] if lines else 1
        said = (
            str(e) if isinstance(e, UserError) else f"{type(e).__name__}: {e.msg if isinstance(e, SyntaxError) else e}"
        )
        raise UserError(f"--plugins {path}, line {line}: {said}") from e
    return module
