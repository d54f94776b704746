"""Values that make no sense, and damage of bytes and texts, for several kinds of cases."""

import random
import re

from tests.fuzz.arena import CANARY

# what numbers and texts of metadata and graphs become
NUMBERS = (0, 1, 2, -1, -7, 3, 31, 33, 1024, 65536, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -1.0, 1e-45, 3e38, -3e38, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "a", "\x1b[2J\x07", "é" * 300, "a" * 100_000, "../../" + CANARY, "\0", "{0: 1}", "images", "output0")
DEEP = ("[" * 20_000, "-" * 100_000 + "1", "{0:" * 500, "(" * 150 + "1" + ")" * 150, "1+" * 20_000 + "1", "9" * 5000)
VALUES = (
    "None|True|[]|{}|[[]]|nan|inf|-1|0|32.5|1e999|999999|[0, 0]|[32]|[32, 64]|[32, -32]|[1e9, 1e9]|[1000000, 1000000]|{{}: 0}|"
    "[8192, 8192]|'detect'|segment|{0: 'a'}|{1: 'a', 2: 'b'}|['a', 'b', 'c']|{0: ['a'], 1: 'b'}|{'x': 'a', 'y': 'b'}|"
    "{0: 'a', 0.5: 'b'}|{0: '\\x1b[31m', 1: 'b'}|range(10**9)|['a'] * 10**9|__import__('os').system('touch canary')"
).split("|")


def damage(rng: random.Random, data: bytes) -> bytes:
    """The bytes, changed in some places."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 40))):
        at = rng.randrange(len(data) + 1)
        how = rng.randrange(8)
        if how <= 2 and data:
            data[at % len(data)] = rng.choice((0, 255, 127, 128, rng.randrange(256)))
        elif how == 3 and data:
            at = rng.randrange(min(len(data), 64))
            data[at] ^= 1 << rng.randrange(8)
        elif how == 4:
            del data[at:]
        elif how == 5:
            data[at:at] = data[at : at + rng.choice((1, 8, 400))]
        elif how == 6:
            del data[at : at + rng.choice((1, 4, 100))]
        else:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 100)))
    return bytes(data)


def nonsense(rng: random.Random) -> str:
    """A value as a text of metadata writes it, or ought to."""
    return rng.choice((*VALUES, *VALUES, *DEEP, *TEXTS))


def damage_numbers(rng: random.Random, text: str, most: int = 3) -> str:
    """A text with other numbers in some places."""
    for _ in range(rng.randint(1, most)):
        if found := list(re.finditer(r"-?\d+", text)):
            one = rng.choice(found)
            text = text[: one.start()] + str(rng.choice((*NUMBERS, *FLOATS))) + text[one.end() :]
    return text
