"""How fast each step is on this machine: docs/benchmarks.md and .zh-CN.md, from figures that this script measures.

    python bench/all.py                         all parts, each in turns with its floor; leave the machine alone meanwhile
    python bench/all.py --parts start inference some; the others keep the figures they had
    python bench/all.py --stock ../yolov5       beside them, the public commands of another checkout

The figures are kept in docs/figures/benchmarks.json. Photographs are taken from ../shared/datasets where they are there, else
drawn shapes are used. On a GPU nothing is measured: the pages say so.
"""

# Run as a script: the project's folder comes before bench/ on the import path.
if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import tempfile
from dataclasses import asdict
from datetime import date
from pathlib import Path

import torch

from bench import loader, scale, speed, training
from bench.speed import Row
from utils.console.guard import keep_freed_memory
from utils.data.coco import COCO_NAMES
from utils.data.config import prepare_data, read_data_yaml
from utils.device import describe_device, processor_name
from utils.errors import UserError, exit_on_user_error
from utils.paths import ROOT

RECORD = ROOT / "docs" / "figures" / "benchmarks.json"
PAGES = {"en": ROOT / "docs" / "benchmarks.md", "zh": ROOT / "docs" / "benchmarks.zh-CN.md"}
WEIGHTS = ROOT.parent / "shared" / "weights" / "yolov5n.pt"
PHOTOGRAPHS = ROOT.parent / "shared" / "datasets"
# (model, image size, images): few of those that take long
TRAININGS = (
    ("yolov5n.yaml", 320, 128),
    ("yolov5n.yaml", 640, 64),
    ("yolov5s_EfficientNetV2.yaml", 320, 64),
    ("yolov5s_EfficientNetV2.yaml", 640, 32),
)
PARTS = (
    "start",
    "loader",
    "training",
    "compiled",
    "memory",
    "busy",
    "inference",
    "validation",
    "video",
    "scale",
    "commands",
)


def measure(part: str, rounds: int, folder: Path, stock: Path | None) -> list[Row]:
    """The rows of a part. Raises UserError where what it needs is not there."""
    if part == "loader":
        return loader_rows(rounds, stock)
    images, data = photographs(folder)
    if part == "start":
        return speed.startup(WEIGHTS, images, folder, rounds)
    if part == "training":
        rows = []
        for cfg, size, count in TRAININGS:
            some = listed(folder, images[:count], data)
            # of long ones fewer do
            few = rounds if size == 320 else min(rounds, 3)
            rows += [row for cache in training.CACHES for row in training.training(cfg, some, size, folder, few, cache)]
        return rows
    if part == "compiled":
        rows = training.compiled_training(shapes(), folder, rounds)
        if stock and is_ours(stock):
            some = images[:128]
            rows += training.beside_another(stock, listed(folder, some, data), len(some), folder, rounds)
        return rows
    if part == "busy":
        return training.two_at_once(shapes(), folder, rounds)
    if part == "scale":
        rows = scale.scale(folder, rounds)
        scale.draw(rows, scale.PICTURE)
        return rows
    if part == "memory":
        return training.training_memory(shapes(), folder, rounds)
    if part == "inference":
        return speed.inference(WEIGHTS, images, rounds)
    if part == "validation":
        return speed.validation(WEIGHTS, data, images, folder, rounds)
    if part == "video":
        return speed.video(WEIGHTS, images, folder, rounds)
    return speed.whole_commands({"ours": ROOT, "other": stock}, WEIGHTS, data, images, folder, rounds)


def photographs(folder: Path) -> tuple[list[Path], Path]:
    """128 photographs and their data YAML, in ``folder``. Raises UserError where they, or the weights, are not there."""
    root = PHOTOGRAPHS / "coco-val128"
    images = sorted((root / "images").rglob("*.jpg"))
    for needed in (WEIGHTS, root / "images"):
        if not needed.exists():
            raise UserError(f"{needed}: not there; these parts are measured with it")
    data = folder / "coco-val128.yaml"
    names = [f"  {number}: {name}\n" for number, name in enumerate(COCO_NAMES)]
    data.write_text(f"path: {json.dumps(str(root))}\ntrain: images\nval: images\nnames:\n{''.join(names)}")
    return images, data


def listed(folder: Path, images: list[Path], data: Path) -> str:
    """The data YAML of some of the images of ``data``."""
    some, names = (folder / f"some{len(images)}{suffix}" for suffix in (".yaml", ".txt"))
    names.write_text("".join(f"{image}\n" for image in images))
    some.write_text(data.read_text().replace("train: images\n", f"train: {json.dumps(str(names))}\n"))
    return str(some)


def shapes() -> str:
    """The data YAML of drawn shapes, whose images are there."""
    config = read_data_yaml("data/shapes.yaml")
    prepare_data(config)
    return str(config.file)


def is_ours(checkout: Path) -> bool:
    """Whether it is one of this project, of today or of before the rooms, whose parts can be measured by themselves."""
    return any((checkout / "utils" / name).exists() for name in ("data", "dataset.py"))


def loader_rows(rounds: int, stock: Path | None) -> list[Row]:
    """Images a second, beside those of another checkout of this project, where ``stock`` is one."""
    project = stock and is_ours(stock)
    rows = []
    for case in loader.CASES:
        if case.images.is_dir():
            found = loader.measure(case, rounds, reference=stock if project else None)
            what = f"{case.name}, {case.size} px, mosaics, nothing kept"
            beside = (found["reference"], found["process / reference"], "the other checkout") if project else ()
            workers = (found["worker"], found["two workers / worker"], "one worker")
            processes = (found["process"], found["two processes / process"], "one process")
            rows += [
                Row("loader", f"{what}, one process", "images/s", found["process"], *beside),
                Row("loader", f"{what}, two workers", "images/s", found["two workers"], *workers),
                Row(
                    "loader", f"{what}, two processes, each for itself", "images/s", found["two processes"], *processes
                ),
            ]
    return rows


# Pages --------------------------------------------------------------------------------------------------------------------

WORDS = {
    "en": {
        "title": "# Speed",
        "links": "[中文](benchmarks.zh-CN.md) · [README](../README.md)",
        "intro": (
            "What `python bench/all.py` measured. A floor is the same work by bare PyTorch; both sides run in turns, and\n"
            "medians are given. For training and inference the ratio is the floor's time over ours: beside bare PyTorch 1 is\n"
            "the best, beside a step without flags or another checkout more is better. For commands, memory, a busy machine\n"
            "and scale it is ours over the floor: 1 is the best. For loading it is images a second over the floor's: the\n"
            "more, the better."
        ),
        "head": "| what | ours | floor | ratio | the floor is |",
        "not": "Not measured: CUDA. Latencies of each model are in [backbones.md](backbones.md).",
        "machine": "{machine}, {cores} threads, PyTorch {torch}, {date}.",
        "parts": {
            "start": "Starting", "loader": "Loading images to train on", "training": "Training", "memory": "Memory",
            "compiled": "Training, compiled", "busy": "A busy machine", "scale": "Scale",
            "inference": "Inference", "validation": "Validation", "video": "Video", "commands": "Beside another checkout",
        },
    },
    "zh": {
        "title": "# 速度",
        "links": "[English](benchmarks.md) · [README](../README.zh-CN.md)",
        "intro": (
            "以下由 `python bench/all.py` 测得。下限是指只用 PyTorch 完成同样的工作；两者轮流运行，表中为中位数。\n"
            "训练和推理的比值是下限用时除以我们的用时：与纯 PyTorch 相比，最好为 1；与不加选项的一步或另一份代码相比，\n"
            "越大越好。命令、内存、机器繁忙时和规模的比值是我们的数值除以下限：1 最好。读取图片的比值是每秒图片数之比，\n"
            "越大越好。"
        ),
        "head": "| 项目 | 本项目 | 下限 | 比值 | 下限是什么 |",
        "not": "未测：CUDA。各模型的延迟见 [backbones.zh-CN.md](backbones.zh-CN.md)。",
        "machine": "{machine}，{cores} 线程，PyTorch {torch}，{date}。",
        "parts": {
            "start": "启动", "loader": "读取训练图片", "training": "训练", "memory": "内存",
            "compiled": "编译后训练", "busy": "机器繁忙时", "scale": "规模",
            "inference": "推理", "validation": "验证", "video": "视频", "commands": "与另一份代码比较",
        },
    },
}  # fmt: skip


def page(record: dict, language: str) -> str:
    """The page in one language."""
    words = WORDS[language]
    lines = [words["title"], "", words["links"], "", words["intro"], ""]
    for part in PARTS:
        if part not in record:
            continue
        entry = record[part]
        lines += [f"## {words['parts'][part]}", "", words["head"], "| --- | ---: | ---: | ---: | --- |"]
        for row in entry["rows"]:
            value, floor, ratio = (
                "" if row[name] is None else number(row[name]) for name in ("value", "floor", "ratio")
            )
            lines.append(f"| {row['what']} | {value} {row['unit']} | {floor} | {ratio} | {row['floor_is']} |")
        lines += ["", words["machine"].format(**entry["machine"]), ""]
        if part == "scale":
            lines += [f"![{words['parts'][part]}](images/scale.png)", ""]
    return "\n".join([*lines, words["not"], ""])


def number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def machine() -> dict:
    return {
        "machine": describe_device(torch.device("cpu")) + f" {processor_name()}",
        "cores": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=None, help="what to measure (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measurement (default: %(default)s)")
    parser.add_argument("--stock", type=Path, metavar="CHECKOUT", help="another checkout with the same commands")
    given = parser.parse_args()
    if given.rounds < 1:
        raise UserError(f"--rounds {given.rounds}: give 1 or more")
    if given.stock and not (given.stock / "train.py").is_file():
        raise UserError(f"--stock {given.stock}: no train.py there; name a checkout of YOLOv5 or of this project")
    parts = given.parts or [part for part in PARTS if part != "commands" or given.stock]
    if "commands" in parts and not given.stock:
        raise UserError("--parts commands: needs another checkout; add --stock CHECKOUT")
    # as the commands do
    keep_freed_memory()
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for part in parts:
        print(f"{part} …", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(part, given.rounds, Path(folder), given.stock and given.stock.resolve())
        for row in rows:
            beside = "" if row.floor is None else f", {row.floor_is} {number(row.floor)}: ratio {number(row.ratio)}"
            print(f"  {row.what}: {number(row.value)} {row.unit}{beside}", flush=True)
        record[part] = {"machine": machine(), "rows": [asdict(row) for row in rows]}
        # kept as it is found, so that an interrupted run leaves what it has measured
        RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        for language, file in PAGES.items():
            file.write_text(page(record, language))
    print(f"figures are in {RECORD}, pages in {' and '.join(map(str, PAGES.values()))}")


if __name__ == "__main__":
    exit_on_user_error(main)
