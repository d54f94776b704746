"""Command lines."""

import random
from pathlib import Path

from tests.fuzz.arena import Case


def prepare(sound: Path) -> None:
    """Nothing is needed."""


def make(rng: random.Random, folder: Path, sound: Path) -> Case:
    """A command with a nonsensical value."""
    return Case(["detect.py", "--imgsz", rng.choice(["-5", "0", "nan", "1e9"])])
