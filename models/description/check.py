"""What is wrong with a model YAML: mistakes that stop it, each a UserError.

    check_extent        first of all: how much there is, and that it is plain
    check_description   before anything is built: the keys and their values
    check_inputs        each row before it is built: the maps it gets
    check_levels        the maps that the head gets; its row it reads itself

Every message names the file, the row, what was found and the likely remedy.
"""

from typing import Any

from models.description.rows import MOST_CLASSES, Row, close_names, is_count, is_level, is_size
from models.heads.anchors import anchor_problem
from models.heads.table import FOREIGN_HEADS, HEADS
from utils.errors import UserError, shown
from utils.yaml_file import CONTROLS

KEYS = (
    "nc",
    "anchors",
    "backbone",
    "head",
    "depth_multiple",
    "width_multiple",
    "channel_multiple",
    "stock_widths",
    "batchnorm",
    "normalize",
    "activation",
    "ch",
    "size",
    "names",
    "yaml_file",
)
# What a description may say, far beyond any network that was published: whole numbers of bits, values, levels within one
# another, characters of a text, keys;
MOST_BITS, MOST_VALUES, MOST_DEPTH, MOST_TEXT, MOST_KEYS = 63, 250_000, 10, 1000, 100
# rows of backbone and of head, factors on depth and width, what channels are rounded to, channels of an image
MOST_ROWS, MOST_FACTOR, MOST_DIVISOR, MOST_INPUT = 500, 100.0, 1024, 1024


def check_extent(description: dict, file: str) -> None:
    """A description, of a YAML or of a checkpoint, is plain data of a size that can be looked through in no time."""
    if len(description) > MOST_KEYS:
        raise UserError(f"{file}: has {len(description):,} keys; a model YAML has at most {MOST_KEYS}")
    left: list[tuple[Any, int]] = [(description, 0)]
    count = 0
    while left:
        value, depth = left.pop()
        if depth > MOST_DEPTH:
            raise UserError(f"{file}: its values lie deeper than {MOST_DEPTH} levels within one another")
        if isinstance(value, dict | list | tuple):
            parts = [*value, *value.values()] if isinstance(value, dict) else value
            count += len(parts)
            if count > MOST_VALUES:
                raise UserError(f"{file}: has more than {MOST_VALUES:,} values")
            left += [(part, depth + 1) for part in parts]
        elif isinstance(value, str):
            if len(value) > MOST_TEXT or CONTROLS.search(value):
                raise UserError(
                    f"{file}: holds the text `{shown(value)}`; a text has at most {MOST_TEXT:,} characters, none of which "
                    "controls a terminal"
                )
        elif value is not None and not isinstance(value, bool | int | float):
            raise UserError(
                f"{file}: holds a {type(value).__name__}; a model YAML has texts, numbers, lists and mappings"
            )
        elif isinstance(value, int) and value.bit_length() > MOST_BITS:
            raise UserError(
                f"{file}: holds a whole number of {value.bit_length()} bits; none has more than {MOST_BITS}"
            )


def check_description(description: dict, file: str) -> None:
    """The keys every model needs, and values of the right kind."""
    required = required_keys(description)
    for key in required:
        if key not in description:
            written = close_names(key, [k for k in description if isinstance(k, str) and k not in KEYS])
            hint = f"is `{written[0]}` meant?" if written else f"a model YAML has {', '.join(required)}"
            raise UserError(f"{file}: `{key}` is missing; {hint}")
    nc = description["nc"]
    if not is_count(nc, MOST_CLASSES):
        raise UserError(
            f"{file}: nc is {shown(repr(nc))}; it is the number of classes, a whole number from 1 to {MOST_CLASSES:,}"
        )
    for key in ("depth_multiple", "width_multiple"):
        if not is_size(value := description.get(key, 1.0), MOST_FACTOR):
            raise UserError(
                f"{file}: {key} is {shown(repr(value))}; it is a number above 0, at most {MOST_FACTOR:g}, such as 0.5"
            )
    for key, most in (("channel_multiple", MOST_DIVISOR), ("ch", MOST_INPUT)):
        if not is_count(value := description.get(key, 1), most):
            raise UserError(f"{file}: {key} is {shown(repr(value))}; it is a whole number from 1 to {most}")
    if not isinstance(value := description.get("stock_widths", True), bool):
        raise UserError(
            f"{file}: stock_widths is {shown(repr(value))}; false scales every row by width_multiple, true all but those of "
            "anchors × (classes + 5) channels, as YOLOv5 does"
        )
    for key in ("backbone", "head"):
        if isinstance(description[key], list) and len(description[key]) > MOST_ROWS:
            raise UserError(f"{file}: {key} has {len(description[key]):,} rows; {MOST_ROWS} is the most")
    if "anchors" in description and (problem := anchor_problem(description["anchors"])):
        raise UserError(f"{file}: {problem}")


def required_keys(description: dict) -> list[str]:
    """The keys a model needs: `anchors` among them, unless it names a head that has none."""
    rows = description.get("head")
    named = [row[2] for row in rows if isinstance(row, list) and len(row) in (4, 5)] if isinstance(rows, list) else []
    heads = [HEADS[name] for name in named if isinstance(name, str) and name in HEADS]
    anchored = all(head.anchored for head in heads)
    return ["nc", "anchors", "backbone", "head"] if anchored else ["nc", "backbone", "head"]


def check_head(rows: list[Row], file: str) -> None:
    """A model has one head, such as Detect, and it is the last row."""
    found = [row for row in rows if row.block in HEADS]
    if not found and rows and (words := _foreign_head(rows[-1].block)):
        raise rows[-1].error(f"{shown(rows[-1].block)} is a head of another project and not built in: {words}")
    if not found:
        name, kind = next(iter(HEADS.items()))
        raise UserError(
            f"{file}: the last row of the head must be {' or '.join(HEADS)}, and there is none; "
            f"end the head with a row such as [[17, 20, 23], 1, {name}, {kind.arguments}]"
        )
    if len(found) > 1:
        raise found[0].error(
            f"{found[1].block} stands again in layer {found[1].index}; a model has one, as its last row"
        )
    if found[0] is not rows[-1]:
        following = rows[found[0].index + 1]
        raise found[0].error(
            f"the last row of the head must be {found[0].block}, but layer {following.index} {following} follows it; "
            "move that row up, or take it out"
        )


def _foreign_head(name: str) -> str:
    """What stands in for a head that is not ours; empty where the name is that of no head."""
    known = {key.lower(): words for key, words in FOREIGN_HEADS.items()}
    if name.lower() in known:
        return known[name.lower()]
    return "Detect takes its layers, as [nc, anchors]" if "detect" in name.lower() and name not in HEADS else ""


def check_inputs(row: Row, sources: list[int | str], inputs: list[tuple], rows: list[Row]) -> None:
    """The maps a row is fed: a list where it joins several, and of one size where it joins them along channels."""
    if row.block in ("Concat", *HEADS) and not isinstance(row.source, list):
        raise row.error(
            f"`from` of {row.block} is a list of layers, such as [{row.source}, 6], and here it is {row.source}"
        )
    sizes = [shape[1:] for shape in inputs]
    if row.block != "Concat" or len(set(sizes)) <= 1 or row.args not in ([], [1]):
        return
    names = [s if is_level(s) else f"layer {s}" for s in sources]
    said = ", ".join(f"{name} is {h}×{w}" for name, (h, w) in zip(names, sizes, strict=True))
    height, width = sizes[0]
    fitting = [str(r.index) for r in rows if r.shape and r.shape[1:] == sizes[0] and r.index not in sources]
    hint = f" Layers at {height}×{width}: {', '.join(fitting)}." if fitting else ""
    cause = uneven_layer(rows) or " Where a row was inserted or removed above, every layer number behind it shifts"
    raise row.error(f"inputs differ in size at 640: {said}.{hint}{cause}")


def uneven_layer(rows: list[Row]) -> str:
    """A sentence on the first layer whose stride is no whole number, or nothing: most often it lacks padding."""
    for row in rows:
        if row.shape and row.stride > 1 and not row.stride.is_integer():
            _, height, width = row.shape
            return (
                f" Layer {row.index} {row} gives {height}×{width}, which does not divide 640: "
                "give its convolution a padding of half the kernel"
            )
    return ""


def check_levels(row: Row, sources: list[int], inputs: list[tuple], strides: list[float], rows: list[Row]) -> None:
    """The levels of a head have one whole stride each: boxes are placed by it."""
    for source, (_, height, width), stride in zip(sources, inputs, strides, strict=True):
        if height != width:
            raise row.error(
                f"layer {source} is {height}×{width} at 640; {row.block} takes maps with one stride for both sides"
            )
        if not stride.is_integer():
            raise row.error(
                f"layer {source} is {height}×{width} at 640, so its stride {stride:.4g} is no whole number."
                f"{uneven_layer(rows)}"
            )
