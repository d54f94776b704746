"""Saved data with something in it that should not be there: nested values replaced, dropped, renamed and exchanged."""

import argparse
import contextlib
import copy
import datetime
import os
import pathlib
import random
import warnings
from collections import OrderedDict
from typing import Any

import torch

from tests.fuzz.arena import CANARY


class Payload:
    """Pickled as a call of ``function``, which makes the canary where it is run."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class FalseTensor:
    """Pickled as a tensor of any size, strides and offset over four numbers."""

    def __init__(self, size: tuple, strides: tuple, offset: int = 0, kind: Any = torch.float32):
        self.said = torch.arange(4).to(kind).storage(), offset, size, strides, False, OrderedDict()

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.said


def nested(depth: int, kind: type = list) -> Any:
    """A list, tuple or dict in another, ``depth`` times."""
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if kind is dict else kind([value])
    return value


def holding_itself(kind: type) -> Any:
    """A list or dict that is a part of itself."""
    value = kind()
    if kind is dict:
        value["a"] = value
    else:
        value.append(value)
    return value


def doubled(times: int) -> Any:
    """A list that holds the one before twice, and so on: small, and endless to walk through."""
    value: Any = [1]
    for _ in range(times):
        value = [value, value]
    return value


def nasty(rng: random.Random) -> Any:
    """A value that is rarely what was expected."""
    plain = [
        *(None, True, False, -1, 0, 1, 3, 2**31, -(2**40), 2**70, 2**300, 10**400, 0.5, -1.5, 1e-320, 1e308),
        *(float("nan"), float("inf"), float("-inf")),
        *("", "x", "0", "nan", "\x1b[2J\r\nerror: x", "\ud800", "\0", "x" * 100_000, "../../x", "/etc/passwd", "None"),
        *("nn.Conv2d(10**9,1,1)", "__import__('os').system('touch canary')", "P3", "类别", "%s%n{0}{}", "1e999"),
        *(b"", b"\0\xff", [], {}, (), [[]], {0: 0}, {"": ""}, {None: None}, {1.5: 2}, [1, "a", None], (1, 2), {1, 2}),
        *(1j, [1] * 3000, {i: str(i) for i in range(2000)}, dict.fromkeys("abc", -1), slice),
    ]
    makers = [
        lambda: nested(rng.choice([20, 90, 120, 300]), rng.choice([list, tuple, dict])),
        lambda: holding_itself(rng.choice([list, dict])),
        lambda: doubled(rng.choice([5, 24, 60])),
        lambda: dict.fromkeys(range(rng.choice([3, 300, 150000])), "c"),
        lambda: {2**61 - 1 + i: i for i in range(5)},
        lambda: {nested(rng.choice([2, 50, 200]), tuple): 1},
        lambda: torch.full(
            rng.choice([(), (0,), (1,), (3,), (2, 2), (1, 0, 5), (40, 40)]), rng.choice([0, 1e30, -1, 2])
        ),
        lambda: torch.full((3,), float(rng.choice(["nan", "inf", "-inf"]))),
        lambda: torch.zeros(3).to(
            rng.choice([torch.int64, torch.float64, torch.bfloat16, torch.bool, torch.complex64])
        ),
        lambda: torch.zeros(1).expand(10**6, 10**6),
        lambda: torch.sparse_coo_tensor([[0]], [1.0], (10**9,)),
        lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        lambda: torch.ones(2, device="meta"),
        lambda: FalseTensor(
            rng.choice(
                [(4,), (5,), (2, 2), (-1,), (0,), (2**62,), (10**6, 10**6), (1,) * 40, ("a",), (None,), (True,)]
            ),
            rng.choice([(1,), (0,), (-1,), (0, 0), (2**62,), (1, 1), (0,) * 40, ("a",)]),
            rng.choice([0, 0, 1, -1, 4, 2**62]),
            rng.choice([torch.float32, torch.int64, torch.float16, torch.bool]),
        ),
        lambda: rng.choice(
            [argparse.Namespace(a=1), pathlib.Path("/x"), datetime.datetime(2020, 1, 1), OrderedDict(a=1)]
        ),
        lambda: torch.nn.Parameter(torch.ones(3)),
        lambda: torch.nn.Linear(2, 2),
        lambda: Payload(os.system, f"touch {CANARY}"),
        lambda: Payload(open, CANARY, "w"),
        lambda: Payload(exec, f"open({CANARY!r}, 'w')"),
        lambda: Payload(torch.save, 1, CANARY),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rng.choice(plain) if rng.random() < 0.6 else rng.choice(makers)()


def places(value: Any, way: tuple = ()) -> list[tuple]:
    """The ways to everything that is nested in ``value``."""
    found = [way]
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        found += places(part, (*way, key))
    return found


def tampered(rng: random.Random, data: dict, within: tuple = ()) -> dict:
    """A copy of ``data`` with one to three changes at random places, all ``within`` a part of it. Shallow places are likelier
    than their number, since few of very many are."""
    data = copy.deepcopy(data)
    ways = [way for way in places(data) if way and way[: len(within)] == within]
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        depth = rng.choice(sorted({len(way) for way in ways}))
        way = rng.choice([way for way in ways if len(way) == depth])
        # what an earlier change has taken away, or has made a tensor, is left alone
        with contextlib.suppress(KeyError, IndexError, TypeError):
            holder = data
            for key in way[:-1]:
                holder = holder[key]
            if isinstance(holder, torch.Tensor):
                continue
            change(rng, holder, way[-1], data, ways)
    return data


def change(rng: random.Random, holder: Any, key: Any, data: dict, ways: list[tuple]) -> None:
    """One change of an entry."""
    kind = rng.random()
    if kind < 0.6:
        holder[key] = nasty(rng)
    elif kind < 0.7:
        del holder[key]
    elif kind < 0.8 and isinstance(holder, dict):
        holder[rng.choice(["", "x", key * 2 if isinstance(key, str) else "y", 7, None])] = holder.pop(key)
    elif kind < 0.9:
        value = data
        for part in rng.choice(ways):
            value = value[part] if isinstance(value, dict | list) else value
        holder[key] = value
    else:
        holder[key] = near(rng, holder[key])


def near(rng: random.Random, value: Any) -> Any:
    """Something that is nearly ``value``."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        # whole numbers may be of any length
        near_float = float(value) if abs(value) < 1e300 else 0.5
        return rng.choice([-value, value + 1, near_float, str(value), [value], value * 1000])
    if isinstance(value, str):
        return rng.choice([value.upper(), value + "x", [value], value[:-1], value.encode()])
    if isinstance(value, torch.Tensor):
        half = [
            value.half,
            value.double,
            value.long,
            value.flatten,
            value.tolist,
            lambda: value[None],
            lambda: value * torch.nan,
        ]
        try:
            return rng.choice(half)()
        # numbers of a kind that PyTorch keeps and can't change
        except RuntimeError:
            return value
    if isinstance(value, list | tuple):
        return rng.choice([value[1:], list(value) * 2, tuple(value), dict(enumerate(value)), list(value)[::-1]])
    if isinstance(value, dict):
        return rng.choice(
            [list(value.items()), list(value.values()), dict(list(value.items())[1:]), OrderedDict(value)]
        )
    return value


def damaged(rng: random.Random, content: bytes) -> bytes:
    """``content`` cut, or with bytes flipped, taken out or put in; now and then in its last part, where archives list."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 30])):
        at = rng.randrange(len(content)) if rng.random() < 0.6 else max(len(content) - 1 - rng.randrange(1500), 0)
        kind = rng.random()
        if kind < 0.6:
            content[at] = rng.choice([0, 0xFF, content[at] ^ (1 << rng.randrange(8)), rng.randrange(256)])
        elif kind < 0.7:
            del content[at : at + rng.choice([1, 4, 100])]
        elif kind < 0.8:
            content[at:at] = rng.randbytes(rng.choice([1, 4, 100]))
        elif kind < 0.9:
            content[at : at + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", b"\1\0\0\0"])
        elif len(content) > 10:
            del content[at + 5 :]
    return bytes(content)
