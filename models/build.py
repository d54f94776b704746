"""From one row of a model YAML to its layer: construct it, and trace it to know the shape of what it gives."""

from itertools import chain
from typing import NamedTuple

import torch
from torch import nn

from models.rows import Row, parse_arguments, scale_channels, scale_number


class Scaling(NamedTuple):
    """What a model's YAML says about the size of every row."""

    depth: float  # factor on the repeats
    width: float  # factor on the output channels,
    divisor: int  # which are rounded up to a multiple of this,
    outputs: int  # except where they equal na·(nc+5)


def build_layer(row: Row, block: type[nn.Module], rule: str, channels: list[int], scaling: Scaling) -> nn.Module:
    """Construct what one row describes: ``block``, fed by ``rule`` (see BLOCKS in models/yolo.py) from inputs of ``channels``."""
    c1 = channels[0] if len(channels) == 1 else channels
    args, kwargs = parse_arguments(row)
    if rule in ("channels", "repeats"):
        if not args or not isinstance(args[0], int) or isinstance(args[0], bool) or args[0] < 1:
            raise row.error(f"the first argument of {row.block} is its output channels, a positive whole number")
        c2 = args[0] if args[0] == scaling.outputs else scale_channels(args[0], scaling.width, scaling.divisor)
        args = [c1, c2, *args[1:]]
    elif rule == "keep":
        args = [c1, *args]
    n = scale_number(row.number, scaling.depth)
    if rule == "repeats":
        args.insert(2, n)
        n = 1
    row.built_number, row.built_args = n, args
    try:
        if n == 1:
            return block(*args, **kwargs)
        again = [args[1], *args[1:]] if rule == "channels" else args  # only the first block changes the channels
        return nn.Sequential(block(*args, **kwargs), *(block(*again, **kwargs) for _ in range(n - 1)))
    except Exception as e:  # whatever a constructor says about arguments it cannot take is the user's to read
        raise row.error(f"{row.block}({', '.join(map(str, args))}) cannot be built: {type(e).__name__}: {e}") from e


def output_shape(row: Row, layer: nn.Module, inputs: list[tuple], as_list: bool) -> tuple[int, int, int]:
    """(channels, height, width) that ``layer`` (in eval mode) gives for inputs of these shapes.

    Traced on the meta device, which costs nothing; a block whose forward needs real numbers is run on zeros.
    """
    state = {k: v.to("meta") for k, v in chain(layer.named_parameters(), layer.named_buffers())}
    try:
        x = [torch.empty(1, *shape, device="meta") for shape in inputs]
        y = torch.func.functional_call(layer, state, (x if as_list else x[0],))
    except Exception:  # either a mistake in the row or a block that can't be traced: the real run tells
        try:
            with torch.no_grad():
                x = [torch.zeros(1, *shape) for shape in inputs]
                y = layer(x if as_list else x[0])
        except Exception as e:
            given = " and ".join("×".join(map(str, shape)) for shape in inputs)
            raise row.error(f"{row.block} does not fit its input {given}: {type(e).__name__}: {e}") from e
    if not isinstance(y, torch.Tensor) or y.ndim != 4:
        found = f"a tensor of {y.ndim} dimensions" if isinstance(y, torch.Tensor) else type(y).__name__
        raise row.error(f"{row.block} returns {found}; a layer returns one map [batch, channels, height, width]")
    return tuple(y.shape[1:])
