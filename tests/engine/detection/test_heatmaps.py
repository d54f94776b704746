"""Heat maps: hot on the objects where the model has learnt them, hot where it matters, and drawn by detect.py."""

import itertools

import cv2
import numpy as np
import pytest
import torch

import detect
from bench.heat_on_objects import gains
from engine.detection.heatmaps import (
    Explainer,
    Explanation,
    default_layers,
    forward_with_maps,
    fuse,
    principal_component,
)
from engine.detection.options import DetectOptions
from engine.detection.pipeline import Thresholds
from engine.detection.predictor import Predictor
from models.load import detector_from
from models.yolo import DetectionModel
from tests.helpers.descriptions import small
from tests.helpers.fake_cuda import CUDA, fake_cuda
from tests.helpers.models import detect_options as options
from tests.helpers.models import lively, make_weights
from tests.helpers.sets import make_set
from utils.boxes import xywh2xyxy
from utils.checkpoint import read_checkpoint
from utils.errors import UserError

CPU = torch.device("cpu")
# of the set's images on a larger canvas, so that the shapes are small: at the scale they were learnt at
CANVAS, IMGSZ = (160, 224), (160, 160)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> list[tuple[np.ndarray, np.ndarray]]:
    """50 images with a rectangle and a disc that the checkpoint hasn't seen, and their boxes [2, 4] in pixels."""
    root = make_set(tmp_path_factory.mktemp("scenes"), train=1, val=50, seed=7).parent
    rng = np.random.default_rng(3)
    found = []
    for path in sorted((root / "images" / "val").iterdir()):
        image = rng.integers(0, 60, (*CANVAS, 3), dtype=np.uint8)
        y, x = (int(rng.integers(0, most)) for most in (CANVAS[0] - 64, CANVAS[1] - 96))
        image[y : y + 64, x : x + 96] = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        labels = np.loadtxt(root / "labels" / "val" / f"{path.stem}.txt")
        found.append((image, xywh2xyxy(labels[:, 1:]) * [96, 64, 96, 64] + [x, y, x, y]))
    return found


@pytest.fixture(scope="module")
def trained(learnt) -> DetectionModel:
    return detector_from(read_checkpoint(learnt[2])).fuse()


def test_heat_is_on_the_objects_once_they_are_learnt(trained, scenes):
    found = gains(Explainer(trained, CPU, Thresholds(0.05, max_det=2), IMGSZ), scenes)
    assert len(found) > 60 and np.mean(found >= 3) > 0.95 and np.median(found) > 8
    torch.manual_seed(0)
    untrained = DetectionModel("yolov5n.yaml", nc=2).fuse()
    chance = gains(Explainer(untrained, CPU, Thresholds(1e-6, max_det=2), IMGSZ), scenes)
    assert len(chance) == 100 and np.mean(chance >= 3) < 0.3 and np.median(chance) < 3


def test_what_is_hot_is_what_the_score_rests_on(trained, scenes):
    """Noise in the place of the hottest tenth of the image takes the confidence away; in that of the coldest, nothing."""
    explainer = Explainer(trained, CPU, Thresholds(0.02, max_det=1), IMGSZ)
    rng = np.random.default_rng(0)
    kept = {"hot": [], "cold": []}
    for image, _ in scenes[:10]:
        seen = explainer(image)
        order = seen.heat().ravel().argsort()
        for name, places in (("hot", order[-order.size // 10 :]), ("cold", order[: order.size // 10])):
            without = image.copy().reshape(-1, 3)
            without[places] = rng.integers(0, 60, (len(places), 3))
            after = explainer(without.reshape(image.shape)).detections
            same = len(after) and torch.dist(after[0, :4], seen.detections[0, :4]) < 10
            kept[name].append(float(after[0, 4] / seen.detections[0, 4]) if same else 0)
    assert np.median(kept["hot"]) < 0.3 and np.median(kept["cold"]) > 0.9


def test_detections_are_the_predictors(learnt, scenes):
    predictor = Predictor(learnt[2], IMGSZ, "cpu", Thresholds(0.001, max_det=4))
    explainer = Explainer(predictor.model, CPU, predictor.pipeline.thresholds, IMGSZ)
    seen, expected = explainer(scenes[0][0]), predictor(scenes[0][0])
    assert len(expected) == 4 and len(seen.maps) == len(expected)
    torch.testing.assert_close(seen.detections, expected)


def test_each_detection_has_the_map_of_its_own_candidate(trained, scenes):
    """Each map's heat is about its box, although the boxes are of different places."""
    explainer = Explainer(trained, CPU, Thresholds(0.1, 0.2, max_det=2), IMGSZ)
    checked = 0
    for image, _ in scenes:
        seen = explainer(image)
        centers = seen.detections[:, :2].add(seen.detections[:, 2:4]).numpy() / 2
        if len(centers) < 2 or np.hypot(*(centers[0] - centers[1])) < 30:
            continue
        checked += 1
        heat = np.stack([seen.enlarged(own) for own in seen.maps])
        rows, columns = np.indices(heat.shape[1:]) + 0.5
        away = np.stack([np.hypot(columns - x, rows - y) for x, y in centers])
        # [map, box]: how far the heat of each map is from each box
        far = np.einsum("mhw,bhw->mb", heat, away) / heat.sum((1, 2))[:, None]
        assert far.argmin(1).tolist() == [0, 1]
        assert (np.diag(far) < 0.7 * away.mean((1, 2))).all()
    assert checked > 3


def test_layercam_is_its_formula():
    """Of one layer: the slopes of the score, by finite differences, as far as they rise, times what is there."""
    torch.manual_seed(0)
    image = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    model = lively(DetectionModel(small()).double(), image)
    explainer = Explainer(model, CPU, Thresholds(0), (16, 16), layers=["4"])
    predictions, maps = forward_with_maps(model, image.requires_grad_(), explainer.layers)
    detection = model.suppress(predictions.detach(), 0)[0][0]
    found = explainer.layercam(predictions, maps, detection)

    features, step = maps[0].detach(), 1e-5
    scores = predictions[0, :, 4] * predictions[0, :, 5 + int(detection[5])]
    candidate = int((scores - detection[4]).abs().argmin())
    steps = step * torch.eye(features.numel(), dtype=torch.float64).view(-1, *features.shape[1:])
    given = torch.cat((features + steps, features - steps))
    model.model[4].register_forward_hook(lambda *_: given)
    with torch.no_grad():
        moved = model(image.expand(len(given), -1, -1, -1))[0][:, candidate]
    up, down = (moved[:, 4] * moved[:, 5 + int(detection[5])]).chunk(2)
    slopes = ((up - down) / (2 * step)).view(features.shape)
    expected = (slopes.relu() * features.relu())[0].sum(0)
    torch.testing.assert_close(found.double(), expected / expected.sum(), rtol=1e-3, atol=1e-5)


def test_eigencam_is_the_direction_in_which_places_differ_most():
    """Places of a background that is strong everywhere, and a few that have something of their own."""
    generator = torch.Generator().manual_seed(0)
    background, own = torch.rand(2, 8, generator=generator)
    inside = torch.zeros(6, 9)
    inside[1:3, 4:7] = 1
    channels = 10 * background[:, None, None] + own[:, None, None] * inside
    channels += 0.01 * torch.randn(8, 6, 9, generator=generator)
    found = principal_component(channels)
    assert found[inside > 0].min() > 20 * found[inside == 0].max()
    torch.testing.assert_close(principal_component(-channels), found, rtol=1e-3, atol=1e-3)


def test_maps_of_several_sizes_weigh_the_same():
    coarse, fine = torch.zeros(2, 3), torch.zeros(4, 6)
    coarse[0, 0], fine[3, 5] = 5, 0.001
    found = fuse([coarse, fine])
    assert found.shape == (4, 6) and float(found.sum()) == pytest.approx(1)
    assert float(found[:2, :3].sum()) == pytest.approx(float(found[2:, 3:].sum()), rel=0.2)
    assert not fuse([coarse * 0, fine * 0]).any()
    torch.testing.assert_close(fuse([coarse * 0, fine]), fine / fine.sum())


def test_maps_are_laid_where_they_belong():
    """On a letterboxed image: half as large, with 8 px of padding above and below, in cells of 8 px."""
    heat = np.zeros((1, 10, 8), np.float32)
    heat[0, 2, 5] = 1
    to_map = np.array([[0.5 / 8, 0, 0.5 / 16 - 0.5], [0, 0.5 / 8, (0.25 + 8) / 8 - 0.5]])
    seen = Explanation(torch.zeros(1, 6), heat, to_map, (128, 128)).heat()
    assert seen.shape == (128, 128) and seen.max() == pytest.approx(1, abs=0.1)
    rows, columns = np.indices(seen.shape) + 0.5
    # the middle of the cell at (44, 20) in the letterboxed image
    assert (seen * columns).sum() / seen.sum() == pytest.approx(88, abs=0.5)
    assert (seen * rows).sum() / seen.sum() == pytest.approx(24, abs=0.5)


@pytest.mark.parametrize(
    ("cfg", "backbone", "layers"),
    [
        ("yolov5n.yaml", None, [4, 6, 9]),
        ("yolov5n.yaml", "mobilenet_v3_small", [0, "P3", "P4"]),
        ("yolov5n_C3_UIB.yaml", None, None),
        ("yolov5s_EfficientNetV2.yaml", None, None),
        ("yolov3-tiny.yaml", None, None),
        ("yolov5-p2.yaml", None, None),
    ],
)
def test_every_backbone_has_maps(cfg, backbone, layers):
    torch.manual_seed(0)
    image = np.random.default_rng(0).integers(0, 255, (90, 128, 3), dtype=np.uint8)
    model = DetectionModel(cfg, nc=2, size=None if "tiny" in cfg else "n", backbone=backbone).fuse()
    assert layers is None or default_layers(model, "layercam") == layers
    for method in ("layercam", "eigencam"):
        seen = Explainer(model, CPU, Thresholds(0, max_det=2), (128, 128), method)(image)
        assert len(seen.detections) == 2 and len(seen.maps) == (2 if method == "layercam" else 1)
        assert np.isfinite(seen.maps).all() and (seen.maps >= 0).all()
        assert seen.maps.sum((1, 2)) == pytest.approx(1, abs=1e-3)
        assert seen.heat().shape == (90, 128)


def test_detect_draws_them(tmp_path):
    weights = make_weights(tmp_path / "model.pt", 0)
    picture = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    cv2.imwrite(str(tmp_path / "b.png"), picture[:, :50])
    drawn = {}
    for name, changes in {
        "layercam": {"explain": "layercam"},
        "eigencam": {"explain": "eigencam", "nosave": True},
        "coarse": {"explain": "layercam", "explain_layer": ["9"]},
        "none": {"explain": "layercam", "conf_thres": 1.0},
    }.items():
        given = options(weights, tmp_path / "*.png", tmp_path, max_det=3, **{"conf_thres": 0.1} | changes)
        folder = detect.run(**given | {"hide_labels": True, "name": name})
        assert (folder / "a.png").exists() == ("nosave" not in changes)
        drawn[name] = cv2.imread(str(folder / "heatmaps" / "a.png"))
        assert drawn[name].shape == (60, 90, 3)
        assert cv2.imread(str(folder / "heatmaps" / "b.png")).shape == (60, 50, 3)
    assert np.array_equal(drawn["none"], picture)
    different = [np.mean(drawn[a] != drawn[b]) for a, b in itertools.combinations(drawn, 2)]
    assert min(different) > 0.1


def test_what_cannot_be_explained_says_so(tmp_path):
    weights = make_weights(tmp_path / "model.pt", 0)
    given = options(weights, "data/images", tmp_path, explain="layercam")
    with pytest.raises(UserError, match=r"--explain: looks into the layers of one \.pt model; give a single one"):
        detect.run(**given | {"weights": [str(weights)] * 2})
    for layer in ("24", "-1", "P3", " ", "x" * 200, "1.0", "²"):
        with pytest.raises(UserError, match="--explain-layer .*the layers before the head have the numbers 0 to 23$"):
            detect.run(**given | {"explain_layer": [layer]})
    for wrong, words in (
        ({"half": True}, "leave --half out"),
        ({"augment": True}, "leave --augment out"),
        ({"explain": "", "explain_layer": ["4"]}, "says where --explain looks"),
        ({"explain": "gradcam"}, "no such method; there are layercam eigencam"),
    ):
        with pytest.raises(UserError, match=words):
            DetectOptions.of({"explain": "layercam"} | wrong)


@pytest.mark.parametrize("method", ["layercam", "eigencam"])
def test_a_gpu_gives_the_same(method):
    torch.manual_seed(0)
    model = DetectionModel(small(nc=2)).fuse()
    image = np.random.default_rng(0).integers(0, 255, (50, 64, 3), dtype=np.uint8)
    expected = Explainer(model, CPU, Thresholds(0, max_det=2), (64, 64), method)(image)
    with fake_cuda():
        found = Explainer(model.to(CUDA), CUDA, Thresholds(0, max_det=2), (64, 64), method)(image)
    torch.testing.assert_close(found.detections, expected.detections)
    np.testing.assert_allclose(found.maps, expected.maps, atol=1e-6)


def test_a_ruined_model_has_no_heat():
    torch.manual_seed(0)
    model = DetectionModel("yolov5n.yaml", nc=2).fuse()
    torch.nn.init.constant_(model.model[9].cv2.conv.weight, torch.nan)
    image = np.zeros((64, 64, 3), np.uint8)
    for method in ("layercam", "eigencam"):
        assert np.isfinite(Explainer(model, CPU, Thresholds(0), (64, 64), method)(image).heat()).all()
