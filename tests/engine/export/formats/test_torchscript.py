"""TorchScript: what programs written for YOLOv5's files unpack, and files of earlier releases."""

import json

import pytest
import torch

from engine.export.formats import torchscript
from engine.export.runtime import Runtime
from engine.export.settings import Settings, tracing
from tests.helpers.export import images, lively

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")


@pytest.fixture(scope="module")
def model():
    return lively("yolov5n.yaml")


@pytest.mark.parametrize("dynamic", [False, True])
def test_the_boxes_come_in_a_tuple_of_one(dynamic, model, tmp_path):
    file = torchscript.write(model, tmp_path / "m.torchscript", Settings(imgsz=(64, 96), dynamic=dynamic))
    pixels = images(1, 128, 64) if dynamic else images(1, 64, 96)
    with torch.inference_mode():
        expected = model(pixels)[0]
        found = torch.jit.load(str(file))(pixels)
    assert isinstance(found, tuple)
    (boxes,) = found
    torch.testing.assert_close(boxes, expected, rtol=0, atol=0.01)
    torch.testing.assert_close(Runtime(file, trust=True)(pixels)[0], expected, rtol=0, atol=0.01)


def test_files_that_give_the_boxes_alone_are_read(model, tmp_path):
    settings, file = Settings(imgsz=(64, 96)), tmp_path / "earlier.torchscript"
    with tracing():
        traced = torch.jit.trace(settings.graph(model), (settings.images(model),), check_trace=False)
        traced.save(str(file), _extra_files={"config.txt": json.dumps(settings.metadata(model))})
    pixels = images(1, 64, 96)
    assert isinstance(torch.jit.load(str(file))(pixels), torch.Tensor)
    with torch.inference_mode():
        torch.testing.assert_close(Runtime(file, trust=True)(pixels)[0], model(pixels)[0], rtol=0, atol=0.01)
