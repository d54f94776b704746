"""The anchors of a head: as a model YAML writes them, in the order of the strides, and whether they suit these."""

import math

import torch

from models.description.rows import Row, is_count, is_size, listed
from utils.errors import shown

# An anchor's side √(w·h) in cells of its output, averaged over the output: the stock models have 1.7 (yolov3-tiny) to
# 9.9 (the P6 models). Below, most objects of the output lie within a single cell or two and share it with others.
ANCHOR_CELLS = (1.5, 12.0)
# anchors per output, and their sides in pixels
MOST_ANCHORS, LARGEST_SIDE = 100, 1e5


def anchor_problem(anchors: object) -> str:
    """What is wrong with ``anchors``, and how to write them; empty if nothing is."""
    example = (
        "write one list of width,height pairs per output, such as [10, 13, 16, 30, 33, 23], or one number (a count)"
    )
    # a count: anchors per output, whose sizes are found from the data
    if is_count(anchors, MOST_ANCHORS):
        return ""
    if not isinstance(anchors, list) or not any(isinstance(a, list | str) for a in anchors):
        most = f"; {MOST_ANCHORS} per output are the most" if is_count(anchors) else ""
        return f"anchors is {shown(repr(anchors))}; {example}{most}"
    for output, sizes in enumerate(anchors, 1):
        found = shown(repr(sizes))
        if isinstance(sizes, str):
            return f"anchors of output {output} are {found}, a text; put it in brackets, [{shown(sizes)}]"
        if not isinstance(sizes, list) or not sizes or not all(is_size(v, LARGEST_SIDE) for v in sizes):
            return f"anchors of output {output} are {found}; {example}"
        if len(sizes) > 2 * MOST_ANCHORS:
            return f"anchors of output {output} are {len(sizes) // 2} pairs; {MOST_ANCHORS} are the most"
        if len(sizes) % 2:
            return (
                f"anchors of output {output} are {found}, which is {len(sizes)} numbers; they are width,height pairs, "
                "so their count is even: one is missing or too many"
            )
        if len(sizes) != len(anchors[0]):
            return (
                f"anchors of output {output} are {len(sizes) // 2} pairs, those of output 1 are {len(anchors[0]) // 2}; "
                "every output needs the same number of anchors"
            )
    return ""


def read_anchors(row: Row, anchors: object, sources: list[int | str]) -> list[list[float]]:
    """The anchors of a row, width and height in pixels one after the other, a list for each of the layers ``sources``.

    Raises UserError where they are none, or more or fewer than the layers.
    """
    if problem := anchor_problem(anchors):
        raise row.error(problem)
    # a count: sizes are found from the data
    if isinstance(anchors, int):
        anchors = [[float(v + 1) for v in range(anchors * 2)] for _ in sources]
    if len(anchors) != len(sources):
        raise row.error(
            f"{len(sources)} inputs (layers {listed(sources)}), but anchors for {len(anchors)} outputs; every input needs "
            f"one list of anchors: {_remedy(len(sources) - len(anchors))}"
        )
    return anchors


def _remedy(missing: int) -> str:
    lists = f"{abs(missing)} list{'s' if abs(missing) > 1 else ''}"
    return (
        f"add {lists} to `anchors`" if missing > 0 else f"take {lists} out of `anchors`, or name more layers in `from`"
    )


def anchors_in_stride_order(anchors: torch.Tensor, strides: torch.Tensor) -> torch.Tensor:
    """Anchors [levels, na, 2] in pixels, turned around where their sizes fall while the strides rise (or the reverse)."""
    areas = anchors.prod(-1).mean(-1)
    rising = (areas[-1] - areas[0]) * (strides[-1] - strides[0])
    return anchors.flip(0) if rising < 0 else anchors


def anchors_off(row: Row, anchors: list[list[float]], strides: list[float]) -> list[str]:
    """A sentence on anchors, lists as in a YAML, whose sizes do not suit the strides of their outputs; or none."""
    sides = [sum(math.sqrt(w * h) for w, h in zip(a[::2], a[1::2], strict=True)) / (len(a) // 2) for a in anchors]
    low, high = ANCHOR_CELLS
    found = []
    for output, (side, stride) in enumerate(zip(sides, strides, strict=True), 1):
        if not low <= side / stride <= high:
            found.append(
                f"the anchors of output {output} average {side:.0f} px, {side / stride:.1f} cells of its stride {stride:g}"
            )
    if not found:
        return []
    fitting = [
        [s * factor for s in strides]
        for factor in (0.5, 2, 0.25, 4)
        if all(low <= side / (s * factor) <= high for side, s in zip(sides, strides, strict=True))
    ]
    meant = f"; they would fit strides {listed(fitting[0])}, so check the strides of the backbone" if fitting else ""
    small = "small objects will be missed; " if sides[0] < low * strides[0] else ""
    return [
        f"{row.place}: {'; '.join(found)} (usual: 2 to 10){meant}. {small.capitalize()}choose layers for `from` whose "
        "stride fits, or anchors that do"
    ]
