"""Named backbones in a model's description: reading them, and putting one in the place of rows.

backbone: efficientnet_b0                      in a YAML, its head taking levels: [[-1, P4], 1, Concat, [1]]
model: {name: yolov5s, backbone: darknet53}    the nested form; without a head it is the named model's
with_backbone(description, …, "resnet50")      what --backbone does to a YAML of rows
"""

import math
import re
from typing import Any

from models.backbones.backbone import Backbone, create_backbone
from models.backbones.networks import Network, describe, resolve_name
from models.description.budget import TooLarge
from models.description.rows import Row, is_level, is_size, listed, read_rows
from models.flops import count_parameters
from utils.errors import UserError, shown

NORMALIZE = "mean: and std: of three numbers each, for images of 0 to 1"
POOLING = {"SPP", "SPPF", "SPPCSPC", "C3SPP"}  # what ends a backbone of rows, and belongs to the neck of a named one


def unnest(description: dict) -> tuple[dict, str]:
    """A description with the keys of `model: {name, backbone, …}` at its top level, and that name ("" where it is flat)."""
    nested = description.get("model")
    if not isinstance(nested, dict):
        return description, ""
    flat = {k: v for k, v in (description | nested).items() if k not in ("model", "name")}
    return flat, str(nested.get("name", ""))


def stock_name(name: str) -> str:
    """The YAML whose head a nested description without one means: custom_yolov5s → yolov5s.yaml."""
    found = re.search(r"yolov5[nsmlx]6?|yolov7", name)
    return f"{found.group() if found else 'yolov5s'}.yaml"


def names_network(description: dict) -> bool:
    """Whether a description's backbone is a network by name."""
    return isinstance(description.get("backbone"), str)


def with_backbone(description: dict, file: str, strides: list[float], name: str) -> dict:
    """The description with the network ``name`` in the place of its backbone.

    ``strides``: of the backbone's rows. The rows it replaces are those up to the network's coarsest stride, without the
    pyramid pooling at their end; later ones go before the head's. What these took from replaced rows they take from the
    network's level of the same stride. Raises UserError, naming the row, where it has no such level.
    """
    network = describe(name)
    kept = {k: v for k, v in description.items() if k not in ("normalize", "batchnorm")}
    if names_network(description):
        return kept | {"backbone": network.name}
    rows = read_rows(description, file)
    deepest = max(level.stride for level in network.levels.values())
    stays = [r.index for r in rows[: len(strides)] if strides[r.index] > deepest or r.block in POOLING]
    first = stays[0] if stays else len(strides)
    for row in rows[first:]:
        row.source = _renumber(row, first, strides, network)
    head = [[row.source, row.number, row.block, row.args] for row in rows[first:]]
    return kept | {"backbone": network.name, "head": head}


def _renumber(row: Row, first: int, strides: list[float], network: Network) -> int | str | list[int | str]:
    """The `from` of a row after the rows before ``first`` have become layer 0."""
    renumbered = []
    for source, index in zip(row.sources, row.source_indices(), strict=True):
        if index >= first:
            renumbered.append(source if source < 0 else index - first + 1)
            continue
        level = f"P{math.log2(strides[index]):g}"
        if level not in network.levels:
            raise row.error(f"takes layer {index}, at stride {strides[index]:g}: {network}, and no {level}")
        comes_before = source == -1 and level == network.default
        renumbered.append(-1 if comes_before else level)
    return renumbered if isinstance(row.source, list) else renumbered[0]


def build_backbone(description: dict, file: str, rows: list[Row]) -> Backbone | None:
    """The named backbone of a description with the levels that ``rows`` take; None where it is a list of rows.

    Raises UserError for a level that isn't there, and for input of other than three channels.
    """
    named = names_network(description)
    network = describe(description["backbone"]) if named else None
    wanted = set()
    for row in rows:
        if not named:
            if levels := [source for source in row.sources if is_level(source)]:
                raise row.error(f"{levels[0]} is a level of a backbone by name, and this one is a list of rows")
            continue
        for source in row.source_indices():
            if is_level(source) and source not in network.levels:
                raise row.error(f"{network}, and no {source}")
            if source == 0 or is_level(source):
                wanted.add(source or network.default)
    if not named:
        return None
    if description.get("ch", 3) != 3:
        raise UserError(f"{file}: ch is {description['ch']}; a backbone by name takes images of 3 channels")
    if not wanted:
        raise UserError(f"{file}: no row of the head takes anything from the backbone {network.name}")
    normalize = description.get("normalize", {})
    if not isinstance(normalize, dict) or not all(_is_triple(normalize.get(k, [1, 1, 1])) for k in ("mean", "std")):
        raise UserError(f"{file}: normalize is {shown(repr(normalize))}; it takes {NORMALIZE}")
    if not all(map(is_size, normalize.get("std", [1]))):
        raise UserError(f"{file}: normalize has std {normalize['std']}; images are divided by it, so each is above 0")
    try:
        return create_backbone(
            network.name, levels=sorted(wanted), mean=normalize.get("mean"), std=normalize.get("std")
        )
    except TooLarge as e:
        raise UserError(f"{file}: backbone {network.name}: {e}") from None


def trace_backbone(backbone: Backbone, row: Row, size: int) -> dict[str, tuple[int, int, int]]:
    """Fill in the row of a named backbone; returns the shape (c, h, w) of each of its levels for images of ``size``."""
    shapes = {k: (level.channels, size // level.stride, size // level.stride) for k, level in backbone.levels.items()}
    row.built_args = [f"{name} {channels}" for name, channels in backbone.channels.items()]
    row.shape, row.stride = shapes[backbone.default], float(backbone.strides[backbone.default])
    row.parameters = count_parameters(backbone)[0]
    return shapes


def is_network(name: str, blocks: list[str]) -> bool:
    """Whether a row's block is a network by name: one of torchvision or timm, of no block's name."""
    if name in blocks or name.startswith(("nn.", "torch.")):
        return False
    try:
        return bool(resolve_name(name))
    except UserError:
        return False


def network_of_row(row: Row, blocks: list[str]) -> Backbone | None:
    """The network that a first row names in the place of a block, with all of its levels; None where it names none."""
    if not is_network(row.block, blocks):
        return None
    if row.args and row.args != [False]:
        row.notes.append(
            f"{row.block} starts untrained, whatever its arguments say; --backbone-weights imagenet fetches weights"
        )
    try:
        return create_backbone(row.block, levels=list(describe(row.block).levels))
    except TooLarge as e:
        raise row.error(str(e)) from None


# layers that write-ups count for a row which is a network, whatever it gives: the maps are the last of them
COUNTED = 5


def recount(row: Row, network: Row) -> None:
    """Turn the `from` of a row behind a network of several maps, which counts each as a layer, into ours: levels for the maps,
    and numbers of the layers that there are."""
    at = row.index + COUNTED - 1

    def ours(place: int, source: Any) -> Any:
        if place in row.named or not isinstance(source, int) or isinstance(source, bool) or source == -1:
            return source
        layer = source if source >= 0 else at + source
        if layer >= COUNTED:
            return source if source < 0 else layer - COUNTED + 1
        if f"P{layer + 1}" not in network.maps:
            counted = [int(name[1:]) - 1 for name in network.maps]
            raise row.error(
                f"takes layer {layer}, and {network.block} gives maps that count as layers {listed(counted)}"
            )
        return f"P{layer + 1}"

    row.source = [ours(i, s) for i, s in enumerate(row.source)] if isinstance(row.source, list) else ours(0, row.source)


def told_maps(network: Row) -> str:
    """How the layers of a YAML whose first row is a network of several maps are numbered, there and here."""
    counted = [int(name[1:]) - 1 for name in network.maps]
    return (
        f"{network.block} gives {len(counted)} maps, which this YAML counts as layers {listed(counted)}; here they are "
        f"{listed(list(network.maps))} of layer 0, and layers behind have numbers {COUNTED - 1} less"
    )


def _is_triple(values) -> bool:
    return (
        isinstance(values, list)
        and len(values) == 3
        and all(isinstance(v, int | float) and abs(v) < 1e6 for v in values)
    )
