"""How large a model may be: what its description asks for is weighed before memory is taken.

    with Budget():
        …                       a tensor that this machine has no room for raises TooLarge instead of being made

Limits of what a description may say, far beyond any network that was published, stand in check.py; within them it is this
that decides. Nothing is drawn and nothing computed by it: models are the same to the bit.
"""

import math

import torch
from torch.overrides import TorchFunctionMode

from utils.device import available_memory

# where the system doesn't say what it has
USUAL_MEMORY = 16 << 30
# of PyTorch's functions, to build and to trace all layers; the largest networks take some ten thousand
MOST_CALLS = 100_000
# what makes a tensor of a size that is told; all take a device
FACTORIES = {
    getattr(torch, name)
    for name in "empty zeros ones full rand randn randint randperm arange linspace logspace eye empty_strided".split()
} | {getattr(torch.Tensor, name) for name in "new_empty new_zeros new_ones new_full".split()}


class TooLarge(Exception):
    """What a description asks for is more than this machine, or the patience of its user, has room for."""


class Budget(TorchFunctionMode):
    """Within this context, tensors are made while all of them fit in half of the memory that was available at its begin,
    and maps are traced while each of them would fit in all of it. Raises TooLarge, before memory is taken.
    """

    def __init__(self):
        super().__init__()
        self.memory = available_memory() or USUAL_MEMORY
        self.taken = self.calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise TooLarge(
                f"more than {MOST_CALLS:,} operations to build the model up to here; take fewer repeats or rows"
            )
        if func in FACTORIES:
            self._take(_shape_of(func, args, kwargs))
        elif func is torch.Tensor.clone and args[0].device.type != "meta":
            self._take(args[0])
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor) and (size := _map_bytes(result)) > self.memory:
            # of one image, where it was none
            shape = "×".join(str(side or 1) for side in result.shape)
            raise TooLarge(
                f"a map of {shape} has {_gb(size)}, and {_gb(self.memory)} are available; take fewer channels, or a "
                "coarser map"
            )
        return result

    def _take(self, made: torch.Tensor | None) -> None:
        self.taken += 0 if made is None else made.nbytes
        if self.taken > self.memory / 2:
            raise TooLarge(
                f"the parameters up to here take {_gb(self.taken)}, more than half of the {_gb(self.memory)} that are available; "
                "take fewer channels, repeats or classes"
            )


def _map_bytes(result: torch.Tensor) -> int:
    """What a map takes for one image, also where shapes are found with a batch of none."""
    return result.nbytes or math.prod(side or 1 for side in result.shape) * result.element_size()


def _shape_of(func, args: tuple, kwargs: dict) -> torch.Tensor | None:
    """What a factory is about to make, without its content; None where it takes no memory, or fails."""
    if "out" in kwargs or torch.device(kwargs.get("device") or "cpu").type == "meta":
        return None
    # what is wrong with a call, the call itself says
    try:
        return func(
            *args, **{k: v for k, v in kwargs.items() if k not in ("generator", "pin_memory")} | {"device": "meta"}
        )
    except Exception:
        return None


def _gb(size: float) -> str:
    return f"{size / 2**30:,.1f} GB"
