"""How much sooner recipes learn, what a teacher gives, and what each part of a recipe does: docs/recipes.md and .zh-CN.md.

    python bench/comparison/recipes.py                    all experiments; runs that are done are not done again
    python bench/comparison/recipes.py --only ablation    some of them
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
from engine.training.options import TrainOptions
from utils.console.typed import command_line
from utils.data.config import image_files
from utils.device import describe_device, processor_name
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
# two-sided 95 % of Student's t, by degrees of freedom
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}


@dataclass(frozen=True)
class Experiment:
    """Ways to train, compared: ``arms`` {words: options of train.py}, the first of which the others are held against.

    ``before``: a run that they need, such as a teacher, whose best checkpoint they name as TEACHER.
    """

    key: str
    en: str
    zh: str
    common: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    seeds: int = 3
    before: dict[str, Any] = field(default_factory=dict)


TEACHER = "TEACHER"
BCCD = {"data": "data/bccd.yaml", "imgsz": 320, "batch_size": 16, "device": "cpu", "workers": 2, "cache": "ram"}
SHAPES = {"data": "data/shapes.yaml", "batch_size": 16, "device": "cpu", "workers": 2, "cache": "ram"}
FINE_TUNED = BCCD | {"weights": str(WEIGHTS), "epochs": 60, "recipe": "small"}
FAST = {"recipe": "fast"}
TAUGHT = {"epochs": 60, "recipe": "small", "amp": "bf16"}
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
        seeds=2,
        before=FINE_TUNED,
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


def job_of(experiment: Experiment, arm: str, seed: int, teacher: str = "") -> Job:
    """The run of one seed."""
    options = experiment.common | experiment.arms[arm]
    if TEACHER in options.get("teacher", []):
        options |= {"teacher": [teacher]}
    place = {"project": str(RUNS / experiment.key / safe_name(arm)), "name": f"seed{seed}", "exist_ok": True}
    return Job(
        arm, seed, TrainOptions.of(options | place | {"seed": seed, "noplots": True}), _log(experiment.key, arm, seed)
    )


def _log(key: str, arm: str, seed: int) -> Path:
    return RUNS / "logs" / f"{key}-{safe_name(arm)}-{seed}.log"


def teacher_of(experiment: Experiment) -> str:
    """The checkpoint of the run that an experiment needs; "" where it needs none."""
    if not experiment.before:
        return ""
    place = {"project": str(RUNS / "teachers"), "name": "yolov5n", "exist_ok": True, "noplots": True}
    job = Job("teacher", 0, TrainOptions.of(experiment.before | place), _log("teacher", "yolov5n", 0))
    carry_out([job])
    return str(job.weights)


def carry_out(jobs: list[Job]) -> None:
    """Run what is not done, one after another. Raises UserError where a run fails."""
    Trainings(jobs, ["cpu"], 2, lambda: None).run()
    if failed := [job for job in jobs if job.status != DONE]:
        raise UserError(f"{failed[0].said} has failed: {failed[0].message}; its log is {failed[0].log}")


def measure(experiment: Experiment, known: dict[str, Any], keep: Callable[[dict[str, Any]], None]) -> None:
    """All runs of an experiment; ``keep`` takes what came of them, after each. ``known``: of those that were done before."""
    teacher = teacher_of(experiment)
    arms = dict(known.get("arms", {}))
    machine = f"{describe_device(torch.device('cpu'))} {processor_name()}"
    # a seed of each arm before the next one
    for seed in range(experiment.seeds):
        for arm in experiment.arms:
            runs = arms.setdefault(arm, {"seeds": {}})
            job = job_of(experiment, arm, seed, teacher)
            runs["command"] = command_line(
                "train.py", *job.options.as_words(*(experiment.common | experiment.arms[arm]))
            )
            if str(seed) not in runs["seeds"]:
                carry_out([job])
                # of a run that was done already the times are lost
                curve = [[point.seconds, point.map50_95] for point in job.curve]
                runs["seeds"][str(seed)] = {"seconds": job.seconds, "map50_95": curve[-1][1], "curve": curve}
                keep({"arms": arms, "machine": machine, "torch": torch.__version__, "date": date.today().isoformat()})


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
            "by Student's t; minutes of training on an otherwise idle machine, compilation and start included."
        ),
        "head": "| | seeds | mAP50-95 | less the first | minutes | of the first |",
        "plot": "mAP50-95 over minutes of training",
        "machine": "{machine}, PyTorch {torch}, {date}.",
    },
    "zh": {
        "title": "# 训练方案的实测",
        "links": "[English](recipes.md) · [README](../README.zh-CN.md)",
        "intro": (
            "由 `python bench/comparison/recipes.py` 生成。表中是最后一轮的 mAP50-95，取各随机种子的平均，附 t 分布的\n"
            "95 % 区间；分钟是机器空闲时的训练时间，包括编译和启动。"
        ),
        "head": "| | 随机种子数 | mAP50-95 | 减去第一行 | 分钟 | 与第一行之比 |",
        "plot": "mAP50-95 随训练分钟数的变化",
        "machine": "{machine}，PyTorch {torch}，{date}。",
    },
}


def page(record: dict[str, Any], language: str) -> str:
    """The page in one language, of the experiments that are in ``record``."""
    words = WORDS[language]
    lines = [words["title"], "", words["links"], "", words["intro"], ""]
    for experiment in EXPERIMENTS:
        if not (entry := record.get(experiment.key)):
            continue
        lines += [f"## {experiment.en if language == 'en' else experiment.zh}", ""]
        lines += [words["head"], "| --- | ---: | ---: | ---: | ---: | ---: |"]
        first = list(entry["arms"].values())[0]["seeds"]
        for arm, runs in entry["arms"].items():
            lines.append(row(arm, runs["seeds"], first))
        lines += ["", f"![{words['plot']}](images/recipes-{experiment.key}.png)", ""]
        lines += ["```bash", *(runs["command"] for runs in entry["arms"].values()), "```", ""]
        lines += [words["machine"].format(**entry), ""]
    return "\n".join(lines)


def row(arm: str, runs: dict[str, Any], first: dict[str, Any]) -> str:
    """A line of a table: an arm beside the first, by the seeds that both have."""

    def told(values: list[float], sign: str = "") -> str:
        mean, half = mean_of(values)
        return f"{mean:{sign}.3f}" + (f" ± {half:.3f}" if half is not None else "")

    both = sorted(runs.keys() & first.keys())
    apart = [runs[seed]["map50_95"] - first[seed]["map50_95"] for seed in both]
    minutes = statistics.mean(run["seconds"] for run in runs.values()) / 60
    ratio = statistics.mean(runs[seed]["seconds"] / first[seed]["seconds"] for seed in both)
    beside = ("", "") if runs is first else (told(apart, "+"), f"{ratio:.2f}")
    figure = told([run["map50_95"] for run in runs.values()])
    return f"| {arm} | {len(runs)} | {figure} | {beside[0]} | {minutes:.1f} | {beside[1]} |"


def draw(entry: dict[str, Any], file: Path) -> None:
    """mAP50-95 over minutes, a line for each run, a colour for each arm."""
    figure = new_figure(8, 5)
    axes = figure.subplots()
    for i, (arm, runs) in enumerate(entry["arms"].items()):
        for seed, run in runs["seeds"].items():
            points = [(seconds / 60, figure) for seconds, figure in run["curve"] if seconds is not None]
            label = arm if seed == min(runs["seeds"]) else None
            if points:
                axes.plot(*zip(*points, strict=True), color=plot_color(i), linewidth=1, label=label)
    axes.set(xlabel="minutes of training", ylabel="mAP50-95", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [experiment.key for experiment in EXPERIMENTS]
    parser.add_argument("--only", nargs="+", choices=known, default=known, help="some of the experiments")
    parser.add_argument("--pages", action="store_true", help="write the pages again, and train nothing")
    given = parser.parse_args()
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if not given.pages:
        write_fifth(RUNS)
        for experiment in EXPERIMENTS:
            if experiment.key in given.only:

                def keep(found: dict[str, Any], key: str = experiment.key) -> None:
                    record[key] = found
                    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")

                measure(experiment, record.get(experiment.key, {}), keep)
    for key, entry in record.items():
        draw(entry, IMAGES / f"recipes-{key}.png")
    for language, file in PAGES.items():
        file.write_text(page(record, language))
    print(f"figures are in {RECORD}, pages in {' and '.join(map(str, PAGES.values()))}")


if __name__ == "__main__":
    exit_on_user_error(main)
