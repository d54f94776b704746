"""Networks by name: which there are, and the levels of their pyramids, read from the network itself.

Level Pn is the last map at stride 2ⁿ. torchvision's networks come through its feature extraction, timm's as features_only.
"""

import difflib
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from utils.errors import UserError

PROBE = (256, 320)  # height and width at which networks are traced; not square, so that layouts can be told apart


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# spellings of the write-ups
ALIASES = {
    "efficientnet": "torchvision/efficientnet_b0",
    "efficientnetv2_s": "torchvision/efficientnet_v2_s",
    "efficientnetv2_m": "torchvision/efficientnet_v2_m",
    "efficientnetv2_l": "torchvision/efficientnet_v2_l",
}


@dataclass(frozen=True)
class Level:
    """One level of a network's pyramid."""

    place: str | int  # the module that gives it (torchvision), or its index among the features (timm)
    channels: int
    stride: int
    layout: str  # NCHW, NHWC, or tokens [b, h·w, c]


@dataclass(frozen=True)
class Network:
    """What is known of a network by name: its levels, finest first, and the normalisation that its weights expect."""

    name: str  # with its library: timm/mobilenetv4_conv_small
    levels: dict[str, Level]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def default(self) -> str:
        """The level a row gets that takes its input from the layer before: P5, or the coarsest below."""
        return [name for name, level in self.levels.items() if level.stride <= 32][-1]

    def __str__(self) -> str:
        return f"{self.name} has {', '.join(f'{k} ({v.channels} channels)' for k, v in self.levels.items())}"


def create_classifier(name: str) -> nn.Module:
    """The whole network ``name`` as its library builds it, with its classifier of 1000 classes, untrained."""
    library, architecture = resolve_name(name).split("/", 1)
    if library == "timm":
        return _timm().create_model(architecture, pretrained=False)
    with warnings.catch_warnings():  # GoogLeNet announces a change of its initialisation
        warnings.simplefilter("ignore", FutureWarning)
        return _torchvision().get_model(architecture, weights=None)


# Names ----------------------------------------------------------------------------------------------------------------


def resolve_name(name: str) -> str:
    """``library/architecture`` of a name; a bare one is looked for in torchvision, then in timm.

    Raises UserError that lists the nearest names.
    """
    wanted = ALIASES.get(name.lower(), name)
    library, _, architecture = wanted.rpartition("/")
    if library not in ("", "torchvision", "timm"):
        raise UserError(f"backbone {name}: networks come from torchvision/… or timm/…, not from {library}")
    in_torchvision = _torchvision().list_models(module=_torchvision())
    for spelling in (architecture, architecture.lower().replace("-", "_")):
        if library != "timm" and spelling in in_torchvision:
            return f"torchvision/{spelling}"
        in_timm = library == "timm" or (library == "" and _has_timm())
        if in_timm and _timm().is_model(spelling):
            return f"timm/{spelling}"
    known = [] if library == "timm" else in_torchvision
    if library != "torchvision" and _has_timm():
        known = known + _timm().list_models()
    close = difflib.get_close_matches(architecture.lower(), sorted(set(known)), n=4, cutoff=0.5)
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    more = "" if library == "torchvision" or _has_timm() else " (with timm there are many more: pip install timm)"
    raise UserError(f"backbone {name}: no such network{hint}{more}")


def _torchvision():
    """torchvision's networks. Here and not above: importing them takes as long as importing PyTorch."""
    from torchvision import models

    return models


def _has_timm() -> bool:
    try:
        import timm  # noqa: F401
    except ImportError:
        return False
    return True


def _timm():
    if not _has_timm():
        raise UserError("backbones timm/… need the package timm: pip install timm")
    import timm

    return timm


# Levels, read from the network ----------------------------------------------------------------------------------------


@cache
def describe(name: str) -> Network:
    """The levels of a network, found by tracing it, and the input its weights expect.

    Raises UserError for a network that has no pyramid, or takes images of one size only.
    """
    name = resolve_name(name)
    library, architecture = name.split("/", 1)
    if library == "timm":
        levels = _probe(name, lambda: _timm_features(name), _timm_levels)
        cfg = _timm().get_pretrained_cfg(architecture)
        mean, std = (tuple(cfg.mean), tuple(cfg.std)) if cfg else (IMAGENET_MEAN, IMAGENET_STD)
    else:
        levels = _probe(name, lambda: create_classifier(name), _torchvision_levels)
        mean, std = IMAGENET_MEAN, IMAGENET_STD  # of all its classifiers
    if len(levels) < 2:
        has = f"its maps all have stride {next(iter(levels.values())).stride}" if levels else "it gives no maps"
        raise UserError(f"backbone {name}: has no pyramid of features ({has}), which a detector's neck needs")
    return Network(name, dict(sorted(levels.items())), mean, std)


def _torchvision_levels(net: nn.Module, image: torch.Tensor) -> dict[str, Level]:
    """The last stage at each stride; the convolution that only widens the last map for a classifier is left out."""
    outputs: list[tuple[str, nn.Module, torch.Tensor]] = []
    units = {}
    for child_name, child in net.named_children():
        stages = child.named_children() if isinstance(child, (nn.Sequential, nn.ModuleList)) else ()
        units |= {child_name: child} | {f"{child_name}.{k}": stage for k, stage in stages}
    for unit_name, unit in units.items():
        unit.register_forward_hook(lambda module, _, y, unit_name=unit_name: outputs.append((unit_name, module, y)))
    net(image)
    found = [(unit, module, *read_map(y)) for unit, module, y in outputs if read_map(y)]
    several = {u for u, *_ in found if len({f[3] for f in found if f[0].startswith(f"{u}.")}) > 1}
    # containers of several strides stand for no stage, those of one stride for all that they hold
    stages = [f for f in found if f[0] not in several and f[0].rpartition(".")[0] in {"", *several}]
    return _by_name([(unit, *read) for unit, _, *read in _without_widening(stages)])


def _timm_levels(net: nn.Module, image: torch.Tensor) -> dict[str, Level]:
    return _by_name([(i, *read_map(y)) for i, y in enumerate(net(image)) if read_map(y)])


def _by_name(maps: list[tuple[str | int, int, int, str]]) -> dict[str, Level]:
    """{P3: Level} of (place, channels, stride, layout); of several at one stride the last."""
    return {f"P{int(math.log2(stride))}": Level(p, c, stride, layout) for p, c, stride, layout in maps if stride > 1}


def _without_widening(stages: list[tuple]) -> list[tuple]:
    """The (name, module, channels, stride, layout) of a network without a last 1×1 convolution and what follows it."""
    end, convolutions = len(stages), []
    while end and not convolutions:
        end -= 1
        convolutions = [m for m in stages[end][1].modules() if isinstance(m, nn.Conv2d)]
    widens = len(convolutions) == 1 and convolutions[0].kernel_size == (1, 1)
    return stages[:end] if widens and end and stages[end - 1][3] == stages[-1][3] else stages


def _timm_features(name: str, **options) -> nn.Module:
    """timm's features_only form of a network, freed from a fixed input size where it can be."""
    timm, architecture = _timm(), name.removeprefix("timm/")
    cfg = timm.get_pretrained_cfg(architecture)
    free = [{"strict_img_size": False}] if cfg is not None and cfg.fixed_input_size else []
    for extra in [*free, {}]:
        try:
            return timm.create_model(architecture, pretrained=False, features_only=True, **extra, **options)
        except TypeError as e:  # a builder that doesn't know the option
            if not extra or "strict_img_size" not in str(e):
                raise UserError(f"backbone {name}: timm can't give its features: {e}") from None
        except (RuntimeError, AttributeError, AssertionError) as e:
            raise UserError(f"backbone {name}: timm can't give its features: {e}") from None
    raise AssertionError("unreachable")


def _probe(
    name: str, build: Callable[[], nn.Module], read: Callable[[nn.Module, torch.Tensor], dict]
) -> dict[str, Level]:
    """What ``read`` finds in a network given an image of PROBE's size.

    On the meta device first, where that costs neither memory nor time; for real where a network needs numbers.
    Raises UserError where it can't take such an image.
    """
    for device in ("meta", "cpu"):
        try:
            with torch.device(device), torch.no_grad():
                return read(build().eval(), torch.zeros(1, 3, *PROBE))
        except Exception as e:
            if device == "meta":
                continue
            if isinstance(e, UserError):
                raise
            height, width = PROBE
            reason = " ".join(str(e).split())[:120]
            raise UserError(
                f"backbone {name}: can't take images of {height}×{width} pixels ({reason}); a detector needs a network "
                "that takes every multiple of its stride"
            ) from None
    raise AssertionError("unreachable")


def read_map(y) -> tuple[int, int, str] | None:
    """(channels, stride, layout) of what a network gave for an image of PROBE's size; None where it is no map."""
    height, width = PROBE
    if not isinstance(y, torch.Tensor):
        return None
    shape = tuple(y.shape)
    strides = [2**n for n in range(8)]
    for stride in strides:
        h, w = height // stride, width // stride
        if len(shape) == 4 and shape[2:] == (h, w):
            return shape[1], stride, "NCHW"
        if len(shape) == 4 and shape[1:3] == (h, w):
            return shape[3], stride, "NHWC"
        if len(shape) == 3 and shape[1] == h * w:
            return shape[2], stride, "tokens"
    return None


def build_network(name: str, levels: dict[str, Level]) -> nn.Module:
    """The network up to the coarsest of ``levels``, without what these don't need."""
    if name.startswith("timm/"):
        places = tuple(level.place for level in levels.values())
        net = _timm_features(name, out_indices=places)
        if hasattr(net, "_stage_out_idx"):  # timm keeps the stages behind the last one used
            net.blocks = net.blocks[: max(net._stage_out_idx)]
        elif type(net).__name__ != "FeatureListNet":  # which holds nothing else
            for key in _unused(name, places):
                net.get_parameter(key).requires_grad_(False)
        return net
    from torchvision.models.feature_extraction import create_feature_extractor

    nodes = {level.place: level_name for level_name, level in levels.items()}
    with warnings.catch_warnings():  # networks with auxiliary classifiers differ between training and inference
        warnings.simplefilter("ignore")
        return create_feature_extractor(create_classifier(name), nodes)


@cache
def _unused(name: str, places: tuple[int, ...]) -> list[str]:
    """The parameters that none of these maps of a timm network depends on: training over several processes fails on them."""
    with torch.device("meta"):
        net = _timm_features(name, out_indices=places).train()
        sum(y.sum() for y in net(torch.zeros(2, 3, *PROBE))).backward()
    return [key for key, parameter in net.named_parameters() if parameter.grad is None]
