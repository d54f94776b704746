"""The loss by small cases whose answer is known; the reference arrays are in test_parity.py."""

import math

import pytest
import torch

from tests.helpers.fake_cuda import fake_cuda
from tests.helpers.syncs import host_syncs
from utils.loss.box import pairwise_iou
from utils.loss.detection import DetectionLoss, Needed, binary_cross_entropy, last_of_each, scale_gains

HYP = {"box": 0.05, "obj": 1.0, "cls": 0.5, "cls_pw": 1.0, "obj_pw": 1.0, "fl_gamma": 0.0, "anchor_t": 4.0}
ANCHORS = torch.tensor([[[2.0, 2.0], [8.0, 8.0]]])  # one level, grid units


def match(x, y, w, h, size=8):
    """Match one target of a size × size map, in cells; returns the matches."""
    loss = DetectionLoss(ANCHORS, 2, HYP)
    target = torch.tensor([[0, 1, x / size, y / size, w / size, h / size]])
    return loss.match(target, 0, torch.Size((1, 2, size, size, 7)))


def cells(matches, size=8, images=1):
    """(image, anchor, row, column) of matches in size × size maps of two anchors."""
    return torch.unravel_index(matches.places[matches.which], (images, 2, size, size))


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (3.3, 4.3, {(4, 3), (4, 2), (3, 3)}),  # nearest neighbours: left and above
        (3.7, 4.7, {(4, 3), (4, 4), (5, 3)}),  # right and below
        (0.3, 0.3, {(0, 0)}),  # nothing left of or above the first cell
        (7.7, 7.7, {(7, 7)}),  # nor right of and below the last
    ],
)
def test_a_target_goes_to_its_cell_and_the_two_nearest(x, y, expected):
    matches = match(x, y, 2, 2)
    image, anchor, row, column = cells(matches)
    own = anchor == 0
    assert set(zip(row[own].tolist(), column[own].tolist(), strict=True)) == expected
    torch.testing.assert_close(matches.boxes[0, :2], torch.tensor([x % 1, y % 1]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "anchors"), [(2.0, {0}), (4.0, {0, 1}), (7.9, {0, 1}), (8.1, {1}), (1.9, {0}), (33, set())]
)
def test_anchors_match_within_a_factor_of_four(size, anchors):
    # anchor 0 has side 2, anchor 1 has side 8
    loss = DetectionLoss(ANCHORS, 2, HYP)
    target = torch.tensor([[0, 1, 0.5, 0.5, size / 40, size / 40]])
    assert set(cells(loss.match(target, 0, torch.Size((1, 2, 40, 40, 7))), 40)[1].tolist()) == anchors


def perfect_maps(target, size=8):
    """Raw maps that predict ``target`` exactly wherever it is matched, and nothing elsewhere."""
    loss = DetectionLoss(ANCHORS, 2, HYP)
    raw = torch.full((1, 2, size, size, 7), -12.0)
    m = loss.match(target, 0, raw.shape)
    logit, where = torch.logit, cells(m, size)
    raw[(*where, slice(0, 2))] = logit((m.boxes[:, :2] + 0.5) / 2)
    raw[(*where, slice(2, 4))] = logit((m.boxes[:, 2:] / m.anchors).sqrt() / 2)
    raw[(*where, torch.tensor(4))] = 12.0
    raw[(*where, 5 + m.classes)] = 12.0
    return raw, loss


def test_a_perfect_prediction_costs_next_to_nothing():
    raw, loss = perfect_maps(torch.tensor([[0, 1, 0.41, 0.54, 0.3, 0.26]]))
    total, items = loss([raw], torch.tensor([[0, 1, 0.41, 0.54, 0.3, 0.26]]))
    assert total.item() < 1e-3
    assert items[0].item() < 1e-5


def test_without_targets_only_objectness_is_left():
    raw = torch.zeros(3, 2, 8, 8, 7)
    total, items = DetectionLoss(ANCHORS, 2, HYP)([raw], torch.zeros(0, 6))
    assert items.tolist() == [0, pytest.approx(4 * math.log(2)), 0]  # the first level weighs 4
    assert total.item() == pytest.approx(3 * 4 * math.log(2))  # times the batch


def test_a_single_class_has_no_class_loss():
    raw = torch.zeros(1, 2, 8, 8, 6)
    _, items = DetectionLoss(ANCHORS, 1, HYP)([raw], torch.tensor([[0, 0, 0.5, 0.5, 0.3, 0.3]]))
    assert items[2] == 0 and items[0] > 0


def test_gains_follow_levels_classes_and_size():
    scaled = scale_gains(HYP | {"lr0": 0.01}, nl=4, nc=8, imgsz=320)
    assert scaled["box"] == pytest.approx(0.05 * 3 / 4)
    assert scaled["cls"] == pytest.approx(0.5 * 8 / 80 * 3 / 4)
    assert scaled["obj"] == pytest.approx(0.25 * 3 / 4)
    assert scaled["lr0"] == 0.01 and HYP["box"] == 0.05


def test_focal_loss_forgives_the_easy():
    logits, targets = torch.tensor([4.0, -4.0]), torch.tensor([1.0, 1.0])
    plain = [binary_cross_entropy(logits[i : i + 1], targets[i : i + 1], 1.0, 0.0).item() for i in (0, 1)]
    focal = [binary_cross_entropy(logits[i : i + 1], targets[i : i + 1], 1.0, 2.0).item() for i in (0, 1)]
    p = 1 / (1 + math.exp(-4))
    assert focal[0] / plain[0] == pytest.approx(0.25 * (1 - p) ** 2, rel=1e-4)
    assert focal[1] / plain[1] == pytest.approx(0.25 * p**2, rel=1e-4)


def test_positive_weight():
    args = torch.zeros(1), torch.ones(1)
    assert binary_cross_entropy(*args, 3.0, 0.0).item() == pytest.approx(3 * math.log(2))


def test_mixed_precision_stays_finite_and_close():
    torch.manual_seed(0)
    target = torch.tensor([[0, 1, 0.41, 0.54, 0.3, 0.26], [1, 0, 0.7, 0.2, 0.2, 0.5]])
    raw = torch.randn(2, 2, 8, 8, 7)
    loss = DetectionLoss(ANCHORS, 2, HYP)
    full, half = loss([raw], target)[0], loss([raw.bfloat16()], target)[0]
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(full.item(), rel=0.02)


def crowd(count: int, classes: int) -> torch.Tensor:
    """Many targets in a few cells of one image."""
    torch.manual_seed(1)
    targets = torch.rand(count, 6) * 0.2 + 0.4
    targets[:, 0], targets[:, 1] = 0, torch.randint(classes, (count,))
    return targets


def test_the_same_crowd_gives_the_same_bits():
    # gradients of predictions that several targets share were summed in the order in which threads came by
    raw, targets = torch.randn(1, 2, 20, 20, 85), crowd(900, 80)
    loss, before = DetectionLoss(ANCHORS, 80, HYP), torch.get_num_threads()
    gradients = []
    torch.set_num_threads(2)
    try:
        for _ in range(12):
            leaf = raw.clone().requires_grad_()
            loss([leaf], targets)[0].backward()
            gradients.append(leaf.grad)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(gradients[0], gradient) for gradient in gradients)


def test_of_targets_in_one_cell_the_last_says_its_objectness():
    raw, loss = torch.randn(1, 2, 8, 8, 7), DetectionLoss(ANCHORS, 2, HYP)
    targets = crowd(30, 2)
    matches = loss.match(targets, 0, raw.shape)
    places = matches.places[matches.which]
    predicted = raw.view(-1, 7)[places]
    xy, wh = predicted[:, :2].sigmoid() * 2 - 0.5, (predicted[:, 2:4].sigmoid() * 2) ** 2 * matches.anchors
    overlap = pairwise_iou(torch.cat((xy, wh), 1), matches.boxes, "CIoU").clamp(0)
    wanted = torch.zeros(2 * 8 * 8)
    for place, value in zip(places.tolist(), overlap, strict=True):
        wanted[place] = value
    assert len(matches.last) == len(matches.places) < len(places)
    expected = 4 * torch.nn.functional.binary_cross_entropy_with_logits(raw[..., 4].flatten(), wanted)
    torch.testing.assert_close(loss([raw], targets)[1][1], expected)


def test_the_last_of_each():
    assert last_of_each(torch.tensor([7, 3, 7, 5, 3])).tolist() == [4, 3, 2]
    assert last_of_each(torch.zeros(0, dtype=torch.int64)).tolist() == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_the_loss_needs_of_a_map_has_the_gradient_of_its_parts(dtype):
    raw, places = torch.randn(2, 3, 4, 5, 7).to(dtype), torch.tensor([3, 40, 119])
    whole, parts = (raw.clone().requires_grad_() for _ in range(2))
    weight, weights = torch.randn(2, 3, 4, 5), torch.randn(3, 7)
    objectness, picked = Needed.apply(whole, places)
    ((objectness * weight).sum() + (picked * weights).sum()).backward()
    wide = parts.float()
    expected = wide[..., 4], wide.flatten(0, 3)[places]
    ((expected[0] * weight).sum() + (expected[1] * weights).sum()).backward()
    assert objectness.dtype == picked.dtype == torch.float32
    assert torch.equal(objectness, expected[0]) and torch.equal(picked, expected[1])
    assert whole.grad.dtype == dtype and torch.equal(whole.grad, parts.grad)


@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_a_gpu_is_not_waited_for(gamma):
    with fake_cuda():
        raw = torch.randn(1, 2, 8, 8, 7).to("cuda").requires_grad_()
        loss = DetectionLoss(ANCHORS.to("cuda"), 2, HYP | {"fl_gamma": gamma})
        with host_syncs() as waits:
            total, items = loss([raw], crowd(30, 2))
            total.backward()
        assert waits == []
        assert raw.grad.device == items.device == torch.device("cuda", 0)
        on_cpu = raw.detach().cpu().requires_grad_()
        expected, _ = DetectionLoss(ANCHORS, 2, HYP | {"fl_gamma": gamma})([on_cpu], crowd(30, 2))
        expected.backward()
        assert torch.equal(total.cpu(), expected) and torch.equal(raw.grad.cpu(), on_cpu.grad)
