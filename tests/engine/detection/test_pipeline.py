"""The one way from images to boxes, and the protocol of the detectors that go it."""

import inspect
import time

import numpy as np
import pytest
import torch

import export
from engine.detection.detector import Detector, load_detector
from engine.detection.options import DetectOptions
from engine.detection.pipeline import (
    EVERYDAY,
    INFERENCE,
    NMS,
    PRE_PROCESS,
    VALIDATION,
    Clock,
    Pipeline,
    Thresholds,
    speed_line,
    warm_up,
)
from engine.evaluation.options import ValOptions
from tests.helpers.models import make_weights
from utils.boxes import non_max_suppression

CPU = torch.device("cpu")


@pytest.fixture
def weights(tmp_path):
    return make_weights(tmp_path / "tiny.pt", seed=0)


def test_a_checkpoint_an_ensemble_and_an_exported_file_answer_alike(weights):
    (exported,) = export.run(weights=str(weights), include=["torchscript"], imgsz=[64])
    detectors = [load_detector(files, CPU) for files in (weights, [weights, weights], exported.file)]
    members = {*inspect.get_annotations(Detector), "suppress"}
    assert members == {"names", "nc", "stride", "trained_size", "fixed_size", "suppress"}
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    boxes = []
    for detector in detectors:
        assert all(hasattr(detector, name) for name in members)
        assert (detector.names, detector.nc, detector.stride.max()) == ({0: "rectangle", 1: "disc"}, 2, 32)
        with torch.inference_mode():
            predictions, maps = detector(images)
        assert maps is None or len(maps) == 3
        boxes.append(detector.suppress(predictions, conf_thres=0.2)[1])
    assert [d.fixed_size for d in detectors] == [None, None, (64, 64)]
    assert [d.trained_size for d in detectors] == [96, 96, None]
    assert len(boxes[0]) > 3
    for others in boxes[1:]:  # the twin's boxes of the ensemble are suppressed
        torch.testing.assert_close(others, boxes[0], rtol=0, atol=1e-3)


def test_boxes_come_back_in_the_pixels_of_each_image(weights):
    model = load_detector(weights, CPU)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, size, dtype=np.uint8) for size in ((64, 96, 3), (128, 64, 3))]
    pipeline = Pipeline(model, CPU, Thresholds(conf_thres=0.2, max_det=20))
    with torch.inference_mode():
        batch = pipeline.prepare(images, (96, 96))
        found, maps = pipeline.detect(batch)
        boxes, raw = model(batch.images.float() / 255)
    assert all(torch.equal(one, other) for one, other in zip(maps, raw, strict=True))
    expected = non_max_suppression(boxes, 0.2, 0.45, max_det=20)
    for i, (height, width) in enumerate(batch.natives):
        (rx, ry), (dx, dy) = batch.ratios[i], batch.pads[i]
        corners = (expected[i][:, :4] - torch.tensor([dx, dy, dx, dy])) / torch.tensor([rx, ry, rx, ry])
        corners = corners.clamp(min=0).minimum(torch.tensor([width, height, width, height]))
        torch.testing.assert_close(found[i][:, :4], corners)
        assert torch.equal(found[i][:, 4:], expected[i][:, 4:]) and len(found[i]) == 20
    assert (pipeline.clock.seconds > 0).all()


def test_one_image_is_padded_to_the_least_that_it_needs(weights):
    pipeline = Pipeline(load_detector(weights, CPU), CPU, Thresholds())
    image = np.zeros((40, 100, 3), np.uint8)
    assert pipeline.prepare([image], (160, 160), auto=True).images.shape == (1, 3, 64, 160)
    assert pipeline.prepare([image], (160, 160)).images.shape == (1, 3, 160, 160)


def test_a_clock_adds_up_what_each_stage_takes():
    clock = Clock(CPU)
    for _ in range(2):
        with clock.stage(INFERENCE):
            time.sleep(0.02)
    assert 0.04 <= clock.seconds[INFERENCE] < 1 and clock.seconds[[PRE_PROCESS, NMS]].tolist() == [0, 0]
    assert speed_line((1.04, 20, 0.3)) == "speed: 1.0 ms pre-process, 20.0 ms inference, 0.3 ms NMS per image"


@pytest.mark.parametrize(("device", "calls"), [("cpu", 0), ("meta", 2)])
def test_a_detector_is_warmed_up_where_its_first_calls_take_longer(device, calls):
    """The device without memory stands for a GPU."""
    seen = []

    class Noted:
        def __call__(self, images):
            seen.append((tuple(images.shape), images.device.type))
            return torch.zeros(2, 0, 7), None

        def suppress(self, predictions, **thresholds):
            seen.append(thresholds["conf_thres"])
            return non_max_suppression(predictions, **thresholds)

    warm_up(Noted(), torch.device(device), (2, 3, 64, 96))
    assert seen == [((2, 3, 64, 96), device), VALIDATION.conf_thres] * calls


def test_thresholds_are_those_of_the_flags():
    """The commands declare theirs where no torch is imported."""
    for options, thresholds in ((DetectOptions(), EVERYDAY), (ValOptions(), VALIDATION)):
        found = (options.conf_thres, options.iou_thres, options.max_det)
        assert found == (thresholds.conf_thres, thresholds.iou_thres, thresholds.max_det)
