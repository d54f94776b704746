"""What a comparison of formats is asked for. Imports no torch: ``python benchmarks.py --help`` reads it."""

from dataclasses import dataclass

from utils.cli import CpuUnlessAsked, Plugins, RunFolder, SquareImages, flag, project_flag, with_default

# fmt: off
FORMATS = ("pytorch", "torchscript", "onnx", "onnx-dnn", "openvino", "openvino-int8", "engine", "coreml", "tflite",
           "ncnn")
# fmt: on


@dataclass(frozen=True)
class BenchmarkOptions(RunFolder, Plugins, SquareImages, CpuUnlessAsked):
    """The flags of benchmarks.py."""

    project: str = project_flag("benchmarks")
    imgsz: int = with_default(SquareImages, "imgsz", 640, help="image size, square (default: %(default)s)")

    weights: str | None = flag(None, "checkpoint to measure; default: the newest best.pt", "model")
    data: str = flag("data/shapes.yaml", "data YAML whose val split is used (default: %(default)s)", "data")
    batch_size: int = flag(1, "images per call (default: %(default)s)", "measuring", at_least=1)
    include: list[str] = flag(list(FORMATS), "formats (default: all)", "measuring", choices=FORMATS, noun="format")
    half: bool = flag(False, "float16, where the format has it", "measuring")
    runs: int = flag(50, "timed calls per format (default: %(default)s)", "measuring", at_least=1)
