"""compare.py from its command to its tables: what is measured, kept, passed over and noticed."""

import csv
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import compare
from engine.comparison import measures, study
from engine.comparison.accuracy import AREAS, Accuracy, areas_of, read_found, sample_of
from engine.comparison.latency import ITSELF, Cell, noise_of, time_cells
from engine.comparison.memory import inference, measure_apart, training
from engine.comparison.options import CompareOptions
from engine.comparison.record import DONE, END_TO_END, FAILED, FINISHED, MODEL, TRAINING, Point, Run, read_record
from engine.comparison.runs import trainings
from engine.comparison.study import seconds_to
from engine.detection.detector import load_detector
from engine.export.exporter import export_one
from engine.export.settings import Settings
from engine.report.page import write_page
from engine.training.options import TrainOptions
from models.load import detector_from
from models.yolo import DetectionModel
from tests.helpers.descriptions import TINY
from tests.helpers.models import make_weights
from tests.helpers.training import options as train_options
from utils.checkpoint import read_checkpoint, save_checkpoint
from utils.data.config import index_split, prepare_data, read_data_yaml
from utils.errors import UserError

FAST = {"imgsz": 96, "batch_size": 4, "workers": 0, "device": "cpu", "runs": 1, "epochs": 0}


@pytest.fixture
def here(monkeypatch):
    """Memory is measured within this process: another one would take seconds to start."""
    monkeypatch.setattr(measures, "measure_apart", lambda function, *given: function(*given))


@pytest.fixture
def two(tmp_path) -> list[str]:
    return [str(tiny_weights(tmp_path / f"{name}.pt", seed)) for seed, name in enumerate("ab")]


def tiny_weights(path: Path, seed: int) -> Path:
    """A checkpoint of a very small model with random weights, biased so that many boxes are found."""
    torch.manual_seed(seed)
    model = DetectionModel(TINY | {"yaml_file": "tiny.yaml"})
    for conv in model.detect.m:
        conv.bias.data.view(2, -1)[:, 4:] = 0.0
    names = {0: "rectangle", 1: "disc"}
    save_checkpoint(path, {"yaml": model.yaml, "names": names, "model": model.state_dict(), "args": {"imgsz": 96}})
    return path


def accuracy_on(data: Path, imgsz: int = 96) -> Accuracy:
    config = prepare_data(read_data_yaml(data), ["val"])
    return Accuracy(config, index_split(config, "val"), imgsz, torch.device("cpu"), 0)


def model_yaml(tmp_path: Path, name: str, width: int) -> str:
    backbone = [*TINY["backbone"][:2], [-1, 1, "Conv", [width, 3, 2]]]
    file = tmp_path / f"{name}.yaml"
    file.write_text(yaml.safe_dump(TINY | {"backbone": backbone}))
    return str(file)


def test_finished_files_are_scored_and_measured(two, tiny_set, tmp_path, here, capsys):
    given = FAST | {"weights": two, "data": str(tiny_set), "project": str(tmp_path / "runs"), "epochs": 1}
    found = compare.run(**given)
    folder = tmp_path / "runs" / "exp"
    assert found == read_record(folder / "comparison.json") and found.stage == FINISHED and not found.failed
    a, b = found.candidates
    assert (a.name, b.name) == ("a.pt", "b.pt") and a.parameters == b.parameters > 1000
    assert a.file_mb == pytest.approx(Path(two[0]).stat().st_size / 1e6)
    for c in (a, b):
        places = [(t.runtime, t.batch, t.part) for t in c.latencies]
        assert places == [("pytorch", n, part) for n in (1, 16) for part in (END_TO_END, MODEL)]
        assert all(0 < t.median_ms <= t.p90_ms and t.map50_95 == c.runs[0].map50_95 for t in c.latencies)
        # one file each: a mean, and no interval
        assert c.accuracy["map50_95"].mean == c.runs[0].map50_95 and c.accuracy["map50_95"].low is None
        # TIDE's, of which some are there: the weights are random
        assert set(c.errors) == {"Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"} and max(c.errors.values()) > 0
    (pair,) = found.pairs
    assert pair.verdict == "too_few_seeds" and found.pick.best is None and found.machine.noise >= 0
    assert [set(picture.boxes) for picture in found.pictures] == [{"a.pt", "b.pt"}] * 4
    said = capsys.readouterr().out
    assert said.endswith(f"results are in {folder}\n")
    assert "a.pt" in (folder / "comparison.html").read_text(encoding="utf-8")
    with open(folder / "comparison.csv", newline="", encoding="utf-8") as f:
        rows = {row["candidate"]: row for row in csv.DictReader(f)}
    assert float(rows["a.pt"]["map50_95"]) == a.runs[0].map50_95

    # again: nothing is measured anew
    again = compare.run(**given)
    assert "latency: round" not in capsys.readouterr().out
    assert replace(again, updated=found.updated) == found
    # other runtimes are
    more = compare.run(**given | {"runtimes": ["torchscript", "engine"]})
    times = more.candidate("a.pt").latencies
    assert {t.runtime for t in times if t.median_ms} == {"torchscript"}
    assert {t.runtime for t in times if t.why} == {"engine"}
    # the accuracy is of that file, which takes squares alone
    assert {t.map50_95 for t in times if t.median_ms} != {None}
    with pytest.raises(UserError, match="this study was begun with other settings: imgsz was 96, is now 64"):
        compare.run(**given | {"imgsz": 64})


def test_without_trainings_sizes_and_speeds_are_measured(tiny_set, tmp_path, here):
    cfg = [model_yaml(tmp_path, "tiny", 16), model_yaml(tmp_path, "tinier", 8)]
    given = FAST | {"cfg": cfg, "data": str(tiny_set), "project": str(tmp_path / "runs"), "max_params": 2000.0}
    found = compare.run(**given)
    tiny, tinier = found.candidates
    assert tiny.parameters > 2000 > tinier.parameters and tiny.gflops > tinier.gflops > 0
    assert tiny.images_per_second > 0 and tiny.file_mb > tinier.file_mb > 0
    assert tiny.runs == () and not tiny.accuracy and tiny.latencies[0].median_ms > 0
    assert found.pick.best is None and set(found.pick.left_out) == {"tiny"}
    # a YAML that is another under the same name is noticed
    model_yaml(tmp_path, "tiny", 24)
    with pytest.raises(UserError, match="candidate tiny: model was"):
        compare.run(**given)


def test_mistakes_end_a_study_before_anything_is_trained(two, tiny_set, tmp_path, here):
    given = FAST | {"data": str(tiny_set), "project": str(tmp_path / "runs"), "epochs": 1}
    five = str(make_weights(tmp_path / "five.pt", seed=0, nc=5))
    with pytest.raises(UserError, match="candidate five.pt: knows 5 classes, .* has 2"):
        compare.run(**given, weights=[five])
    with pytest.raises(UserError, match="candidate none: .*no model YAML|candidate none: .*none.yaml"):
        compare.run(**given, cfg=["none.yaml"])
    other = tmp_path / "runs" / "mine"
    other.mkdir()
    (other / "thesis.tex").touch()
    with pytest.raises(UserError, match="mine: holds something other than a study"):
        compare.run(**given, weights=two, name="mine")
    assert [p.name for p in other.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_trainings_become_candidates_and_a_failed_one_is_told(tiny_set, tmp_path, here, monkeypatch, capsys):
    """One real training of one epoch; and then one more seed, that fails."""
    given = {"cfg": [model_yaml(tmp_path, "tiny", 16)], "data": str(tiny_set), "project": str(tmp_path / "runs")}
    given |= {"imgsz": 64, "batch_size": 4, "workers": 0, "device": "cpu", "runs": 1, "epochs": 1}
    pages = []
    monkeypatch.setattr(
        study, "write_page", lambda record, file: (pages.append(record.stage), write_page(record, file))
    )
    found = compare.run(**given, seeds=1, watch=True)
    # the page is written again and again; without --watch, at the end
    assert pages.count(TRAINING) >= 3 and pages[-1] == FINISHED
    (tiny,) = found.candidates
    (run,) = tiny.runs
    assert (run.status, run.epochs_done, run.folder) == (DONE, 1, "tiny/seed0") and not found.failed
    assert 0 < run.curve[0].seconds <= run.seconds and (tmp_path / "runs" / "exp" / run.weights).is_file()
    assert run.command.startswith("python train.py --cfg ") and "--project" not in run.command
    assert tiny.accuracy["map50_95"].mean == run.map50_95 and tiny.images_per_second > 0

    (tmp_path / "train.py").write_text("import sys; sys.exit('error: the disk is full')")
    monkeypatch.setattr(trainings, "ROOT", tmp_path)
    pages.clear()
    again = compare.run(**given, seeds=2)
    assert pages == [FINISHED]
    first, second = again.candidates[0].runs
    assert (first.status, first.seconds, first.curve) == (DONE, run.seconds, run.curve)
    assert (second.status, second.message) == (FAILED, "the disk is full") and again.failed
    assert "tiny, seed 1: failed: the disk is full" in capsys.readouterr().out
    # the command's status says so; all else is as before
    with pytest.raises(SystemExit) as end:
        monkeypatch.setattr("sys.argv", ["compare.py", *CompareOptions.of(given | {"seeds": 2}).as_words()])
        compare.main()
    assert end.value.code == 1 and again.candidates[0].latencies == tiny.latencies


def test_accuracies_are_those_of_val_and_are_kept(two, tiny_set, tmp_path):
    keep = tmp_path / "found" / "a.npz"
    accuracy = accuracy_on(tiny_set)
    found = accuracy.of(Path(two[0]), keep)
    evaluation = accuracy.evaluate(Path(two[0]))
    assert found.figure("map50_95") == evaluation.map50_95 and found.figure("map75") == evaluation.map75
    assert list(found.paths) == sorted(found.paths) and len(found.detections) == len(found.image) > 10
    read = read_found(keep)
    assert all(
        (getattr(read, k) == v).all() if hasattr(v, "shape") else getattr(read, k) == v
        for k, v in vars(found).items()
        if k != "areas"
    )
    written = keep.stat().st_mtime_ns
    assert accuracy.of(Path(two[0]), keep).digest == found.digest and keep.stat().st_mtime_ns == written
    # another file under the same name is evaluated anew, as is a damaged one
    assert accuracy.of(Path(two[1]), keep).digest != found.digest
    # or one that holds what can't be: it would end the comparison long after
    classes = found.labels * [1, 1, 1, 1, 1, 9]
    wrong = {"image": found.image + len(found.paths), "labels": classes, "figures": found.figures * np.nan}
    wrong |= {"resampled": found.resampled[:, :2], "paths": found.paths[:-1]}
    for name, array in wrong.items():
        np.savez_compressed(keep, **vars(found) | {name: array})
        assert read_found(keep) is None, name
    # or whose head is no literal
    np.savez_compressed(keep, **{name: array for name, array in vars(found).items() if name != "figures"})
    with zipfile.ZipFile(keep, "a") as archive:
        archive.writestr("figures.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': (((   ")
    assert read_found(keep) is None
    np.savez_compressed(keep, **vars(found))
    assert read_found(keep) is not None
    keep.write_bytes(keep.read_bytes()[:-100])
    assert read_found(keep) is None and read_found(tmp_path / "none.npz") is None
    sample = sample_of("a", [found, found], "map50")
    assert sample.resampled.shape == (2, 1000) and sample.resampled.mean() == pytest.approx(
        found.figure("map50"), abs=0.1
    )


def test_figures_by_area_have_resamples_too(two, tiny_set, tmp_path):
    pytest.importorskip("faster_coco_eval")
    found = accuracy_on(tiny_set).of(Path(two[0]), tmp_path / "a.npz")
    name = next(name for name in AREAS if found.figure(name))
    sample = sample_of("a", [found, found], name)
    # each lacks one of the four images
    assert sample.resampled.shape == (2, 4) and sample.factor == 3 / 4 and len(set(sample.resampled[0])) > 1
    without = areas_of(found, [1, 2, 3])[list(AREAS).index(name)]
    assert without in sample.resampled[0]


def test_latencies_are_taken_by_turns(two, tiny_set):
    device, order = torch.device("cpu"), []
    files = [a.image for a in index_split(prepare_data(read_data_yaml(tiny_set), ["val"]), "val").annotations]
    detector = load_detector(two[0], device)
    cells = [Cell(name, "pytorch", 2, detector, files, 64, device) for name in ("a", "b", ITSELF)]
    for cell in cells:
        cell.time = lambda calls, cell=cell, time=cell.time: (order.append((cell.candidate, calls)), time(calls))
    time_cells(cells, 7, say=lambda _: None)
    assert [name for name, _ in order] == (["a", "b", ITSELF] + [ITSELF, "b", "a"]) * 2 + ["a", "b", ITSELF]
    assert sum(calls for name, calls in order if name == "a") == 7 == len(cells[0].milliseconds[MODEL])
    assert noise_of(cells[0], cells[2]) >= 0
    end, model = cells[0].latencies()
    # of two images a call, per image
    assert (end.part, model.part) == (END_TO_END, MODEL) and end.median_ms == cells[0].median(END_TO_END) / 2


def test_an_exported_file_is_a_candidate_under_its_own_runtime(two, tiny_set, tmp_path, here, monkeypatch):
    pytest.importorskip("onnxruntime")
    model = detector_from(read_checkpoint(two[0]))
    export_one("onnx", model, tmp_path / "a.pt", Settings((96, 96)))
    monkeypatch.chdir(tmp_path)
    given = FAST | {"weights": ["a.onnx"], "data": str(tiny_set), "project": str(tmp_path / "runs")}
    (found,) = compare.run(**given | {"epochs": 1, "runs": 1}).candidates
    assert {t.runtime for t in found.latencies} == {"onnx"} and found.latencies[0].map50_95 == found.runs[0].map50_95
    assert found.parameters is None and found.runs[0].map50_95 > 0


@pytest.mark.slow
def test_memory_is_that_of_another_process(two, tiny_set, tmp_path):
    found = measure_apart(inference, two[0], 64, "cpu", [], False)
    assert found is None or 1 < found < 2000
    options = TrainOptions.of(train_options(tiny_set, tmp_path, cfg=model_yaml(tmp_path, "tiny", 8)))
    megabytes, rate = training(options)
    assert rate > 0 and not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_memory_of_a_network_by_name_is_without_its_library(tmp_path):
    model = DetectionModel("yolov5s.yaml", nc=2, size="n", backbone="mobilenet_v3_small")
    weights = tmp_path / "by_name.pt"
    save_checkpoint(weights, {"yaml": model.yaml, "names": {0: "a", 1: "b"}, "model": model.state_dict(), "args": {}})
    found = measure_apart(inference, weights, 64, "cpu", [], False)
    # 6 MB of weights, held twice while they are read; importing torchvision's networks takes some 170 MB
    assert found is None or found < 100


def test_time_until_an_accuracy_was_reached():
    def run(*points) -> Run:
        return Run(curve=tuple(Point(i + 1, 10.0 * (i + 1), 0.5, m) for i, m in enumerate(points)))

    assert seconds_to((run(0.05, 0.15, 0.31), run(0.1, 0.2, 0.25), run(0.05, 0.12, 0.2))) == {
        "0.1": 20.0,
        "0.2": 30.0,
        "0.3": None,
    }
    assert seconds_to(()) == {}
