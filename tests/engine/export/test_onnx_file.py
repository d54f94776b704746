"""The structure of ONNX files, checked before a library sees it."""

import pytest

from engine.export.onnx_file import MOST_DEPTH, read_onnx
from utils.errors import UserError

onnx = pytest.importorskip("onnx")
helper = onnx.helper


@pytest.fixture
def model():
    """A graph with all that matters: an input, a weight, a node with a tensor as its attribute, properties."""
    weight = helper.make_tensor("weight", 1, [2, 3], bytes(24), raw=True)
    constant = helper.make_node("Constant", [], ["axes"], value=helper.make_tensor("v", 7, [2], [1, 2]))
    ends = [helper.make_tensor_value_info(name, 1, ["n", 3, 64, 96]) for name in ("images", "output0")]
    nodes = [constant, helper.make_node("Identity", ["images"], ["output0"])]
    made = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight]))
    helper.set_model_props(made, {"names": "{0: '猫'}", "stride": "32"})
    return made


def read(model, tmp_path):
    file = tmp_path / "a.onnx"
    file.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return read_onnx(file)


def test_properties_and_the_shape_of_the_input(model, tmp_path):
    found = read(model, tmp_path)
    assert found.properties == {"names": "{0: '猫'}", "stride": "32"}
    assert found.shape == (None, 3, 64, 96)
    del model.graph.input[:]
    assert read(model, tmp_path).shape == ()


def test_a_file_that_breaks_off_anywhere_is_sound_or_a_mistake(model, tmp_path):
    data = model.SerializeToString()
    failed = 0
    for length in range(len(data)):
        try:
            read(data[:length], tmp_path)
        except UserError as e:
            failed += "a.onnx: can't be read as ONNX: " in str(e)
    # between two records it may end
    assert len(data) - 12 < failed < len(data)


def damaged_by(change):
    def damage(model):
        change(model)
        return model.SerializeToString()

    return damage


def outside(model):
    entry = model.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "../../secret"


def outside_within_a_node(model):
    model.graph.node[0].attribute[0].t.data_location = 1


def nested(model):
    graph = helper.make_graph([], "in", [], [])
    for _ in range(MOST_DEPTH // 3 + 1):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["o"], then_branch=graph)], "in", [], [])
    model.graph.node.append(graph.node[0])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damaged_by(outside), "its weights are in another file"),
        (damaged_by(outside_within_a_node), "its weights are in another file"),
        (damaged_by(nested), f"nested more than {MOST_DEPTH} deep"),
        (
            damaged_by(lambda model: model.graph.initializer[0].dims.append(2)),
            r"a tensor in it is \[2, 3, 2\] and holds 24",
        ),
        (damaged_by(lambda model: model.graph.node[0].attribute[0].t.dims.append(2**62)), "a tensor in it is"),
        (damaged_by(lambda model: model.graph.initializer[0].dims.append(-1)), "a tensor in it is"),
        (damaged_by(lambda model: model.ClearField("graph")), "it holds no graph"),
        (lambda model: b"", "it has 0 bytes"),
        (lambda model: bytes(100), "a record of no field"),
        (lambda model: b"\x3a\x7f", "a record goes beyond its end"),
        (lambda model: b"\xff" * 20, "a number of more than 64 bits"),
        (lambda model: b"\x38\x01", "a number where a message belongs"),
        (lambda model: b"\x0b", "a record of the unknown kind 3"),
        (lambda model: b"\x08\x01" * 1_100_000, "more than 1,000,000 records"),
    ],
)
def test_what_can_not_be_is_one_error(damage, words, model, tmp_path):
    with pytest.raises(UserError, match=f"a.onnx: can't be read as ONNX: .*{words}"):
        read(damage(model), tmp_path)
