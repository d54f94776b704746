"""Pickles as plain data: what they name is noted and never imported, what they would call is noted and never called.

    read_pickle(stream)   numbers, texts, lists, dicts …; and for all else a Name, a PickledObject or a Storage

A class or function that a pickle names becomes a Name, an object of it or a call a PickledObject with its arguments and
state, the numbers of a tensor a Storage. So there is nothing here that a pickle could reach.
"""

import io
import pickletools
import sys
from dataclasses import dataclass, field
from typing import Any

from utils.errors import shown

# What is read is small before it is big: an object of many bytes may take a single byte of a pickle.
MOST_STEPS = 500_000
MOST_BITS = 256
# Keys: their hashes are computed, by the nested parts of a tuple over and over, and those of numbers can be made to collide.
KEY_BITS, KEY_PARTS = 31, 16

# Modules of the standard library that occur in the records beside the weights …
HARMLESS = {"argparse", "pathlib", "datetime", "collections"}
# … and what makes plain data: sets, and the bytes of numpy arrays
PLAIN_NAMES = {
    "_codecs.encode",
    *(f"{m}.{n}" for m in ("builtins", "__builtin__") for n in ("set", "bytearray", "complex")),
}
SETS = ("builtins.set", "__builtin__.set")


class NotPlain(ValueError):
    """The bytes are no pickle, or one of something that isn't read; the message says what."""


class CallsCode(ValueError):
    """The pickle names a function of Python's own library, which is code and not weights; the message is its name."""


@dataclass(eq=False, repr=False)
class Name:
    """Stands for a class or function that a pickle names."""

    text: str

    def __repr__(self) -> str:
        return f"<{self.text}>"


@dataclass(eq=False, repr=False)
class PickledObject:
    """Stands for an object of a class, or for what a function would return: keeps arguments and state, does nothing."""

    pickled_name: str
    args: tuple = ()
    state: Any = None
    # what it holds as a dict, a list or a set
    entries: list = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<object {self.pickled_name}>"

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute of the object that was pickled."""
        return self.state.get(name, default) if isinstance(self.state, dict) else default


@dataclass(eq=False)
class Storage:
    """Stands for ``count`` numbers of a kind such as torch.FloatStorage, which lie elsewhere in the file under ``key``."""

    kind: str
    key: str
    count: int


def read_pickle(stream: io.BytesIO, storages: dict[str, Storage] | None = None) -> Any:
    """The next pickle of ``stream``; ``storages`` takes up the storages that it names. Raises NotPlain or CallsCode."""
    machine = _Machine({} if storages is None else storages)
    try:
        for steps, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if steps == MOST_STEPS:
                raise NotPlain(f"has a pickle of more than {MOST_STEPS:,} steps")
            machine.step(opcode.name, argument)
    except (IndexError, KeyError):
        raise NotPlain("has a pickle whose steps do not fit each other") from None
    except (NotPlain, CallsCode):
        raise
    # of pickletools: what is no pickle, and texts that are not UTF-8
    except ValueError as e:
        raise NotPlain(f"holds no pickle ({shown(str(e), 60)})") from None
    return machine.result


# Steps whose argument is what they push
LITERALS = set(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The steps of a pickle, one after the other, on a stack."""

    def __init__(self, storages: dict[str, Storage]):
        self.storages = storages
        self.stack: list[Any] = []
        self.below: list[list] = []
        self.memo: dict[int, Any] = {}
        self.result: Any = None

    def step(self, name: str, argument: Any) -> None:
        if name in LITERALS:
            self.stack.append(_literal(argument))
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self.memo[argument])
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in TUPLES:
            parts = [self.stack.pop() for _ in range(TUPLES[name])]
            self.stack.append(tuple(reversed(parts)))
        elif do := getattr(self, f"do_{name.lower()}", None):
            do(argument)
        else:
            raise NotPlain(f"has a pickle with {name}, which plain data does not need")

    def marked(self) -> list:
        """What was pushed since the last mark."""
        parts, self.stack = self.stack, self.below.pop()
        return parts

    def do_proto(self, _) -> None:
        pass

    do_frame = do_proto

    def do_stop(self, _) -> None:
        self.result = self.stack.pop()

    def do_pop(self, _) -> None:
        self.stack.pop()

    def do_mark(self, _) -> None:
        self.below.append(self.stack)
        self.stack = []

    def do_pop_mark(self, _) -> None:
        self.marked()

    def do_memoize(self, _) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def do_empty_list(self, _) -> None:
        self.stack.append([])

    def do_empty_dict(self, _) -> None:
        self.stack.append({})

    def do_empty_set(self, _) -> None:
        self.stack.append(set())

    def do_list(self, _) -> None:
        parts = self.marked()
        self.stack.append(parts)

    def do_tuple(self, _) -> None:
        parts = self.marked()
        self.stack.append(tuple(parts))

    def do_dict(self, _) -> None:
        parts = self.marked()
        self.stack.append({})
        _set(self.stack[-1], parts)

    def do_frozenset(self, _) -> None:
        parts = self.marked()
        self.stack.append({_key(part) for part in parts})

    def do_append(self, _) -> None:
        part = self.stack.pop()
        _extend(self.stack[-1], [part])

    def do_appends(self, _) -> None:
        parts = self.marked()
        _extend(self.stack[-1], parts)

    do_additems = do_appends

    def do_setitem(self, _) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _set(self.stack[-1], [key, value])

    def do_setitems(self, _) -> None:
        parts = self.marked()
        _set(self.stack[-1], parts)

    def do_global(self, argument: str) -> None:
        self.stack.append(_name(argument.replace(" ", ".")))

    def do_stack_global(self, _) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise NotPlain("has a pickle that names a class by something other than texts")
        self.stack.append(_name(f"{module}.{name}"))

    def do_reduce(self, _) -> None:
        args, called = self.stack.pop(), self.stack.pop()
        self.stack.append(_made(called, args))

    do_newobj = do_reduce

    def do_newobj_ex(self, _) -> None:
        # arguments by keyword
        self.stack.pop()
        self.do_reduce(None)

    def do_build(self, _) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, PickledObject):
            target.state = state
        # attributes of an OrderedDict, such as the versions of layers
        elif not isinstance(target, dict):
            raise NotPlain(f"has a pickle that gives a {type(target).__name__} a state")

    def do_binpersid(self, _) -> None:
        found = _persistent(self.stack.pop())
        if isinstance(found, Storage):
            self.storages.setdefault(found.key, found)
        self.stack.append(found)


def _literal(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise NotPlain(f"holds a number of {value.bit_length()} bits")
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise NotPlain("holds a text that is no valid Unicode") from None
    return value


def _key(value: Any) -> Any:
    """``value``, which may be a key of a dict or in a set."""
    parts = value if isinstance(value, tuple) else (value,)
    if len(parts) > KEY_PARTS:
        raise NotPlain(f"has a pickle with a key of {len(parts)} parts")
    for part in parts:
        numbers = isinstance(part, int) and part.bit_length() <= KEY_BITS
        if not numbers and part is not None and not isinstance(part, str | bytes | Name | PickledObject):
            raise NotPlain(f"has a pickle with a key that is {shown(part, 40)}")
    return value


def _set(target: Any, parts: list) -> None:
    """Keys and values by turns into a dict."""
    if isinstance(target, PickledObject):
        target.entries += parts
        return
    if not isinstance(target, dict) or len(parts) % 2:
        raise NotPlain(f"has a pickle that sets keys of a {type(target).__name__}")
    for key, value in zip(parts[::2], parts[1::2], strict=True):
        target[_key(key)] = value


def _extend(target: Any, parts: list) -> None:
    if isinstance(target, set):
        target.update(map(_key, parts))
    elif isinstance(target, list | PickledObject):
        (target.entries if isinstance(target, PickledObject) else target).extend(parts)
    else:
        raise NotPlain(f"has a pickle that appends to a {type(target).__name__}")


def _name(text: str) -> Name:
    root = text.partition(".")[0]
    own = {"builtins", "__builtin__", "copy_reg", "__torch__"} | sys.stdlib_module_names
    if root in own - HARMLESS and text not in PLAIN_NAMES:
        raise CallsCode(shown(text, 100))
    return Name(text)


def _made(called: Any, args: Any) -> Any:
    if not isinstance(called, Name) or not isinstance(args, tuple):
        raise NotPlain(f"has a pickle that calls a {type(called).__name__}")
    if called.text in SETS:
        return {_key(part) for part in args[0]} if args and isinstance(args[0], list | tuple | set) else set()
    if called.text != "collections.OrderedDict":
        return PickledObject(called.text, args)
    # Python 2 gives the pairs as an argument
    made: dict = {}
    for pair in args[0] if args and isinstance(args[0], list | tuple) else ():
        _set(made, list(pair) if isinstance(pair, list | tuple) else [pair])
    return made


def _persistent(words: Any) -> Storage | Name:
    if isinstance(words, tuple) and len(words) >= 5 and words[0] in ("storage", b"storage"):
        _, kind, key, _, count, *view = words
        sound = isinstance(kind, Name) and isinstance(key, str) and type(count) is int and count >= 0
        if sound and view in ([], [None]):
            return Storage(kind.text, key, count)
    # the format before PyTorch 1.6 keeps the source of a class beside its name
    if isinstance(words, tuple) and len(words) == 4 and words[0] == "module" and isinstance(words[1], Name):
        return words[1]
    raise NotPlain("has a pickle that takes something other than tensors from elsewhere in the file")
