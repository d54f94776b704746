"""Export: a checkpoint to files that other runtimes read.

export(options)          export.py: every format of --include, then a table of what came of it
    export_one           one format: written, then compared with PyTorch
"""

import traceback
from dataclasses import dataclass, replace
from pathlib import Path

from engine.export.formats.table import FORMATS
from engine.export.options import ExportOptions
from engine.export.settings import Settings
from engine.export.trust import remember
from engine.export.verify import compare
from models.load import detector_from
from models.plugins import load_plugins
from models.yolo import DetectionModel
from utils.checkpoint import read_checkpoint
from utils.console.typed import command_line
from utils.data.images import fit_size
from utils.device import select_device
from utils.errors import UserError, one_line
from utils.paths import newest_weights


@dataclass
class Result:
    """What came of one format. ``why`` it failed, or why it was not compared; ``difference`` boxes in px, scores."""

    format: str
    file: Path
    ok: bool = False
    why: str = ""
    megabytes: float = 0.0
    difference: tuple[float, float] | None = None


def export(options: ExportOptions) -> list[Result]:
    """What export.py does; a format that fails does not stop the others."""
    settings = _settings(options)
    load_plugins(options.plugins)
    simplified = [name for name, kind in FORMATS.items() if "simplify" in kind.flags]
    if settings.simplify and not set(simplified) & set(options.include):
        raise UserError(f"--simplify: is for {', '.join(simplified)}; --include one of them")
    model, weights = _model(options)
    settings = replace(settings, imgsz=_fitting(settings.imgsz, int(model.stride.max())))
    print(f"{weights}: {model.name}, {model.nc} classes, exported at {'×'.join(map(str, settings.imgsz))}")
    results = [export_one(name, model, weights, settings) for name in options.include]
    print(table(results))
    # one that has been run here, as the comparison did
    trained, ran = not (options.cfg or options.backbone), [r.file for r in results if r.difference]
    if trained and ran:
        print(f"next: {command_line('detect.py', '--weights', ran[0], '--imgsz', *dict.fromkeys(settings.imgsz))}")
    return results


def _model(options: ExportOptions) -> tuple[DetectionModel, Path]:
    """The detector to export, and the checkpoint beside which the files go; of --cfg or --backbone it is not there."""
    if options.cfg or options.backbone:
        if options.weights:
            raise UserError("--weights and --cfg or --backbone: a checkpoint knows its model; leave one of the two out")
        model = DetectionModel(options.cfg or "yolov5s.yaml", backbone=options.backbone).eval()
        return model, Path(f"{Path(model.yaml_file).stem}.pt")
    weights = Path(options.weights or newest_weights())
    return detector_from(read_checkpoint(weights)), weights


def _settings(options: ExportOptions) -> Settings:
    same = "opset dynamic nms multi_label conf_thres iou_thres half simplify int8 data".split()
    return Settings(
        imgsz=options.shape,
        batch=options.batch_size,
        device=select_device(options.device),
        **{name: getattr(options, name) for name in same},
    )


def _fitting(imgsz: tuple[int, int], stride: int) -> tuple[int, int]:
    fitting = tuple(fit_size(side, stride) for side in imgsz)
    if fitting != imgsz:
        print(
            f"note: --imgsz {imgsz[0]} {imgsz[1]} becomes {fitting[0]} {fitting[1]}, multiples of the stride {stride}"
        )
    return fitting


def export_one(name: str, model: DetectionModel, weights: Path, settings: Settings) -> Result:
    """Write one format, named after ``weights`` and beside it, and compare it; what goes wrong is in the result."""
    kind = FORMATS[name]
    precision = "_int8" if settings.int8 else ""
    result = Result(name, weights.with_name(f"{weights.stem}{precision}{kind.suffix}"))
    print(f"{name}: {result.file}")
    try:
        for flag in ("dynamic", "nms", "half", "int8"):
            if getattr(settings, flag) and flag not in kind.flags:
                raise UserError(f"{name} is not made with --{flag} here; export it by itself, without")
        kind.write(model, result.file, settings)
        remember(result.file)
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


def table(results: list[Result]) -> str:
    """One line per format."""
    lines = [f"{'format':<12}{'MB':>8}  {'from PyTorch: boxes, scores':<29}{'file, or why there is none'}"]
    for r in results:
        size = f"{r.megabytes:.1f}" if r.ok else "failed"
        difference = f"{r.difference[0]:.2g} px, {r.difference[1]:.2g}" if r.difference else "-"
        where = f"{r.file}{f' ({r.why})' if r.why else ''}" if r.ok else r.why
        lines.append(f"{r.format:<12}{size:>8}  {difference:<29}{where}")
    return "\n".join(lines)
