"""A checkpoint as YOLOv5 itself writes them, for programs that unpickle those: its own commands, torch.hub, gen_wts.

Such a file holds module objects. Here each becomes a plain record under the class's name there, with the attributes that the
class's forward asks for; nothing of stock's code is needed to write it, and it is read back by utils/checkpoint.py.
"""

import datetime
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

import models.common as blocks
from engine.export.settings import Settings
from models.heads.detect import Detect
from models.yolo import DetectionModel
from utils.errors import UserError
from utils.files import replacing

COMMON = """Conv DWConv DWConvTranspose2d TransformerLayer TransformerBlock Bottleneck BottleneckCSP CrossConv C3 C3x C3TR C3SPP
C3Ghost SPP SPPF Focus GhostConv GhostBottleneck Contract Expand Concat""".split()
# the write-ups' blocks, where a fork built from them has them
WRITE_UPS = """stem FusedMBConv MBConv SqueezeExcite_efficientv2 DropPath Conv_maxpool ShuffleNetV2_InvertedResidual
UniversalInvertedBottleneckBlock C3_UIB""".split()
MODULES = dict.fromkeys((*COMMON, *WRITE_UPS), "models.common") | {"MixConv2d": "models.experimental"}
# what every module had in PyTorch 1.7 to 1.10, from which later ones fill in the rest
HOOKS = "_backward_hooks _forward_hooks _forward_pre_hooks _state_dict_hooks _load_state_dict_pre_hooks".split()
PRIVATE = set(vars(nn.Module()))
# younger than that, and set by stock as it loads
LATER = {"recompute_scale_factor"}


class Record:
    """The superclass of all stand-ins for stock's classes, and for PyTorch's as they are pickled beside them."""


class _Pickler(pickle._Pickler):
    """Writes stand-ins under the names of the classes they stand for, which need not be there."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if isinstance(obj, type) and issubclass(obj, Record):
            self.write(pickle.GLOBAL + f"{obj.__module__}\n{obj.__qualname__}\n".encode())
            self.memoize(obj)
        else:
            super().save_global(obj, name)

    # what pickle calls for a class
    dispatch = pickle._Pickler.dispatch | {type: save_global}


def write(model: DetectionModel, file: Path, settings: Settings) -> Path:
    """Write ``model``, in half precision, as stock would. Raises UserError for what neither stock nor a write-up knows."""
    found = Writer(model, file).checkpoint()
    buffer = io.BytesIO()
    torch.save(found, buffer, pickle_module=SimpleNamespace(__name__="pickle", Pickler=_Pickler))
    with replacing(file) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    return file


class Writer:
    """Makes records of the modules of one model; each class has one stand-in, each module one record."""

    def __init__(self, model: DetectionModel, file: Path):
        if type(model.detect) is not Detect or isinstance(model.yaml["backbone"], str):
            what = (
                f"the head {type(model.detect).__name__}" if type(model.detect) is not Detect else "a backbone by name"
            )
            raise UserError(f"{file}: neither stock nor a write-up's fork knows {what}; export to ONNX instead")
        self.model = model
        self.file = file
        self.classes: dict[str, type[Record]] = {}
        self.records: dict[nn.Module, Record] = {}

    def checkpoint(self) -> dict[str, Any]:
        """What stock's checkpoints hold when the training is done."""
        nothing = dict.fromkeys(("best_fitness", "ema", "updates", "optimizer", "wandb_id"))
        date = datetime.datetime.now().isoformat()
        return {"epoch": -1, "model": self.detector(), **nothing, "date": date}

    def detector(self) -> Record:
        """models.yolo.Model."""
        model = self.model
        layers = self.record(model.model, "torch.nn.modules.container.Sequential")
        for row, layer in zip(model.rows, model.model, strict=True):
            block = type(layer[0]) if row.number > 1 and type(layer) is nn.Sequential else type(layer)
            own = {"i": row.index, "f": row.source, "type": self.place(block), "np": row.parameters}
            vars(self.records[layer]).update(own)
        yaml = {k: v for k, v in model.yaml.items() if k != "yaml_file"}
        names = [model.names[i] for i in range(model.nc)]
        weights = torch.ones(model.nc, dtype=torch.float64)
        own = {
            "yaml_file": f"{Path(model.yaml_file).stem}.yaml",
            "yaml": yaml,
            "save": list(model.save),
            "names": names,
        }
        own |= {
            "inplace": True,
            "stride": model.stride.cpu().float(),
            "nc": model.nc,
            "hyp": {},
            "class_weights": weights,
        }
        return self.instance("models.yolo.Model", base(modules=OrderedDict(model=layers)) | own)

    def record(self, module: nn.Module, name: str = "") -> Record:
        """The record of a module and of all within it. Raises UserError for a class that others don't know."""
        if module not in self.records:
            modules = OrderedDict((key, child and self.record(child)) for key, child in module._modules.items())
            own = {k: v for k, v in vars(module).items() if k not in PRIVATE | LATER}
            more, within = self.as_others_have_it(module)
            modules |= OrderedDict((key, self.record(child)) for key, child in within.items())
            state = base(module, modules) | own | more
            self.records[module] = self.instance(name or self.place(type(module)), state)
        return self.records[module]

    def as_others_have_it(self, module: nn.Module) -> tuple[dict[str, Any], dict[str, nn.Module]]:
        """(attributes, modules) under the names that the class has elsewhere, beside those it has here."""
        if getattr(module, "paper", False):
            raise UserError(
                f"{self.file}: {type(module).__name__} with paper=True is of this project alone; export to ONNX"
            )
        adapt = ADAPTED.get(type(module))
        return adapt(module) if adapt else ({}, {})

    def place(self, cls: type[nn.Module]) -> str:
        """The dotted name of a class elsewhere."""
        if cls is Detect:
            return "models.yolo.Detect"
        if cls.__module__.startswith("torch.nn."):
            return f"{cls.__module__}.{cls.__qualname__}"
        if getattr(blocks, cls.__name__, None) is cls and cls.__name__ in MODULES:
            return f"{MODULES[cls.__name__]}.{cls.__name__}"
        raise UserError(
            f"{self.file}: neither stock nor a write-up's fork knows the block {cls.__name__}; export to ONNX instead"
        )

    def instance(self, name: str, state: dict[str, Any]) -> Record:
        """An object of the class that is called ``name`` elsewhere."""
        if name not in self.classes:
            module, _, cls = name.rpartition(".")
            self.classes[name] = type(cls, (Record,), {"__module__": module, "__qualname__": cls})
        found = self.classes[name]()
        vars(found).update(state)
        return found


def base(module: nn.Module | None = None, modules: OrderedDict | None = None) -> dict[str, Any]:
    """The attributes of every module, with weights in half precision."""
    parameters, buffers = OrderedDict(), OrderedDict()
    if module is not None:
        for key, value in module._parameters.items():
            parameters[key] = None if value is None else nn.Parameter(value.detach().cpu().half(), requires_grad=False)
        for key, value in module._buffers.items():
            if key not in module._non_persistent_buffers_set:
                buffers[key] = value if value is None else halved(value.detach().cpu())
    state: dict[str, Any] = {"training": False, "_parameters": parameters, "_buffers": buffers}
    state |= {
        "_non_persistent_buffers_set": set(),
        "_is_full_backward_hook": None,
        "_modules": modules or OrderedDict(),
    }
    return state | {name: OrderedDict() for name in HOOKS}


def halved(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of floats in half precision; a counter as it is."""
    return tensor.half() if tensor.is_floating_point() else tensor


def _detect(head: Detect) -> tuple[dict[str, Any], dict[str, nn.Module]]:
    grids = {name: [torch.zeros(1) for _ in range(head.nl)] for name in ("grid", "anchor_grid")}
    return {**grids, "inplace": True, "stride": head.stride.cpu().half()}, {}


def _inverted_residual(block: nn.Module) -> tuple[dict[str, Any], dict[str, nn.Module]]:
    attributes = {"has_shortcut": block.add, "has_expansion": block.expansion_conv is not None}
    attributes["drop_connect_rate"] = block.drop_path.p
    return attributes, {"dropout": block.drop_path}


def _squeeze_excite(gate: nn.Module) -> tuple[dict[str, Any], dict[str, nn.Module]]:
    return {}, {"avg_pool": nn.AdaptiveAvgPool2d(1), "act1": gate.act, "gate_fn": nn.Sigmoid()}


def _inverted_bottleneck(block: nn.Module) -> tuple[dict[str, Any], dict[str, nn.Module]]:
    def kernel(part: nn.Module) -> int:
        return 0 if isinstance(part, nn.Identity) else part.conv.kernel_size[0]

    return {"start_dw_kernel_size": kernel(block._start_dw_), "middle_dw_kernel_size": kernel(block._middle_dw)}, {}


ADAPTED: dict[type[nn.Module], Callable[[Any], tuple[dict[str, Any], dict[str, nn.Module]]]] = {
    Detect: _detect,
    blocks.FusedMBConv: _inverted_residual,
    blocks.MBConv: _inverted_residual,
    blocks.DropPath: lambda drop: ({"drop_prob": drop.p}, {}),
    blocks.SqueezeExcite_efficientv2: _squeeze_excite,
    blocks.UniversalInvertedBottleneckBlock: _inverted_bottleneck,
    blocks.ShuffleNetV2_InvertedResidual: lambda unit: (
        {},
        {} if hasattr(unit, "branch1") else {"branch1": nn.Sequential()},
    ),
}
