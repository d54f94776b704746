"""What an export is asked for. Imports no torch: ``python export.py --help`` reads it."""

from dataclasses import dataclass

from engine.export.formats.table import FORMATS
from utils.cli import MOST_IMAGES, BackboneFlags, BoxThresholds, CpuUnlessAsked, Images, Plugins, flag, with_default
from utils.errors import UserError


@dataclass(frozen=True)
class ExportOptions(Plugins, BoxThresholds, Images, CpuUnlessAsked):
    """The flags of export.py."""

    ABSENT = {
        "train": "an exported file is for inference; to go on with a training, give train.py the checkpoint by --weights",
        "inplace": "makes no difference to the file; leave it out",
        "keras": "is not among the formats; --include tflite writes TensorFlow Lite",
        "optimize": "TorchScript is written for all devices; torch.utils.mobile_optimizer makes one for phones of it",
        "per-tensor": "--int8 is for openvino, by NNCF, which chooses; leave it out",
        "cache": "keeps TensorRT's timings, which are measured anew; leave it out",
        "mlmodel": "CoreML is written as an .mlpackage; leave it out",
        "verbose": "what TensorRT says of errors and warnings is printed; leave it out",
        "workspace": "TensorRT takes the memory that it needs; leave it out",
        "agnostic-nms": "--nms suppresses within each class; detect.py has --agnostic-nms for files without suppression inside",
        **dict.fromkeys(("topk-per-class", "topk-all"), "--nms keeps the 300 best boxes of an image; leave it out"),
    }

    conf_thres: float = with_default(
        BoxThresholds, "conf_thres", 0.25, help="with --nms: least confidence (default: %(default)s)", topic="export"
    )
    iou_thres: float = with_default(
        BoxThresholds,
        "iou_thres",
        0.45,
        help="with --nms: overlap that suppresses (default: %(default)s)",
        topic="export",
    )
    device: str | int = with_default(
        CpuUnlessAsked,
        "device",
        "cpu",
        help="cpu, or a CUDA index such as 0, which TensorRT needs (default: %(default)s)",
    )

    weights: str | None = flag(None, "checkpoint to export; default: the newest best.pt", "model")
    cfg: str = flag(
        "", "instead: a model YAML with initial weights, to see what it costs before it is trained", "model"
    )
    backbone: str = with_default(
        BackboneFlags, "backbone", "", help="with --cfg or alone (yolov5s.yaml): this network as its backbone"
    )

    include: list[str] = flag(
        ["torchscript", "onnx"],
        "formats of the table above (default: torchscript onnx)",
        "export",
        choices=FORMATS,
        noun="format",
        metavar="FORMAT",
    )
    batch_size: int = flag(1, "images per call (default: %(default)s)", "export", at_least=1, at_most=MOST_IMAGES)
    dynamic: bool = flag(False, "let batch size, height and width differ from call to call", "export")
    nms: bool = flag(False, "suppression inside: one output [b, 300, 6], x1 y1 x2 y2 conf class", "export")
    multi_label: bool = flag(False, "with --nms: every class of a box, as val.py counts, not its best only", "export")
    half: bool = flag(False, "float16, where the format has it", "export")
    int8: bool = flag(False, "int8 by NNCF, for openvino; needs --data", "export")
    data: str | None = flag(None, "with --int8: data YAML whose training images are looked at", "export")
    opset: int = flag(17, "ONNX opset, 10 to 20; older OpenCV: 10 (default: %(default)s)", "export")
    simplify: bool = flag(False, "ONNX: simplify the graph (pip install onnxslim)", "export")

    def __post_init__(self):
        super().__post_init__()
        if self.multi_label and not self.nms:
            raise UserError("--multi-label says what --nms keeps; give both, or neither")
