"""ONNX: written by torch.onnx, read by ONNX Runtime or OpenCV."""

from pathlib import Path

import cv2
import torch

from engine.export import metadata
from engine.export.folding import fold
from engine.export.onnx_file import read_onnx
from engine.export.settings import Settings, check_size, tracing
from models.yolo import DetectionModel
from utils.errors import UserError
from utils.extras import library_errors, load_extra
from utils.files import replacing

CUDA = "CUDAExecutionProvider"


class Reader:
    """An .onnx file, by ONNX Runtime."""

    on_cpu = ""

    def __init__(self, file: Path, device: torch.device):
        ort = load_extra("onnxruntime", f"{file}: running it without --dnn")
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        providers = [(CUDA, {"device_id": device.index or 0})] if CUDA in ort.get_available_providers() else []
        providers = providers if device.type == "cuda" else []
        self.metadata, self.shape = describe(file)
        with library_errors(f"{file}: can't be read as ONNX"):
            self.session = ort.InferenceSession(str(file), options, providers=[*providers, "CPUExecutionProvider"])
            self.input = self.session.get_inputs()[0].name
        if device.type != "cuda":
            self.on_cpu = "ONNX Runtime is asked for CUDA or the CPU only"
        elif not providers:
            self.on_cpu = "this onnxruntime knows no CUDA (pip install onnxruntime-gpu)"
        # what can't be loaded is left out without an exception
        elif CUDA not in self.session.get_providers():
            self.on_cpu = (
                "ONNX Runtime can't load its part for CUDA: its release has to fit the CUDA and cuDNN installed"
            )
        self.device = device

    def run(self, images: torch.Tensor) -> torch.Tensor:
        result = self.session.run(None, {self.input: images.cpu().numpy()})[0]
        return torch.from_numpy(result).to(self.device)


class OpenCVReader:
    """An .onnx file, by cv2.dnn, which comes with the project's own requirements."""

    on_cpu = "OpenCV runs it there"

    def __init__(self, file: Path, device: torch.device):
        self.metadata, self.shape = describe(file)
        if self.metadata["nms"]:
            raise UserError(f"{file}: has the suppression inside, which OpenCV can't run; export without --nms")
        # OpenCV 4.8 computes means and maxima over a map on several threads, and wrongly
        cv2.setNumThreads(1 if cv2.__version__.startswith("4.8.") else torch.get_num_threads())
        with library_errors(f"{file}: OpenCV {cv2.__version__} can't read it; export without --dynamic"):
            self.net = cv2.dnn.readNetFromONNX(str(file))
        self.device = device

    def run(self, images: torch.Tensor) -> torch.Tensor:
        self.net.setInput(images.cpu().numpy())
        return torch.from_numpy(self.net.forward()).to(self.device)


def describe(file: Path) -> tuple[dict, tuple[int | None, ...]]:
    """The metadata of an ONNX file, and the shape of its input, by which files that don't say their size are of one."""
    found = read_onnx(file)
    values = found.properties
    if "imgsz" not in values and len(found.shape) == 4 and None not in found.shape:
        values |= {"imgsz": list(found.shape[2:]), "batch": found.shape[0]}
    return metadata.read_values(file, values), found.shape


# 10 is the last whose ReLU6 OpenCV reads before 4.7, and the first with Resize; PyTorch's exporter ends at 20
OPSETS = range(10, 21)
# where the operators of the suppression begin, and of grids that are not constants
LATER_OPSET = 11


def export_onnx(model: DetectionModel, file: str | Path, imgsz: tuple[int, int] = (640, 640), **settings) -> Path:
    """Write ``model``, fused or not, as ONNX; it stays as it is. Returns the path.

    Input ``images`` [batch, ch, h, w], float32, 0..1; output ``output0``, see ExportGraph for ``nms``, ``half`` and
    ``maps`` (outputs ``map0``, ``map1``, …). ``imgsz`` is (height, width), multiples of the model's stride; ``settings``
    are those of Settings. With ``dynamic`` batch, height and width may differ at run time.

    The TorchScript exporter of torch.onnx does it: PyTorch 2.4 to 2.14 have it, it needs no further package, and it
    writes the opset that was asked for. Raises UserError for sizes and opsets that can't be, and where onnx is missing.
    """
    return write(model, Path(file), Settings(imgsz=tuple(imgsz), **settings))


def write(model: DetectionModel, file: Path, settings: Settings) -> Path:
    """What export_onnx does, with all settings in one."""
    onnx = load_extra("onnx", "the export to ONNX")
    if settings.opset not in OPSETS:
        raise UserError(f"--opset {settings.opset}: give {OPSETS[0]} to {OPSETS[-1]}")
    if settings.opset < LATER_OPSET and (settings.nms or settings.dynamic):
        raise UserError(f"--opset {settings.opset}: --dynamic and --nms need {LATER_OPSET} or more")
    check_size(model, settings.imgsz)
    names = ["output0"] + [f"map{i}" for i in range(len(model.stride)) if settings.maps]
    open_sides = _open_sides(names, settings) if settings.dynamic else {}
    with replacing(file) as temporary, tracing():
        graph, images = settings.graph(model), settings.images(model)
        if not settings.dynamic:
            graph.fix_size(images)
        examples = graph(images)
        torch.onnx.export(
            graph,
            (images,),
            str(temporary),
            opset_version=settings.opset,
            input_names=["images"],
            output_names=names,
            dynamic_axes=open_sides,
            dynamo=False,
        )
        written = onnx.load(str(temporary))
        fold(written)
        _declare(written.graph.output, examples if settings.maps else [examples], open_sides)
        if settings.simplify:
            written = load_extra("onnxslim", "--simplify").slim(written)
        properties = {key: str(value) for key, value in settings.metadata(model).items()}
        onnx.helper.set_model_props(written, properties)
        onnx.save(written, str(temporary))
    return file


def _open_sides(names: list[str], settings: Settings) -> dict[str, dict[int, str]]:
    """Which sides of its input and its outputs ``names`` a file of --dynamic leaves open, and what they are called."""
    sides = {"images": {0: "batch", 2: "height", 3: "width"}, "output0": {0: "batch"}}
    if not settings.nms:
        sides["output0"][1] = "n"
    return sides | {name: {0: "batch", 2: f"{name}_height", 3: f"{name}_width"} for name in names[1:]}


def _declare(outputs, examples: list[torch.Tensor], open_sides: dict[str, dict[int, str]]) -> None:
    """Let the file say the shapes of its outputs, of which the exporter loses numbers behind sides that are open."""
    for output, example in zip(outputs, examples, strict=True):
        shape = output.type.tensor_type.shape
        del shape.dim[:]
        for i, side in enumerate(example.shape):
            name = open_sides.get(output.name, {}).get(i)
            shape.dim.add(**({"dim_param": name} if name else {"dim_value": side}))
