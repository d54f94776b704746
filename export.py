"""Write a checkpoint in the formats of other runtimes, beside it.

python export.py --weights runs/train/exp/weights/best.pt --include onnx openvino --imgsz 640
python export.py --weights best.pt --include onnx --nms             suppression inside the file
python export.py --weights best.pt --include openvino --int8 --data data.yaml

| --include   | file                 | pip install                 | flags                        |
| ----------- | -------------------- | --------------------------- | ---------------------------- |
| torchscript | best.torchscript     |                             | --dynamic --half             |
| onnx        | best.onnx            | onnx onnxruntime            | --dynamic --nms --half       |
| openvino    | best_openvino_model/ | openvino onnx, --int8: nncf | --dynamic --nms --half       |
| engine      | best.engine          | tensorrt onnx               | --dynamic --nms --half       |
| coreml      | best.mlpackage       | coremltools                 | --half                       |
| tflite      | best.tflite          | litert-torch                |                              |
| ncnn        | best_ncnn_model/     | pnnx ncnn                   | --half                       |
"""

import argparse
from typing import TYPE_CHECKING

from utils.cli import merge_options
from utils.errors import UserError, exit_on_user_error

if TYPE_CHECKING:
    from engine.export.exporter import Result

FORMATS = ["torchscript", "onnx", "openvino", "engine", "coreml", "tflite", "ncnn"]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--weights", default=None, help="checkpoint to export; default: the newest best.pt")
    add(
        "--cfg",
        default="",
        help="instead: a model YAML with initial weights, to see what it costs before it is trained",
    )
    add(
        "--backbone",
        default="",
        metavar="NAME",
        help="with --cfg or alone (yolov5s.yaml): this network as its backbone",
    )
    add("--plugins", nargs="+", default=[], help="Python files with blocks of your own (docs/add-a-block.md)")
    add("--include", nargs="+", choices=FORMATS, default=["torchscript", "onnx"], help="default: torchscript onnx")
    add(
        "--imgsz",
        "--img",
        "--img-size",
        type=int,
        nargs="+",
        default=[640],
        help="size, or height width (default: 640)",
    )
    add("--batch-size", type=int, default=1, help="images per call (default: %(default)s)")
    add("--device", default="cpu", help="cpu, or a CUDA index such as 0, which TensorRT needs (default: %(default)s)")
    add("--dynamic", action="store_true", help="let batch size, height and width differ from call to call")
    add("--nms", action="store_true", help="suppression inside: one output [b, 300, 6], x1 y1 x2 y2 conf class")
    add(
        "--multi-label",
        action="store_true",
        help="with --nms: every class of a box, as val.py counts, not its best only",
    )
    add("--conf-thres", type=float, default=0.25, help="with --nms: least confidence (default: %(default)s)")
    add("--iou-thres", type=float, default=0.45, help="with --nms: overlap that suppresses (default: %(default)s)")
    add("--half", action="store_true", help="float16, where the format has it")
    add("--int8", action="store_true", help="int8 by NNCF, for openvino; needs --data")
    add("--data", default=None, help="with --int8: data YAML whose training images are looked at")
    add("--opset", type=int, default=17, help="ONNX opset, 11 to 20 (default: %(default)s)")
    add("--simplify", action="store_true", help="ONNX: simplify the graph (pip install onnxslim)")
    return parser


def run(**options) -> "list[Result]":
    """Export with the flags given as keywords, the others at their defaults; returns what came of each format."""
    from engine.export.exporter import export

    return export(merge_options(build_parser(), options))


def main() -> None:
    failed = [result.format for result in run(**vars(build_parser().parse_args())) if not result.ok]
    if failed:
        raise UserError(f"not exported: {', '.join(failed)}; the table says why")


if __name__ == "__main__":
    exit_on_user_error(main)
