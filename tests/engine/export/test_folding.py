"""What an ONNX file holds as constants rather than to compute it for every image."""

import numpy as np
import pytest
import torch
from torch import nn

from engine.export import folding
from engine.export.folding import fold

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
ReferenceEvaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator


class Sizes(nn.Module):
    """Much of what it computes follows from the size of its input."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.BatchNorm2d(4).eval() for _ in range(2))
        self.register_buffer("one", torch.ones(1, 1))

    def forward(self, x):
        left, right = x.chunk(2, 1)
        height, width = x.shape[2:]
        ones = self.one.expand(height, width)
        line = torch.zeros_like(x[:, :4, :1])
        return torch.cat((self.a(left) + ones.cumsum(0), self.b(right), line), 2)


def written(module: nn.Module, x: torch.Tensor, file, **settings):
    torch.onnx.export(module.eval(), (x,), str(file), opset_version=17, input_names=["x"], dynamo=False, **settings)
    return onnx.load(str(file))


def run(model, x: torch.Tensor) -> np.ndarray:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x.numpy()})[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamic", [False, True])
def test_constants_and_sizes_are_computed_once(dynamic, tmp_path):
    x = torch.rand(2, 8, 5, 6)
    open_sides = {"dynamic_axes": {"x": {0: "batch", 2: "height", 3: "width"}}} if dynamic else {}
    model = written(Sizes(), x, tmp_path / "m.onnx", **open_sides)
    assert {"Shape", "Identity", "ConstantOfShape", "Expand"} <= {node.op_type for node in model.graph.node}
    if dynamic:
        x = torch.rand(1, 8, 7, 3)
    expected = run(model, x)
    fold(model)
    onnx.checker.check_model(model)
    left = {node.op_type for node in model.graph.node}
    assert "Identity" not in left
    assert dynamic == bool(left & {"Shape", "ConstantOfShape", "Expand", "CumSum"})
    np.testing.assert_array_equal(run(model, x), expected)
    taken = {name for node in model.graph.node for name in node.input}
    stored = [tensor.name for tensor in model.graph.initializer]
    stored += [node.output[0] for node in model.graph.node if node.op_type == "Constant"]
    assert set(stored) <= taken


def nodes_of(*nodes, output: str, **initial) -> "onnx.ModelProto":
    """A graph of ``nodes`` over an input x [2, 3], with constants ``initial``."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [value("x", onnx.TensorProto.FLOAT, [2, 3])],
        [value(output, onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.float32(array), name) for name, array in initial.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def test_what_a_graph_within_a_node_takes_stays():
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    inner = [
        onnx.helper.make_graph([node("Add", ["x", name], ["y"])], name, [], [value("y", onnx.TensorProto.FLOAT, None)])
        for name in ("same", "sum")
    ]
    model = nodes_of(
        node("Identity", ["a"], ["same"]),
        node("Add", ["a", "a"], ["sum"]),
        node("ReduceSum", ["x"], ["total"], keepdims=0),
        node("Cast", ["total"], ["positive"], to=onnx.TensorProto.BOOL),
        node("If", ["positive"], ["z"], then_branch=inner[0], else_branch=inner[1]),
        output="z",
        a=[1.0, 2.0, 3.0],
    )
    fold(model)
    assert [node.op_type for node in model.graph.node] == ["Identity", "Constant", "ReduceSum", "Cast", "If"]
    for x, added in ((np.ones((2, 3)), [1, 2, 3]), (np.zeros((2, 3)), [2, 4, 6])):
        (z,) = ReferenceEvaluator(model).run(None, {"x": np.float32(x)})
        np.testing.assert_array_equal(z, x + np.array(added))


def test_what_is_drawn_large_or_wrong_stays(monkeypatch):
    monkeypatch.setattr(folding, "MOST_ELEMENTS", 5)
    node = onnx.helper.make_node
    model = nodes_of(
        node("RandomUniform", [], ["drawn"], shape=[2, 3]),
        node("Add", ["a", "b"], ["large"]),
        node("Constant", [], ["place"], value=onnx.numpy_helper.from_array(np.array([7]))),
        node("Gather", ["b", "place"], ["wrong"]),
        node("Sum", ["x", "drawn", "large", "wrong"], ["y"]),
        output="y",
        a=np.ones((2, 1)),
        b=[1.0, 2.0, 3.0],
    )
    fold(model)
    assert [node.op_type for node in model.graph.node] == ["RandomUniform", "Add", "Constant", "Gather", "Sum"]
