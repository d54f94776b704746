"""What builds, and is probably not what was meant: told as warnings."""

from collections import defaultdict

from models.description.check import KEYS
from models.description.rows import Row, is_level, listed, nearest, scale_channels
from models.description.rules import Scaling
from models.heads.protocol import Head
from models.heads.table import HEADS
from utils.errors import shown


def find_warnings(description: dict, file: str, rows: list[Row], head: Head) -> list[str]:
    """What builds, and is probably not what was meant: unknown keys, layers nothing uses, skips from the middle of a stage,
    and what the head doubts of its own row."""
    unknown = [str(key) for key in description if key not in KEYS]
    found = [f"{file}: the key `{shown(key)}` is not used{nearest(key, list(KEYS))}" for key in unknown]
    return [
        *found,
        *_notes(file, rows),
        *_unused_layers(rows),
        *_unfinished_stages(rows),
        *head.doubts(rows[-1], description),
    ]


def _notes(file: str, rows: list[Row]) -> list[str]:
    """How rows were read, each thing once, with the layers it is about."""
    layers: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        for note in row.notes:
            layers[note].append(row.index)
    return [
        f"{file}, layer{'s' if len(where) > 1 else ''} {', '.join(map(str, where))}: {note}"
        for note, where in layers.items()
    ]


def unscaled_rows(rows: list[Row], description: dict) -> list[Row]:
    """The rows that have na·(nc+5) channels, which are not scaled unless the YAML says so, where that makes a difference."""
    scaling = Scaling.of(description)
    if scaling.outputs == scale_channels(scaling.outputs, scaling.width, scaling.divisor):
        return []
    return [row for row in rows if row.rule in ("channels", "repeats") and row.args[:1] == [scaling.outputs]]


def doubt_widths(kept: list[Row], description: dict, gflops: tuple[float, float] | None) -> str:
    """What is said of the rows that ``unscaled_rows`` has found; ``gflops`` of the model as it is, and scaled, if known."""
    scaling, nc = Scaling.of(description), description["nc"]
    layers = f"layer{'s' * (len(kept) > 1)} {listed([row.index for row in kept])}"
    scaled = scale_channels(scaling.outputs, scaling.width, scaling.divisor)
    costs = f", {gflops[0]:.1f} GFLOPs instead of {gflops[1]:.1f}" if gflops else ""
    return (
        f"{kept[0].place}: {scaling.outputs} channels are anchors × (classes + 5), {scaling.outputs // (nc + 5)} × ({nc} + 5), "
        f"and YOLOv5 does not scale such a row: {layers} with {scaling.outputs} channels instead of {scaled}{costs}. "
        "`stock_widths: false` in the YAML scales every row"
    )


def _unused_layers(rows: list[Row]) -> list[str]:
    used = {0 if is_level(source) else source for row in rows for source in row.source_indices()}
    unused = [row for row in rows[:-1] if row.index not in used]
    outputs = listed(rows[-1].source_indices())
    return [
        f"{row.place}: nothing uses this layer: the next row does not start from it, no later `from` names it, and "
        f"{rows[-1].block} takes layers {outputs}. Name it where it is meant to go, or take the row out"
        for row in unused
    ]


def _unfinished_stages(rows: list[Row]) -> list[str]:
    """Skips to a layer that is not the last of its stage, as all are when a row was inserted and the numbers were not."""
    early = []  # (the row that takes, place in its `from`, the end of the stage)
    # by layer, the rows that take it
    takers: dict[int | str, list[Row]] = defaultdict(list)
    for row in rows:
        for source in set(row.source_indices()):
            takers[source].append(row)
    for row in rows:
        if row.block not in ("Concat", *HEADS):
            continue
        for i, (written, source) in enumerate(zip(row.source, row.source_indices(), strict=True)):
            if is_level(source):
                continue
            end = _stage_end(rows, source, row, takers)
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


def _stage_end(rows: list[Row], start: int, asking: Row, takers: dict[int | str, list[Row]]) -> Row:
    """The last of the rows that follow layer ``start`` one after another at its size; where the way forks, the fork."""
    end = rows[start]
    for row in rows[start + 1 :]:
        others = [r for r in takers[end.index] if r is not asking]
        alone = len(others) == 1 and others[0] is row
        if not row.shape or row.shape[1:] != end.shape[1:] or row.source_indices() != [end.index] or not alone:
            break
        end = row
    return end
