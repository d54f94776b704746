"""A search for better hyper-parameters: train, mutate the best so far, train again.

    evolve(options)      --evolve N trainings; their figures and hyper-parameters in evolve.csv, a row each
    evolve(options)      with --resume_evolve, goes on after the last row

Each training validates its last epoch only and leaves no files of its own. What is drawn depends on (seed, generation)
alone: a search that was killed goes on as if it had not been.
"""

import csv
import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from engine.recipe.hyp import OPTIONAL, RANGES, read_hyp
from engine.training.learner import Diverged
from engine.training.options import CODE, TrainOptions, require_code
from engine.training.setup import read_run_hyp, set_up
from engine.training.signals import stopping_at_once
from engine.training.trainer import Trainer
from utils.cli import default_folder
from utils.console.typed import command_line
from utils.device import told_number
from utils.errors import UserError, shown
from utils.files import require_file, write_table
from utils.paths import new_run_folder
from utils.plots.runs import plot_evolution
from utils.results import FIGURES, read_cells, row_fitness, write_cells
from utils.yaml_file import read_yaml, write_yaml

Generation = tuple[dict[str, float], dict[str, float]]  # the figures of a training, and its hyper-parameters
PARENTS = 5  # the best so far, of which one is mutated
MUTATED = 0.8  # share of the hyper-parameters that change in a generation
SPREAD = 0.2  # standard deviation of the factor
PRESENT = ("device", "workers")  # options that a search goes on with as they are given now
# options that are of the search, and not of the training to come
OWN = ("evolve", "resume_evolve", "recipe", "hyp", "project", "name", "exist_ok")
MOST_BYTES = 2**30  # of evolve.csv, a million generations


def evolve(options: TrainOptions) -> Path:
    """Search for --evolve generations, or for those left of an earlier search; returns its folder."""
    if options.resume:
        raise UserError("--evolve and --resume: a search goes on by --resume_evolve")
    if told_number("WORLD_SIZE", 1) > 1:
        raise UserError("--evolve runs one training after the other in one process; start it without torchrun")
    if options.resume_evolve:
        folder = find_search(options)
        saved = read_yaml(folder / "opt.yaml", "settings of the search")
        present = {name: getattr(options, name) for name in PRESENT}
        present |= require_code(options, saved, folder / "opt.yaml")
        present["evolve"] = options.evolve or saved.get("evolve")
        if not present["evolve"]:
            raise UserError(f"{folder / 'opt.yaml'}: doesn't say how many generations to search; add --evolve N")
        options = options.with_saved(saved, folder / "opt.yaml", **present)
        start = in_floats(read_hyp(folder / "hyp_start.yaml"))
    else:
        start = in_floats(read_run_hyp(options))
        folder = new_run_folder(search_project(options), options.name, options.exist_ok)
        write_yaml(folder / "opt.yaml", {k: v for k, v in options.as_data().items() if not k.startswith("resume")})
        write_yaml(folder / "hyp_start.yaml", start)
    table = folder / "evolve.csv"
    rows = read_rows(table, start)
    if rows:
        print(f"going on with {table} after {len(rows)} of {options.evolve} generations")
        # it may have been killed between the last row and this
        record_best(folder, rows)
    again = command_line("train.py", "--resume_evolve", folder, *options.as_words(*PRESENT, *CODE))
    with stopping_at_once(lambda: f"go on with: {again}"):
        search(options, start, rows, folder)
    print(f"results are in {folder}")
    kept = options.as_words(*(f.name for f in fields(options) if f.name not in OWN))
    print(f"next: {command_line('train.py', '--hyp', folder / 'hyp_evolve.yaml', *kept)}")
    return folder


def in_floats(hyp: dict[str, float]) -> dict[str, float]:
    """Hyper-parameters as a table of them gives them back."""
    return {name: float(value) for name, value in hyp.items()}


def search(options: TrainOptions, start: dict, rows: list[Generation], folder: Path) -> None:
    """Train the generations that ``rows`` lacks, and record each in ``folder`` as it ends."""
    for generation in range(len(rows), options.evolve):
        hyp = start if generation == 0 else mutate(rows, (options.seed, generation))
        figures = train_once(options, hyp, folder)
        rows.append((figures, hyp))
        write_rows(folder / "evolve.csv", rows)
        record_best(folder, rows)
        best = max(range(len(rows)), key=lambda i: row_fitness(rows[i][0]))
        print(
            f"generation {generation + 1} of {options.evolve}: fitness {row_fitness(figures):.4f}; "
            f"the best is generation {best + 1} with {row_fitness(rows[best][0]):.4f}"
        )


def search_project(options: TrainOptions) -> Path:
    """runs/evolve, unless --project names another folder."""
    return Path(default_folder("evolve") if str(options.project) == default_folder("train") else options.project)


def find_search(options: TrainOptions) -> Path:
    """The folder --resume_evolve names (or its evolve.csv), or that of the newest search."""
    if options.resume_evolve is True:
        found = sorted(search_project(options).glob("*/opt.yaml"), key=lambda p: p.stat().st_mtime)
        if not found:
            raise UserError(f"--resume_evolve: {search_project(options)} holds no search; name its folder")
        return found[-1].parent
    folder = Path(options.resume_evolve)
    folder = folder if folder.is_dir() else folder.parent
    if not (folder / "hyp_start.yaml").is_file():
        raise UserError(f"--resume_evolve {options.resume_evolve}: no folder of a search (it holds no hyp_start.yaml)")
    return folder


def train_once(options: TrainOptions, hyp: dict, folder: Path) -> dict[str, float]:
    """Train with ``hyp``; the figures of the last epoch. A training that diverges has a fitness of nothing."""
    changes = {"noval": True, "noplots": True, "project": str(folder)}
    trainer = Trainer(set_up(replace(options, **changes), hyp=hyp, keep_records=False))
    try:
        trainer.fit()
    except Diverged as e:
        print(f"warning: {e}")
        return dict.fromkeys(FIGURES, 0.0)
    # as exact as evolve.csv was always written: scores, and so what is drawn from them, stay those of earlier searches
    row = read_cells(write_cells(trainer.state.results[-1]))
    return {name: row[name] for name in FIGURES}


def mutate(rows: list[Generation], key: tuple[int, int]) -> dict:
    """One of the best rows, the better the likelier, with most of its hyper-parameters changed by random factors."""
    rng = np.random.default_rng(key)
    best = sorted(rows, key=lambda row: -row_fitness(row[0]))[:PARENTS]
    scores = np.array([row_fitness(figures) for figures, _ in best])
    odds = scores - scores.min() + 1e-6
    parent = best[rng.choice(len(best), p=odds / odds.sum())][1]
    gains = np.array([r.gain for r in RANGES.values()])
    factors = np.ones(len(RANGES))
    while (factors == 1).all():
        changed = rng.random(len(RANGES)) < MUTATED
        factors = (1 + changed * gains * rng.normal(size=len(RANGES)) * SPREAD).clip(0.3, 3.0)
    new = dict(parent)
    for (name, limits), factor in zip(RANGES.items(), factors, strict=True):
        new[name] = round(float(np.clip(parent[name] * factor, limits.low, limits.high)), 5)
    return new


def read_rows(table: Path, start: dict) -> list[Generation]:
    """The generations of evolve.csv. Raises UserError where it is another table."""
    if not table.exists():
        return []
    try:
        with open(require_file(table, "table of a search", MOST_BYTES), newline="", encoding="utf-8") as f:
            # tables of earlier releases lack the hyper-parameters that have come since
            found = [OPTIONAL | row for row in csv.DictReader(f)]
        rows = [tuple({k: float(row[k]) for k in names} for names in (FIGURES, start)) for row in found]
        for figures, hyp in rows:
            if not (0 <= row_fitness(figures) <= 1 and all(map(math.isfinite, hyp.values()))):
                raise ValueError("a score is not a share, or a hyper-parameter not finite")
    except (KeyError, TypeError, ValueError, csv.Error) as e:
        raise UserError(f"{table}: not the table of a search ({shown(str(e))}); it has a row per generation") from None
    return rows


def write_rows(table: Path, rows: list[Generation]) -> None:
    """evolve.csv, whole, in one step; where it is open elsewhere, with the next generation."""
    cells = ([*(figures[name] for name in FIGURES), *hyp.values()] for figures, hyp in rows)
    write_table(table, [[*FIGURES, *rows[0][1]], *cells])


def record_best(folder: Path, rows: list[Generation]) -> None:
    """hyp_evolve.yaml, the best hyper-parameters so far, and a picture of fitness over each value tried."""
    write_yaml(folder / "hyp_evolve.yaml", max(rows, key=lambda row: row_fitness(row[0]))[1])
    values = {name: np.array([hyp[name] for _, hyp in rows]) for name in RANGES}
    plot_evolution(values, np.array([row_fitness(figures) for figures, _ in rows]), folder / "evolve.png")
