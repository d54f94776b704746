"""What can be wrong with a model YAML beyond a single row's words: each mistake names the place and the remedy."""

from models.rows import Row, parse_arguments
from utils.errors import UserError


def check_description(description: dict, file: str) -> None:
    """The keys every model needs. Raises UserError."""
    for key in ("nc", "anchors", "backbone", "head"):
        if key not in description:
            raise UserError(f"{file}: `{key}` is missing")
    nc = description["nc"]
    if not isinstance(nc, int) or nc < 1:
        raise UserError(f"{file}: nc is {nc!r}; it is the number of classes, 1 or more")
    anchors = description["anchors"]
    if not (isinstance(anchors, int) and anchors > 0) and not (isinstance(anchors, list) and anchors):
        raise UserError(f"{file}: anchors is {anchors!r}; give a list of width,height pairs per output, or a count")


def check_concat(row: Row, sources: list[int], inputs: list[tuple], shapes: list[tuple | None]) -> None:
    """Maps to be joined along channels must be of one height and width; the error says which earlier layers would fit."""
    sizes = [shape[1:] for shape in inputs]
    if len(set(sizes)) <= 1 or row.args not in ([], [1]):
        return
    said = ", ".join(f"layer {s} is {h}×{w}" for s, (h, w) in zip(sources, sizes, strict=True))
    height, width = sizes[0]
    fitting = [str(i) for i, s in enumerate(shapes) if s is not None and s[1:] == sizes[0] and i not in sources]
    hint = f" Layers at {height}×{width}: {', '.join(fitting)}." if fitting else ""
    raise row.error(f"inputs differ in size at 640: {said}.{hint}")


def detect_arguments(row: Row, channels: list[int], nc: int, anchors: list | int) -> tuple[int, list[list[float]]]:
    """(nc, anchors) of the Detect row, its anchors checked against the levels it gets."""
    args, _ = parse_arguments(row, {"nc": nc, "anchors": anchors})
    if len(args) != 2:
        raise row.error("Detect takes [nc, anchors]")
    nc, anchors = args
    if isinstance(anchors, int):  # a count: sizes are found from the data
        anchors = [[float(v + 1) for v in range(anchors * 2)] for _ in channels]
    if not isinstance(anchors, list) or not all(isinstance(a, list) and len(a) % 2 == 0 and a for a in anchors):
        raise row.error(
            "anchors are lists of width,height pairs, one list per output, or one number (anchors per output)"
        )
    if len(anchors) != len(channels):
        raise row.error(
            f"{len(channels)} inputs, but anchors for {len(anchors)} outputs; give one anchor list per input"
        )
    if len({len(a) for a in anchors}) > 1:
        raise row.error("every output needs the same number of anchors")
    row.built_args = [nc, f"{len(anchors)}×{len(anchors[0]) // 2} anchors", channels]
    return nc, anchors
