"""A CUDA device for machines without one: tensors that say they are on ``cuda:0``, and compute on the CPU.

PyTorch's own fake tensors have no values, so they stop at the first ``nonzero``, and without a driver they can't go
backward. These have values, so whole steps and suppressions run; what a real device would refuse is refused:

    operations on tensors of two devices, but for what CUDA allows: a CPU number beside them, a CPU index, copies
    ``numpy()`` of a tensor on the device

and whatever makes the host wait for the device is told to ``on_sync``, see tests/helpers/syncs.py. Mixed precision is
that of CUDA in its main lines: products and convolutions in half precision, sums, powers and softmax in float32.

    with fake_cuda():
        model.to("cuda")(images.to("cuda"))
"""

import contextlib
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten
# one call per synchronisation, with the operation's name; set by tests/helpers/syncs.py
on_sync: list[Callable[[str], None]] = []

COPIES = {aten._to_copy, aten.copy_}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
# their result's size is known to the device alone
OF_UNKNOWN_SIZE = {aten.nonzero, aten.masked_select, aten._unique2, aten.unique_consecutive, aten.unique_dim}
WAITING = OF_UNKNOWN_SIZE | {aten._local_scalar_dense, aten.equal, aten.bincount, aten.histc}
# what mixed precision computes in half, and in float32
IN_HALF = {aten.convolution, aten.mm, aten.addmm, aten.bmm, aten.baddbmm}
IN_FLOAT = {aten.sum, aten.prod, aten.cumsum, aten.pow, aten._softmax, aten._log_softmax, aten.exp, aten.log}
IN_FLOAT |= {aten.native_layer_norm, aten.native_group_norm, aten.rsqrt, aten.binary_cross_entropy_with_logits}
GRADIENTS = IN_HALF | {aten.convolution_backward, aten.native_layer_norm_backward, aten.native_group_norm_backward}
FLOATING = (torch.float32, torch.float16, torch.bfloat16)


class FakeCuda(torch.Tensor):
    """A tensor on the pretended device; ``held`` is the CPU's that has its values."""

    held: torch.Tensor
    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor):
        # to PyTorch's engine it is on the meta device: that of CUDA would ask the driver for streams
        empty = torch.empty_strided(held.shape, held.stride(), dtype=held.dtype, device="meta")
        return torch.Tensor._make_subclass(cls, empty, False, device_for_backend_keys=CUDA)

    def __init__(self, held: torch.Tensor):
        self.held = held

    def tolist(self):
        return self.cpu().tolist()

    def __repr__(self):
        return f"FakeCuda({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """Makes what is asked for on the device, and moves there what is sent."""

    # with the key of PyTorch's own fake mode nothing looks for a driver
    _mode_key = torch._C._TorchDispatchModeKey.FAKE

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


class _Autocast:
    """What mixed precision is set to for the device."""

    dtype: torch.dtype | None = None


def compute(func, args: tuple, kwargs: dict):
    """Run an operation on the CPU's tensors, as the device would."""
    packet = func.overloadpacket
    # nothing is paged out here
    if packet in (aten.is_pinned, aten._pin_memory, aten.pin_memory):
        return packet is aten.is_pinned or args[0]
    # PyTorch would choose among CUDA's own kernels, which are not there
    if packet is aten._fused_sdp_choice:
        return 0
    tensors = list(_tensors((args, kwargs)))
    here = was_here = any(type(t) is FakeCuda for t in tensors)
    if packet is aten.copy_:
        here = type(args[0]) is FakeCuda
    elif (asked := kwargs.get("device")) is not None:
        # meta: what PyTorch itself takes the device for
        here = torch.device(asked).type in ("cuda", "meta")
    if here and packet not in COPIES:
        _refuse_two_devices(packet, args, tensors)
    if on_sync and _waits(packet, args, kwargs, was_here, here):
        for tell in on_sync:
            tell(str(packet))
    dtype = _precision(packet, tensors) if here else None
    result = func(*_plain(args, dtype), **_plain(kwargs, dtype))
    if not here:
        return result
    changed = [i for i, a in enumerate(func._schema.arguments) if a.alias_info is not None and a.alias_info.is_write]
    if changed and not isinstance(result, tuple):
        return args[changed[0]] if isinstance(result, torch.Tensor) else result
    return _on_device(result)


def _tensors(value) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for part in value.values() if type(value) is dict else value:
            yield from _tensors(part)


def _plain(value, dtype: torch.dtype | None):
    """Arguments as the CPU takes them, what floats in ``dtype``."""
    if isinstance(value, torch.Tensor):
        held = value.held if type(value) is FakeCuda else value
        return held if dtype is None or held.dtype not in FLOATING else held.to(dtype)
    if isinstance(value, (tuple, list)):
        return type(value)([_plain(part, dtype) for part in value])
    if type(value) is dict:
        return {key: _plain(part, dtype) for key, part in value.items()}
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _on_device(value):
    if isinstance(value, torch.Tensor):
        return FakeCuda(value)
    return [_on_device(part) for part in value] if isinstance(value, (tuple, list)) else value


def _refuse_two_devices(packet, args: tuple, tensors: list[torch.Tensor]) -> None:
    strangers = [t for t in tensors if not isinstance(t, FakeCuda)]
    if packet in INDEXED and isinstance(args[0], FakeCuda):
        strangers = [t for t in strangers if not any(t is index for index in args[1])]
    # numbers beside tensors become arguments of a kernel; to be joined they would have to be there
    if packet not in (aten.cat, aten.stack):
        strangers = [t for t in strangers if t.dim()]
    if strangers and any(isinstance(t, FakeCuda) for t in tensors):
        raise RuntimeError(f"Expected all tensors to be on the same device: {packet} of cuda:0 and cpu")


def _waits(packet, args: tuple, kwargs: dict, was_here: bool, here: bool) -> bool:
    """Whether the host waits for the device."""
    if packet is aten._to_copy:
        return was_here != here and kwargs.get("device") is not None and not kwargs.get("non_blocking")
    if packet is aten.copy_:
        blocking = not (len(args) > 2 and args[2]) and not kwargs.get("non_blocking")
        return here != (type(args[1]) is FakeCuda) and blocking
    if packet in INDEXED and here:
        # of a mask the places are counted first; what lies on the CPU is brought
        return any(i.dtype in (torch.bool, torch.uint8) or type(i) is not FakeCuda for i in args[1] if i is not None)
    if packet is aten.repeat_interleave:
        return here and kwargs.get("output_size") is None
    return was_here and (packet in WAITING or str(packet) == "torchvision.nms")


def _precision(packet, tensors: list[torch.Tensor]) -> torch.dtype | None:
    """The type in which mixed precision computes an operation; a gradient's operands follow the gradient."""
    if torch._C._current_graph_task_id() != -1:
        mixed = packet in GRADIENTS and any(t.dtype == torch.float16 for t in tensors)
        return torch.float16 if mixed and packet in IN_HALF else torch.float32 if mixed else None
    if _Autocast.dtype is not None:
        return _Autocast.dtype if packet in IN_HALF else torch.float32 if packet in IN_FLOAT else None
    return None


@contextlib.contextmanager
def fake_cuda() -> Iterator[None]:
    """Within, the device ``cuda`` is there: tensors and modules can be made on it and sent to it."""
    enabled, is_enabled = torch.set_autocast_enabled, torch.is_autocast_enabled

    def set_enabled(*said):
        if said[0] == "cuda":
            _Autocast.dtype = torch.get_autocast_dtype("cuda") if said[1] else None
        else:
            enabled(*said)

    def get_enabled(*said):
        return _Autocast.dtype is not None if said == ("cuda",) else is_enabled(*said)

    def cast_first(convolution):
        # it compares the types of its arguments before the device sees them
        def cast(x, weight, bias=None, *rest, **named):
            if _Autocast.dtype is not None and isinstance(x, FakeCuda):
                x, weight = x.to(_Autocast.dtype), weight.to(_Autocast.dtype)
                bias = None if bias is None else bias.to(_Autocast.dtype)
            return convolution(x, weight, bias, *rest, **named)

        return cast

    only_cpu = torch._C._only_lift_cpu_tensors()
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    replaced = {
        "torch.set_autocast_enabled": set_enabled,
        "torch.is_autocast_enabled": get_enabled,
        "torch.cuda.amp.common.amp_definitely_not_available": lambda: False,
        "torch.cuda.synchronize": lambda device=None: None,
    }
    for name in ("conv1d", "conv2d", "conv_transpose2d"):
        replaced[f"torch.nn.functional.{name}"] = cast_first(getattr(torch.nn.functional, name))
    with contextlib.ExitStack() as stack:
        for name, function in replaced.items():
            stack.enter_context(mock.patch(name, function))
        torch._C._ensureCUDADeviceGuardSet()
        torch._C._set_only_lift_cpu_tensors(True)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            with _Factories():
                yield
        finally:
            _Autocast.dtype = None
            torch._C._set_only_lift_cpu_tensors(only_cpu)
            torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
