"""Where two values differ first: dicts, lists, numbers, and arrays and tensors to the bit."""

from typing import Any

import numpy as np


def first_difference(reference: Any, here: Any, where: str = "") -> str:
    """Where two values differ first, in words: ``where`` is the place of the two in something larger.

    Empty where they are equal. Looks into dicts, lists and tuples; arrays and tensors on the CPU are equal where type,
    shape and every bit are, so NaN equals NaN, and 0 does not equal -0.
    """
    if type(reference) is not type(here):
        return f"{where}: {type(reference).__name__} is {type(here).__name__} here"
    if isinstance(reference, dict):
        difference = first_difference(list(reference), list(here), f"{where} keys")
        inner = (first_difference(reference[k], here[k], f"{where} {k}") for k in reference)
        return difference or next(filter(None, inner), "")
    if isinstance(reference, list | tuple):
        pairs = enumerate(zip(reference, here, strict=False))
        inner = (first_difference(a, b, f"{where}[{i}]") for i, (a, b) in pairs)
        lengths = "" if len(reference) == len(here) else f"{where}: {len(reference)} items, {len(here)} here"
        return next(filter(None, inner), lengths)
    if hasattr(reference, "dtype"):
        return _array_difference(reference, here, where)
    return "" if reference == here else f"{where}: {reference!r} is {here!r} here"


def _array_difference(reference: Any, here: Any, where: str) -> str:
    """The same for two arrays or tensors on the CPU."""
    a, b = np.asarray(reference), np.asarray(here)
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return f"{where}: {a.dtype} {a.shape} is {b.dtype} {b.shape} here"
    if a.tobytes() == b.tobytes():
        return ""
    bits = [np.frombuffer(array.tobytes(), np.uint8).reshape(array.size, -1) for array in (a, b)]
    differ = np.flatnonzero((bits[0] != bits[1]).any(1))
    first = differ[0]
    return f"{where}: value {first} is {a.flat[first]}, {b.flat[first]} here; {differ.size} of {a.size} differ"
