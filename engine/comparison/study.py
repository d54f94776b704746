"""What compare.py does: a study, from its candidates to the pick.

compare(options)
    make_plan                     who is compared, by which trainings                        (plan.py)
    Study.profile                 each model is built: its size, and what can't be built
    Study.train                   the trainings, as processes                                (trainings.py)
    Study.score                   each run on the validation images                          (accuracy.py)
    Study.measure                 latency and memory, alone                                  (measures.py)
    Study.conclude                intervals, pairs, the pick                                 (pairs.py, pick.py)

After each step, and whenever a training has got on, comparison.json is written. A study that was stopped or killed anywhere
goes on by the same command: trainings from their checkpoints, all else from what lies in its folder.
"""

import statistics
import zlib
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.comparison.accuracy import AREAS, Accuracy, Found, errors_of, sample_of
from engine.comparison.measures import Contender, key_of, machine_of, measure
from engine.comparison.options import CompareOptions
from engine.comparison.pairs import compare_pairs, estimate, lend
from engine.comparison.pick import on_front, pick
from engine.comparison.plan import Entrant, Plan, check_settings, make_plan
from engine.comparison.record import (
    DONE,
    FAILED,
    FILE,
    FINISHED,
    MEASURING,
    METRICS,
    Candidate,
    Comparison,
    Data,
    Estimate,
    Picture,
    Run,
    Settings,
    read_record,
    write_record,
)
from engine.comparison.runs.locks import only_one
from engine.comparison.runs.remote import Cluster
from engine.comparison.runs.trainings import Job, Trainings
from engine.comparison.tables import screen, write_tables
from engine.detection.detector import load_detector
from engine.evaluation.coco import CocoEvaluator
from engine.export.formats.table import is_exported
from engine.recipe.hyp import read_hyp
from engine.report.page import write_page
from engine.training.model import build_model
from engine.training.records import in_half
from engine.training.signals import stopping_at_once
from models.flops import count_gflops, count_parameters
from models.load import detector_from
from models.plugins import load_plugins
from models.yolo import DetectionModel
from utils.checkpoint import read_checkpoint, save_checkpoint
from utils.console.typed import command_line
from utils.data.config import index_split, prepare_data, read_data_yaml
from utils.data.images import fit_size
from utils.data.index import labels_digest
from utils.device import select_device
from utils.errors import UserError, one_line, shown
from utils.paths import seen_from_here

PAGE = "comparison.html"
LEVELS = tuple(n / 10 for n in range(1, 10))  # of mAP50-95, for the time until they are reached
# fields of Candidate
MEASURES = ("latencies", "inference_mb", "training_mb", "images_per_second", "file_mb", "message")
PICTURES = 8
# of what is drawn in a picture: the least confidence, and the most boxes
CONFIDENT, MOST_BOXES = 0.25, 100


def compare(options: CompareOptions, timed: bool = True) -> Comparison:
    """Run the study, or what is left of it; returns its record. Without ``timed`` latency and memory are left out."""
    plan = make_plan(options)
    plan = replace(plan, options=replace(plan.options, plugins=load_plugins(plan.options.plugins)))
    folder = study_folder(plan.options)
    again = command_line("compare.py", *options.as_words())
    with only_one(folder), stopping_at_once(lambda: f"go on with: {again}"):
        study = Study(plan, folder, again)
        for step in (study.profile, study.train, study.score, study.measure, study.conclude):
            if timed or step != study.measure:
                step()
    write_tables(study.comparison, folder)
    print(f"\n{screen(study.comparison)}")
    print(f"results are in {folder}")
    return study.comparison


def study_folder(options: CompareOptions) -> Path:
    """project/name, made where it isn't there. Raises UserError where something other than a study lies in it."""
    folder = Path(options.project, options.name)
    known = (FILE, "settings.yaml", "study.lock")
    is_study = any((folder / name).exists() for name in known)
    if folder.is_dir() and any(folder.iterdir()) and not (is_study or options.exist_ok):
        raise UserError(f"{folder}: holds something other than a study; choose another --name, or add --exist-ok")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(
            f"{folder}: the study's folder can't be made ({e.strerror}); choose another --project"
        ) from None
    return folder


class Study:
    """Where a study stands: ``comparison`` is its record."""

    def __init__(self, plan: Plan, folder: Path, again: str):
        self.plan, self.options, self.folder = plan, plan.options, folder
        options = self.options
        if options.metric in AREAS:
            # Raises UserError here, and not when all is trained
            CocoEvaluator()
        self.places = str(options.device).split(",") if str(options.device) else [""]
        self.device = select_device(self.places[0])
        learns = any(not e.finished for e in plan.entrants)
        self.config = prepare_data(read_data_yaml(options.data), ["train", "val"] if learns else ["val"])
        self.index = index_split(self.config, "val")
        train = index_split(self.config, "train").annotations if learns else []
        self.train_labels = labels_digest(train)[:16]
        self.accuracy = Accuracy(self.config, self.index, options.imgsz, self.device, options.workers, options.trust)
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        self.earlier = read_record(folder / FILE) if (folder / FILE).exists() else None
        names = tuple(self.config.names.values())
        shared = [f"{name} {value}" for name, value in plan.train.items()]
        machine = machine_of(self.device, options.runtimes)
        if self.earlier:
            machine = replace(machine, noise=self.earlier.machine.noise, measured=self.earlier.machine.measured)
        self.comparison = Comparison(
            title=options.name,
            created=self.earlier.created if self.earlier else now,
            command=again,
            machine=machine,
            data=Data(
                seen_from_here(self.config.file), names, len(train) or None, len(self.index.annotations), options.imgsz
            ),
            settings=Settings(
                options.epochs,
                plan.seeds,
                options.metric,
                options.batch_size,
                tuple(options.runtimes),
                options.runs,
                tuple(shared),
            ),
            candidates=tuple(self._candidate(e) for e in plan.entrants),
        )
        self.founds: dict[str, list[Found]] = {}

    def _candidate(self, entrant: Entrant) -> Candidate:
        """With the measures of an earlier start, which hold until it is seen that they are of something else."""
        known = {c.name: c for c in self.earlier.candidates} if self.earlier else {}
        measured = {name: getattr(known[entrant.name], name) for name in MEASURES} if entrant.name in known else {}
        return Candidate(entrant.name, entrant.source, runs=self._runs(entrant), **measured)

    def _runs(self, entrant: Entrant) -> tuple[Run, ...]:
        """Those of one candidate, with what an earlier start has noted of them."""
        if entrant.finished:
            files = [file.absolute() for file in entrant.finished]
            return tuple(Run(i, str(file.parent), DONE, weights=str(file)) for i, file in enumerate(files))
        known = {(c.name, run.seed): run for c in self.earlier.candidates for run in c.runs} if self.earlier else {}
        runs = []
        for seed in self.plan.seeds:
            words = self.plan.training(entrant, seed, Path("project/name")).as_words(*self._repeated())
            run = known.get((entrant.name, seed), Run())
            folder, command = f"{entrant.name}/seed{seed}", command_line("train.py", *words)
            runs.append(Run(seed, folder, seconds=run.seconds, curve=run.curve, command=command))
        return tuple(runs)

    def _repeated(self) -> list[str]:
        """The flags of train.py that a run is repeated with, in a folder of its own."""
        return [
            name
            for name, _, _ in self.plan.training(Entrant(""), 0, Path("project/name")).flags()
            if name not in ("project", "name", "exist_ok", "device", "workers", "noplots")
        ]

    def update(self, name: str, **changes: Any) -> None:
        """Put ``changes`` into the record of a candidate."""
        candidates = tuple(replace(c, **changes) if c.name == name else c for c in self.comparison.candidates)
        self.comparison = replace(self.comparison, candidates=candidates)

    def update_run(self, name: str, seed: int, **changes: Any) -> None:
        """Put ``changes`` into the record of a run."""
        runs = self.comparison.candidate(name).runs
        self.update(name, runs=tuple(replace(run, **changes) if run.seed == seed else run for run in runs))

    def save(self, **changes: Any) -> None:
        """Write the record, with ``changes``, and the page: while runs go on, if --watch asks for it."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        self.comparison = replace(self.comparison, updated=now, **changes)
        write_record(self.folder / FILE, self.comparison)
        if self.options.watch or self.comparison.stage == FINISHED:
            write_page(self.comparison, self.folder / PAGE)

    def path(self, text: str) -> Path:
        """A file of a run, which is named from the study's folder where it lies there."""
        return self.folder / text

    # The steps ------------------------------------------------------------------------------------------------------

    def profile(self) -> None:
        """Build every candidate: so a mistake in one ends the study before anything is trained."""
        settings = self.plan.settings()
        settings["images"]["labels"] = labels_digest(self.index.annotations)[:16]
        if settings["training"]:
            settings["training"]["labels"] = self.train_labels
        for entrant in self.plan.entrants:
            torch.manual_seed(0)
            try:
                model = self._built(entrant)
            except UserError as e:
                raise UserError(f"candidate {shown(entrant.name)}: {one_line(e)}") from None
            if model.nc != self.config.nc:
                raise UserError(
                    f"candidate {shown(entrant.name)}: knows {model.nc} classes, {self.config.file} has {self.config.nc}; "
                    "name its own data by --data"
                )
            if isinstance(model, DetectionModel):
                size, channels = fit_size(self.options.imgsz, int(model.stride.max())), model.yaml["ch"]
                gflops = count_gflops(model, size, channels)
                self.update(entrant.name, parameters=count_parameters(model)[0], gflops=gflops)
            if not entrant.finished:
                # a YAML that is changed under the same name is another model
                digest = f"{zlib.crc32(repr(_plain(model.yaml)).encode()):08x}"
                settings["candidates"][entrant.name] |= {"model": digest}
        check_settings(self.folder, settings)
        self.save()

    def _built(self, entrant: Entrant) -> Any:
        """The model of a candidate; without trainings it is kept, as one that has learnt nothing."""
        if entrant.finished:
            models = [self._finished(file) for file in entrant.finished]
            return models[0]
        options = self.plan.training(entrant, 0, self.folder / "profile")
        model = build_model(options, self.config.names, read_hyp(options.hyp))
        file = self.folder / entrant.name / "untrained.pt"
        if not self.plan.trains and not file.exists():
            file.parent.mkdir(exist_ok=True)
            kept = {"yaml": model.yaml, "names": model.names, "args": {"imgsz": self.options.imgsz}}
            save_checkpoint(file, kept | {"model": in_half(model.state_dict())})
        return model

    def _finished(self, file: Path) -> Any:
        if is_exported(file):
            return load_detector(file, self.device, trust=self.options.trust)
        return detector_from(read_checkpoint(file))

    def train(self) -> None:
        """All trainings that are not done."""
        if not self.plan.trains:
            return
        jobs = []
        # a seed of each candidate before the next one: the first comparison is there early
        for seed in self.plan.seeds:
            for entrant in self.plan.entrants:
                if not entrant.finished:
                    jobs.append(self._job(entrant, seed))
        places = [self.places[i % len(self.places)] for i in range(max(self.options.jobs, len(self.places)))]

        def tell() -> None:
            self._note(jobs)
            self.save()

        workers = max(self.options.workers // len(places), min(self.options.workers, 1))
        with Cluster(self.options.ray, len(places)) if self.options.ray else nullcontext() as cluster:
            Trainings(jobs, places, workers, tell, cluster).run()
        tell()

    def _job(self, entrant: Entrant, seed: int) -> Job:
        options = self.plan.training(entrant, seed, self.folder / entrant.name / f"seed{seed}")
        run = next(run for run in self.comparison.candidate(entrant.name).runs if run.seed == seed)
        log = self.folder / "logs" / f"{entrant.name}-seed{seed}.log"
        return Job(entrant.name, seed, options, log, seconds=run.seconds or 0.0, curve=list(run.curve))

    def _note(self, jobs: list[Job]) -> None:
        """Take the state of the trainings into the record."""
        for job in jobs:
            weights = job.weights.relative_to(self.folder).as_posix() if job.status == DONE else ""
            self.update_run(
                job.name,
                job.seed,
                status=job.status,
                message=job.message,
                epochs_done=len(job.curve),
                seconds=round(job.seconds, 1) if job.seconds else None,
                curve=tuple(job.curve),
                weights=weights,
            )

    def score(self) -> None:
        """The accuracy of each run; one that can't be evaluated has failed."""
        self.save(stage=MEASURING)
        if self.options.epochs == 0:
            return
        for candidate in self.comparison.candidates:
            self.founds[candidate.name] = []
            for run in candidate.runs:
                if run.status != DONE:
                    continue
                print(f"{candidate.name}, seed {run.seed}: validating {run.weights}")
                keep = self.folder / "found" / f"{candidate.name}-seed{run.seed}.npz"
                try:
                    found = self.accuracy.of(self.path(run.weights), keep)
                except UserError as e:
                    self.update_run(candidate.name, run.seed, status=FAILED, message=one_line(e))
                    continue
                self.founds[candidate.name].append(found)
                self.update_run(candidate.name, run.seed, **{name: found.figure(name) for name in METRICS})
            runs = self.comparison.candidate(candidate.name).runs
            self.update(candidate.name, seconds_to=seconds_to(runs))
            self.save()

    def measure(self) -> None:
        """Latency and memory of every candidate that has a file; not again where nothing has changed."""
        contenders = [c for entrant in self.plan.entrants if (c := self._contender(entrant))]
        if not contenders:
            return
        key = key_of(contenders, self.options, self.comparison.machine)
        if self.comparison.machine.measured == key:
            return
        files = [a.image for a in self.index.annotations[:: max(1, len(self.index.annotations) // 16)]]
        found, noise = measure(contenders, self.options, self.accuracy, files)
        for name, measures in found.items():
            self.update(name, **dict.fromkeys(MEASURES, None) | {"latencies": (), "message": ""} | measures)
        self.save(machine=replace(self.comparison.machine, noise=noise, measured=key))

    def _contender(self, entrant: Entrant) -> Contender | None:
        """A candidate with its first file; None where it has none."""
        candidate = self.comparison.candidate(entrant.name)
        done = [run for run in candidate.runs if run.status == DONE]
        train = None
        if not entrant.finished:
            place = self.folder / entrant.name / "profile"
            train = self.plan.training(entrant, 0, place, device=self.places[0])
        exports = self.folder / entrant.name / "exports"
        if done:
            return Contender(entrant.name, self.path(done[0].weights), exports, train, done[0].map50_95)
        if self.options.epochs == 0 and not entrant.finished:
            return Contender(entrant.name, self.folder / entrant.name / "untrained.pt", exports, train)
        self.update(entrant.name, message="no run of it is done")
        return None

    def conclude(self) -> None:
        """What the runs tell of the candidates, and which to take."""
        metric = self.options.metric
        known: dict[str, dict[str, Estimate]] = {name: {} for name in self.founds}
        for figure in METRICS:
            # those by area take an evaluation for each resample: unless they are asked for, a mean
            if figure in AREAS and figure != metric:
                for name, founds in self.founds.items():
                    figures = [found.figure(figure) for found in founds]
                    if figures and None not in figures:
                        known[name][figure] = Estimate(statistics.mean(figures))
                continue
            drawn = (sample_of(name, founds, figure) for name, founds in self.founds.items())
            samples = lend([sample for sample in drawn if sample])
            for sample in samples:
                known[sample.name][figure] = estimate(sample)
            if figure == metric:
                self.comparison = replace(self.comparison, pairs=tuple(compare_pairs(samples, metric)))
        for name, founds in self.founds.items():
            self.update(name, accuracy=known[name], errors=errors_of(founds))
        for name, front in on_front(self.comparison).items():
            self.update(name, on_front=front)
        limits = {
            name: float(most)
            for name in ("max_latency", "max_params", "max_gflops")
            if (most := getattr(self.options, name))
        }
        self.comparison = replace(self.comparison, pick=pick(self.comparison, limits))
        self.save(stage=FINISHED, pictures=self._pictures())

    def _pictures(self) -> tuple[Picture, ...]:
        """The same few validation images as the first run of each candidate sees them."""
        first = {name: founds[0] for name, founds in self.founds.items() if founds}
        if not first:
            return ()
        one = next(iter(first.values()))
        rows = {name: found.by_image() for name, found in first.items()}
        labels = next(iter(rows.values()))
        pictures = []
        for i in np.linspace(0, len(one.paths) - 1, min(PICTURES, len(one.paths))).astype(int):
            boxes = {name: _boxes(found[i][0].numpy()) for name, found in rows.items()}
            height, width = map(int, one.sizes[i])
            pictures.append(Picture(str(one.paths[i]), width, height, _boxes(labels[i][1].numpy()), boxes))
        return tuple(pictures)


def _boxes(rows: np.ndarray) -> tuple:
    """Boxes [n, 6] as a record has them: those of some confidence, the best first."""
    rows = rows[rows[:, 4] >= CONFIDENT]
    rows = rows[np.argsort(-rows[:, 4], kind="stable")][:MOST_BOXES]
    return tuple((*(round(float(v), 2) for v in row[:4]), round(float(row[4]), 4), int(row[5])) for row in rows)


def _plain(description: dict[str, Any]) -> dict[str, Any]:
    """A model's description without where it was read."""
    return {key: value for key, value in sorted(description.items()) if key != "yaml_file"}


def seconds_to(runs: tuple[Run, ...]) -> dict[str, float | None]:
    """The median seconds of training after which LEVELS of mAP50-95 were reached; None where half of the runs never were
    there, and nothing for levels that no run has reached."""
    found: dict[str, float | None] = {}
    for level in LEVELS:
        times = [next((p.seconds for p in run.curve if p.map50_95 >= level), None) for run in runs if run.curve]
        known = [seconds for seconds in times if seconds is not None]
        if known:
            found[str(level)] = statistics.median(known) if 2 * len(known) > len(times) else None
    return found
