"""Tensors of a pickle: what stands for one, and the tensor, a view of numbers that must lie within them."""

import math
from dataclasses import dataclass

import torch

from utils.errors import shown
from utils.saved.pickled import Name, NotPlain, PickledObject, Storage

KINDS = {
    f"torch.{kind}Storage": dtype
    for kind, dtype in {
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Double": torch.float64,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexFloat": torch.complex64,
        "ComplexDouble": torch.complex128,
    }.items()
}
# what a tensor is written as, and what holds one as its first argument
TENSORS = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"}
WRAPPERS = {
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch.nn.parameter.Parameter",
}
# a tensor with attributes: the function, the class, its arguments, the attributes
TYPED = "torch._tensor._rebuild_from_type_v2"
MOST_AXES, MOST_SPREAD = 16, 2**31


@dataclass
class View:
    """A tensor of ``shape`` within the numbers of a storage, from the number ``offset`` on, axes ``strides`` apart."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def find_view(found: PickledObject) -> View | None:
    """The view that an object of a pickle stands for; None where it stands for no tensor. Raises NotPlain."""
    # a wrapper within a wrapper a few times at the most
    for _ in range(4):
        name, args = found.pickled_name, found.args
        if name == TYPED and len(args) == 4 and isinstance(args[0], Name) and isinstance(args[2], tuple):
            found = PickledObject(args[0].text, args[2])
        elif name in WRAPPERS and args and isinstance(args[0], PickledObject):
            found = args[0]
    if found.pickled_name not in TENSORS:
        return None
    if len(found.args) < 4 or not isinstance(found.args[0], Storage):
        raise NotPlain("has a tensor without numbers")
    storage, offset, shape, strides = found.args[:4]
    if storage.kind not in KINDS:
        raise NotPlain(f"has a tensor of {shown(storage.kind, 60)}, which are not read")
    # torch.Size(…) of early releases
    shape, strides = (v.args[0] if isinstance(v, PickledObject) and v.args else v for v in (shape, strides))
    numbers = [offset, *shape, *strides] if isinstance(shape, tuple) and isinstance(strides, tuple) else [None]
    if not all(type(n) is int and n >= 0 for n in numbers) or len(shape) != len(strides) or len(shape) > MOST_AXES:
        raise NotPlain(f"has a tensor of size {shown(shape, 60)}, strides {shown(strides, 60)}")
    return View(storage, offset, shape, strides)


def take_view(view: View, numbers: torch.Tensor) -> torch.Tensor:
    """The tensor of ``numbers``, the bytes [n] of its storage. Raises NotPlain where it does not lie within them.

    Numbers that are named over and over, by strides of 0, are refused: such a tensor takes memory once it is copied.
    """
    dtype = KINDS[view.storage.kind]
    there = min(len(numbers) // dtype.itemsize, view.storage.count)
    count, spread = math.prod(view.shape), math.prod(n for n in view.shape if n)
    last = view.offset + sum((n - 1) * stride for n, stride in zip(view.shape, view.strides, strict=True) if count)
    # spread: of an axis beside an empty one, which takes no memory and makes sizes that can't be computed with
    if count > there or last - (not count) >= there or spread > max(there, MOST_SPREAD):
        raise NotPlain(f"has a tensor of size {shown(view.shape, 60)} over {there:,} numbers")
    if not count:
        return torch.empty(view.shape, dtype=dtype)
    # of an axis of one number, the stride may be anything
    strides = [min(stride, there) for stride in view.strides]
    return numbers[: there * dtype.itemsize].view(dtype).as_strided(view.shape, strides, view.offset)
