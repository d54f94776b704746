"""What is wrong with a model YAML: mistakes that stop it, each a UserError.

    check_description   before anything is built: the keys and their values
    check_inputs        each row before it is built: the maps it gets
    detect_arguments    the Detect row: classes and anchors

Every message names the file, the row, what was found and the likely remedy.
"""

import math

from models.description.rows import Row, close_names, is_level, parse_arguments
from utils.errors import UserError

REQUIRED = ("nc", "anchors", "backbone", "head")
KEYS = (
    *REQUIRED,
    "depth_multiple",
    "width_multiple",
    "channel_multiple",
    "batchnorm",
    "normalize",
    "activation",
    "ch",
    "size",
    "names",
    "yaml_file",
)


def check_description(description: dict, file: str) -> None:
    """The keys every model needs, and values of the right kind."""
    for key in REQUIRED:
        if key not in description:
            written = close_names(key, [k for k in description if isinstance(k, str) and k not in KEYS])
            hint = f"is `{written[0]}` meant?" if written else f"a model YAML has {', '.join(REQUIRED)}"
            raise UserError(f"{file}: `{key}` is missing; {hint}")
    nc = description["nc"]
    if not _is_count(nc):
        raise UserError(f"{file}: nc is {nc!r}; it is the number of classes, a whole number of 1 or more")
    for key in ("depth_multiple", "width_multiple"):
        if not _is_size(value := description.get(key, 1.0)):
            raise UserError(f"{file}: {key} is {value!r}; it is a number above 0, such as 0.5")
    for key in ("channel_multiple", "ch"):
        if not _is_count(description.get(key, 1)):
            raise UserError(f"{file}: {key} is {description[key]!r}; it is a whole number of 1 or more")
    if problem := anchor_problem(description["anchors"]):
        raise UserError(f"{file}: {problem}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_size(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def anchor_problem(anchors: object) -> str:
    """What is wrong with ``anchors``, and how to write them; empty if nothing is."""
    example = (
        "write one list of width,height pairs per output, such as [10, 13, 16, 30, 33, 23], or one number (a count)"
    )
    if _is_count(anchors):  # anchors per output; their sizes are found from the data
        return ""
    if not isinstance(anchors, list) or not any(isinstance(a, list | str) for a in anchors):
        return f"anchors is {anchors!r}; {example}"
    for output, sizes in enumerate(anchors, 1):
        if isinstance(sizes, str):
            return f"anchors of output {output} are {sizes!r}, a text; put it in brackets, [{sizes}]"
        if not isinstance(sizes, list) or not sizes or not all(_is_size(v) for v in sizes):
            return f"anchors of output {output} are {sizes!r}; {example}"
        if len(sizes) % 2:
            return (
                f"anchors of output {output} are {sizes!r}, which is {len(sizes)} numbers; they are width,height pairs, "
                "so their count is even: one is missing or too many"
            )
        if len(sizes) != len(anchors[0]):
            return (
                f"anchors of output {output} are {len(sizes) // 2} pairs, those of output 1 are {len(anchors[0]) // 2}; "
                "every output needs the same number of anchors"
            )
    return ""


def check_detect(rows: list[Row], file: str) -> None:
    """A model has one Detect, and it is the last row."""
    found = [row for row in rows if row.block == "Detect"]
    if not found:
        raise UserError(
            f"{file}: the last row of the head must be Detect, and there is none; "
            "end the head with a row such as [[17, 20, 23], 1, Detect, [nc, anchors]]"
        )
    if len(found) > 1:
        raise found[0].error(f"Detect stands again in layer {found[1].index}; a model has one, as its last row")
    if found[0] is not rows[-1]:
        following = rows[found[0].index + 1]
        raise found[0].error(
            f"the last row of the head must be Detect, but layer {following.index} {following} follows it; "
            "move that row up, or take it out"
        )


def check_inputs(row: Row, sources: list[int | str], inputs: list[tuple], rows: list[Row]) -> None:
    """The maps a row is fed: a list where it joins several, and of one size where it joins them along channels."""
    if row.block in ("Concat", "Detect") and not isinstance(row.source, list):
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
    """The levels of Detect have one whole stride each: boxes are placed by it."""
    for source, (_, height, width), stride in zip(sources, inputs, strides, strict=True):
        if height != width:
            raise row.error(
                f"layer {source} is {height}×{width} at 640; Detect takes maps with one stride for both sides"
            )
        if not stride.is_integer():
            raise row.error(
                f"layer {source} is {height}×{width} at 640, so its stride {stride:.4g} is no whole number."
                f"{uneven_layer(rows)}"
            )


def detect_arguments(
    row: Row, sources: list[int], channels: list[int], nc: int, anchors: list | int
) -> tuple[int, list[list[float]]]:
    """(nc, anchors) of the Detect row, its anchors checked against the levels it gets."""
    args, kwargs = parse_arguments(row, {"nc": nc, "anchors": anchors})
    if len(args) != 2 or kwargs:
        raise row.error("Detect takes [nc, anchors]")
    nc, anchors = args
    if not _is_count(nc):
        raise row.error(f"the first argument of Detect is {nc!r}; write [nc, anchors], the number of classes first")
    if problem := anchor_problem(anchors):
        raise row.error(problem)
    if isinstance(anchors, int):  # a count: sizes are found from the data
        anchors = [[float(v + 1) for v in range(anchors * 2)] for _ in channels]
    if len(anchors) != len(channels):
        raise row.error(
            f"{len(channels)} inputs (layers {listed(sources)}), but anchors for {len(anchors)} outputs; every input needs "
            f"one list of anchors: {_anchor_remedy(len(channels) - len(anchors))}"
        )
    row.built_args = [nc, f"{len(anchors)}×{len(anchors[0]) // 2} anchors", channels]
    return nc, anchors


def _anchor_remedy(missing: int) -> str:
    lists = f"{abs(missing)} list{'s' if abs(missing) > 1 else ''}"
    return (
        f"add {lists} to `anchors`" if missing > 0 else f"take {lists} out of `anchors`, or name more layers in `from`"
    )


def listed(numbers: list) -> str:
    words = [f"{n:g}" if isinstance(n, float) else str(n) for n in numbers]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
