"""The channels of rows, and the number of classes: YOLOv5 does not scale rows of na·(nc+5) channels."""

import pytest
import torch

from models.flops import count_gflops, count_parameters
from models.load import detector_from
from models.yolo import DetectionModel
from tests.helpers.descriptions import small
from utils.checkpoint import read_checkpoint, save_checkpoint

PUBLISHED, OWN = "yolov5s_EfficientNetV2.yaml", "yolov5s_EfficientNetV2-P3.yaml"


def width_warnings(model: DetectionModel) -> list[str]:
    return [warning for warning in model.warnings if "stock_widths" in warning]


# na·(nc+5) is 24 for three classes, and 48 for eleven; checkpoints of forks have the channels of the published file
@pytest.mark.parametrize(
    ("cfg", "nc", "parameters", "gflops", "stem", "stage_2"),
    [
        (PUBLISHED, 2, 5_590_007, 5.37, 16, 24),
        (PUBLISHED, 3, 5_608_184, 6.66, 24, 24),
        (PUBLISHED, 11, 5_750_696, 9.88, 16, 48),
        (PUBLISHED, 80, 5_800_373, 5.54, 16, 24),
        (OWN, 2, 5_585_911, 10.59, 16, 24),
        (OWN, 3, 5_588_608, 10.60, 16, 24),
        (OWN, 11, 5_610_184, 10.67, 16, 24),
        (OWN, 80, 5_796_277, 11.26, 16, 24),
    ],
)
def test_the_number_of_classes_changes_the_backbone_of_the_published_file_alone(
    cfg, nc, parameters, gflops, stem, stage_2
):
    model = DetectionModel(cfg, nc=nc)
    assert (model.rows[0].shape[0], model.rows[2].shape[0]) == (stem, stage_2)
    assert count_parameters(model)[0] == parameters
    assert count_gflops(model) == pytest.approx(gflops, abs=0.01)


@pytest.mark.parametrize(
    ("nc", "words"),
    [
        (
            3,
            "layer 0 [-1, 1, stem, [24, 3, 2]]: 24 channels are anchors × (classes + 5), 3 × (3 + 5), and YOLOv5 does not scale "
            "such a row: layers 0 and 1 with 24 channels instead of 16, 6.7 GFLOPs instead of 5.4. `stock_widths: false` in the "
            "YAML scales every row",
        ),
        (11, "layers 2 and 3 with 48 channels instead of 24, 9.9 GFLOPs instead of 5.4."),
    ],
)
def test_rows_that_are_not_scaled_are_told_with_what_they_cost(nc, words):
    model = DetectionModel(PUBLISHED, nc=nc)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    (warning,) = width_warnings(model)
    assert words in warning
    assert torch.equal(torch.rand(3), expected), (
        "the model that is built for the figures has drawn of the run's numbers"
    )


@pytest.mark.parametrize(
    ("cfg", "nc", "size"),
    [(PUBLISHED, 4, None), (PUBLISHED, 3, "l"), (OWN, 3, None), ("yolov5s_ShuffleNetV2.yaml", 3, None)],
)
def test_where_the_channels_are_those_of_scaling_nothing_is_told(cfg, nc, size):
    assert not width_warnings(DetectionModel(cfg, nc=nc, size=size))


def test_the_key_scales_every_row():
    # one anchor a place and 27 classes: 32 outputs
    kept, scaled = (
        DetectionModel(small(anchors=1, nc=27, width_multiple=0.5) | key) for key in ({}, {"stock_widths": False})
    )
    struck = [row.index for row in kept.rows if row.args[:1] == [32]]
    assert struck and all(kept.rows[i].shape[0] == 32 and scaled.rows[i].shape[0] == 16 for i in struck)
    assert width_warnings(kept) and not width_warnings(scaled)


@pytest.mark.parametrize("key", [{}, {"stock_widths": False}])
def test_a_checkpoint_has_the_channels_it_was_trained_with(key, tmp_path):
    """That of a YAML as it was before it had the key, too."""
    description = {k: v for k, v in DetectionModel(OWN).yaml.items() if k != "stock_widths"}
    model = DetectionModel(description | key, nc=3).eval()
    assert model.model[0].conv.weight.shape[0] == (16 if key else 24)
    save_checkpoint(tmp_path / "model.pt", {"model": model.state_dict(), "yaml": model.yaml, "names": model.names})
    again = detector_from(read_checkpoint(tmp_path / "model.pt"))
    assert again.yaml.get("stock_widths") == key.get("stock_widths")
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(image)[0], model(image)[0])
