"""A checkpoint that finds something, and a data set of what it finds."""

import cv2
import numpy as np
import pytest
import yaml

from engine.detection.pipeline import Thresholds
from engine.detection.predictor import Predictor
from tests.helpers.export import images, lively
from utils.checkpoint import save_checkpoint


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A checkpoint that finds something in coloured clouds."""
    model = lively("yolov5n.yaml")
    path = tmp_path_factory.mktemp("weights") / "best.pt"
    names = {0: "猫", 1: "it's", 2: 'a "b"'}
    save_checkpoint(path, {"yaml": model.yaml, "names": names, "model": model.state_dict()})
    return path


@pytest.fixture
def own(weights, tmp_path):
    """A copy of the checkpoint, whose exports no other test sees."""
    path = tmp_path / "best.pt"
    path.write_bytes(weights.read_bytes())
    return path


@pytest.fixture(scope="session")
def data(weights, tmp_path_factory):
    """Six images whose labels are, roughly, what the checkpoint finds in them: its mAP is far from 0 and from 1."""
    root = tmp_path_factory.mktemp("clouds")
    for kind in ("images", "labels"):
        (root / kind).mkdir()
    predictor = Predictor([weights], (128, 128), "cpu", Thresholds(conf_thres=0.3))
    rng = np.random.default_rng(0)
    for i, cloud in enumerate(images(6, 96, 128)):
        file = root / "images" / f"{i}.png"
        picture = (cloud.permute(1, 2, 0) * 255).byte().numpy()
        cv2.imwrite(str(file), picture[..., ::-1])
        boxes = predictor(picture).numpy()
        boxes = boxes[(boxes[:, 2] - boxes[:, 0] > 4) & (boxes[:, 3] - boxes[:, 1] > 4)][:12]
        assert len(boxes) > 3
        boxes[:, :4] = (boxes[:, :4] + rng.normal(0, 1.5, (len(boxes), 4))).clip(0, [128, 96, 128, 96])
        x, y = boxes[:, [0, 2]] / 128, boxes[:, [1, 3]] / 96
        rows = np.column_stack((boxes[:, 5], x.mean(1), y.mean(1), x[:, 1] - x[:, 0], y[:, 1] - y[:, 0]))
        np.savetxt(root / "labels" / f"{i}.txt", rows, fmt="%d %.6f %.6f %.6f %.6f")
    file = root / "data.yaml"
    file.write_text(yaml.safe_dump({"path": str(root), "train": "images", "val": "images", "names": list("abc")}))
    return file
