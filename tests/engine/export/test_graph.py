"""What is traced for an export knows no device: traced on a CPU, it runs on a GPU, too."""

import pytest
import torch

from engine.export.settings import Settings, tracing
from models.heads.table import HEADS
from models.yolo import BLOCKS, DetectionModel
from tests.helpers.descriptions import small
from tests.helpers.models import WIDTH, block


def devices(module: torch.nn.Module, inputs) -> list[str]:
    """The lines of a traced graph that name a device as a constant."""
    with tracing():
        graph = torch.jit.trace(module.eval(), (inputs,), check_trace=False).inlined_graph
    return [line for line in str(graph).splitlines() if "Device = prim::Constant" in line]


def test_a_device_is_found():
    class Counting(torch.nn.Module):
        def forward(self, x):
            return x + torch.arange(x.shape[1], device=x.device)

    assert len(devices(Counting(), torch.rand(2, 3))) == 1


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize(
    "flags", [{}, {"nms": True}, {"nms": True, "multi_label": True}, {"maps": True}, {"half": True}], ids=str
)
def test_heads(name, flags):
    description = small()
    *rows, (source, number, _, arguments) = description["head"]
    if not HEADS[name].anchored:
        del description["anchors"]
        arguments = ["nc"]
    model = DetectionModel(description | {"head": [*rows, [source, number, name, arguments]]}).eval()
    settings = Settings(imgsz=(64, 96), batch=2, **flags)
    graph, images = settings.graph(model), settings.images(model)
    assert devices(graph, images) == []
    graph.fix_size(images)
    assert devices(graph, images) == []


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(name):
    x = torch.rand(1, WIDTH, 16, 16)
    assert devices(block(name), [x, x] if name == "Concat" else x) == []
