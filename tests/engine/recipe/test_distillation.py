"""Who can teach whom, and what: classes, levels and anchors that belong together; and who learns of it."""

import pytest
import torch

from engine.recipe.distillation import (
    Lesson,
    Pupil,
    PupilLoss,
    Taught,
    answers_of,
    match_anchors,
    match_classes,
    match_levels,
    read_teachers,
)
from engine.recipe.hyp import read_hyp
from models.heads.table import HEADS
from models.yolo import DetectionModel
from tests.helpers.descriptions import small
from tests.helpers.heads import Points
from tests.helpers.models import lively, own_checkpoint
from utils.checkpoint import read_checkpoint, save_checkpoint
from utils.errors import UserError

CPU = torch.device("cpu")
NAMES = {0: "cat", 1: "dog", 2: "cow"}
ANSWERS = {"distill_cwd": 0.0, "distill_mgd": 0.0}
MAPS = {"distill_box": 0.0, "distill_obj": 0.0, "distill_cls": 0.0, "distill_cwd": 1.0, "distill_mgd": 1.0}
TARGETS = torch.tensor([[0, 1, 0.4, 0.4, 0.3, 0.3], [1, 0, 0.6, 0.5, 0.2, 0.4]])


def hyp(**changes) -> dict:
    return read_hyp("hyp.scratch-low.yaml") | changes


def teacher_file(path, names=NAMES, cfg=None, seed=1):
    """A checkpoint of a small detector, half sure of all places, whose maps are alive."""
    torch.manual_seed(seed)
    model = DetectionModel(cfg or small(width_multiple=0.75), nc=len(names))
    lively(model, torch.rand(2, 3, 64, 64))
    for conv in model.detect.m:
        bias = conv.bias.data.view(model.detect.na, -1)
        bias[:, 4] = 0.0
        bias[:, 5:] = torch.linspace(-2, 2, model.nc)
    save_checkpoint(path, {"yaml": model.yaml, "names": names, "model": model.state_dict()})
    return str(path)


def student(nc: int = 3, **changes) -> DetectionModel:
    torch.manual_seed(0)
    return DetectionModel(small(**changes), nc=nc)


def taught_loss(pupil: Pupil, settings: dict, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    labels = pupil.model.detect.loss(settings, images.shape[-1])
    return PupilLoss(labels, pupil, settings, images.shape[-1])(pupil(images), TARGETS)


def test_classes_are_matched_by_name():
    assert match_classes(["dog", "cow", "cat"], ["cat", "dog", "cow"], "t.pt") == [2, 0, 1]
    # of those that are called alike, in their order
    assert match_classes(["a", "b", "a"], ["a", "a", "b"], "t.pt") == [0, 2, 1]
    with pytest.raises(
        UserError, match="--teacher t.pt: has other classes: it doesn't know cow, pig. Train it on this data"
    ):
        match_classes(["cat"], ["cat", "cow", "pig"], "t.pt")
    with pytest.raises(UserError, match="it doesn't know pig; cow is not among those of the data"):
        match_classes(["cat", "cow"], ["cat", "pig"], "t.pt")


def test_levels_are_matched_by_stride():
    assert match_levels([8, 16, 32], [8, 16, 32]) == [0, 1, 2]
    assert match_levels([8, 16, 32], [16, 32, 64]) == [0, 0, 1]
    assert match_levels([4, 8], [8]) == [0, 0]


def test_anchors_are_matched_by_shape_and_then_by_stride():
    same = student().detect
    assert match_anchors(same, same) == [[(0, 0), (0, 1)], [(1, 0), (1, 1)]]
    # the write-up's own has the anchors of strides 8, 16, 32 at 16, 32, 64: they find the same objects all the same
    three = DetectionModel("yolov5n.yaml", nc=3).detect
    coarse = DetectionModel("yolov5s_EfficientNetV2.yaml", nc=3).detect
    assert (three.stride.tolist(), coarse.stride.tolist()) == ([8, 16, 32], [16, 32, 64])
    assert match_anchors(three, coarse) == [[(level, k) for k in range(3)] for level in range(3)]
    # one of 62×45 px at half its size is most like 33×23
    assert match_anchors(three, three, zoom=0.5)[1][1] == (0, 2)


def test_boxes_of_smaller_anchors_are_smaller():
    head, raw = student().detect, torch.randn(1, 2, 4, 4, 8)
    whole, half = (answers_of(head, raw, 1, zoom) for zoom in (1.0, 0.5))
    assert torch.equal(half[..., 2:4], whole[..., 2:4] / 2)
    assert torch.equal(half[..., :2], whole[..., :2]) and torch.equal(half[..., 4:], raw[..., 4:])


def test_there_is_nothing_to_learn_of_oneself(tmp_path):
    """And another order of the classes is no difference."""
    file = teacher_file(tmp_path / "t.pt")
    known = read_checkpoint(file)
    settings = hyp(**ANSWERS)
    for names in (NAMES, {0: "cow", 1: "cat", 2: "dog"}):
        own = DetectionModel(known.yaml, nc=3)
        own.load_state_dict(known.model)
        (teacher,) = read_teachers([file], own, names, settings, CPU)
        assert (teacher.columns is None) is (names is NAMES)
        images = torch.rand(2, 3, 64, 64)
        with torch.no_grad():
            maps = own.eval()(images)[1]
            taught = Taught(teacher.model(images)[1], (64, 64), {})
            order = list(range(5)) + [5 + list(NAMES.values()).index(name) for name in names.values()]
            lesson = Lesson([m[..., order] for m in maps], (64, 64), [taught])
            loss = PupilLoss(own.detect.loss(settings, 64), Pupil(own, [teacher], settings), settings, 64)
            _, items = loss(lesson, TARGETS)
            assert 0 <= items[3] < 1e-5
            # the answers of other classes are another matter
            lesson = Lesson([m[..., [0, 1, 2, 3, 4, 6, 7, 5]] for m in lesson.maps], (64, 64), [taught])
            assert loss(lesson, TARGETS)[1][3] > 1e-3


@pytest.mark.parametrize("amp", [None, torch.bfloat16])
def test_students_and_adapters_learn_and_teachers_never(amp, tmp_path):
    files = [teacher_file(tmp_path / f"{i}.pt", seed=i) for i in range(2)]
    settings = hyp(distill_cwd=1.0, distill_mgd=1.0)
    model = student()
    teachers = read_teachers(files, model, NAMES, settings, CPU)
    before = [{k: v.clone() for k, v in teacher.model.state_dict().items()} for teacher in teachers]
    pupil = Pupil(model, teachers, settings).train()
    assert {k.split(".")[0] for k in pupil.state_dict()} == {"model", "adapters"}
    optimizer = torch.optim.SGD(pupil.parameters(), lr=0.001)
    with torch.autocast("cpu", dtype=amp or torch.bfloat16, enabled=amp is not None):
        lesson = pupil(torch.rand(2, 3, 64, 64))
    loss, items = PupilLoss(model.detect.loss(settings, 64), pupil, settings, 64)(lesson, TARGETS)
    loss.backward()
    assert items.shape == (4,) and items.isfinite().all() and items[3] > 0
    torch.testing.assert_close(loss, items.sum() * 2)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pupil.parameters())
    assert all(p.grad.abs().max() > 0 for p in pupil.adapters.parameters())
    optimizer.step()
    for teacher, weights in zip(teachers, before, strict=True):
        assert not teacher.model.training and all(p.grad is None for p in teacher.model.parameters())
        assert all(torch.equal(v, weights[k]) for k, v in teacher.model.state_dict().items())


def test_several_teachers_add_the_mean_of_what_each_adds(tmp_path):
    files = [teacher_file(tmp_path / f"{i}.pt", seed=i) for i in range(2)]
    settings, images, found = hyp(**ANSWERS), torch.rand(2, 3, 64, 64), []
    for given in (files[:1], files[1:], files):
        model = student().eval()
        pupil = Pupil(model, read_teachers(given, model, NAMES, settings, CPU), settings).train()
        found.append(taught_loss(pupil, settings, images)[1])
    assert found[0][3] != found[1][3]
    assert found[2].tolist() == pytest.approx(
        [*found[0][:3].tolist(), (found[0][3] + found[1][3]).item() / 2], rel=1e-5
    )


def test_a_weight_is_a_factor(tmp_path):
    file, images = teacher_file(tmp_path / "t.pt"), torch.rand(2, 3, 32, 32)
    none = dict.fromkeys((*MAPS, *ANSWERS), 0.0)

    def added(**weights) -> float:
        settings = hyp(**none | weights)
        torch.manual_seed(3)
        model = student()
        pupil = Pupil(model, read_teachers([file], model, NAMES, settings, CPU), settings).train()
        torch.manual_seed(4)
        return taught_loss(pupil, settings, images)[1][3].item()

    each = {name: added(**{name: 1.0}) for name in none}
    assert min(each.values()) > 0
    for name, value in each.items():
        assert added(**{name: 2.0}) == pytest.approx(2 * value, rel=1e-5)
    answers = [name for name in none if name not in ANSWERS]
    assert added(**dict.fromkeys(answers, 1.0)) == pytest.approx(sum(each[name] for name in answers), rel=1e-5)
    with pytest.raises(UserError, match="--teacher: distill_box, .* are all 0, so that nothing is taught"):
        added()


def test_a_student_of_another_backbone(tmp_path):
    own_checkpoint(tmp_path / "t.pt", 3, "yolov5s_EfficientNetV2-P3.yaml", NAMES)
    settings = hyp(distill_cwd=1.0)
    torch.manual_seed(0)
    model = DetectionModel("yolov5n.yaml", nc=3)
    teachers = read_teachers([str(tmp_path / "t.pt")], model, NAMES, settings, CPU)
    loss, items = taught_loss(Pupil(model, teachers, settings).train(), settings, torch.rand(2, 3, 64, 96))
    loss.backward()
    assert items.isfinite().all() and items[3] > 0
    assert all(p.grad.abs().max() > 0 for p in model.detect.parameters())


def test_strides_that_differ_and_do_not_divide_the_image(tmp_path):
    """A teacher that sees images of 72 px at 80 px: its boxes are brought to the 72 px that the student sees."""
    rows = [[-1, 1, "Conv", [32, 3, 4]], *small()["backbone"][1:]]
    file = teacher_file(tmp_path / "t.pt", cfg=small(backbone=rows))
    settings = hyp(distill_cwd=1.0)
    model = student()
    (teacher,) = read_teachers([file], model, NAMES, settings, CPU)
    assert (model.stride.tolist(), teacher.model.stride.tolist()) == ([4, 8], [8, 16])
    pupil = Pupil(model, [teacher], settings).train()
    assert pupil.levels == [[0, 0]]
    lesson = pupil(torch.rand(2, 3, 72, 144))
    (taught,) = lesson.taught
    assert (lesson.size, taught.size) == ((72, 144), (80, 144))
    assert [tuple(b.shape[2:]) for _, b in taught.maps["distill_cwd"]] == [(18, 36), (9, 18)]
    loss = PupilLoss(model.detect.loss(settings, 144), pupil, settings, 144)
    assert loss.anchors == [[[(0, 0), (0, 1)], [(1, 0), (1, 1)]]]
    (answers,) = loss.answers_of_teachers(lesson)
    for level, found in enumerate(answers):
        raw = taught.answers[level]
        seen = teacher.model.detect.decode(raw, level).view(raw.shape)[..., :4]
        torch.testing.assert_close(found[..., :4], seen * torch.tensor([1, 0.9, 1, 0.9]))
    total, items = loss(lesson, TARGETS)
    total.backward()
    assert items.isfinite().all() and items[3] > 0


def test_a_checkpoint_of_stock_teaches(yolov5n):
    names = read_checkpoint(yolov5n).names
    settings = hyp(distill_mgd=1.0)
    model = student(80)
    (teacher,) = read_teachers([str(yolov5n)], model, names, settings, CPU)
    assert teacher.model.nc == 80 and "1,867,405 parameters, strides 8 16 32; distill_box 1" in teacher.told(settings)
    _, items = taught_loss(Pupil(model, [teacher], settings).train(), settings, torch.rand(2, 3, 64, 64))
    assert items.isfinite().all() and items[3] > 0


def test_what_a_method_does_not_suit_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(HEADS, "Points", Points)
    description = small()
    del description["anchors"]
    description["head"] = [*description["head"][:-1], [[7, 4], 1, "Points", ["nc"]]]
    torch.manual_seed(0)
    points = DetectionModel(description, nc=3)
    file = teacher_file(tmp_path / "t.pt")
    with pytest.raises(
        UserError, match="between heads of the kind Detect, and here is Points; set distill_box, distill_obj"
    ):
        read_teachers([file], points, NAMES, hyp(), CPU)
    settings = hyp(**MAPS)
    pupil = Pupil(points, read_teachers([file], points, NAMES, settings, CPU), settings).train()
    _, items = taught_loss(pupil, settings, torch.rand(2, 3, 64, 64))
    assert items.isfinite().all() and items[3] > 0
    with pytest.raises(UserError, match="takes images of 3 channels, small takes 1"):
        read_teachers([file], student(ch=1), NAMES, hyp(), CPU)
    with pytest.raises(UserError, match="has other classes"):
        read_teachers([file], student(2), {0: "cat", 1: "bird"}, hyp(), CPU)
    own_checkpoint(tmp_path / "bare.pt")
    torch.save(points.state_dict(), tmp_path / "bare.pt")
    with pytest.raises(UserError, match="bare.pt: holds weights without their model YAML"):
        read_teachers([str(tmp_path / "bare.pt")], student(), NAMES, hyp(), CPU)
