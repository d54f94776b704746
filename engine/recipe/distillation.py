"""Distillation: a student that learns from trained detectors beside the labels (--teacher).

read_teachers(files, model, …)      the teachers, each checked against what the student learns
Pupil(model, teachers, hyp)         the student with what helps it to compare itself: images → Lesson
PupilLoss(labels, pupil, …)         Lesson and targets → the loss of the labels and what the teachers add to it

The hyper-parameters distill_… say what is compared, see utils/loss/distillation.py: boxes, objectness and classes of the heads,
and the maps that the heads take. The pupil's layers beside the model learn with it, and are no part of it.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from models.heads.detect import Detect
from models.heads.protocol import Loss
from models.load import detector_from
from models.yolo import DetectionModel
from utils.checkpoint import Checkpoint, read_checkpoint
from utils.data.images import fit_size
from utils.errors import UserError, shown
from utils.loss.detection import level_weights, scale_gains
from utils.loss.distillation import answer_sums, channel_divergence, map_error, resampled_answers, resampled_maps
from utils.saved.schema import Entries, Unfit, misfits

# share of the places that masked generative distillation hides (2205.01529, for detectors of one stage)
MASKED = 0.65
# the hyper-parameters that compare answers, and those that compare maps
OF_ANSWERS = ("distill_box", "distill_obj", "distill_cls")
OF_MAPS = ("distill_cwd", "distill_mgd")


@dataclass(frozen=True)
class Teacher:
    """A trained detector, folded, in eval mode. ``columns`` [5 + nc]: where in its answers those are that the student's have
    in this order; None where the order is the same. ``digest`` is of the weights in its file."""

    file: str
    model: DetectionModel
    columns: torch.Tensor | None
    digest: str

    def told(self, hyp: dict[str, float]) -> str:
        """Who teaches, and what, in one line."""
        what = ", ".join(f"{name} {hyp[name]:g}" for name in OF_ANSWERS + OF_MAPS if hyp[name])
        parameters = sum(p.numel() for p in self.model.parameters())
        strides = " ".join(f"{s:g}" for s in self.model.stride.tolist())
        return f"taught by {shown(self.file)}: {self.model.name}, {parameters:,} parameters, strides {strides}; {what}"


def read_teachers(
    files: Sequence[str], model: DetectionModel, names: dict[int, str], hyp: dict[str, float], device: torch.device
) -> list[Teacher]:
    """The detectors of the checkpoints ``files``, which are to teach ``model`` the classes ``names``.

    Raises UserError where they have other classes or another kind of images, and where what ``hyp`` asks for can't be compared.
    """
    if files and not any(hyp[name] for name in OF_ANSWERS + OF_MAPS):
        raise UserError(
            f"--teacher: {', '.join(OF_ANSWERS + OF_MAPS)} are all 0, so that nothing is taught; give one of them"
        )
    return [_read_teacher(read_checkpoint(file), model, names, hyp, device) for file in files]


def _read_teacher(
    checkpoint: Checkpoint, model: DetectionModel, names: dict[int, str], hyp: dict[str, float], device: torch.device
) -> Teacher:
    file = shown(checkpoint.path)
    teacher = detector_from(checkpoint)
    classes = match_classes(list(teacher.names.values()), list(names.values()), file)
    if teacher.yaml["ch"] != model.yaml["ch"]:
        raise UserError(
            f"--teacher {file}: takes images of {teacher.yaml['ch']} channels, {model.name} takes {model.yaml['ch']}"
        )
    others = [type(m.detect).__name__ for m in (teacher, model) if not isinstance(m.detect, Detect)]
    if others and any(hyp[name] for name in OF_ANSWERS):
        raise UserError(
            f"--teacher {file}: answers are compared between heads of the kind Detect, and here is {others[0]}; set "
            f"{', '.join(OF_ANSWERS)} to 0 and {' or '.join(OF_MAPS)} above it in the file of --hyp"
        )
    digest = hashlib.sha256()
    for name, tensor in sorted(checkpoint.model.items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    columns = [*range(5), *(5 + number for number in classes)]
    reordered = columns != sorted(columns)
    return Teacher(
        file=checkpoint.path,
        model=teacher.fuse().to(device, memory_format=torch.channels_last),
        columns=torch.tensor(columns, device=device) if reordered else None,
        digest=digest.hexdigest(),
    )


def match_classes(theirs: list[str], ours: list[str], file: str) -> list[int]:
    """The number that each of ``ours`` has among ``theirs``, by name; of equal names in their order.

    Raises UserError that names the classes that only one of the two has.
    """
    numbers: dict[str, list[int]] = {}
    for number, name in reversed(list(enumerate(theirs))):
        numbers.setdefault(name, []).append(number)
    found = [numbers[name].pop() if numbers.get(name) else None for name in ours]
    unknown = [name for name, number in zip(ours, found, strict=True) if number is None]
    left = [theirs[number] for number in sorted(number for rest in numbers.values() for number in rest)]
    faults = [f"it doesn't know {shown(', '.join(unknown))}"] if unknown else []
    faults += [f"{shown(', '.join(left))} is not among those of the data"] if left else []
    if faults:
        raise UserError(
            f"--teacher {file}: has other classes: {'; '.join(faults)}. Train it on this data first, as with "
            f"--weights {file}"
        )
    return found


def match_levels(strides: list[float], of_teacher: list[float]) -> list[int]:
    """The teacher's level for each stride of the student: of the same stride, else of the nearest by its logarithm."""
    return [
        min(range(len(of_teacher)), key=lambda i: (abs(math.log2(of_teacher[i] / stride)), i)) for stride in strides
    ]


def match_anchors(student: Detect, teacher: Detect, zoom: float = 1.0) -> list[list[tuple[int, int]]]:
    """(level, anchor) of the teacher for each anchor of each level of the student, whose are taken ``zoom`` times as large:
    that of the most similar shape, for it says which objects fall to an anchor; among such, of the nearest stride."""

    def sizes(head: Detect) -> torch.Tensor:
        return (head.anchors * head.stride.view(-1, 1, 1)).cpu().double()

    strides = teacher.stride.tolist()
    theirs = [
        (i, k, strides[i], w * h, w, h)
        for i, level in enumerate(sizes(teacher).tolist())
        for k, (w, h) in enumerate(level)
    ]

    def nearness(entry: tuple, w: float, h: float, stride: float) -> tuple:
        level, anchor, other, area, their_w, their_h = entry
        overlap = min(w, their_w) * min(h, their_h)
        # anchors that are the same but for rounding
        return round(overlap / (w * h + area - overlap), 3), -abs(math.log2(other / stride)), -level, -anchor

    matched = []
    for stride, level in zip(student.stride.tolist(), (sizes(student) * zoom).tolist(), strict=True):
        best = [max(theirs, key=lambda entry, w=w, h=h, s=stride: nearness(entry, w, h, s)) for w, h in level]
        matched.append([(entry[0], entry[1]) for entry in best])
    return matched


# The student's side ------------------------------------------------------------------------------------------------------


class MaskedGenerator(nn.Module):
    """A teacher's maps, made of a student's of which most places are hidden (2205.01529)."""

    def __init__(self, c1: int, c2: int):
        super().__init__()
        self.align = aligned(c1, c2)
        self.generate = nn.Sequential(
            nn.Conv2d(c2, c2, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(c2, c2, 3, padding=1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.align(x)
        seen = torch.rand(x.shape[0], 1, *x.shape[2:], device=x.device) >= MASKED
        return self.generate(x * seen)


def aligned(c1: int, c2: int, bias: bool = True) -> nn.Module:
    """From a student's channels to a teacher's: a 1×1 convolution where they differ in number."""
    return nn.Identity() if c1 == c2 else nn.Conv2d(c1, c2, 1, bias=bias)


# the softmax over the places of a channel is the same with any bias
ADAPTERS: dict[str, Callable[[int, int], nn.Module]] = {
    "distill_cwd": partial(aligned, bias=False),
    "distill_mgd": MaskedGenerator,
}
MAP_LOSSES = {"distill_cwd": channel_divergence, "distill_mgd": map_error}


class Taught(NamedTuple):
    """What a teacher says of a batch: its raw maps, which are none where answers aren't compared, the size (height, width) of
    the images it saw; and by distill_cwd and distill_mgd pairs of maps of a level, the student's as they are to be compared,
    and the teacher's."""

    answers: list[torch.Tensor]
    size: tuple[int, int]
    maps: dict[str, list[tuple[torch.Tensor, torch.Tensor]]]


class Lesson(NamedTuple):
    """What a pupil makes of a batch of images of ``size`` (height, width): the raw maps of its head, and of each teacher."""

    maps: list[torch.Tensor]
    size: tuple[int, int]
    taught: list[Taught]


class Pupil(nn.Module):
    """A student ``model`` beside its teachers: images [b, ch, h, w] → Lesson.

    ``adapters`` [teachers] bring the student's maps to the form of the teacher's, by distill_cwd and distill_mgd, one of each
    level. They are saved for a run that goes on, and never with the model. The teachers are no part of the module: they run in
    eval mode, without gradients, in the precision of whoever calls.
    """

    def __init__(self, model: DetectionModel, teachers: Sequence[Teacher], hyp: dict[str, float]):
        super().__init__()
        self.model = model
        self.teachers = tuple(teachers)
        self.methods = [name for name in OF_MAPS if hyp[name]]
        self.asks = any(hyp[name] for name in OF_ANSWERS)
        strides = model.stride.tolist()
        self.levels = [match_levels(strides, teacher.model.stride.tolist()) for teacher in teachers]
        self.adapters = nn.ModuleList(
            self._adapters_to(teacher.model, levels) for teacher, levels in zip(teachers, self.levels, strict=True)
        )
        self.adapters.to(next(model.parameters()).device, memory_format=torch.channels_last)

    def _adapters_to(self, teacher: DetectionModel, levels: list[int]) -> nn.ModuleDict:
        if not self.methods:
            return nn.ModuleDict()
        own, theirs = head_channels(self.model), head_channels(teacher)
        return nn.ModuleDict(
            {
                name: nn.ModuleList(ADAPTERS[name](c, theirs[level]) for c, level in zip(own, levels, strict=True))
                for name in self.methods
            }
        )

    def forward(self, images: torch.Tensor) -> Lesson:
        inputs = self.model.head_inputs(images)
        maps = self.model.detect(inputs)
        taught = []
        for teacher, adapters, levels in zip(self.teachers, self.adapters, self.levels, strict=True):
            answers, theirs, size = self.ask(teacher.model, images)
            pairs = {}
            for name, layers in adapters.items():
                found = [layer(x) for layer, x in zip(layers, inputs, strict=True)]
                pairs[name] = [
                    (x, resampled_maps(theirs[level], x.shape[2:])) for x, level in zip(found, levels, strict=True)
                ]
            taught.append(Taught(answers, size, pairs))
        return Lesson(maps, tuple(images.shape[2:]), taught)

    @torch.no_grad()
    def ask(
        self, teacher: DetectionModel, images: torch.Tensor
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], tuple[int, int]]:
        """Raw maps of the teacher's head, the maps that it takes, and the size of the images, resized where its strides ask
        for another."""
        stride = int(teacher.stride.max())
        size = tuple(max(fit_size(side, stride), stride) for side in images.shape[2:])
        if size != tuple(images.shape[2:]):
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        inputs = teacher.head_inputs(images)
        # a head may change the list it is given
        return (teacher.detect(list(inputs))[1] if self.asks else []), inputs, size

    def saved(self) -> dict[str, Any]:
        """What a run that goes on needs of it beside the model."""
        return {"adapters": self.adapters.state_dict(), "teachers": [teacher.digest for teacher in self.teachers]}

    def take_up(self, entries: Entries) -> None:
        """Go on from what ``saved`` gave. Raises UserError for another pupil's."""
        tensors, own = entries.mapping("adapters"), self.adapters.state_dict()
        if wrong := [k for k, v in tensors.items() if not isinstance(v, torch.Tensor)] or misfits(tensors, own):
            raise Unfit(f"adapters has {len(wrong)} tensors that are not this run's (first: {shown(wrong[0])})")
        self.adapters.load_state_dict(tensors)
        if entries.rows("teachers") != [teacher.digest for teacher in self.teachers]:
            files = ", ".join(shown(teacher.file) for teacher in self.teachers)
            print(f"warning: --teacher {files}: not the weights that this run began with")


def head_channels(model: DetectionModel) -> list[int]:
    """The channels of the maps that the head takes, level by level, found by a look at a blank image."""
    parameter, training, side = next(model.parameters()), model.training, int(model.stride.max()) * 2
    with torch.no_grad():
        blank = torch.zeros(1, model.yaml["ch"], side, side, device=parameter.device)
        channels = [x.shape[1] for x in model.eval().head_inputs(blank)]
    model.train(training)
    return channels


# The loss ----------------------------------------------------------------------------------------------------------------


class PupilLoss:
    """Lesson and targets → loss, as the ``labels``' loss gives it, with what the teachers add: the mean of what each adds.

    The terms are those of the labels, and one more, all that is taught: [4]. What is said of boxes, objectness and classes has
    the gain of the labels there, times its distill_…; ``imgsz``, ``total`` and ``processes`` as for the loss of a head.
    ``zoom``: the student's anchors are taken so many times as large, as the loss of the labels takes them.
    """

    def __init__(
        self,
        labels: Loss,
        pupil: Pupil,
        hyp: dict[str, float],
        imgsz: int,
        total: Callable[[torch.Tensor], torch.Tensor] = lambda counts: counts,
        processes: int = 1,
        zoom: float = 1.0,
    ):
        self.labels, self.pupil, self.hyp = labels, pupil, hyp
        self.total, self.processes, self.zoom = total, processes, zoom
        head = pupil.model.detect
        heads = [teacher.model.detect for teacher in pupil.teachers] if pupil.asks else []
        self.anchors = [match_anchors(head, other, zoom) for other in heads]
        scaled = scale_gains(hyp, len(head.stride), head.nc, imgsz)
        # one class alone has nothing to be told from
        gains = [scaled["box"], scaled["obj"], scaled["cls"] if head.nc > 1 else 0.0]
        self.gains = [gain * hyp[name] for gain, name in zip(gains, OF_ANSWERS, strict=True)]
        self.level_weights = level_weights(len(head.stride))

    def __call__(self, lesson: Lesson, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss, items = self.labels(lesson.maps, targets)
        first = lesson.maps[0]
        images = self.total(torch.full((), float(len(first)), device=first.device))
        term = torch.zeros((), device=first.device)
        if self.pupil.asks:
            own = [answers_of(self.pupil.model.detect, raw, level, self.zoom) for level, raw in enumerate(lesson.maps)]
            for theirs, anchors in zip(self.answers_of_teachers(lesson), self.anchors, strict=True):
                term = term + self.of_answers(own, theirs, anchors)
        for taught in lesson.taught:
            for name, pairs in taught.maps.items():
                errors = [MAP_LOSSES[name](found.float(), wanted.float()).sum() for found, wanted in pairs]
                term = term + self.hyp[name] * torch.stack(errors).mean() / images
        term = term / len(lesson.taught)
        items = torch.cat((items, self.total(term.detach()).view(1).to(items.dtype)))
        return loss + term * images * self.processes, items

    def answers_of_teachers(self, lesson: Lesson) -> list[list[torch.Tensor]]:
        """The answers of each teacher, level by level: the classes in the student's order, the boxes in pixels of its images."""
        found = []
        for teacher, taught in zip(self.pupil.teachers, lesson.taught, strict=True):
            answers = [answers_of(teacher.model.detect, raw, level) for level, raw in enumerate(taught.answers)]
            if teacher.columns is not None:
                answers = [x.index_select(-1, teacher.columns) for x in answers]
            if lesson.size != taught.size:
                scale = torch.ones(answers[0].shape[-1], device=answers[0].device)
                scale[1:4:2], scale[0:4:2] = (own / seen for own, seen in zip(lesson.size, taught.size, strict=True))
                answers = [x * scale for x in answers]
            found.append(answers)
        return found

    def of_answers(
        self, own: list[torch.Tensor], theirs: list[torch.Tensor], anchors: list[list[tuple[int, int]]]
    ) -> torch.Tensor:
        """What the student's answers differ from a teacher's by, both level by level; ``anchors`` as match_anchors gives them."""
        sums, weights, cells = [], [], []
        for found, places in zip(own, anchors, strict=True):
            wanted = torch.stack([resampled_answers(theirs[i][:, k], tuple(found.shape[2:4])) for i, k in places], 1)
            of_level, weight = answer_sums(found, wanted)
            sums.append(of_level)
            weights.append(weight)
            cells.append(torch.full_like(weight, float(found[..., 0].numel())))
        box, objectness, classes = torch.stack(sums).unbind(1)
        weights, cells = self.total(torch.stack((torch.stack(weights), torch.stack(cells))))
        weights = weights.clamp(min=1)
        level_weights = torch.stack([torch.full_like(cells[0], weight) for weight in self.level_weights])
        box_gain, objectness_gain, class_gain = self.gains
        of_places = (box_gain * box + class_gain * classes) / weights
        return (of_places + objectness_gain * level_weights * objectness / cells).sum()


def answers_of(head: Detect, raw: torch.Tensor, level: int, zoom: float = 1.0) -> torch.Tensor:
    """The raw map of a level [b, na, ny, nx, 5 + nc] as answers: boxes in pixels, of anchors ``zoom`` times as large, all else
    as it is, in float32."""
    raw = raw.float()
    found = head.decode(raw, level).view(raw.shape)
    return torch.cat((found[..., :2], found[..., 2:4] * zoom, raw[..., 4:]), -1)
