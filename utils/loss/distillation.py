"""What a student has yet to learn from a teacher: losses of its boxes, and of the maps that boxes are made of.

``answers`` of a head [b, na, ny, nx, 5 + nc]: of every place x, y, w, h in pixels, then objectness and classes before the
sigmoid. All are summed or given image by image, so that several processes can share a batch. The teacher gets no gradient.
"""

import torch
import torch.nn.functional as F

from utils.loss.box import pairwise_iou

# below it a teacher's objectness says that nothing is there, and what it says of box and class is noise
SURE = 0.1
# by which 2011.13256 divides maps before the softmax
TEMPERATURE = 4.0
# mean square of maps in which there is nothing to be seen
LEAST_SQUARE = 1e-4


def bernoulli_divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL(teacher ‖ student) of yes-or-no answers, both given before the sigmoid, place by place.

    The binary cross-entropy with soft labels, less its least value, so that it is 0 where both agree.
    """
    wanted = teacher.sigmoid()
    found, least = (F.binary_cross_entropy_with_logits(x, wanted, reduction="none") for x in (student, teacher))
    return found - least


def answer_sums(student: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Answers of a level, both of one shape → (the sums [3] of what boxes, objectness and classes differ by; the weights by
    which box and class are to be divided).

    Objectness counts everywhere; boxes and classes by the teacher's objectness (1805.06361), where that is SURE: the region of
    distillation of 2102.12252. Its localisation distillation compares distributions of the four sides. Boxes of four numbers
    have none: they differ by 1 − CIoU.
    """
    sure = teacher[..., 4].sigmoid()
    weights = sure * (sure >= SURE)
    agreement = pairwise_iou(student[..., :4].flatten(0, 3), teacher[..., :4].flatten(0, 3), "CIoU")
    box = (weights.flatten() * (1 - agreement)).sum()
    objectness = bernoulli_divergence(student[..., 4], teacher[..., 4]).sum()
    classes = (weights * bernoulli_divergence(student[..., 5:], teacher[..., 5:]).mean(-1)).sum()
    return torch.stack((box, objectness, classes)), weights.sum()


def channel_divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float = TEMPERATURE) -> torch.Tensor:
    """Where each channel of the maps [b, c, h, w] is active: KL of their softmax over all places, T²/C Σ KL → [b].

    Channel-wise distillation (2011.13256).
    """
    found, wanted = ((x.flatten(2) / temperature).log_softmax(-1) for x in (student, teacher))
    return temperature**2 * (wanted.exp() * (wanted - found)).sum(-1).mean(-1)


def map_error(generated: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The mean squared error of maps [b, c, h, w] by the mean square of the teacher's, whatever the scale of these → [b].

    Masked generative distillation (2205.01529) has the squared error alone, and a weight for each detector.
    """
    error, scale = ((x.flatten(1) ** 2).mean(1) for x in (generated - teacher, teacher))
    return error / scale.clamp(min=LEAST_SQUARE)


def resampled_answers(answers: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Answers of one anchor [b, h, w, 5 + nc] at ``size`` (height, width): of each new place, those of the surest old one
    that it covers or lies in."""
    if answers.shape[1:3] == size:
        return answers
    _, surest = F.adaptive_max_pool2d(answers[..., 4].unsqueeze(1), size, return_indices=True)
    places = surest.flatten(1).unsqueeze(-1).expand(-1, -1, answers.shape[-1])
    return answers.flatten(1, 2).gather(1, places).unflatten(1, size)


def resampled_maps(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps [b, c, h, w] at ``size`` (height, width): means where that is smaller, bilinear between places where it is larger."""
    if maps.shape[2:] == size:
        return maps
    if maps.shape[2] >= size[0] and maps.shape[3] >= size[1]:
        return F.adaptive_avg_pool2d(maps, size)
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
