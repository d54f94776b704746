"""Damage of the graphs within ONNX files: tensors, nodes, wires, ends; nodes that ask for too much."""

import contextlib
import random
import struct
from pathlib import Path

from tests.fuzz.parts.damage import FLOATS, NUMBERS, TEXTS, nonsense


def damage_graph(rng: random.Random, file: Path) -> None:
    """Write an ONNX file anew with a few changes."""
    import onnx

    model = onnx.load(str(file))
    for _ in range(rng.choice((1, 1, 2, 4))):
        # what protobuf itself does not take stays as it was
        with contextlib.suppress(ValueError, TypeError, IndexError, OverflowError):
            rng.choice(CHANGES)(rng, model)
    nested = _nested(rng.choice((1, 5, 40, 3000, 100_000))) if rng.random() < 0.05 else b""
    with contextlib.suppress(ValueError):
        file.write_bytes(model.SerializeToString() + nested)


def _any_tensor(rng: random.Random, model):
    tensors = [*model.graph.initializer, *(a.t for node in model.graph.node for a in node.attribute if a.HasField("t"))]
    return rng.choice(tensors)


def _change_dims(rng, model):
    tensor = _any_tensor(rng, model)
    tensor.dims.append(rng.choice(NUMBERS)) if rng.random() < 0.3 else tensor.dims.__setitem__(0, rng.choice(NUMBERS))


def _change_values(rng, model):
    """The same number of bytes: shapes, axes and pads that lead anywhere, weights that are no numbers."""
    tensor = _any_tensor(rng, model)
    if tensor.data_type == 7:
        count = len(tensor.raw_data) // 8
        tensor.raw_data = b"".join(rng.choice(NUMBERS).to_bytes(8, "little", signed=True) for _ in range(count))
    else:
        count = len(tensor.raw_data) // 4
        tensor.raw_data = struct.pack(f"<{count}f", *([rng.choice(FLOATS)] * count))


def _change_type(rng, model):
    _any_tensor(rng, model).data_type = rng.randrange(25)


def _change_attribute(rng, model):
    node = rng.choice([node for node in model.graph.node if node.attribute])
    attribute = rng.choice(node.attribute)
    attribute.i = rng.choice(NUMBERS)
    attribute.f = rng.choice(FLOATS)
    attribute.s = rng.choice(TEXTS).encode()
    if attribute.ints and rng.random() < 0.7:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(NUMBERS)
    elif attribute.ints:
        del attribute.ints[0]
    if rng.random() < 0.2:
        attribute.type = rng.randrange(14)


def _change_operator(rng, model):
    node = rng.choice(model.graph.node)
    others = [other.op_type for other in model.graph.node]
    node.op_type = rng.choice(
        (*others, "Nothing", "", "Tile", "Expand", "Resize", "Pad", "Gather", "Split", "LSTM", "QLinearConv", "Einsum")
    )
    if rng.random() < 0.2:
        node.domain = rng.choice(("com.microsoft", "ai.onnx.ml", "nowhere", ""))


def _change_wires(rng, model):
    """A node takes or gives what another does, nothing, or itself."""
    node, other = rng.choice(model.graph.node), rng.choice(model.graph.node)
    names = [*node.output, *other.output, *other.input, "", "nothing", *(i.name for i in model.graph.input)]
    wires = node.input if rng.random() < 0.7 else node.output
    if rng.random() < 0.2:
        del wires[:]
    elif wires:
        wires[rng.randrange(len(wires))] = rng.choice(names)


def _change_order(rng, model):
    nodes = list(model.graph.node)
    if rng.random() < 0.5:
        rng.shuffle(nodes)
    else:
        del nodes[rng.randrange(len(nodes))]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _change_ends(rng, model):
    """Other shapes and names of the input and the output, or none."""
    ends = rng.choice((model.graph.input, model.graph.output))
    how = rng.randrange(4)
    if how == 0:
        del ends[:]
    elif how == 1:
        ends[0].name = rng.choice(TEXTS)
    elif how == 2:
        ends[0].type.tensor_type.elem_type = rng.randrange(20)
    else:
        rng.choice(ends[0].type.tensor_type.shape.dim).dim_value = rng.choice(NUMBERS)


def _grow(rng, model):
    """A node ahead of the output that asks for more memory or time than there is."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    last = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["before" if name == last else name for name in node.output]
    size = rng.choice((2**20, 2**28, 2**31, 2**36, 2**40, 2**62))
    how = rng.randrange(3)
    if how == 0:
        shape = numpy_helper.from_array(np.array([size], np.int64), "huge")
        model.graph.initializer.append(shape)
        model.graph.node.append(helper.make_node("ConstantOfShape", ["huge"], ["much"]))
        model.graph.node.append(helper.make_node("ReduceSum", ["much"], ["one"]))
        model.graph.node.append(helper.make_node("Add", ["before", "one"], [last]))
    elif how == 1:
        repeats = numpy_helper.from_array(np.array([1, size, 1], np.int64), "huge")
        model.graph.initializer.append(repeats)
        model.graph.node.append(helper.make_node("Tile", ["before", "huge"], [last]))
    else:
        model.graph.initializer.append(numpy_helper.from_array(np.array(size, np.int64), "trips"))
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "go"))
        body = helper.make_graph(
            [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Relu", ["x"], ["x2"])],
            "body",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("c", TensorProto.BOOL, []),
                helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
            ],
            [
                helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
                helper.make_tensor_value_info("x2", TensorProto.FLOAT, None),
            ],
        )
        model.graph.node.append(helper.make_node("Loop", ["trips", "go", "before"], [last], body=body))


def _nested(depth: int) -> bytes:
    """Graphs within graphs, as a record of the file: a graph (7) of a node (1) with an attribute (5) that is a graph (6)."""
    data = b""
    for field in [1, 5, 6] * depth + [7]:
        size = len(data)
        length = [size & 127 | 128, size >> 7 & 127 | 128, size >> 14]
        data = bytes([field << 3 | 2, *length]) + data
    return data


def _point_elsewhere(rng, model):
    """The values of a tensor are in another file."""
    tensor = _any_tensor(rng, model)
    tensor.data_location = 1
    for key, value in (
        ("location", rng.choice(("/etc/passwd", "../../../etc/passwd", "plain.onnx", "/dev/zero", "a\0b", ""))),
        ("offset", str(rng.choice(NUMBERS))),
        ("length", str(rng.choice(NUMBERS))),
    ):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    if rng.random() < 0.5:
        tensor.ClearField("raw_data")


def _change_properties(rng, model):
    how = rng.randrange(4)
    if how == 0:
        del model.metadata_props[rng.randrange(len(model.metadata_props)) :]
    else:
        for entry in model.metadata_props:
            if entry.key == "names" or rng.random() < 0.3:
                entry.value = nonsense(rng)
                break


def _change_versions(rng, model):
    model.ir_version = rng.choice(NUMBERS)
    model.opset_import[0].version = rng.choice(NUMBERS)
    if rng.random() < 0.3:
        model.opset_import[0].domain = rng.choice(("nowhere", "com.microsoft"))


CHANGES = (
    *(
        _change_dims,
        _change_values,
        _change_type,
        _change_attribute,
        _change_attribute,
        _change_operator,
        _change_wires,
    ),
    *(
        _change_order,
        _change_ends,
        _grow,
        _point_elsewhere,
        _change_properties,
        _change_properties,
        _change_versions,
    ),
)
