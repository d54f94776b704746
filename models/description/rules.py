"""How a row's numbers are meant: which of them are channels, and what its block is called with.

    rule_by_names       a block → channels, repeats, keep or plain, from the names of its constructor's first parameters
    readings            a row → the calls it may stand for, the most likely first; build.py takes the first that works

Where a rule of BLOCKS is given, it decides; the rest is inferred, since blocks come from many hands: some want input and
output channels, some the one number that both are, some a list of all inputs' channels, and rows write more or fewer of
them than the block is fed.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from models.description.rows import Row, is_count, scale_channels
from utils.errors import shown

RULES = ("channels", "repeats", "keep", "plain")
# what the first parameters are called, lower case and without underscores
INPUT_NAMES = set(
    "c1 inp inc ic cin chin nin in inchannels inchannel inch inchs inplanes inplane indim infeatures infilters inchans "
    "inputchannels inputchannel inputdim channelsin dimin numchannels numinputchannels".split()
)
OUTPUT_NAMES = set(
    "c2 oup ouc oc cout chout nout out outc outchannels outchannel outch outchs planes outplanes outplane outdim outfeatures "
    "outfilters outchans outputchannels outputdim channelsout dimout numfilters numoutputchannels filters".split()
)
WIDTH_NAMES = set(
    "c ch channel channels chan dim dims ndims ndim planes nf nc nchannels numfeatures features embeddim dmodel "
    "inputfeatures hiddendim".split()
)
REPEAT_NAMES = set(
    "n num number repeats repeat numrepeats numblocks nblocks numlayers nlayers numbottlenecks depth depths".split()
)
# further parameters that are channels of the block's inside, where they have no default: RepNCSPELAN4(c1, c2, c3, c4, …)
INNER_NAMES = re.compile(r"c[3-9]")
# what a number is at least to be taken for channels, and to be told of where it equals some
LEAST_CHANNELS, LEAST_TOLD = 16, 32
# a default from here on is of hidden channels, whose number may be so many times it
LEAST_HIDDEN, MOST_FACTOR = 64, 8

Block = type[nn.Module] | Callable[..., nn.Module]


class Scaled(int):
    """Channels that the width multiple has been counted in for, as a row writes 128*width."""


class Scaling(NamedTuple):
    """What a model's YAML says about the size of every row."""

    depth: float  # factor on the repeats
    width: float  # factor on the output channels,
    divisor: int  # which are rounded up to a multiple of this,
    outputs: int  # except where they equal na·(nc+5); 0 where the YAML says `stock_widths: false`

    @classmethod
    def of(cls, description: dict) -> "Scaling":
        """That of a checked description."""
        # a head without anchors has one box a place
        anchors = description.get("anchors", 1)
        na = anchors if isinstance(anchors, int) else len(anchors[0]) // 2
        return cls(
            depth=description.get("depth_multiple", 1.0),
            width=description.get("width_multiple", 1.0),
            divisor=description.get("channel_multiple", 8),
            outputs=na * (description["nc"] + 5) if description.get("stock_widths", True) else 0,
        )

    def channels(self, written: int) -> int:
        """The channels that a number of a row stands for."""
        if isinstance(written, Scaled) or written == self.outputs:
            return int(written)
        return scale_channels(written, self.width, self.divisor)


class Reading(NamedTuple):
    """One way to call a row's block: ``args``, without the number of repeats, by the rule it came from."""

    rule: str
    args: list[Any]
    # what to tell whoever wrote the row, if anything
    note: str = ""


def parameters_of(block: Block) -> list[inspect.Parameter]:
    """The parameters of a block's constructor. A class without one of its own, such as C functions have, has none."""
    try:
        return list(inspect.signature(block).parameters.values())
    except ValueError:
        return []


def rule_by_names(block: Block) -> str:
    """How a block is fed, from the names of its constructor's first parameters: see BLOCKS in models/yolo.py."""
    names = [p.name.replace("_", "").lower() for p in parameters_of(block)[:3]]
    first, second, third = [*names, "", "", ""][:3]
    if (first in INPUT_NAMES and second in OUTPUT_NAMES | WIDTH_NAMES) or (
        first in WIDTH_NAMES and second in OUTPUT_NAMES
    ):
        return "repeats" if third in REPEAT_NAMES else "channels"
    return "keep" if first in INPUT_NAMES | WIDTH_NAMES else "plain"


def readings(
    row: Row,
    block: Block,
    rule: str | None,
    args: list,
    inputs: list[Row | None],
    channels: list[int],
    scaling: Scaling,
) -> list[Reading]:
    """The calls that a row may stand for, the most likely first; none where its first argument can't be channels.

    ``rule``: of BLOCKS; None where it is to be inferred. ``args``: the row's positional arguments. ``inputs``: the rows that
    it takes, None for the image; ``channels``: theirs.
    """
    written = [r.args[0] for r in inputs if r is not None and r.args and is_count(r.args[0])]
    chosen = rule or rule_by_names(block)
    if chosen in ("channels", "repeats"):
        return _with_outputs(row, block, chosen, args, written, channels, scaling, inferred=rule is None)
    if chosen == "keep":
        return _keeping(row, block, args, channels, scaling)
    return [Reading("plain", args)] if rule else _without_names(row, block, args, channels, scaling)


def _inputs(channels: list[int]) -> list[int | list[int]]:
    """What may stand for the input channels: of several inputs all of them, those of the last, or their sum."""
    if len(channels) == 1:
        return [channels[0]]
    return [channels, channels[-1], sum(channels)]


def _with_outputs(
    row: Row,
    block: Block,
    rule: str,
    args: list,
    written: list[int],
    channels: list[int],
    scaling: Scaling,
    inferred: bool,
) -> list[Reading]:
    """Block(c1, c2, …): the row begins with c2."""
    parameters = parameters_of(block)[2:]
    found = []
    if inferred and not args:
        # EVCBlock, []: what comes in goes out
        return [Reading(rule, [c1, channels[-1]]) for c1 in _inputs(channels)]
    if not args or not is_count(args[0]):
        return []
    if inferred and len(args) > 1 and is_count(args[1]) and args[1] >= LEAST_CHANNELS:
        comes_in = scaling.channels(args[0]) in (*channels, sum(channels)) or args[0] in channels
        if len(channels) > 1 and comes_in:
            # both ends written, for maps that are added: Concat_bifpn, [256, 256]
            found.append(Reading("plain", [scaling.channels(args[0]), scaling.channels(args[1]), *args[2:]]))
        elif (comes_in or args[0] in written) and not _may_take(args[1], parameters):
            # both ends written, as a call would have it: SimSPPF, [512, 512, 5]
            found += [Reading(rule, [c1, *_scaled(args[1:], parameters, scaling)]) for c1 in _inputs(channels)]
    inner_scaled = _scaled(args, parameters, scaling) if inferred else [scaling.channels(args[0]), *args[1:]]
    note = _unscaled(row, args, inner_scaled, parameters, written, scaling) if inferred else ""
    return [*found, *(Reading(rule, [c1, *inner_scaled], note) for c1 in _inputs(channels))]


def _may_take(value: int, parameters: list[inspect.Parameter]) -> bool:
    """Whether the first parameter may be given this number: a kernel of 5 by default is hardly 512."""
    if not parameters:
        return False
    default = parameters[0].default
    return isinstance(default, bool) or not isinstance(default, int) or suits(value, parameters)


def _scaled(args: list, parameters: list[inspect.Parameter], scaling: Scaling) -> list:
    """A row's arguments from c2 on, with c2 and the channels of the block's inside times the width multiple."""
    scaled = [scaling.channels(args[0]), *args[1:]]
    for i, parameter in enumerate(parameters[: len(args) - 1], 1):
        if INNER_NAMES.fullmatch(parameter.name) and parameter.default is parameter.empty and is_count(args[i]):
            scaled[i] = scaling.channels(args[i])
    return scaled


def _unscaled(row: Row, args: list, scaled: list, parameters: list, written: list[int], scaling: Scaling) -> str:
    """A doubt about a further argument that equals a channel count as rows write them, and is passed on as it is."""
    for i, value in enumerate(args[1:], 1):
        same = is_count(value) and value >= LEAST_TOLD and value in (args[0], *written) and scaled[i] == value
        if same and scaling.channels(value) != value:
            name = parameters[i - 1].name if i <= len(parameters) else f"argument {i + 1}"
            return (
                f"{row.block} is given {name} = {value}, which is not scaled by width_multiple; if it is meant as channels, "
                f"write {value}*width"
            )
    return ""


def _keeping(row: Row, block: Block, args: list, channels: list[int], scaling: Scaling) -> list[Reading]:
    """Block(c, …): what comes in goes out, and a row may write that number, as most write-ups do."""
    rest, note = args, ""
    if args and len(channels) == 1 and is_channels(args[0], channels[0], parameters_of(block)[1:], scaling):
        rest = args[1:]
        enough = shown(", ".join(map(str, rest)))
        note = f"{row.block} keeps its channels: {args[0]} is taken for them, and [{enough}] is enough"
    found = [Reading("keep", [c, *rest], note) for c in _inputs(channels)]
    named = parameters_of(block)[:1]
    # attention_model(ch=256) counts those of its last input; what takes them all has no number for a default
    return [found[1], found[0], *found[2:]] if len(found) > 1 and named and isinstance(named[0].default, int) else found


def is_channels(value: Any, c1: int, parameters: list[inspect.Parameter], scaling: Scaling) -> bool:
    """Whether the first number of a row is the channels that come in, rather than a value of the parameter in its place."""
    if not is_count(value) or value < LEAST_CHANNELS or c1 not in (scaling.channels(value), value):
        return False
    return not suits(value, parameters)


def suits(value: int, parameters: list[inspect.Parameter]) -> bool:
    """Whether a number is likely a value of the first parameter, by that one's default."""
    default = parameters[0].default if parameters else None
    if isinstance(default, bool) or not isinstance(default, int | float) or default <= 0:
        return False
    # a ratio of 16 is never 1024; hidden channels of 2048 may be
    return value <= default or (default >= LEAST_HIDDEN and value <= default * MOST_FACTOR)


def _without_names(row: Row, block: Block, args: list, channels: list[int], scaling: Scaling) -> list[Reading]:
    """A block whose parameters have names of their own: as it is written, unless its first number is the channels that come
    in, or it asks for what the row does not give."""
    parameters = parameters_of(block)
    plain, fed = Reading("plain", args), []
    if len(channels) == 1 and args and is_count(args[0]) and args[0] >= LEAST_CHANNELS:
        c1 = channels[0]
        if (
            parameters
            and c1 in (scaling.channels(args[0]), args[0])
            and parameters[0].default is inspect.Parameter.empty
        ):
            if len(args) > 1 and is_count(args[1]) and args[1] >= LEAST_CHANNELS:
                fed.append(Reading("channels", [c1, scaling.channels(args[1]), *args[2:]]))
            fed.append(Reading("keep", [c1, *args[1:]]))
            return [*fed, plain]
    required = [
        p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(args) < len(required):
        if args and is_count(args[0]) and len(required) > 1:
            fed += [Reading("channels", [c1, scaling.channels(args[0]), *args[1:]]) for c1 in _inputs(channels)]
        fed += [Reading("keep", [c1, *args]) for c1 in _inputs(channels)]
        if not args and len(required) > 1:
            fed += [Reading("channels", [c1, channels[-1]]) for c1 in _inputs(channels)]
    return [*fed, plain] if fed else [plain]
