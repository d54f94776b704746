"""Progressive learning: small images and weak regularisation first, both growing stage by stage (EfficientNetV2,
2104.00298, section 4.2, Algorithm 1). Imports no torch.

plan_stages(4, epochs=100, …) → [Stage, …]      one stage of all epochs without --progressive
stage_at(stages, epoch)                         the one that an epoch is of
"""

from dataclasses import dataclass

from utils.errors import UserError

# Hyper-parameters that grow from a weak value to the given one. Flips stay: a mirrored image is as hard as the image itself.
GROWING = tuple("hsv_h hsv_s hsv_v degrees translate scale shear perspective mosaic mosaic9 copy_paste".split())
# the same from 0, as in Table 6 of the paper
GROWING_FROM_NOTHING = ("mixup",)
# Cells of the coarsest map along a side, at least: one cell alone is too little for BatchNorm and for a box's neighbours.
LEAST_CELLS = 2


@dataclass(frozen=True)
class Stage:
    """Epochs ``begin`` to ``end`` - 1, at images of one size.

    ``strength``: of regularisation, as a share of the given one. ``hyp``: the hyper-parameters at that strength.
    """

    number: int
    begin: int
    end: int
    imgsz: int
    batch_size: int
    strength: float
    hyp: dict[str, float]


def plan_stages(
    count: int, epochs: int, imgsz: int, stride: int, batch_size: int, hyp: dict[str, float], multiple: int = 1
) -> list[Stage]:
    """``count`` stages of ``epochs`` epochs, the last at ``imgsz`` and with ``hyp`` as it is; 0: one stage, which is that.

    Size and strength grow in equal steps from progressive_start and progressive_weak, which are shares, sizes as multiples
    of ``stride``, the model's largest. The last stage has the share progressive_last of the epochs, the others parts alike;
    all have where that is 0. Where images are small a batch has as many more, up to progressive_batch images, that it has as
    many pixels, as a multiple of ``multiple``. Raises UserError where there are too few epochs, or ``imgsz`` is too small.
    """
    if not count:
        return [Stage(1, 0, epochs, imgsz, batch_size, 1.0, hyp)]
    if epochs < count:
        raise UserError(
            f"--progressive {count}: every stage needs an epoch at least, and there are {epochs}; take more, or fewer "
            "stages, or --progressive 0 for none"
        )
    smallest = max(_multiple(hyp["progressive_start"] * imgsz, stride), LEAST_CELLS * stride)
    if smallest >= imgsz:
        raise UserError(
            f"--progressive: below --imgsz {imgsz} there is no size to begin with, in multiples of {stride} from "
            f"{LEAST_CELLS * stride} px on; take larger images, or --progressive 0 for none"
        )
    ends = _ends(count, epochs, hyp["progressive_last"])
    stages = []
    for i, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
        way = i / (count - 1)
        weak = hyp["progressive_weak"]
        strength = 1.0 if way == 1 else weak + (1 - weak) * way
        size = _multiple(smallest + (imgsz - smallest) * way, stride)
        batch = grown_batch(batch_size, imgsz / size, round(hyp["progressive_batch"]), multiple)
        stages.append(Stage(i + 1, begin, end, size, batch, strength, _weakened(hyp, strength, way)))
    return stages


def stage_at(stages: list[Stage], epoch: int) -> Stage:
    """The stage that an epoch is of; the last one's go on without end."""
    return next((stage for stage in stages if epoch < stage.end), stages[-1])


def grown_batch(batch_size: int, factor: float, most: int, multiple: int) -> int:
    """Images of a batch whose sides are a ``factor``-th of the full ones: as many pixels as ``batch_size`` full ones, and
    at most ``most``, but never fewer than ``batch_size``."""
    found = min(int(batch_size * factor**2 + 1e-6), most) // multiple * multiple
    return max(found, batch_size)


def most_images(hyp: dict[str, float], batch_size: int, device_type: str) -> int:
    """What progressive_batch stands for: as many images as an optimiser step has, on a GPU, which small images leave idle; a
    CPU gains nothing by more of them.

    Of no more than that: so a step stays one of about nominal_batch images, for which the learning rate is given.
    """
    if hyp["progressive_batch"]:
        return round(hyp["progressive_batch"])
    return max(round(hyp["nominal_batch"]), batch_size) if device_type == "cuda" else batch_size


def stage_table(stages: list[Stage]) -> str:
    """The plan, a line for each stage, under a line of headings."""
    said = [name for name in ("mosaic", "mixup", "scale", "degrees", "hsv_s") if stages[-1].hyp[name]]
    head = ["stage", "epochs", "size", "batch", "strength", *said]
    rows = [
        [
            str(stage.number),
            _epochs(stage),
            str(stage.imgsz),
            str(stage.batch_size),
            f"{stage.strength:.0%}",
            *(f"{stage.hyp[name]:.3g}" for name in said),
        ]
        for stage in stages
    ]
    return "\n".join("".join(f"{cell:>11}" for cell in row) for row in (head, *rows))


def stage_line(stage: Stage, count: int) -> str:
    """What is said as a stage begins, or is taken up again."""
    return f"stage {stage.number} of {count}: epochs {_epochs(stage)} at {stage.imgsz} px, batch {stage.batch_size}"


def _epochs(stage: Stage) -> str:
    last = stage.end - 1
    return str(last) if stage.begin == last else f"{stage.begin}-{last}"


def _ends(count: int, epochs: int, last: float) -> list[int]:
    """Where each stage ends; every one has an epoch at least."""
    first = epochs * (1 - last if last else (count - 1) / count)
    shares = [first * (i + 1) / (count - 1) for i in range(count - 1)]
    ends = []
    for i, share in enumerate(shares):
        least = ends[-1] + 1 if ends else 1
        ends.append(min(max(round(share), least), epochs - (count - 1 - i)))
    return [*ends, epochs]


def _multiple(size: float, stride: int) -> int:
    """The multiple of ``stride`` next to ``size``."""
    return int(size / stride + 0.5) * stride


def _weakened(hyp: dict[str, float], strength: float, way: float) -> dict[str, float]:
    if way == 1:
        return hyp
    grown = {name: hyp[name] * strength for name in GROWING} | {name: hyp[name] * way for name in GROWING_FROM_NOTHING}
    return hyp | grown
