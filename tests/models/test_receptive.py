"""Effective receptive fields: where they can be computed by hand, and what models/yolo.py says and draws of them."""

import re

import numpy as np
import pytest
import torch

from models.receptive import effective_fields
from models.yolo import DetectionModel
from tests.helpers.descriptions import TINY
from tests.helpers.fake_cuda import CUDA, fake_cuda
from tests.helpers.project import assert_user_error, command_here
from utils.data.images import read_image
from utils.yaml_file import write_yaml

CPU = torch.device("cpu")


def test_a_chain_of_convolutions_by_hand():
    """Of ones, without activations: how many ways there are from a pixel to the middle of each map."""
    model = DetectionModel(TINY | {"activation": "nn.Identity()"})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for conv in (layer.conv for layer in model.model[:-1]):
        torch.nn.init.ones_(conv.weight)
    fields = effective_fields(model, 64, CPU)
    # 3×3 by steps of 2, then of 4: three pixels each, four between; their last by steps of 2 once more
    ways = np.array([1, 1, 2, 1, 2, 1, 1])
    longer = np.zeros(23)
    for start in (0, 8, 16):
        longer[start : start + 7] += ways
    assert [field.stride for field in fields] == [8, 16]
    for field, expected in zip(fields, (ways, longer), strict=True):
        # the middle of the maps, 8 × 8 and 4 × 4, is over pixel 32
        reach = len(expected) // 2
        found = np.zeros((64, 64))
        found[32 - reach : 33 + reach, 32 - reach : 33 + reach] = np.outer(expected, expected)
        np.testing.assert_allclose(field.weight, found / found.sum(), atol=1e-7)
        assert field.center == pytest.approx((32.5, 32.5), abs=1e-4)
    # 49 of 81 ways lie within 5 px, 25 within 3; of the 729, 361 lie within 17 px, 529 within 19, 625 within 21
    assert fields[0].sides == pytest.approx((5, 7), abs=1e-3)
    assert fields[1].sides == pytest.approx((19, 23), abs=1e-3)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items() if "conv.weight" not in name)


def test_what_looks_wider_has_a_wider_field():
    wide = {**TINY, "backbone": [*TINY["backbone"][:2], [-1, 1, "Conv", [16, 9, 2]]]}
    sides = []
    for description in (TINY, wide):
        torch.manual_seed(0)
        sides.append([field.sides for field in effective_fields(DetectionModel(description), 128, CPU)])
    (fine, coarse), (same, wider) = sides
    assert fine == pytest.approx(same, abs=1) and coarse[0] > fine[0] and coarse[1] > fine[1]
    assert wider[0] > 1.5 * coarse[0] and wider[1] > 1.5 * coarse[1]


@pytest.mark.parametrize("backbone", [None, "mobilenet_v3_small"])
def test_every_level_has_one(backbone):
    torch.manual_seed(0)
    fields = effective_fields(DetectionModel("yolov5n.yaml", backbone=backbone), 96, CPU, images=2)
    assert [field.stride for field in fields] == [8, 16, 32]
    for field in fields:
        assert field.weight.sum() == pytest.approx(1) and (field.weight >= 0).all()
        assert 10 < field.sides[0] < field.sides[1] < 130


def test_a_gpu_gives_the_same():
    torch.manual_seed(0)
    model = DetectionModel(TINY)
    expected = effective_fields(model, 32, CPU, images=2)
    with fake_cuda():
        found = effective_fields(model, 32, CUDA, images=2)
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own.weight, other.weight, atol=1e-6)
    assert next(model.parameters()).device == CPU and all(p.requires_grad for p in model.parameters())


def test_the_command_says_and_draws_them(tmp_path):
    write_yaml(tmp_path / "tiny.yaml", TINY)
    words = ["models/yolo.py", "--cfg", "tiny.yaml", "--imgsz", "64", "--device", "cpu", "--erf"]
    first, second = (command_here(*words, cwd=tmp_path) for _ in range(2))
    assert first.returncode == 0, first.stderr
    said = re.findall(r"stride +(\d+): +(\d+) px and +(\d+) px", first.stdout)
    assert [stride for stride, *_ in said] == ["8", "16"] and all(int(a) < int(b) for _, a, b in said)
    # the same weights every time, and nothing is overwritten
    assert first.stdout.replace("erf.png", "erf2.png") == second.stdout
    assert read_image(tmp_path / "erf.png").std() > 20 and (tmp_path / "erf2.png").exists()
    assert command_here(*words, "of/none.png", cwd=tmp_path).returncode == 2
    for wrong in (".", "..", "erf", "erf.txt", ".png", "tiny.yaml"):
        assert_user_error(command_here(*words, wrong, cwd=tmp_path), "--erf", wrong, "name a picture to write")
