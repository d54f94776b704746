"""Weights of one model as the start of another."""

import pytest
import torch

from engine.detection.detector import load_detector
from models.load import transfer_weights
from models.yolo import DetectionModel
from tests.helpers.models import own_checkpoint
from utils.checkpoint import read_checkpoint
from utils.errors import UserError

CPU = torch.device("cpu")


def test_bare_weights_are_a_start_for_training_but_no_detector(tmp_path):
    model = DetectionModel("yolov5n.yaml", nc=2)
    torch.save({f"module.{k}": v for k, v in model.state_dict().items()}, tmp_path / "state.pt")
    checkpoint = read_checkpoint(tmp_path / "state.pt")
    assert "transferred 349 of 349 tensors" in transfer_weights(model, checkpoint)
    with pytest.raises(UserError, match="without their model YAML"):
        load_detector(tmp_path / "state.pt", CPU)


def test_weights_of_another_class_count_fit_but_for_the_head(tmp_path):
    own_checkpoint(tmp_path / "a.pt", nc=2)
    model = DetectionModel("yolov5n.yaml", nc=5)
    before = model.detect.m[0].weight.clone()
    assert "transferred 343 of 349 tensors" in transfer_weights(model, read_checkpoint(tmp_path / "a.pt"))
    assert torch.equal(model.detect.m[0].weight, before)


def test_weights_of_an_unrelated_model_are_refused(tmp_path):
    torch.save({"backbone.weight": torch.ones(3)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="none of its 1 tensors fits"):
        transfer_weights(DetectionModel("yolov5n.yaml"), read_checkpoint(tmp_path / "other.pt"))
