"""What an ONNX graph computes of constants, and of shapes that are known, is computed once: when the file is written.

fold(model)          in place, for an onnx.ModelProto
    known_shapes     those that follow from the shape of the input
    evaluate         a node, by ONNX's own reference implementation

PyTorch's exporter leaves such nodes where a size decides, as in torch.chunk: Shape, Gather, Div … for every image. Most runtimes
fold them when they load a file; OpenCV before 4.7 reads no file in which the ends of a slice or the bias of a convolution come
from a node.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from utils.extras import load_extra

# what sizes, grids and masks are reckoned with
FOLDED = frozenset(
    """Abs Add And Cast Ceil Concat Constant ConstantOfShape CumSum Div Equal Expand EyeLike Floor Gather Greater Less Max Min Mod
    Mul Neg Not Or Pow Range ReduceMax ReduceMin ReduceProd ReduceSum Reshape ScatterND Shape Size Slice Split Sqrt Squeeze Sub
    Tile Transpose Unsqueeze Where""".split()
)
# of a constant: to store a larger one costs more than to compute it
MOST_ELEMENTS = 1 << 20
PURPOSE = "the export to ONNX"


def fold(model: Any) -> None:
    """Put constants in the place of all nodes that compute one, and leave out the constants that nothing takes."""
    while _fold_once(model):
        pass
    taken = set(_taken(model.graph))
    for node in [node for node in model.graph.node if node.op_type == "Constant" and node.output[0] not in taken]:
        model.graph.node.remove(node)
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in taken]:
        model.graph.initializer.remove(tensor)


def _fold_once(model: Any) -> bool:
    """Go through the nodes in their order. Whether any has become a constant, from which further shapes may follow."""
    helper, numpy_helper = load_extra("onnx.helper", PURPOSE), load_extra("onnx.numpy_helper", PURPOSE)
    shapes = known_shapes(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    elsewhere = {output.name for output in model.graph.output}
    elsewhere.update(name for node in model.graph.node for a in node.attribute for name in _taken(a.g))
    nodes, other_names, changed = [], {}, False
    for node in model.graph.node:
        node.input[:] = [other_names.get(name, name) for name in node.input]
        # equal weights are stored once, and handed on to all but the first that take them
        if node.op_type == "Identity" and node.input[0] in constants and node.output[0] not in elsewhere:
            other_names[node.output[0]] = node.input[0]
            continue
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
            nodes.append(node)
            continue
        values = evaluate(node, constants, shapes, model.opset_import)
        if values is None:
            nodes.append(node)
            continue
        changed = True
        for name, value in zip(node.output, values, strict=True):
            constants[name] = numpy_helper.from_array(np.asarray(value))
            nodes.append(helper.make_node("Constant", [], [name], name=f"{name} folded", value=constants[name]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return changed


def known_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """The shape of every value whose sides are all known, by its name."""
    shapes = {}
    graph = load_extra("onnx.shape_inference", PURPOSE).infer_shapes(model, data_prop=True).graph
    for value in (*graph.input, *graph.value_info):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(side.HasField("dim_value") for side in kind.shape.dim):
            shapes[value.name] = tuple(side.dim_value for side in kind.shape.dim)
    return shapes


def evaluate(node: Any, constants: dict[str, Any], shapes: dict[str, tuple[int, ...]], opsets: Any) -> list | None:
    """What a node gives, where that follows from ``constants`` and ``shapes`` alone; None for all others."""
    if node.op_type not in FOLDED or node.domain:
        return None
    helper, numpy_helper = load_extra("onnx.helper", PURPOSE), load_extra("onnx.numpy_helper", PURPOSE)
    given = {}
    for name in filter(None, node.input):
        if name in constants:
            given[name] = numpy_helper.to_array(constants[name])
        elif node.op_type in ("Shape", "Size") and name in shapes:
            # of this shape, without its memory
            given[name] = np.broadcast_to(np.float32(0), shapes[name])
        else:
            return None
    if node.op_type == "CumSum":
        # the exporter gives its axis one dimension, where ONNX wants none
        given[node.input[1]] = given[node.input[1]].reshape(())
    ends = [[helper.make_empty_tensor_value_info(name) for name in names] for names in (given, node.output)]
    alone = helper.make_model(helper.make_graph([node], "node", *ends), opset_imports=opsets)
    try:
        values = load_extra("onnx.reference", PURPOSE).ReferenceEvaluator(alone).run(None, given)
    # what it refuses stays a node: runtimes may be less strict, and else they will say why
    except Exception:
        return None
    return values if all(np.size(value) <= MOST_ELEMENTS for value in values) else None


def _taken(graph: Any) -> Iterator[str]:
    """The names of all values that nodes take or the graph gives, in the graphs within nodes, too."""
    yield from (output.name for output in graph.output)
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            yield from _taken(attribute.g)
