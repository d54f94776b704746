"""What builds, and is probably not what was meant: told as warnings."""

import math

from models.description.check import KEYS, listed
from models.description.rows import Row, is_level, nearest, parse_arguments

# An anchor's side √(w·h) in cells of its output, averaged over the output: the stock models have 1.7 (yolov3-tiny) to
# 9.9 (the P6 models). Below, most objects of the output lie within a single cell or two and share it with others.
ANCHOR_CELLS = (1.5, 12.0)


def find_warnings(description: dict, file: str, rows: list[Row], strides: list[float]) -> list[str]:
    """What builds, and is probably not what was meant: unknown keys, layers nothing uses, skips from the middle of a stage,
    outputs out of order, anchors that do not fit the strides."""
    detect = rows[-1]
    unknown = [key for key in description if key not in KEYS]
    found = [f"{file}: the key `{key}` is not used{nearest(str(key), list(KEYS))}" for key in unknown]
    found += [*_unused_layers(rows), *_unfinished_stages(rows)]
    _, anchors = parse_arguments(detect, description)[0]
    if strides != sorted(strides):
        found.append(
            f"{detect.place}: the strides of its outputs are {listed(strides)}, not rising; name the layers in `from` from "
            "fine to coarse, in the order of `anchors`: the loss weighs the outputs in that order"
        )
    elif not isinstance(anchors, int):
        found += _anchors_off(detect, anchors, strides)
    return found


def _unused_layers(rows: list[Row]) -> list[str]:
    used = {0 if is_level(source) else source for row in rows for source in row.source_indices()}
    unused = [row for row in rows[:-1] if row.index not in used]
    outputs = listed(rows[-1].source_indices())
    return [
        f"{row.place}: nothing uses this layer: the next row does not start from it, no later `from` names it, and Detect "
        f"takes layers {outputs}. Name it where it is meant to go, or take the row out"
        for row in unused
    ]


def _unfinished_stages(rows: list[Row]) -> list[str]:
    """Skips to a layer that is not the last of its stage, as all are when a row was inserted and the numbers were not."""
    early = []  # (the row that takes, place in its `from`, the end of the stage)
    for row in rows:
        if row.block not in ("Concat", "Detect"):
            continue
        for i, (written, source) in enumerate(zip(row.source, row.source_indices(), strict=True)):
            if is_level(source):
                continue
            end = _stage_end(rows, source, row)
            within = row.block == "Concat" and end.index == row.index - 1  # a shortcut inside a stage
            if isinstance(written, int) and written >= 0 and end.index != source and not within:
                early.append((row, i, end))
    if all(rows[end.index + 1].block == "nn.Upsample" for _, _, end in early):
        return []  # from before the convolutions that lead up to finer levels: so does YOLOv7, on purpose
    found = []
    for row in {row.index: row for row, _, _ in early}.values():
        better, said = list(row.source), []
        for _, i, end in [skip for skip in early if skip[0] is row]:
            taken = rows[row.source[i]]
            said.append(
                f"layer {taken.index} ({taken.block}), while its stage ends with layer {end.index} ({end.block})"
            )
            better[i] = end.index
        found.append(f"{row.place}: takes {'; '.join(said)}. Was a row inserted above? Then `from` is {better} here")
    return found


def _stage_end(rows: list[Row], start: int, asking: Row) -> Row:
    """The last of the rows that follow layer ``start`` one after another at its size; where the way forks, the fork."""
    end = rows[start]
    for row in rows[start + 1 :]:
        takers = [r for r in rows if end.index in r.source_indices() and r is not asking]
        if not row.shape or row.shape[1:] != end.shape[1:] or row.source_indices() != [end.index] or takers != [row]:
            break
        end = row
    return end


def _anchors_off(detect: Row, anchors: list[list[float]], strides: list[float]) -> list[str]:
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
        f"{detect.place}: {'; '.join(found)} (usual: 2 to 10){meant}. {small.capitalize()}choose layers for `from` whose "
        "stride fits, or anchors that do"
    ]
