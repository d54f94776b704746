"""Models and checkpoints with weights that are good for a test."""

import functools

import torch
from torch import nn

from models.yolo import BLOCKS, DetectionModel, find_class
from utils.checkpoint import save_checkpoint

WIDTH = 64


def block(name: str) -> nn.Module:
    """Any of BLOCKS, of WIDTH channels; Concat takes a list of maps."""
    kind, rule = find_class(name), BLOCKS[name]
    if rule == "plain":
        return kind()
    if rule == "keep":
        return kind(WIDTH)
    stride = (1,) if name == "ShuffleNetV2_InvertedResidual" else ()
    return kind(WIDTH, WIDTH, *stride)


def lively(model: nn.Module, image: torch.Tensor) -> nn.Module:
    """Give every BatchNorm something to do: weights and biases at random, and about the statistics of ``image`` itself.

    Statistics far from them would make the signal grow from layer to layer. Returns the model in eval mode.
    """

    def adjust(norm: nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance + 3 * (variance + mean**2).mean())  # no small ones, which amplify rounding
        nn.init.uniform_(norm.weight, 0.5, 1.0)
        nn.init.uniform_(norm.bias, -0.5, 0.5)

    hooks = [m.register_forward_pre_hook(adjust) for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        model.eval()(image)
    for hook in hooks:
        hook.remove()
    return model


@functools.cache
def random_checkpoint(seed: int, nc: int) -> dict:
    torch.manual_seed(seed)
    model = DetectionModel("yolov5n.yaml", nc=nc)
    for conv in model.detect.m:
        conv.bias.data.view(3, -1)[:, 4:] = 0.0
    names = {0: "rectangle", 1: "disc"} if nc == 2 else {i: str(i) for i in range(nc)}
    return {"yaml": model.yaml, "names": names, "model": model.state_dict(), "args": {"imgsz": 96}}


def make_weights(path, seed, nc=2):
    """A checkpoint of random weights, biased so that many boxes are found, some of them overlapping the labels."""
    checkpoint = random_checkpoint(seed, nc)
    # what a test draws after this is the same, whether or not the checkpoint was there
    torch.manual_seed(seed)
    save_checkpoint(path, checkpoint)
    return path


def own_checkpoint(path, nc=2, cfg="yolov5n.yaml", names=None):
    """A checkpoint as training writes it; returns its model."""
    torch.manual_seed(nc)
    model = DetectionModel(cfg, nc=nc)
    names = names or {i: f"class {i}" for i in range(nc)}
    save_checkpoint(path, {"yaml": model.yaml, "names": names, "model": model.state_dict(), "args": {"imgsz": 96}})
    return model


def random_statistics(model: nn.Module) -> nn.Module:
    """Give every BatchNorm something to do."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 1.5),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                tensor.uniform_(low, high, generator=generator)
    return model


def detect_options(weights, source, tmp_path, **changes):
    """How detect.run is called in tests."""
    base = {"weights": [str(weights)], "source": str(source), "imgsz": [96], "device": "cpu", "conf_thres": 0.2}
    return base | {"project": str(tmp_path / "runs")} | changes
