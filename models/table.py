"""A model as a table: one line per layer."""

import torch

from models.description.rows import CHECK_SIZE
from models.flops import layer_shapes


def layer_table(model: torch.nn.Module, size: int = CHECK_SIZE) -> str:
    """Of each layer: index, from, number, parameters, module, arguments, output shape at ``size`` pixels, stride."""
    output = f"output at {size}"
    lines = [f"{'':>3}{'from':>18}{'n':>3}{'params':>10}  {'module':<32}{'arguments':<32}{output:<16}stride"]
    built = [row.shape for row in model.rows]
    shapes = built if size == CHECK_SIZE else layer_shapes(model, size, model.yaml["ch"])
    for row, shape in zip(model.rows, shapes, strict=True):
        stride = f"{row.stride:g}" if shape else ",".join(f"{s:g}" for s in model.stride.tolist())
        shape = "×".join(map(str, shape)) if shape else "boxes"
        source = str(row.source).replace("'", "")
        arguments = str(row.built_args) if row.built_args else "[]"
        lines.append(
            f"{row.index:>3}{source:>18}{row.built_number:>3}{row.parameters:>10}  {row.block:<32}"
            f"{arguments:<31} {shape:<16}{stride}"
        )
    return "\n".join(lines)
