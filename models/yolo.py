"""From a YAML file to a detector.

``python models/yolo.py --cfg yolov5s_EfficientNetV2.yaml`` builds a model and prints it layer by layer.

    DetectionModel("models/yolov5s.yaml", nc=3)
        read_model_yaml     the file, by path or by name
        parse_model         rows → layers, each checked as it is built
        HEADS               the head: maps → boxes
"""

if __name__ == "__main__":  # run as a script: the project's folder comes before models/ on the import path
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from models import common
from models.backbones.backbone import split_levels
from models.blocks import attention, ghostnet, mobilenet, yolov7
from models.common import default_activation
from models.description import swap
from models.description.budget import Budget
from models.description.build import build_head, build_layer, scale_drop_rates, set_batchnorm
from models.description.check import check_description, check_head, check_inputs, check_levels
from models.description.doubts import doubt_widths, find_warnings, unscaled_rows
from models.description.find import apply_size, find_model_yaml, model_yamls
from models.description.names import ALIASES, PLACES
from models.description.rows import CHECK_SIZE, Row, UnknownBlock, is_level, nearest, parse_activation, read_rows, take
from models.description.rules import Block, Scaling, rule_by_names
from models.flops import count_gflops, count_layers, count_parameters
from models.fuse import fuse_conv_bn
from models.heads.protocol import Head
from models.heads.table import HEADS
from models.pasted import find_block, is_replaced, told
from models.plugins import PLUGINS, load_plugins, reserve
from models.profiling import profile_layers, profile_model
from models.table import layer_table
from models.tta import forward_augment
from utils.boxes import non_max_suppression
from utils.cli import MOST_IMAGES, BackboneFlags, Device, Plugins, SquareImages, flag, with_default
from utils.console.progress import track
from utils.data.images import usable_imgsz
from utils.device import keeping_random_state, select_device
from utils.errors import UserError, exit_on_user_error, shown

HELP = """Build a model from its YAML and print it layer by layer.

python models/yolo.py --cfg yolov5s_EfficientNetV2.yaml
python models/yolo.py --backbone mobilenet_v3_small --imgsz 320
python models/yolo.py --test # builds and runs every YAML below models/
"""
# How a row feeds its block. To use your own: paste the class at the end of models/common.py and add its name here.
#   channels  Block(c1, c2, *args[1:])      c2 = args[0] scaled by width_multiple; repeated `number` times in a Sequential
#   repeats   Block(c1, c2, n, *args[1:])   the block itself repeats what it holds
#   keep      Block(c1, *args)              output channels = input channels
#   plain     Block(*args)                  knows nothing of channels
#   None      inferred from the names of the constructor's first parameters, and from what the row writes
# A class of a name that stands here already takes the place of ours; how it is fed is then inferred, too.
BLOCKS = {
    # YOLOv5
    "Conv": "channels",
    "DWConv": "channels",
    "DWConvTranspose2d": "channels",
    "GhostConv": "channels",
    "MixConv2d": "channels",
    "CrossConv": "channels",
    "Focus": "channels",
    "Bottleneck": "channels",
    "GhostBottleneck": "channels",
    "SPP": "channels",
    "SPPF": "channels",
    "C3SPP": "channels",
    "BottleneckCSP": "repeats",
    "C3": "repeats",
    "C3x": "repeats",
    "C3TR": "repeats",
    "C3Ghost": "repeats",
    "Contract": "plain",
    "Expand": "plain",
    "Concat": "plain",
    # EfficientNet and EfficientNetV2
    "stem": "channels",
    "FusedMBConv": "channels",
    "MBConv": "channels",
    # ShuffleNetV2
    "ShuffleNetV2_InvertedResidual": "channels",
    "Conv_maxpool": "channels",
    # MobileNetV3, MobileNetV4
    "MobileNetV3_InvertedResidual": "channels",
    "UniversalInvertedBottleneckBlock": "channels",
    "C3_UIB": "repeats",
    # GhostNet
    "GhostNetBottleneck": "channels",
    # YOLOv7
    "MP": "plain",
    "SP": "plain",
    "SPPCSPC": "channels",
    "RepConv": "channels",
    # attention
    **dict.fromkeys(("SE", "CBAM", "CoordAtt", "ECA", "SOCA", "SimAM", "MobileMQA"), "keep"),
    **dict.fromkeys(("C3SE", "C3CBAM", "C3CoordAtt", "C3ECA", "C3SOCA", "C3SimAM", "C3MobileMQA"), "repeats"),
    # "YourBlock": None,
}
BLOCK_FILES = (common, attention, mobilenet, ghostnet, yolov7)
reserve({*BLOCKS, *HEADS})
TORCH_RULES = {
    "nn.Conv2d": "channels",
    "nn.ConvTranspose2d": "channels",
    "nn.BatchNorm2d": "keep",
    "nn.InstanceNorm2d": "keep",
}


def read_model_yaml(cfg: str | Path | dict, backbone: str | None = None) -> tuple[dict, str]:
    """The model's description, flat, and the file it came from; a bare name is looked for below models/.

    ``backbone``: the name of a network to put in the place of the description's backbone.
    """
    description, file = find_model_yaml(cfg)
    description, name = swap.unnest(description)
    if name and swap.names_network(description) and "head" not in description:
        backbone = backbone or description.pop("backbone")
        description = find_model_yaml(swap.stock_name(name))[0] | description
    if not backbone:
        return description, file
    check_description(description, file)
    strides = []
    if not swap.names_network(description):
        rows = parse_model(description, file, description.get("ch", 3))[1]
        if rows[0].maps:
            raise rows[0].error("is a whole network already: --backbone takes the place of the rows of a backbone")
        strides = [row.stride for row in rows[: len(description["backbone"])]]
    description = swap.with_backbone(description, file, strides, backbone)
    return description, f"{Path(file).stem}_{backbone.rpartition('/')[2]}.yaml"


def find_class(name: str) -> Block | None:
    """The block of that name: an import of this file, a class pasted into models/common.py, or one of ours."""
    return find_block(name, BLOCK_FILES, globals())


def resolve_block(row: Row) -> tuple[Block, str | None]:
    """The block a row names and the rule by which it is fed, None where that is to be inferred."""
    name = row.block
    block = find_class(name)
    if name in PLUGINS:
        plugin = PLUGINS[name]
        if name in BLOCKS:
            row.notes.append(f"{name} is that of {plugin.origin}; the built-in one is not used")
        return plugin.block, plugin.rule
    if name in BLOCKS:
        if block is None:
            raise row.error(f"{name} is in BLOCKS of models/yolo.py, but models/common.py has no such class")
        if not is_replaced(block, name):
            return block, BLOCKS[name]
        row.notes.append(told(block, name))
        # what ours is fed with says little of another class, unless that one's names say nothing
        return block, None if rule_by_names(block) != "plain" else BLOCKS[name]
    torch_name = name.removeprefix("torch.")
    found = getattr(nn, torch_name[3:], None) if torch_name.startswith("nn.") else None
    if isinstance(found, type) and issubclass(found, nn.Module):
        return found, TORCH_RULES.get(torch_name, "plain")
    if block is not None:
        file = f"{block.__module__.replace('.', '/')}.py"
        raise row.error(f"{name} is in {file}; add its name to BLOCKS in models/yolo.py to use it")
    raise UnknownBlock(f"{row.place}: unknown block {shown(name)}{_meant(name) or '.'} {PLACES}")


def _meant(name: str) -> str:
    """What an unknown name probably stands for, as the end of a message; empty where nothing is near."""
    known = {alias: own for own, aliases in ALIASES.items() for alias in aliases}
    if name in known:
        return f"; {known[name]} is its name here."
    return nearest(name, [*BLOCKS, *PLUGINS, *HEADS, "nn.Upsample"])


def check_blocks(rows: list[Row], file: str) -> None:
    """Every row names a block that is there. Raises UserError for all that don't, at once."""
    unknown: dict[str, list[Row]] = {}
    for row in rows:
        try:
            if row.block not in HEADS and not (row.index == 0 and swap.is_network(row.block, [*BLOCKS, *PLUGINS])):
                resolve_block(row)
        except UnknownBlock:
            unknown.setdefault(row.block, []).append(row)
        finally:
            row.notes.clear()
    if len(unknown) < 2:
        # the only one is told with its row, when that is built
        return
    said = []
    for name, where in unknown.items():
        layers = f"layer{'s' if len(where) > 1 else ''} {', '.join(str(row.index) for row in where)}"
        said.append(f"{shown(name)} ({layers}{_meant(name).rstrip('.')})")
    raise UnknownBlock(f"{file}: unknown blocks: {', '.join(said)}. {PLACES}")


def parse_model(cfg: dict, file: str, ch: int = 3) -> tuple[nn.Sequential, list[Row]]:
    """Build the layers of a model description, tracing each on the way.

    Returns the layers (each with attributes ``i`` index, ``f`` from) and their rows, which carry channels, output shape
    and stride. Raises UserError that names the row where a block is unknown, cannot be built, or does not fit its input.
    """
    scaling = Scaling.of(cfg)
    rows = read_rows(cfg, file)
    check_head(rows, file)
    layers, levels = [], {}
    with Budget(), default_activation(parse_activation(cfg.get("activation"), file)):
        if backbone := swap.build_backbone(cfg, file, rows):
            layers, levels = [backbone], swap.trace_backbone(backbone, rows[0], CHECK_SIZE)
        check_blocks(rows[len(layers) :], file)
        for row in rows[len(layers) :]:
            if rows[0].maps:
                swap.recount(row, rows[0])
            sources = row.source_indices()
            shapes = [r.shape for r in rows]
            inputs = [take(s, (ch, CHECK_SIZE, CHECK_SIZE), shapes, levels) for s in sources]
            channels = [shape[0] for shape in inputs]
            check_inputs(row, sources, inputs, rows)
            if kind := HEADS.get(row.block):
                strides = [CHECK_SIZE / shape[1] for shape in inputs]
                layer = build_head(kind, row, sources, channels, cfg)
                check_levels(row, sources, inputs, strides, rows)
                layer.set_strides(strides)
            elif row.index == 0 and (layer := swap.network_of_row(row, [*BLOCKS, *PLUGINS])):
                rows[0].maps = swap.trace_backbone(layer, row, CHECK_SIZE)
            else:
                taken = [None if s == -1 or is_level(s) else rows[s] for s in sources]
                block, rule = resolve_block(row)
                layer = build_layer(row, block, rule, taken, inputs, scaling)
                row.stride = CHECK_SIZE / row.shape[1]
                if row.maps:
                    layer.map_names = list(row.maps)
            if row.maps:
                row.notes.append(swap.told_maps(row))
                levels = row.maps
            layer.i, layer.f = row.index, row.source
            row.parameters = count_parameters(layer)[0]
            layers.append(layer)
    return nn.Sequential(*layers).train(), rows


class DetectionModel(nn.Module):
    """A detector described by a YAML file (path or name) or a mapping.

    ``nc`` and ``anchors`` replace those of the description, ``size`` (n, s, m, l or x) its depth and width, ``backbone``,
    the name of a network, its backbone. Attributes: ``yaml`` the description, ``names`` {index: name}, ``stride`` [levels],
    ``rows`` what was built, ``save`` the layers whose output a later one needs, ``warnings`` what builds and is probably
    not what was meant; for inference ``trained_size`` in pixels, where it is known, and ``fixed_size`` None: it takes any.
    """

    trained_size: int | None = None
    fixed_size: tuple[int, int] | None = None
    suppress = staticmethod(non_max_suppression)

    def __init__(
        self,
        cfg: str | Path | dict = "yolov5s.yaml",
        ch: int | None = None,
        nc: int | None = None,
        anchors: list | int | None = None,
        size: str | None = None,
        backbone: str | None = None,
    ):
        super().__init__()
        self.yaml, self.yaml_file = read_model_yaml(cfg, backbone)
        given = {"ch": ch, "nc": nc, "anchors": anchors, "size": size}
        self.yaml |= {k: v for k, v in given.items() if v is not None}
        apply_size(self.yaml, self.yaml_file)
        check_description(self.yaml, self.yaml_file)
        self.yaml.setdefault("ch", 3)
        self.model, self.rows = parse_model(self.yaml, self.yaml_file, self.yaml["ch"])
        if swap.names_network(self.yaml):
            self.yaml |= self.model[0].description()
        self.save = sorted({s for row in self.rows for s in row.kept_sources()})
        self.nc = self.detect.nc
        self.names = {i: str(i) for i in range(self.nc)}
        self.stride = self.detect.stride
        set_batchnorm(self.model, self.rows, self.yaml, self.yaml_file)
        scale_drop_rates(self.model)

    @cached_property
    def warnings(self) -> list[str]:
        """What builds, and is probably not what was meant. Found when it is asked for: it may take building another model."""
        found = find_warnings(self.yaml, self.yaml_file, self.rows, self.detect)
        if kept := unscaled_rows(self.rows, self.yaml):
            found.append(doubt_widths(kept, self.yaml, self._gflops_of_both_widths()))
        return found

    def _gflops_of_both_widths(self) -> tuple[float, float] | None:
        """GFLOPs of this model, and of it with every row scaled; None where that one doesn't build."""
        try:
            with keeping_random_state(torch.device("cpu")):
                scaled = DetectionModel(self.yaml | {"stock_widths": False, "yaml_file": self.yaml_file})
        except UserError:
            return None
        return count_gflops(self, channels=self.yaml["ch"]), count_gflops(scaled, channels=self.yaml["ch"])

    @property
    def detect(self) -> Head:
        """The head, whichever of HEADS it is."""
        return self.model[-1]

    @property
    def backbone(self) -> nn.Sequential:
        """The layers of the description's backbone: one where it is a network by name."""
        rows = self.yaml["backbone"]
        return self.model[: 1 if isinstance(rows, str) else len(rows)]

    @property
    def name(self) -> str:
        """The YAML's name without its suffix, and the size where one was chosen."""
        size = self.yaml.get("size")
        return Path(self.yaml_file).stem + (f" (size {size})" if size else "")

    def forward(self, x: torch.Tensor, augment: bool = False):
        """Images [b, ch, h, w], 0..1 → what the head returns; ``augment`` merges three scales and a flip (eval only)."""
        return forward_augment(self, x) if augment else self.forward_once(x)

    def forward_once(self, x: torch.Tensor):
        return self.detect(self.head_inputs(x))

    def head_inputs(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Images → the maps [b, c, h, w] that the head makes boxes of, one per level."""
        outputs, levels = [], {}
        *layers, head = self.model
        for layer in layers:
            x = layer(take(layer.f, x, outputs, levels))
            if layer.i == 0:
                levels, x = split_levels(layer, x)
            outputs.append(x if layer.i in self.save else None)
        return take(head.f, x, outputs, levels)

    def fuse(self) -> "DetectionModel":
        """Fold BatchNorm into the convolutions, in place: from here on the model is for inference only."""
        fuse_conv_bn(self.eval()).requires_grad_(False)
        return self

    def summary(self, size: int = CHECK_SIZE, fused: bool = False) -> str:
        """The one-line summary: layers, parameters, gradients, GFLOPs at ``size``."""
        parameters, trained = count_parameters(self)
        gflops = count_gflops(self, size, self.yaml["ch"])
        return (
            f"{self.name} {'fused ' if fused else ''}summary: {count_layers(self)} layers, {parameters:,} parameters, "
            f"{trained:,} gradients, {gflops:.1f} GFLOPs at {size}"
        )

    def table(self, size: int = CHECK_SIZE) -> str:
        """One line per layer: index, from, number, parameters, module, arguments, output shape at ``size``, stride."""
        return layer_table(self, size)


# the name in programs written for stock
Model = DetectionModel


def check_all(files: list[Path]) -> None:
    """Build and run every YAML in ``files`` on a small image. Raises UserError naming those that fail."""
    failures = []
    for file in track(files, "models"):
        try:
            model = DetectionModel(file).eval()
        except UserError as e:
            failures.append(file.name)
            tqdm.write(f"{file.name:<36} error: {e}")
            continue
        for warning in model.warnings:
            tqdm.write(f"warning: {warning}")
        side = int(model.stride.max()) * 2
        with torch.inference_mode():
            boxes = model(torch.zeros(1, model.yaml["ch"], side, side))[0]
        tqdm.write(f"{file.name:<36} ok   {boxes.shape[1]} boxes at {side} px, strides {model.stride.int().tolist()}")
    print(f"{len(files) - len(failures)} of {len(files)} models built and ran")
    if failures:
        raise UserError(f"these YAMLs do not build: {', '.join(failures)}")


@dataclass(frozen=True)
class ModelOptions(Plugins, BackboneFlags, SquareImages, Device):
    """The flags of this file as a command."""

    imgsz: int = with_default(SquareImages, "imgsz", CHECK_SIZE, help="image size for shapes, GFLOPs and profiles")

    cfg: str = flag(
        "",
        "model YAML, by path or by name; default: yolov5s_EfficientNetV2.yaml, with --backbone yolov5s.yaml",
        "model",
    )
    test: bool = flag(False, "build and run every YAML below models/", "model")
    batch_size: int = flag(
        1, "images per batch in --profile and --line-profile", "measuring", at_least=1, at_most=MOST_IMAGES
    )
    profile: bool = flag(False, "time forward and backward", "measuring")
    line_profile: bool = flag(False, "time every layer", "measuring")
    erf: str = flag("", "draw how far each level sees (alone: erf.png)", "measuring", alone="erf.png", metavar="FILE")


def build_parser() -> argparse.ArgumentParser:
    return ModelOptions.parser(HELP)


def main() -> None:
    opt = ModelOptions.of(vars(build_parser().parse_args()))
    device = select_device(opt.device)
    load_plugins(opt.plugins)
    if opt.test:
        check_all(model_yamls())
        return
    cfg = opt.cfg or ("yolov5s.yaml" if opt.backbone else "yolov5s_EfficientNetV2.yaml")
    if opt.erf:  # the same weights every time
        torch.manual_seed(0)
    model = DetectionModel(cfg, size=opt.size, backbone=opt.backbone)
    size = usable_imgsz(opt.imgsz, int(model.stride.max()))
    print(model.table(size))
    print(f"\n{model.summary(size)}")
    print(deepcopy(model).fuse().summary(size, fused=True))
    for warning in model.warnings:
        print(f"warning: {warning}")
    if opt.profile or opt.line_profile:
        image = torch.rand(opt.batch_size, model.yaml["ch"], size, size)
    if opt.profile:
        print(profile_model(model, image, device))
    if opt.line_profile:
        print(profile_layers(model, image, device))
    if opt.erf:
        from models.receptive import report_fields  # which draws: only here, since Matplotlib takes a second to import

        print(report_fields(model, size, device, opt.erf))


if __name__ == "__main__":
    exit_on_user_error(main)
