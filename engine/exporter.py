"""Export: a checkpoint to files that other runtimes read, one function per format.

export(options)          export.py: every format of --include, then a table of what came of it
    FORMATS              name → function, ending of the file, flags it takes
    export_onnx, …       a model → a file
    compare              the file against PyTorch, on the pictures of data/images
"""

import argparse
import json
import os
import tempfile
import traceback
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from engine.calibration import calibration_images
from engine.export_graph import ExportGraph
from engine.metadata import append_zip, describe, write_yaml
from engine.runtime import Runtime
from models.load import detector_from
from models.plugins import load_plugins
from models.yolo import DetectionModel
from utils.checkpoint import read_checkpoint
from utils.cli import require_at_least, require_share
from utils.data.images import letterbox, read_image
from utils.device import select_device
from utils.errors import UserError, one_line
from utils.extras import load_extra
from utils.files import remove, replacing
from utils.paths import ROOT, newest_weights

OPSETS = range(11, 21)  # NonMaxSuppression and Resize as PyTorch means them begin at 11; PyTorch's exporter ends at 20


@dataclass(frozen=True)
class Settings:
    """What the flags of export.py say; see there. ``imgsz`` is (height, width), ``device`` where the model is traced."""

    imgsz: tuple[int, int] = (640, 640)
    batch: int = 1
    opset: int = 17
    dynamic: bool = False
    nms: bool = False
    multi_label: bool = False
    conf_thres: float = 0.25
    iou_thres: float = 0.45
    max_det: int = 300
    half: bool = False
    maps: bool = False
    simplify: bool = False
    int8: bool = False
    data: str | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def without_half(self) -> "Settings":
        """For formats whose own tools reduce the precision."""
        return replace(self, half=False)

    def graph(self, model: DetectionModel) -> ExportGraph:
        """The fused copy of ``model`` to trace, on the device."""
        thresholds = (self.conf_thres, self.iou_thres, self.max_det)
        return ExportGraph(model, self.nms, self.multi_label, *thresholds, self.maps, self.half).eval().to(self.device)

    def images(self, model: DetectionModel) -> torch.Tensor:
        """Reproducible noise of the input's shape."""
        noise = torch.rand(self.batch, model.yaml["ch"], *self.imgsz, generator=torch.Generator().manual_seed(0))
        return noise.to(self.device)

    def metadata(self, model: DetectionModel) -> dict:
        """What travels with the file."""
        return describe(model, self.imgsz, self.batch, self.dynamic, self.nms)


# The formats ------------------------------------------------------------------------------------------------------------


def export_onnx(model: DetectionModel, file: str | Path, imgsz: tuple[int, int] = (640, 640), **settings) -> Path:
    """Write ``model``, fused or not, as ONNX; it stays as it is. Returns the path.

    Input ``images`` [batch, ch, h, w], float32, 0..1; output ``output0``, see ExportGraph for ``nms``, ``half`` and
    ``maps`` (outputs ``map0``, ``map1``, …). ``imgsz`` is (height, width), multiples of the model's stride; ``settings``
    are those of Settings. With ``dynamic`` batch, height and width may differ at run time.

    The TorchScript exporter of torch.onnx does it: PyTorch 2.4 to 2.14 have it, it needs no further package, and it
    writes the opset that was asked for. Raises UserError for sizes and opsets that can't be, and where onnx is missing.
    """
    return _write_onnx(model, Path(file), Settings(imgsz=tuple(imgsz), **settings))


def _write_onnx(model: DetectionModel, file: Path, settings: Settings) -> Path:
    onnx = load_extra("onnx", "the export to ONNX")
    if settings.opset not in OPSETS:
        raise UserError(f"--opset {settings.opset}: give {OPSETS[0]} to {OPSETS[-1]}")
    check_size(model, settings.imgsz)
    names = ["output0"] + [f"map{i}" for i in range(len(model.stride)) if settings.maps]
    axes = {"images": {0: "batch", 2: "height", 3: "width"}, "output0": {0: "batch"}}
    if not settings.nms:
        axes["output0"][1] = "n"
    axes |= {name: {0: "batch", 2: f"{name}_height", 3: f"{name}_width"} for name in names[1:]}
    with replacing(file) as temporary, tracing():
        torch.onnx.export(
            settings.graph(model),
            (settings.images(model),),
            str(temporary),
            opset_version=settings.opset,
            input_names=["images"],
            output_names=names,
            dynamic_axes=axes if settings.dynamic else None,
            dynamo=False,
        )
        graph = onnx.load(str(temporary))
        if settings.simplify:
            graph = load_extra("onnxslim", "--simplify").slim(graph)
        properties = {key: str(value) for key, value in settings.metadata(model).items()}
        onnx.helper.set_model_props(graph, properties)
        onnx.save(graph, str(temporary))
    return file


def export_torchscript(model: DetectionModel, file: Path, settings: Settings) -> Path:
    """TorchScript, traced."""
    with replacing(file) as temporary, tracing():
        traced = torch.jit.trace(settings.graph(model), (settings.images(model),), check_trace=False)
        traced.save(str(temporary), _extra_files={"config.txt": json.dumps(settings.metadata(model))})
    return file


def export_openvino(model: DetectionModel, file: Path, settings: Settings) -> Path:
    """OpenVINO's .xml and .bin in a folder. ``half`` keeps the weights in float16; ``int8`` quantises weights and
    activations by NNCF, with up to 300 training images of ``data`` to find their ranges. The head is left as it is."""
    openvino = load_extra("openvino", "the export to OpenVINO")
    with replacing(file) as folder, tempfile.TemporaryDirectory() as scratch:
        folder.mkdir()
        # float16 is how OpenVINO stores; how it computes is chosen where it runs
        converted = openvino.convert_model(
            str(_write_onnx(model, Path(scratch, "model.onnx"), settings.without_half()))
        )
        if settings.int8:
            converted = quantize(converted, model, settings)
        graph = folder / f"{file.name.removesuffix('_openvino_model')}.xml"
        openvino.save_model(converted, str(graph), compress_to_fp16=settings.half)
        write_yaml(folder / "metadata.yaml", settings.metadata(model))
    return file


def quantize(converted, model: DetectionModel, settings: Settings):
    """An OpenVINO model in int8, but for the head and what follows, where pixels and scores share a tensor."""
    images = calibration_images(settings.data, settings.imgsz, settings.batch)
    nncf = load_extra("nncf", "--int8")
    ignored = nncf.IgnoredScope(patterns=[rf"/model/model\.{model.model[-1].i}/.*", "^/[^/]*$"], validate=False)
    preset = nncf.QuantizationPreset.MIXED  # SiLU gives negative values, too
    return nncf.quantize(converted, nncf.Dataset(images), preset=preset, subset_size=len(images), ignored_scope=ignored)


def export_ncnn(model: DetectionModel, file: Path, settings: Settings) -> Path:
    """ncnn's .param and .bin in a folder, by pnnx; ``half`` keeps the weights in float16. One image at a time."""
    if settings.batch > 1:
        raise UserError(f"--batch-size {settings.batch}: ncnn takes one image at a time")
    pnnx = load_extra("pnnx", "the export to ncnn")
    with replacing(file) as folder, tracing():
        folder.mkdir()
        before = Path.cwd()
        try:
            os.chdir(folder)  # it writes its intermediate files to where it is called
            pnnx.export(settings.without_half().graph(model), "model.pt", (settings.images(model),), fp16=settings.half)
        finally:
            os.chdir(before)
        kept = {"model.ncnn.param", "model.ncnn.bin"}
        if not all((folder / name).is_file() for name in kept):
            raise UserError("pnnx could not convert the model; its messages are above")
        for path in folder.iterdir():
            if path.name not in kept:
                remove(path)
        write_yaml(folder / "metadata.yaml", settings.metadata(model))
    return file


def export_tflite(model: DetectionModel, file: Path, settings: Settings) -> Path:
    """TensorFlow Lite, by LiteRT; images go in as [batch, ch, h, w], as everywhere here."""
    litert_torch = load_extra("litert_torch", "the export to TensorFlow Lite", "litert-torch")
    with replacing(file) as temporary, tracing():
        litert_torch.convert(settings.graph(model), (settings.images(model),)).export(str(temporary))
        append_zip(temporary, settings.metadata(model))
    return file


def export_coreml(model: DetectionModel, file: Path, settings: Settings) -> Path:
    """Core ML's .mlpackage (an ML program: macOS 12, iOS 15 or later); ``half`` computes in float16."""
    coremltools = load_extra("coremltools", "the export to Core ML")
    precision = coremltools.precision.FLOAT16 if settings.half else coremltools.precision.FLOAT32
    with replacing(file) as temporary, tracing():
        # by torch.export, not by a trace: its converter stumbles over a trace's arithmetic on sizes
        program = torch.export.export(
            settings.without_half().graph(model), (settings.images(model),)
        ).run_decompositions({})
        converted = coremltools.convert(
            program,
            inputs=[coremltools.TensorType("images", shape=(settings.batch, model.yaml["ch"], *settings.imgsz))],
            outputs=[coremltools.TensorType("output0")],
            convert_to="mlprogram",
            compute_precision=precision,
            minimum_deployment_target=coremltools.target.iOS15,
        )
        converted.user_defined_metadata.update({k: str(v) for k, v in settings.metadata(model).items()})
        converted.save(str(temporary))
    return file


def export_engine(model: DetectionModel, file: Path, settings: Settings) -> Path:
    """A TensorRT engine for the GPU it is built on, from our ONNX, whose precisions it keeps (TensorRT 10 or later).

    The file is TensorRT's own plan, which other programs load, too; its metadata lies beside it as a YAML.
    """
    trt = load_extra("tensorrt", "the export to TensorRT")
    if settings.device.type != "cuda":
        raise UserError("TensorRT builds on the GPU that will run the engine; choose it with --device 0")
    onnx_file = _write_onnx(model, file.with_suffix(".onnx"), settings)
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_file)):
        raise UserError(f"TensorRT can't read {onnx_file}: {parser.get_error(0)}")
    config = builder.create_builder_config()
    if settings.dynamic:
        profile = builder.create_optimization_profile()
        profile.set_shape("images", *engine_shapes(model, settings))
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise UserError("TensorRT could not build the engine; its messages are above")
    with replacing(file) as temporary:
        temporary.write_bytes(plan)
        write_yaml(file.with_name(f"{file.name}.yaml"), settings.metadata(model))
    return file


def engine_shapes(model: DetectionModel, settings: Settings) -> tuple[tuple[int, ...], ...]:
    """Least, usual and largest input of a dynamic engine: from one image of one stride to --batch-size at twice --imgsz."""
    ch, stride = model.yaml["ch"], int(model.stride.max())
    height, width = settings.imgsz
    return (1, ch, stride, stride), (settings.batch, ch, height, width), (settings.batch, ch, 2 * height, 2 * width)


# Around them -------------------------------------------------------------------------------------------------------------


def check_size(model: DetectionModel, imgsz: tuple[int, int]) -> None:
    """Raises UserError for a size that the strides don't divide."""
    stride = int(model.stride.max())
    if any(side < stride or side % stride for side in imgsz):
        raise UserError(f"--imgsz {imgsz[0]} {imgsz[1]}: must be multiples of the model's largest stride, {stride}")


@contextmanager
def tracing():
    """No gradients, and no warnings: about a newer exporter, and about sizes that a trace takes as constants."""
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class Format:
    """``make`` writes it, ``ending`` follows the checkpoint's stem, ``flags`` change what the file computes."""

    make: Callable[[DetectionModel, Path, Settings], Path]
    ending: str
    flags: frozenset[str]


def _format(make: Callable, ending: str, flags: str) -> Format:
    return Format(make, ending, frozenset(flags.split()))


FORMATS = {
    "torchscript": _format(export_torchscript, ".torchscript", "dynamic half"),
    "onnx": _format(_write_onnx, ".onnx", "dynamic nms half simplify"),
    "openvino": _format(export_openvino, "_openvino_model", "dynamic nms half int8 simplify"),
    "engine": _format(export_engine, ".engine", "dynamic nms half simplify"),
    "coreml": _format(export_coreml, ".mlpackage", "half"),
    "tflite": _format(export_tflite, ".tflite", ""),
    "ncnn": _format(export_ncnn, "_ncnn_model", "half"),
}


@dataclass
class Result:
    """What came of one format. ``why`` it failed, or why it was not compared; ``difference`` boxes in px, scores."""

    format: str
    file: Path
    ok: bool = False
    why: str = ""
    megabytes: float = 0.0
    difference: tuple[float, float] | None = None


def export(options: argparse.Namespace) -> list[Result]:
    """What export.py does; a format that fails does not stop the others."""
    settings = _settings(options)
    load_plugins(options.plugins)
    for name in options.include:
        if name not in FORMATS:
            raise UserError(f"--include {name}: no such format; there are {' '.join(FORMATS)}")
    simplified = [name for name, kind in FORMATS.items() if "simplify" in kind.flags]
    if settings.simplify and not set(simplified) & set(options.include):
        raise UserError(f"--simplify: is for {', '.join(simplified)}; --include one of them")
    model, weights = _model(options)
    settings = replace(settings, imgsz=_fitting(settings.imgsz, int(model.stride.max())))
    print(f"{weights}: {model.name}, {model.nc} classes, exported at {'×'.join(map(str, settings.imgsz))}")
    results = [export_one(name, model, weights, settings) for name in options.include]
    print(table(results))
    return results


def _model(options: argparse.Namespace) -> tuple[DetectionModel, Path]:
    """The detector to export, and the checkpoint beside which the files go; of --cfg or --backbone it is not there."""
    if options.cfg or options.backbone:
        if options.weights:
            raise UserError("--weights and --cfg or --backbone: a checkpoint knows its model; leave one of the two out")
        model = DetectionModel(options.cfg or "yolov5s.yaml", backbone=options.backbone).eval()
        return model, Path(f"{Path(model.yaml_file).stem}.pt")
    weights = Path(options.weights or newest_weights())
    return detector_from(read_checkpoint(weights)), weights


def _settings(options: argparse.Namespace) -> Settings:
    require_share("conf-thres", options.conf_thres)
    require_share("iou-thres", options.iou_thres)
    require_at_least("batch-size", options.batch_size, 1)
    imgsz = options.imgsz * 2 if len(options.imgsz) == 1 else options.imgsz
    if len(imgsz) != 2 or min(imgsz) < 1:
        raise UserError(f"--imgsz {' '.join(map(str, options.imgsz))}: give one size, or height and width")
    if options.multi_label and not options.nms:
        raise UserError("--multi-label says what --nms keeps; give both, or neither")
    same = "opset dynamic nms multi_label conf_thres iou_thres half simplify int8 data".split()
    return Settings(
        imgsz=tuple(imgsz),
        batch=options.batch_size,
        device=select_device(options.device),
        **{name: getattr(options, name) for name in same},
    )


def _fitting(imgsz: tuple[int, int], stride: int) -> tuple[int, int]:
    fitting = tuple(-(-side // stride) * stride for side in imgsz)
    if fitting != imgsz:
        print(
            f"note: --imgsz {imgsz[0]} {imgsz[1]} becomes {fitting[0]} {fitting[1]}, multiples of the stride {stride}"
        )
    return fitting


def export_one(name: str, model: DetectionModel, weights: Path, settings: Settings) -> Result:
    """Write one format, named after ``weights`` and beside it, and compare it; what goes wrong is in the result."""
    kind = FORMATS[name]
    precision = "_int8" if settings.int8 else ""
    result = Result(name, weights.with_name(f"{weights.stem}{precision}{kind.ending}"))
    print(f"{name}: {result.file}")
    try:
        for flag in ("dynamic", "nms", "half", "int8"):
            if getattr(settings, flag) and flag not in kind.flags:
                raise UserError(f"{name} is not made with --{flag} here; export it by itself, without")
        kind.make(model, result.file, settings)
        result.ok = True
        result.megabytes = _size(result.file) / 1e6
    except UserError as e:
        result.why = one_line(e)
    except OSError as e:
        result.why = f"{e.filename or result.file}: could not be written ({e.strerror or e})"
    except Exception as e:  # other people's converters fail in their own ways
        traceback.print_exc()
        result.why = f"{type(e).__name__}: {(str(e).strip() or 'no reason given').splitlines()[0]}"
    if result.ok:
        try:
            result.difference = compare(model, result.file, settings)
        except UserError as e:
            result.why = f"not compared: {one_line(e)}"
    return result


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


@torch.inference_mode()
def compare(model: DetectionModel, file: Path, settings: Settings) -> tuple[float, float]:
    """Worst absolute differences of a file's boxes (pixels) and scores to PyTorch's, on pictures of data/images.

    Files of any size are tried at another one than they were traced at.
    """
    if settings.dynamic:
        stride = int(model.stride.max())
        settings = replace(settings, imgsz=(settings.imgsz[0] + stride, settings.imgsz[1]))
    images = example_pictures(settings) if model.yaml["ch"] == 3 else settings.images(model)
    expected = settings.without_half().graph(model)(images).cpu()
    found = Runtime(file, settings.device)(images)[0].cpu()
    if found.shape != expected.shape:
        raise UserError(f"it gives {list(found.shape)}, PyTorch {list(expected.shape)}")
    if settings.nms:
        found, expected = paired(found, expected)
    difference = (found - expected).abs()
    return float(difference[..., :4].max()), float(difference[..., 4:].max())


def paired(found: torch.Tensor, expected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each detection [b, m, 6] of ``found`` beside the nearest of its class: two of almost equal confidence may have
    changed places."""
    apart = (found[:, :, None, :4] - expected[:, None, :, :4]).abs().amax(3)
    apart += (found[:, :, None, 5] != expected[:, None, :, 5]) * 1e6
    nearest = apart.argmin(2, keepdim=True)
    return found, expected.gather(1, nearest.expand(-1, -1, 6))


def example_pictures(settings: Settings) -> torch.Tensor:
    """A batch of the pictures that come with the project."""
    files = sorted((ROOT / "data" / "images").glob("*.jpg"))
    boxed = [letterbox(read_image(file), settings.imgsz, auto=False)[0] for file in files[: settings.batch]]
    boxed += boxed[:1] * (settings.batch - len(boxed))
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in boxed]).to(settings.device).float() / 255


def table(results: list[Result]) -> str:
    """One line per format."""
    lines = [f"{'format':<12}{'MB':>8}  {'from PyTorch: boxes, scores':<29}{'file, or why there is none'}"]
    for r in results:
        size = f"{r.megabytes:.1f}" if r.ok else "failed"
        difference = f"{r.difference[0]:.2g} px, {r.difference[1]:.2g}" if r.difference else "-"
        where = f"{r.file}{f' ({r.why})' if r.why else ''}" if r.ok else r.why
        lines.append(f"{r.format:<12}{size:>8}  {difference:<29}{where}")
    return "\n".join(lines)
