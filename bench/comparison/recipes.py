"""How much sooner recipes learn, what a teacher gives, and what each part of a recipe does: docs/recipes.md and .zh-CN.md.

    python bench/comparison/recipes.py                    all experiments; runs that are done are not done again
    python bench/comparison/recipes.py --only ablation    some of them
    python bench/comparison/recipes.py --device 0 --jobs 8
                                                          on a GPU, eight at once: accuracies alone, no minutes
    python bench/comparison/recipes.py --pages            the pages alone, of the figures that are there

Runs lie in runs/recipes, figures in docs/figures/recipes.json, plots in docs/images; BCCD is where data/bccd.yaml has it.
Nothing else should run meanwhile: minutes are told, too. What is tried out is tried on shapes and on a fixed fifth of BCCD's
training images; its validation images are looked at in the end alone.
"""

# Run as a script: the project's folder comes before bench/ on the import path.
if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch

from engine.comparison.record import DONE
from engine.comparison.runs.trainings import Job, Trainings
from engine.recipe.hyp import OPTIONAL, read_hyp
from engine.training.options import TrainOptions
from utils.console.typed import command_line
from utils.data.config import image_files
from utils.device import describe_device, processor_name, select_device
from utils.errors import UserError, exit_on_user_error
from utils.files import safe_name
from utils.paths import ROOT
from utils.plots.figure import new_figure, plot_color, save_figure
from utils.yaml_file import read_yaml, write_yaml

RUNS = Path("runs", "recipes")
RECORD = ROOT / "docs" / "figures" / "recipes.json"
PAGES = {"en": ROOT / "docs" / "recipes.md", "zh": ROOT / "docs" / "recipes.zh-CN.md"}
IMAGES = ROOT / "docs" / "images"
WEIGHTS = ROOT.parent / "shared" / "weights" / "yolov5n.pt"
PHOTOGRAPHS = ROOT.parent / "shared" / "datasets"
# of mAP50-95, what two runs that are as good may differ by
NEAR = 0.005
# two-sided 95 % of Student's t, by degrees of freedom
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}


@dataclass(frozen=True)
class Experiment:
    """Ways to train, compared: ``arms`` {words: options of train.py}, the first of which the others are held against.

    ``before``: the run of the teacher that they need, whose checkpoint they name as TEACHER.
    """

    key: str
    en: str
    zh: str
    common: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    seeds: int = 3
    before: dict[str, Any] = field(default_factory=dict)


TEACHER = "TEACHER"
HYPS = RUNS / "hyps"
BCCD = {"data": "data/bccd.yaml", "imgsz": 320, "batch_size": 16, "workers": 2, "cache": "ram"}
SHAPES = {"data": "data/shapes.yaml", "batch_size": 16, "workers": 2, "cache": "ram"}
SMALL_SHAPES = SHAPES | {"imgsz": 96, "optimizer": "AdamW", "amp": "fastest"}
FINE_TUNED = BCCD | {"weights": str(WEIGHTS), "epochs": 60, "recipe": "small", "amp": "bf16"}
FAST = {"recipe": "fast"}
# the rates of the recipe, and the average of the weights as in stock
LONG_AVERAGE = HYPS / "long_average.yaml"
TAUGHT = {"epochs": 60, "recipe": "small", "amp": "bf16"}
NONE = dict.fromkeys((name for name in OPTIONAL if name.startswith("distill_")), 0.0)
ANSWERS = {"distill_box": 1.0, "distill_obj": 1.0, "distill_cls": 1.0}
# ways to teach: the weights of each; the first has no teacher
METHODS = {
    "untaught": {},
    "answers": ANSWERS,
    "distill_cwd": {"distill_cwd": 0.3},
    "distill_mgd": {"distill_mgd": 5.0},
}


def taught_by(method: str) -> dict[str, Any]:
    """The options of an arm that is taught in this way."""
    return {"teacher": [TEACHER] if METHODS[method] else [], "hyp": str(HYPS / f"{safe_name(method)}.yaml")}


EXPERIMENTS = (
    Experiment(
        "fifth",
        "Chosen on a fifth of BCCD's training images: yolov5n, 256 px",
        "在 BCCD 训练图片的五分之一上选择：yolov5n，256 px",
        BCCD | {"data": str(RUNS / "bccd-fifth.yaml"), "cfg": "yolov5n.yaml", "imgsz": 256},
        {
            "small, bfloat16, 40 epochs": {"recipe": "small", "amp": "bf16", "epochs": 40},
            "fast, 58 epochs": FAST | {"epochs": 58},
        },
        seeds=2,
    ),
    Experiment(
        "thirds",
        "The accuracy of 60 epochs in a third of the time: BCCD, yolov5n, 320 px, from scratch",
        "用三分之一的时间达到 60 轮的精度：BCCD，yolov5n，320 px，从头训练",
        BCCD | {"cfg": "yolov5n.yaml"},
        {
            "stock, 60 epochs": {"epochs": 60},
            "fast, 36 epochs": FAST | {"epochs": 36},
            "fast, 105 epochs": FAST | {"epochs": 105},
        },
    ),
    Experiment(
        "halves",
        "BCCD, yolov5s_EfficientNetV2-P3, 320 px, from scratch",
        "BCCD，yolov5s_EfficientNetV2-P3，320 px，从头训练",
        BCCD | {"cfg": "yolov5s_EfficientNetV2-P3.yaml"},
        {"stock, 60 epochs": {"epochs": 60}, "fast, 45 epochs": FAST | {"epochs": 45}},
        seeds=1,
    ),
    Experiment(
        "taught",
        "Taught by a fine-tuned yolov5n: BCCD, yolov5n from scratch, 320 px",
        "由微调过的 yolov5n 教：BCCD，从头训练 yolov5n，320 px",
        BCCD | TAUGHT | {"cfg": "yolov5n.yaml"},
        {"untaught": {}, "taught": {"teacher": [TEACHER]}},
        seeds=2,
        before=FINE_TUNED,
    ),
    Experiment(
        "taught-c3-uib",
        "Taught by the same: BCCD, yolov5n_C3_UIB from scratch, 320 px",
        "由同一个模型教：BCCD，从头训练 yolov5n_C3_UIB，320 px",
        BCCD | TAUGHT | {"cfg": "yolov5n_C3_UIB.yaml"},
        {"untaught": {}, "taught": {"teacher": [TEACHER]}},
        seeds=1,
        before=FINE_TUNED,
    ),
    Experiment(
        "methods",
        "Ways to teach: shapes, yolov5n taught by yolov5s, 96 px, 6 epochs",
        "各种蒸馏方法：shapes，由 yolov5s 教 yolov5n，96 px，6 轮",
        SMALL_SHAPES | {"cfg": "yolov5n.yaml", "epochs": 6},
        {method: taught_by(method) for method in METHODS},
        before=SMALL_SHAPES | {"cfg": "yolov5s.yaml", "epochs": 10, "hyp": "hyp.shapes.yaml"},
    ),
    Experiment(
        "ablation",
        "Each part of the recipe left out in turn: shapes, yolov5n, 128 px, 8 epochs",
        "逐一去掉方案的每个部分：shapes，yolov5n，128 px，8 轮",
        SHAPES | {"cfg": "yolov5n.yaml", "imgsz": 128, "epochs": 8},
        {
            "fast": FAST,
            "without stages": FAST | {"progressive": 0},
            "without bfloat16": FAST | {"amp": "off"},
            "with SGD and its rates": FAST | {"optimizer": "SGD", "hyp": "data/hyps/hyp.scratch-low.yaml"},
            "with the average of long runs": FAST | {"optimizer": "AdamW", "hyp": str(LONG_AVERAGE)},
            "stock": {},
        },
    ),
)


def write_fifth(folder: Path) -> None:
    """The data YAML of BCCD's training images alone, bccd-fifth.yaml: every fifth of them is to validate with."""
    described = read_yaml(ROOT / "data" / "bccd.yaml", "data YAML")
    folder.mkdir(parents=True, exist_ok=True)
    images = image_files([str(PHOTOGRAPHS / "bccd" / "images" / "train")])
    parts = {"train": [image for i, image in enumerate(images) if i % 5], "val": images[::5]}
    lists = {name: folder / f"bccd-{name}.txt" for name in parts}
    for name, part in parts.items():
        lists[name].write_text("".join(f"{image}\n" for image in part))
    write_yaml(
        folder / "bccd-fifth.yaml", {name: str(file) for name, file in lists.items()} | {"names": described["names"]}
    )


def write_hyps(folder: Path) -> None:
    """The hyper-parameters of the ways to teach, which are those for shapes with the weights of each, and LONG_AVERAGE."""
    folder.mkdir(parents=True, exist_ok=True)
    for method, weights in METHODS.items():
        write_yaml(folder / f"{safe_name(method)}.yaml", read_hyp("hyp.shapes.yaml") | NONE | weights)
    # all of it is said in the file, the average as well, which the recipe then leaves as it is
    write_yaml(folder / LONG_AVERAGE.name, read_hyp("hyp.scratch-tiny.yaml"))


def job_of(
    experiment: Experiment, arm: str, seed: int, teacher: str = "", present: dict[str, Any] | None = None
) -> Job:
    """The run of one seed; ``present``: options of where and how it is run here."""
    options = experiment.common | experiment.arms[arm] | (present or {})
    if TEACHER in options.get("teacher", []):
        options |= {"teacher": [teacher]}
    return _job(experiment.key, arm, seed, options)


def teacher_of(experiment: Experiment, present: dict[str, Any]) -> Job:
    """The run that an experiment needs: one for all that name the same model."""
    before = experiment.before
    return _job("teachers", Path(before.get("weights") or before["cfg"]).stem, 0, before | present)


def _job(key: str, arm: str, seed: int, options: dict[str, Any]) -> Job:
    place = {"project": str(RUNS / key / safe_name(arm)), "name": f"seed{seed}", "exist_ok": True, "noplots": True}
    log = RUNS / "logs" / f"{key}-{safe_name(arm)}-{seed}.log"
    return Job(arm, seed, TrainOptions.of(options | place | {"seed": seed}), log)


def measure(experiments: list[Experiment], record: dict[str, Any], device: str, at_once: int) -> None:
    """Run what ``record`` does not have, and put it there and into the file RECORD, each run as it ends.

    Several ``at_once`` hinder each other: of them no minutes are told, and the last epoch alone is validated. Raises
    UserError where a run fails.
    """
    present = {"device": device} | ({"noval": True} if at_once > 1 else {})
    where = select_device(device)
    machine = f"{describe_device(where)} {processor_name()}"
    told = {"torch": torch.__version__, "date": date.today().isoformat()}
    teachers = {e.key: teacher_of(e, present) for e in experiments if e.before}
    carry_out([*{job.folder: job for job in teachers.values()}.values()], device, at_once)
    planned: list[tuple[str, str, Job]] = []
    for experiment in experiments:
        teacher = str(teachers[experiment.key].weights) if experiment.before else ""
        known = record.get(experiment.key, {}).get("arms", {})
        # a seed of each arm before the next one
        for seed in range(experiment.seeds):
            for arm in experiment.arms:
                if str(seed) not in known.get(arm, {"seeds": {}})["seeds"]:
                    job = job_of(experiment, arm, seed, teacher, present)
                    words = job.options.as_words(*(experiment.common | experiment.arms[arm] | present))
                    planned.append((experiment.key, command_line("train.py", *words), job))

    def note() -> None:
        for key, command, job in planned:
            entry = record.get(key, {"arms": {}})
            seeds = entry["arms"].get(job.name, {"seeds": {}})["seeds"]
            if job.status == DONE and str(job.seed) not in seeds:
                # of a run that was done already the times are lost
                timed = at_once == 1 and job.seconds > 0
                curve = [[point.seconds, point.map50_95] for point in job.curve] if timed else []
                run = {
                    "seconds": job.seconds if timed else None,
                    "map50_95": job.curve[-1].map50_95,
                    "curve": curve,
                    "machine": machine,
                }
                entry["arms"][job.name] = {"seeds": seeds | {str(job.seed): run}, "command": command}
                record[key] = entry | told
                RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    carry_out([job for *_, job in planned], device, at_once, note)


def carry_out(jobs: list[Job], device: str, at_once: int, note: Callable[[], None] = lambda: None) -> None:
    """Run what is not done; ``note`` is called whenever something has changed. Raises UserError where a run fails."""
    Trainings(jobs, [device] * at_once, 2, note).run()
    note()
    if failed := [job for job in jobs if job.status != DONE]:
        raise UserError(f"{failed[0].said} has failed: {failed[0].message}; its log is {failed[0].log}")


def mean_of(values: list[float]) -> tuple[float, float | None]:
    """The mean, and half of its 95 % interval by Student's t; None for one value."""
    if len(values) < 2:
        return values[0], None
    return statistics.mean(values), T95[len(values) - 1] * statistics.stdev(values) / len(values) ** 0.5


# Pages --------------------------------------------------------------------------------------------------------------------

WORDS = {
    "en": {
        "title": "# Recipes, measured",
        "links": "[中文](recipes.zh-CN.md) · [README](../README.md)",
        "intro": (
            "Written by `python bench/comparison/recipes.py`. mAP50-95 of the last epoch: means over seeds with 95 % intervals\n"
            "by Student's t; minutes of training on an otherwise idle machine, compilation and start included, and as\n"
            "shares of those of the first row: the whole run, and until its mAP50-95 was the last of the first row less .005."
        ),
        "head": "| | seeds | mAP50-95 | less the first | minutes | of the first | as good after |",
        "plot": "mAP50-95 over minutes of training",
        "machine": "{machines}, PyTorch {torch}, {date}.",
    },
    "zh": {
        "title": "# 训练方案的实测",
        "links": "[English](recipes.md) · [README](../README.zh-CN.md)",
        "intro": (
            "由 `python bench/comparison/recipes.py` 生成。表中是最后一轮的 mAP50-95，取各随机种子的平均，附 t 分布的\n"
            "95 % 区间；分钟是机器空闲时的训练时间，包括编译和启动；后两列是与第一行用时之比：整个训练的，以及 mAP50-95\n"
            "达到第一行最终值减 .005 为止的。"
        ),
        "head": "| | 随机种子数 | mAP50-95 | 减去第一行 | 分钟 | 与第一行之比 | 达到同等精度 |",
        "plot": "mAP50-95 随训练分钟数的变化",
        "machine": "{machines}，PyTorch {torch}，{date}。",
    },
}


def page(record: dict[str, Any], language: str) -> str:
    """The page in one language, of the experiments that are in ``record``."""
    words = WORDS[language]
    lines = [words["title"], "", words["links"], "", words["intro"], ""]
    for experiment in EXPERIMENTS:
        entry = record.get(experiment.key, {"arms": {}})
        arms = {arm: entry["arms"][arm] for arm in experiment.arms if arm in entry["arms"]}
        # what the others are told beside has to be there
        if next(iter(experiment.arms)) not in arms:
            continue
        lines += [f"## {experiment.en if language == 'en' else experiment.zh}", ""]
        lines += [words["head"], "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
        first = next(iter(arms.values()))["seeds"]
        for arm, runs in arms.items():
            lines.append(row(arm, runs["seeds"], first))
        lines += [""]
        if timed_points(entry):
            lines += [f"![{words['plot']}](images/recipes-{experiment.key}.png)", ""]
        lines += ["```bash", *(runs["command"] for runs in arms.values()), "```", ""]
        machines = dict.fromkeys(run["machine"] for runs in arms.values() for run in runs["seeds"].values())
        lines += [words["machine"].format(**entry, machines="; ".join(machines)), ""]
    return "\n".join(lines)


def row(arm: str, runs: dict[str, Any], first: dict[str, Any]) -> str:
    """A line of a table: an arm beside the first, by the seeds that both have."""

    def told(values: list[float], sign: str = "") -> str:
        mean, half = mean_of(values)
        return f"{mean:{sign}.3f}" + (f" ± {half:.3f}" if half is not None else "")

    both = sorted(runs.keys() & first.keys())
    apart = [runs[seed]["map50_95"] - first[seed]["map50_95"] for seed in both]
    seconds = [run["seconds"] for run in runs.values() if run["seconds"]]
    minutes = f"{statistics.mean(seconds) / 60:.1f}" if seconds else ""
    timed = [seed for seed in both if runs[seed]["seconds"] and first[seed]["seconds"]]
    shares = [runs[seed]["seconds"] / first[seed]["seconds"] for seed in timed]
    reached = [seconds_until(runs[seed], first[seed]["map50_95"] - NEAR) for seed in timed]
    until = [after / first[seed]["seconds"] for seed, after in zip(timed, reached, strict=True) if after is not None]
    whole = f"{statistics.mean(shares):.2f}" if shares else ""
    part = f"{statistics.mean(until):.2f}" if until and None not in reached else ""
    beside = ("", "", "") if runs is first else (told(apart, "+"), whole, part)
    figure = told([run["map50_95"] for run in runs.values()])
    return f"| {arm} | {len(runs)} | {figure} | {beside[0]} | {minutes} | {beside[1]} | {beside[2]} |"


def seconds_until(run: dict[str, Any], figure: float) -> float | None:
    """Seconds of training after which mAP50-95 was ``figure``; None where it never was, or it is not known when."""
    return next((seconds for seconds, found in run["curve"] if seconds is not None and found >= figure), None)


def timed_points(entry: dict[str, Any]) -> list[tuple[str, str, list[tuple[float, float]]]]:
    """Of each run of which it is known: its arm, its seed, and (minutes, mAP50-95) after each epoch."""
    found = []
    for arm, runs in entry["arms"].items():
        for seed, run in runs["seeds"].items():
            points = [(seconds / 60, figure) for seconds, figure in run["curve"] if seconds is not None]
            found += [(arm, seed, points)] if points else []
    return found


def draw(entry: dict[str, Any], file: Path) -> None:
    """mAP50-95 over minutes, a line for each run, a colour for each arm."""
    figure = new_figure(8, 5)
    # as wide as a page: pictures come with every clone
    figure.set_dpi(110)
    axes = figure.subplots()
    arms = list(entry["arms"])
    labelled = set()
    for arm, _, points in timed_points(entry):
        label = None if arm in labelled else arm
        labelled.add(arm)
        axes.plot(*zip(*points, strict=True), color=plot_color(arms.index(arm)), linewidth=1, label=label)
    axes.set(xlabel="minutes of training", ylabel="mAP50-95", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [experiment.key for experiment in EXPERIMENTS]
    parser.add_argument("--only", nargs="+", choices=known, default=known, help="some of the experiments")
    parser.add_argument("--device", default="cpu", help="as of train.py (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once; with several no minutes are told")
    parser.add_argument("--pages", action="store_true", help="write the pages again, and train nothing")
    given = parser.parse_args()
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if not given.pages:
        write_fifth(RUNS)
        write_hyps(HYPS)
        measure([e for e in EXPERIMENTS if e.key in given.only], record, given.device, given.jobs)
    for key, entry in record.items():
        if timed_points(entry):
            draw(entry, IMAGES / f"recipes-{key}.png")
    for language, file in PAGES.items():
        file.write_text(page(record, language))
    print(f"figures are in {RECORD}, pages in {' and '.join(map(str, PAGES.values()))}")


if __name__ == "__main__":
    exit_on_user_error(main)
