"""The detectors for other programs, through torch.hub.

model = torch.hub.load("path/to/this/folder", "custom", path="best.pt", source="local")
model = torch.hub.load("path/to/this/folder", "yolov5s", source="local")
model = torch.hub.load("path/to/this/folder", "backbone", "efficientnet_b0", classes=3, source="local")
model.conf = 0.4
results = model(["a.jpg", "b.jpg"], size=640)
results.print()
results.xyxy[0]     # tensor [m, 6]: x1 y1 x2 y2 in pixels, confidence, class
"""

from collections import abc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

dependencies = ["torch", "torchvision", "numpy", "cv2", "yaml", "matplotlib", "tqdm"]


def custom(
    path="best.pt", autoshape: bool = True, _verbose: bool = True, device=None, trust: bool = False
) -> "nn.Module":
    """The detector of a checkpoint, an exported file, or a model YAML (with initial weights), as AutoShape of
    engine/detection/autoshape.py. ``trust`` runs TorchScript and TensorRT files of others, which are programs."""
    return _load(path, _verbose, autoshape=autoshape, device=device, trust=trust)


def backbone(
    name: str,
    cfg: str = "yolov5s.yaml",
    weights: str = "",
    classes: int = 80,
    autoshape: bool = True,
    _verbose: bool = True,
    device=None,
) -> "nn.Module":
    """A network of torchvision or timm by name under the neck of ``cfg``, not trained yet; ``weights`` of the backbone:
    "imagenet", a file, or none."""
    from engine.detection.hub import load_hub_backbone

    return _told(name, load_hub_backbone(name, cfg, weights, classes, autoshape, device), _verbose)


def _load(path, _verbose: bool, **options) -> "nn.Module":
    from engine.detection.hub import load_hub_model

    return _told(path, load_hub_model(path, **options), _verbose)


def _told(name, model: "nn.Module", verbose: bool) -> "nn.Module":
    if verbose:
        # a number of AutoShape, one per level of a bare model
        strides = model.stride if isinstance(model.stride, int) else model.stride.int().tolist()
        print(f"{name}: {len(model.names)} classes, stride {strides}")
    return model


def _entry(name: str) -> abc.Callable[..., "nn.Module"]:
    def load(
        pretrained: bool = True,
        channels: int = 3,
        classes: int = 80,
        autoshape: bool = True,
        _verbose: bool = True,
        device=None,
    ) -> "nn.Module":
        options = {"pretrained": pretrained, "channels": channels, "classes": classes}
        return _load(f"{name}.pt", _verbose, **options, autoshape=autoshape, device=device)

    load.__name__ = name
    load.__doc__ = f"{name}, with the weights of its public release (fetched) unless ``pretrained`` is off."
    return load


yolov5n, yolov5s, yolov5m, yolov5l, yolov5x = (_entry(f"yolov5{size}") for size in "nsmlx")
yolov5n6, yolov5s6, yolov5m6, yolov5l6, yolov5x6 = (_entry(f"yolov5{size}6") for size in "nsmlx")


def _help() -> None:
    from pathlib import Path

    first, _, examples = __doc__.partition("\n\n")
    print(f"{first} No command by itself: a Python program loads it.\n")
    print("import torch\n")
    print(examples.rstrip().replace("path/to/this/folder", Path(__file__).resolve().parent.as_posix()))


if __name__ == "__main__":
    from utils.errors import exit_on_user_error

    exit_on_user_error(_help)
