"""What val.py does: one validation, a measurement of speed, or a study over image sizes."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from engine.detection.compilation import compile_detector
from engine.detection.detector import Detector, load_detector, note_other_size
from engine.detection.pipeline import VALIDATION, Thresholds, speed_line, warm_up
from engine.evaluation.bootstrap import intervals_of
from engine.evaluation.coco import CocoEvaluator
from engine.evaluation.errors import ErrorEvaluator
from engine.evaluation.evaluator import evaluate
from engine.evaluation.figures import Evaluation
from engine.evaluation.latex import errors_table, metrics_table
from engine.evaluation.options import ValOptions
from engine.evaluation.recorder import Recorder, plot_evaluation
from models.plugins import load_plugins
from utils.console.neighbours import make_way
from utils.data.config import DataConfig, index_split, prepare_data, read_data_yaml
from utils.data.dataset import EvalSet
from utils.data.index import Index
from utils.data.loader import eval_loader, worker_count
from utils.device import describe_device, select_device
from utils.errors import UserError
from utils.files import write_table
from utils.paths import new_run_folder, newest_weights
from utils.plots.runs import plot_pr_runs, plot_study, read_pr_curves

STUDY_SIZES = range(256, 1537, 128)


def validate(options: ValOptions) -> Evaluation | list[Evaluation]:
    """Run the task of ``options``; see val.py for what they mean."""
    load_plugins(options.plugins)
    others = read_pr_curves(options.against or [])
    weights = options.weights or [newest_weights()]
    device = select_device(options.device)
    make_way(device)
    split = options.task if options.task in ("train", "test") else "val"
    config = read_data_yaml(options.data)
    config = prepare_data(config, [split])
    if options.task == "study":
        return study(weights, config, device, options)
    if options.task == "speed":
        return [speed(path, config, device, options) for path in weights]

    model = _load(weights, config, device, options)
    index = index_split(config, split, options.single_cls)
    coco = CocoEvaluator() if options.areas else None
    errors = ErrorEvaluator() if options.errors else None
    folder = new_run_folder(options.project, options.name, options.exist_ok)
    names = {0: "object"} if options.single_cls else config.names
    size = _input_size(model, weights[0], options.imgsz)
    note_other_size(model, weights[0], size)
    recorder = Recorder(
        folder,
        names,
        save_txt=options.save_txt or options.save_hybrid,
        save_conf=options.save_conf,
        save_json=options.save_json,
        hybrid_iou=options.iou_thres if options.save_hybrid else None,
        counters=[counter for counter in (coco, errors) if counter is not None],
    )
    print(f"{' '.join(map(str, weights))} on {describe_device(device)}")
    evaluation = _evaluate(model, index, names, size, device, options, _thresholds(options), recorder)
    print(evaluation.table(options.verbose))
    _add_intervals(evaluation, options.bootstrap)
    if coco is not None:
        evaluation.coco = coco.figures(len(names))
        print(evaluation.coco.line())
    if errors is not None:
        evaluation.errors = errors.figures()
        print(evaluation.errors.table())
    plot_evaluation(evaluation, folder)
    recorder.finish()
    _write_tables(evaluation, folder, options)
    if options.against:
        name = folder.name if folder.name not in others else folder.as_posix()
        plot_pr_runs(others | {name: evaluation.pr_curve()}, folder / "PR_runs.png")
    print(_speed_line(evaluation, options.batch_size, size))
    print(f"results are in {folder}")
    return evaluation


def _write_tables(evaluation: Evaluation, folder: Path, options: ValOptions) -> None:
    """metrics.csv, PR_curve.csv, errors.csv, and those for LaTeX, as far as they are asked for."""
    errors = evaluation.errors and evaluation.errors.cells()
    if options.save_csv:
        write_table(folder / "metrics.csv", evaluation.cells())
        write_table(folder / "PR_curve.csv", evaluation.curve_cells())
        if errors:
            write_table(folder / "errors.csv", errors)
    if options.save_tex:
        (folder / "metrics.tex").write_text(metrics_table(evaluation), encoding="utf-8")
        if errors:
            (folder / "errors.tex").write_text(errors_table(errors), encoding="utf-8")


def speed(weights: str | Path, config: DataConfig, device: torch.device, options: ValOptions) -> Evaluation:
    """Milliseconds per image of one checkpoint at the thresholds of everyday use (conf 0.25, iou 0.45)."""
    usual = replace(_thresholds(options), conf_thres=0.25, iou_thres=0.45)
    model = _load([weights], config, device, options)
    index = index_split(config, "val", options.single_cls)
    size = _input_size(model, weights, options.imgsz)
    evaluation = _evaluate(model, index, model.names, size, device, options, usual)
    print(f"{weights}: {_speed_line(evaluation, options.batch_size, size)}")
    return evaluation


def study(weights: list[str | Path], config: DataConfig, device: torch.device, options: ValOptions) -> list[Evaluation]:
    """Every checkpoint at sizes from 256 px in steps of 128: a text file each, and one picture of all."""
    index = index_split(config, "val", options.single_cls)
    names = {0: "object"} if options.single_cls else config.names
    sizes = [s for s in STUDY_SIZES if s <= (options.imgsz or STUDY_SIZES[-1])]
    if not sizes:
        raise UserError(f"--imgsz {options.imgsz}: a study begins at {STUDY_SIZES[0]} px")
    folder = new_run_folder(options.project, options.name, options.exist_ok)
    curves, evaluations = {}, []
    for path in weights:
        model = _load([path], config, device, options)
        if model.fixed_size:
            raise UserError(f"{path}: takes images of one size only; for a study, export with --dynamic")
        rows = []
        for size in sizes:
            print(f"{path} at {size} px")
            evaluation = _evaluate(model, index, names, size, device, options, _thresholds(options))
            print(evaluation.table())
            _add_intervals(evaluation, options.bootstrap)
            figures = (evaluation.p, evaluation.r, evaluation.map50, evaluation.map50_95)
            rows.append([size, *figures, *evaluation.speed])
            evaluations.append(evaluation)
        label = Path(path).stem if Path(path).stem not in curves else Path(path).as_posix()
        curves[label] = np.array(rows)
        file = folder / f"study_{config.file.stem}_{re.sub(r'[/:]', '_', label)}.txt"
        header = "size P R mAP50 mAP50-95 pre-process_ms inference_ms NMS_ms"
        np.savetxt(file, curves[label], fmt="%10.4g", header=header)
    plot_study(curves, folder / "study.png")
    print(f"results are in {folder}")
    return evaluations


def _load(weights: list[str | Path], config: DataConfig, device: torch.device, options: ValOptions) -> Detector:
    model = load_detector(weights, device, options.half, options.dnn, options.trust, options.runtime)
    if not options.single_cls and model.nc != config.nc:
        raise UserError(
            f"{weights[0]} knows {model.nc} classes, {config.file} has {config.nc}; "
            "name the data it was trained on, or compare without classes by --single-cls"
        )
    if options.compile:
        compile_detector(model, device, options.batch_size, options.imgsz or 640)
    return model


def _input_size(model: Detector, weights: str | Path, asked: int | None) -> int:
    """The longer side of the images. Raises UserError where an exported file takes another than was asked for."""
    fixed = model.fixed_size
    if fixed is None:
        return asked or 640
    if asked and asked != max(fixed):
        raise UserError(
            f"--imgsz {asked}: {Path(weights)} takes {fixed[0]}×{fixed[1]} images only; leave --imgsz out, "
            f"or export with --imgsz {asked} or --dynamic"
        )
    return max(fixed)


def _thresholds(options: ValOptions) -> Thresholds:
    return replace(VALIDATION, conf_thres=options.conf_thres, iou_thres=options.iou_thres, max_det=options.max_det)


def _evaluate(
    model: Detector,
    index: Index,
    names: dict[int, str],
    size: int,
    device: torch.device,
    options: ValOptions,
    thresholds: Thresholds,
    recorder: Recorder | None = None,
) -> Evaluation:
    stride = max(int(model.stride.max()), 32)
    # a file of one input shape gets every image in it; others the least padding that each batch needs
    dataset = EvalSet(index.annotations, size, options.batch_size, stride, shape=model.fixed_size)
    workers = worker_count(options.workers, options.batch_size)
    loader = eval_loader(dataset, options.batch_size, workers, device.type == "cuda")
    warm_up(model, device, (options.batch_size, 3, *(model.fixed_size or (size, size))))
    return evaluate(
        model,
        loader,
        device,
        names,
        thresholds,
        augment=options.augment,
        single_cls=options.single_cls,
        recorder=recorder,
    )


def _add_intervals(evaluation: Evaluation, resamples: int) -> None:
    """Find the intervals of the figures, if resamples were asked for, and say them in one line."""
    if resamples:
        evaluation.intervals = intervals_of(evaluation.matches, resamples)
        print(evaluation.intervals.line())


def _speed_line(evaluation: Evaluation, batch_size: int, size: int) -> str:
    return f"{speed_line(evaluation.speed)} (batches of {batch_size}, longer side {size} px)"
