"""From one row of a model YAML to its layer: construct it, trace it to know the shape of what it gives, set its constants."""

import re
from functools import partial
from inspect import Parameter, signature
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedTensorMixin

from models.backbones.backbone import Backbone
from models.description.budget import TooLarge
from models.description.names import SHIPPED
from models.description.rows import (
    CHECK_SIZE,
    MOST_REPEATS,
    Row,
    is_size,
    nearest,
    parse_arguments,
    scale_number,
)
from models.description.rules import Block, Reading, Scaled, Scaling, is_channels, parameters_of, readings, suits
from models.heads.protocol import Head
from utils.errors import MOST_QUOTED, UserError, shown

BATCHNORM = {"eps": 1e-3, "momentum": 0.03}  # stock's, for every layer unless the YAML says otherwise for the backbone
# of a network that is one row
MOST_MAPS = 5
# what a constructor says, and what to do
REMEDIES = (
    ("divisible by groups", "choose groups that divide both, or channels that the groups divide"),
    ("divisible by num_heads", "choose output channels, or a width_multiple, that the number of heads divides"),
    ("must be even", "choose an even number of output channels"),
)


def build_layer(
    row: Row,
    block: Block,
    rule: str | None,
    taken: list[Row | None],
    inputs: list[tuple[int, int, int]],
    scaling: Scaling,
) -> nn.Module:
    """The layer that a row describes, with the row's shape: ``block`` fed by ``rule`` (see BLOCKS in models/yolo.py; None:
    inferred) from the rows ``taken``, None for the image, whose outputs have the shapes ``inputs``.

    Where a row can be read in several ways, the first that builds and runs.
    """
    channels = [shape[0] for shape in inputs]
    args, kwargs = parse_arguments(row)
    args = [_widened(arg, scaling) for arg in args]
    kwargs = {key: _widened(value, scaling) for key, value in kwargs.items()}
    found = readings(row, block, rule, args, taken, channels, scaling)
    if not found:
        shown_first = f", and {shown(repr(args[0]))} is not" if args else ""
        raise row.error(
            f"the first argument of {row.block} is its output channels, a positive whole number{shown_first}; "
            f"write [128] or [128, …]"
        )
    failures = []
    for reading in found:
        state = torch.get_rng_state()
        try:
            layer = _construct(row, block, reading, channels, kwargs, scaling)
            row.shape = output_shape(row, layer.eval(), inputs, isinstance(row.source, list))
        except UserError as e:
            failures.append(e)
            # what comes next starts as if this had not been tried
            torch.set_rng_state(state)
        else:
            row.notes += [reading.note] if reading.note else []
            return layer
    if len(failures) == 1 or rule:
        raise failures[0]
    raise UserError(
        f"{failures[0]}; {len(failures)} ways to read the row were tried: say in BLOCKS of models/yolo.py how it is fed, "
        f'"{row.block}": "channels"'
    )


def _widened(value: Any, scaling: Scaling) -> Any:
    """128*width, as a row may write it, times the width multiple; any other value as it is."""
    found = re.fullmatch(r"(\d{1,9}) ?\* ?width", value) if isinstance(value, str) else None
    return Scaled(scaling.channels(int(found[1]))) if found else value


def _construct(
    row: Row, block: Block, reading: Reading, channels: list[int], kwargs: dict[str, Any], scaling: Scaling
) -> nn.Module:
    """Call the block as a reading says."""
    rule, args = reading.rule, list(reading.args)
    flow = f"{_words(channels)} channels come in"
    if rule in ("channels", "repeats"):
        flow += f", {row.args[0]} × width_multiple {scaling.width:g} = {args[1]} go out" if row.args else ""
    elif rule == "keep":
        _refuse_channels(row, args[0], args[1:], _row_parameters(block, rule), scaling)
    n = scale_number(row.number, scaling.depth)
    if n > MOST_REPEATS:
        raise row.error(
            f"the block would be repeated {n} times; {MOST_REPEATS} is the most, with depth_multiple counted in"
        )
    if rule == "repeats":
        args.insert(2, n)
        n = 1
    row.rule, row.built_number, row.built_args = rule, n, args
    try:
        signature(block).bind(*args, **kwargs)
    # ValueError: of what has no signature to look at
    except ValueError:
        pass
    except TypeError as e:
        raise row.error(_wrong_arguments(row.block, block, rule, kwargs, str(e))) from None
    try:
        again = [args[1], *args[1:]] if rule == "channels" else args  # only the first block changes the channels
        blocks = [block(*(again if i else args), **kwargs) for i in range(n)]
        layer = blocks[0] if n == 1 else nn.Sequential(*blocks)
    except TooLarge as e:
        raise row.error(str(e)) from None
    # A constructor may raise anything for arguments it cannot take; the user reads what it says.
    except Exception as e:
        remedy = next((words for found, words in REMEDIES if found in str(e)), _arguments_of(row.block, block, rule))
        if len(channels) > 1:
            remedy = (
                f"it is fed a list of {len(channels)} layers, which only blocks that join maps take, such as Concat"
            )
        called = f"{row.block}({', '.join(map(str, args))})"
        raise row.error(f"{shown(called)} cannot be built: {_told(e)}; {flow}; {remedy}") from e
    if not isinstance(layer, nn.Module):
        raise row.error(
            f"{row.block} gives a {type(layer).__name__}; a row takes a class that extends nn.Module, or a "
            "function that returns one"
        )
    for tensor in chain(layer.parameters(), layer.buffers()):
        if isinstance(tensor, UninitializedTensorMixin):
            raise row.error(
                f"{row.block} finds its shape only when it runs; name the block without Lazy, with all its arguments"
            )
        if tensor.device.type != "cpu":
            raise row.error(f"{row.block} asks for the device {tensor.device}; that is chosen by --device, take it out")
    _check_sides(row, layer)
    return layer


def _check_sides(row: Row, layer: nn.Module) -> None:
    """Convolutions have one stride, padding and dilation, or one for each side: more are noticed only when numbers run."""
    for module in layer.modules():
        for name in ("stride", "padding", "dilation") if isinstance(module, _ConvNd) else ():
            value = getattr(module, name)
            if not isinstance(value, str) and len(value) not in (1, module.weight.ndim - 2):
                raise row.error(f"a convolution in {row.block} has a {name} of {len(value)} numbers: {shown(value)}")


def build_head(kind: type[Head], row: Row, sources: list[int | str], channels: list[int], description: dict) -> Head:
    """Construct the head that a row describes, over maps of ``channels`` from the layers ``sources``."""
    try:
        return kind.from_row(row, sources, channels, description)
    except TooLarge as e:
        raise row.error(str(e)) from None


def _told(error: Exception) -> str:
    """What a library says, in one line of some length."""
    return shown(" ".join(f"{type(error).__name__}: {error}".split()), 2 * MOST_QUOTED)


def _words(channels: list[int]) -> str:
    return " and ".join(map(str, channels))


def _row_parameters(block: Block, rule: str) -> list[Parameter]:
    """The constructor's parameters that a row's args stand for: all but those that the rule fills in."""
    filled = {"channels": 1, "repeats": 1, "keep": 1, "plain": 0}[rule]
    parameters = parameters_of(block)[filled:]
    return parameters[:1] + parameters[2:] if rule == "repeats" else parameters


def _arguments_of(name: str, block: Block, rule: str) -> str:
    """The arguments of a block as a row writes them, with their defaults."""
    parameters = _row_parameters(block, rule)
    taken = ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters)
    return f"args of {name} are [{taken}]"


def _wrong_arguments(name: str, block: Block, rule: str, kwargs: dict, said: str) -> str:
    """What Python says of a call that does not fit, and the arguments there are."""
    names = [p.name for p in _row_parameters(block, rule)]
    unknown = next((k for k in kwargs if k not in names), None)
    hint = nearest(unknown, names).rstrip("?") if unknown else ""
    return f"{said}{hint}; {_arguments_of(name, block, rule)}"


def _refuse_channels(row: Row, c1: int | list[int], args: list, parameters: list[Parameter], scaling: Scaling) -> None:
    """A block that keeps its channels takes no others; many write-ups give them all the same."""
    if not args or not isinstance(args[0], int) or isinstance(c1, list) or suits(args[0], parameters):
        return
    if args[0] > c1 or is_channels(args[0], c1, parameters, scaling):
        rest = ", ".join(map(str, row.args[1:]))
        first = parameters[0].name if parameters and isinstance(parameters[0].default, int | type) else ""
        named = f"; if {args[0]} is meant as its `{first}`, write {first}={args[0]}" if first else ""
        raise row.error(
            f"{row.block} keeps the {c1} channels that come in and takes no output channels; "
            f"take {args[0]} out: [{rest}]{named}"
        )


def output_shape(row: Row, layer: nn.Module, inputs: list[tuple], as_list: bool) -> tuple[int, int, int]:
    """(channels, height, width) that ``layer`` (in eval mode) gives for inputs of these shapes.

    Run on a batch of no images, which costs nothing. A block that can't do that, as where a reshape leaves a length open,
    is traced on the meta device, whose functions take a second or two to load; one that needs real numbers is run on zeros.
    """
    try:
        y = _output(layer, inputs, as_list)
    except TooLarge as e:
        raise row.error(str(e)) from None
    except Exception as e:
        given = " and ".join("×".join(map(str, shape)) for shape in inputs)
        remedy = _lacking(row, layer, e)
        if row.rule == "plain" and not row.block.startswith("nn.") and not remedy:
            remedy = (
                f"; it was built as {row.block}(*args): where its constructor begins with the input channels, "
                'name that parameter c1, or say by the rule "channels" or "keep" how it is fed'
            )
        raise row.error(f"{row.block} does not fit its input {shown(given)}: {_told(e)}{remedy}") from e
    if row.index == 0 and _is_pyramid(y):
        # the coarsest is P5, as in write-ups: of four maps, P2 to P5
        row.maps = {f"P{6 - len(y) + i}": tuple(level.shape[1:]) for i, level in enumerate(y)}
        return row.maps["P5"]
    if not isinstance(y, torch.Tensor) or y.ndim != 4:
        found = f"a tensor of {y.ndim} dimensions" if isinstance(y, torch.Tensor) else type(y).__name__
        raise row.error(f"{row.block} returns {found}; a layer returns one map [batch, channels, height, width]")
    if 0 in y.shape[1:]:
        raise row.error(
            f"{row.block} gives an empty map, {'×'.join(map(str, y.shape[1:]))}, for images of {CHECK_SIZE} pixels"
        )
    return tuple(y.shape[1:])


def _output(layer: nn.Module, inputs: list[tuple], as_list: bool) -> Any:
    """What ``layer`` gives for inputs of these shapes, by the first of the ways that it can go. Raises what the last raises."""
    for way in (partial(_run, images=0), _traced):
        try:
            return way(layer, inputs, as_list)
        except TooLarge:
            raise
        except Exception as e:
            # what a block that needs real numbers raises there names the device; all else is a mistake in the row, with
            # which an image may take minutes, as through a pool of a million pixels
            if way is _traced and "meta" not in f"{type(e).__name__} {e}".lower():
                raise
    return _run(layer, inputs, as_list, images=1)


def _run(layer: nn.Module, inputs: list[tuple], as_list: bool, images: int) -> Any:
    """The same, for so many images of zeros."""
    with torch.no_grad():
        x = [torch.zeros(images, *shape) for shape in inputs]
        return layer(x if as_list else x[0])


def _traced(layer: nn.Module, inputs: list[tuple], as_list: bool) -> Any:
    """The same, by tensors that have a shape and no content."""
    state = {k: v.to("meta") for k, v in chain(layer.named_parameters(), layer.named_buffers())}
    x = [torch.empty(1, *shape, device="meta") for shape in inputs]
    return torch.func.functional_call(layer, state, (x if as_list else x[0],))


def _lacking(row: Row, layer: nn.Module, error: Exception) -> str:
    """What to do where a pasted class calls a method of its own that it lacks, as some write-ups leave one out."""
    name = getattr(error, "name", None)
    if not isinstance(error, AttributeError) or not isinstance(name, str) or not hasattr(layer, "forward"):
        return ""
    if row.block in SHIPPED:
        return f"; the class that was pasted lacks {name}: take it out, and the built-in {row.block} is used"
    return f"; its class lacks {name}, which its forward asks for: copy that, too"


def _is_pyramid(y: Any) -> bool:
    """Whether a network gave maps of several levels, finest first."""
    return (
        isinstance(y, list | tuple)
        and 2 <= len(y) <= MOST_MAPS
        and all(isinstance(level, torch.Tensor) and level.ndim == 4 and 0 not in level.shape[1:] for level in y)
    )


def set_batchnorm(layers: nn.Sequential, rows: list[Row], description: dict, file: str) -> None:
    """Give every BatchNorm stock's constants, those of the backbone the YAML's, such as ``batchnorm: {eps: 1.0e-5}``.

    Published networks differ in eps, which is part of their function: with another one, their weights give other features.
    A network by name keeps its library's constants, but for a momentum below stock's: 0.0003, that of MnasNet, takes thousands
    of batches until what it validates with is what it has learnt from.
    """
    own = description.get("batchnorm", {})
    if not isinstance(own, dict) or not all(
        k in BATCHNORM and isinstance(v, float) and is_size(v, 1) for k, v in own.items()
    ):
        raise UserError(
            f"{file}: batchnorm is {shown(repr(own))}; it takes eps and momentum, as in {{eps: 1.0e-5, momentum: 0.1}}"
        )
    for layer, row in zip(layers, rows, strict=True):
        if isinstance(layer, Backbone):
            for module in layer.modules():
                # None: the mean of all batches
                if isinstance(module, nn.BatchNorm2d) and module.momentum is not None:
                    module.momentum = max(module.momentum, BATCHNORM["momentum"])
            continue
        in_backbone = isinstance(description["backbone"], list) and row.index < len(description["backbone"])
        constants = BATCHNORM | own if in_backbone else BATCHNORM
        for module in layer.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = constants["eps"], constants["momentum"]


def scale_drop_rates(layers: nn.Sequential) -> None:
    """The papers' stochastic depth: the drop rate grows linearly over the blocks, from none in the first."""
    blocks = [m for m in layers.modules() if getattr(m, "paper", False) is True and hasattr(m, "drop_path")]
    for i, block in enumerate(blocks):
        block.drop_path.p *= i / len(blocks)
