"""The tables of both READMEs, written from the files in docs/figures/, and the measurements that fill these files.

    python bench/readme_figures.py                  the tables, from the files that are there
    python bench/readme_figures.py --models         before that, parameters, GFLOPs and strides of every YAML in the table
    python bench/readme_figures.py --latency        before that, milliseconds of each; leave the machine alone meanwhile
    python bench/readme_figures.py --val yolov5n.pt ../datasets/coco-val128
    python bench/readme_figures.py --speed yolov5n.pt ../datasets/coco-val128 ../datasets/bccd
    python bench/readme_figures.py --stock ../reference

| file             | what it holds                                                               | written by         |
| ---------------- | --------------------------------------------------------------------------- | ------------------ |
| stock.json       | YOLOv5's own figures: date, machine, seconds, val, models                   | --stock            |
| models.json      | {YAML: {parameters, gflops, strides}}                                       | --models           |
| val.json         | date, machine, val {run: [P, R, mAP50, mAP50-95]}                           | --val              |
| speed.json       | date, machine, commit, seconds {command: median}                            | --speed, --stock   |
| latency.json     | date, machine, ms {YAML: median}, of_stock {YAML: its share of YOLOv5s's}   | --latency          |
| accuracy_*.json  | data, recipe {en, zh}, map50_95 {YAML: …}: one more column for every file   | who has trained it |

A row or a column is left out until its file is there; times are, too, where they are of another make of processor than
YOLOv5's. tests/bench/test_readme_figures.py holds the tables to the files.
"""

# Run as a script: the project's folder comes before bench/ on the import path.
if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import datetime
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from bench.backbone_table import SIZE, describe_machine, replace_between, times_in_turns
from models.flops import count_gflops, count_parameters
from models.yolo import DetectionModel
from utils.data.images import IMAGE_SUFFIXES
from utils.errors import UserError, exit_on_user_error

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "figures"
PAGES = {"en": ROOT / "README.md", "zh": ROOT / "README.zh-CN.md"}
STOCK, REPEATS = "yolov5s.yaml", 3

# the YAMLs of the table, and what is in them
MODELS = {
    "yolov5n.yaml": {"en": "CSPDarknet, as stock", "zh": "CSPDarknet，与原版相同"},
    "yolov5s.yaml": {"en": "CSPDarknet, as stock", "zh": "CSPDarknet，与原版相同"},
    "yolov5s_EfficientNetV2.yaml": {"en": "EfficientNetV2, as the write-up has it", "zh": "EfficientNetV2，与教程一致"},
    "yolov5s_EfficientNetV2-P3.yaml": {
        "en": "the same, at strides that see small objects",
        "zh": "同上，步长适合小目标",
    },
    "yolov5s_EfficientNet.yaml": {"en": "EfficientNet-B0, by name", "zh": "EfficientNet-B0，按名称引用"},
    "yolov7_EfficientNet.yaml": {
        "en": "EfficientNet-B0 under YOLOv7's neck",
        "zh": "EfficientNet-B0，配 YOLOv7 的颈部",
    },
    "yolov5n_ShuffleNetV2.yaml": {"en": "ShuffleNetV2, size n", "zh": "ShuffleNetV2，n 号"},
    "yolov5l_ShuffleNetV2.yaml": {"en": "ShuffleNetV2, as the write-up has it", "zh": "ShuffleNetV2，与教程一致"},
    "yolov5n_C3_UIB.yaml": {"en": "MobileNetV4's block in every C3", "zh": "每个 C3 里换成 MobileNetV4 的模块"},
    "yolov5s_MobileNetV3-small.yaml": {"en": "MobileNetV3-small", "zh": "MobileNetV3-small"},
    "yolov5s_MobileNetV3-large.yaml": {"en": "MobileNetV3-large", "zh": "MobileNetV3-large"},
    "yolov5s_MobileNetV4-conv-small.yaml": {"en": "MobileNetV4-conv-small", "zh": "MobileNetV4-conv-small"},
    "yolov5s_GhostNet.yaml": {"en": "GhostNet", "zh": "GhostNet"},
    "yolov5s_ShuffleNetV2-x1.0.yaml": {"en": "ShuffleNetV2 x1.0", "zh": "ShuffleNetV2 x1.0"},
    "yolov5s_EfficientNetV2-S.yaml": {"en": "EfficientNetV2-S", "zh": "EfficientNetV2-S"},
}
# the run of val.json, which stock.json has under the same name, and its columns
VAL = "yolov5n_coco_val128_640_b16"
VAL_COLUMNS = ("P", "R", "mAP50", "mAP50-95")
# the commands of speed.json, by the names that stock_speed.json has for them
COMMANDS = {
    "train_3_epochs_whole_command_s": {
        "en": "`train.py`, yolov5n, BCCD, 320 px, batch 16, 3 epochs",
        "zh": "`train.py`：yolov5n、BCCD、320 像素、批次大小 16、3 轮",
    },
    "val_128_images_640_b16_s": {
        "en": "`val.py`, yolov5n, 128 images, 640 px, batch 16",
        "zh": "`val.py`：yolov5n、128 张图片、640 像素、批次大小 16",
    },
    "detect_2_images_640_s": {
        "en": "`detect.py`, yolov5n, 2 images, 640 px",
        "zh": "`detect.py`：yolov5n、2 张图片、640 像素",
    },
    "detect_video_300_frames_640x480_s": {
        "en": "`detect.py`, yolov5n, a video of 300 frames",
        "zh": "`detect.py`：yolov5n、300 帧的视频",
    },
    "train_help_s": {"en": "`train.py --help`", "zh": "`train.py --help`"},
}
WORDS = {
    "en": {
        "stock head": "| | YOLOv5 | here | |",
        "val": "{column} of the official `yolov5n.pt`: 128 images of COCO val2017, 640 px, batch 16",
        "parameters": "parameters of `yolov5n.yaml`",
        "gflops": "GFLOPs of `yolov5n.yaml` at 640 px",
        "equal": "equal",
        "faster": "{ratio} × as fast",
        "stock": "YOLOv5: ultralytics/yolov5, commit of {commit}; measured {date}, {machine}.",
        "both": "YOLOv5: ultralytics/yolov5, commit of {theirs}; here: commit {commit}; measured in turns {date}, {machine}.",
        "here": "Here: commit {commit}; measured {date}, {machine}.",
        "seconds": ", s",
        "space": " ",
        "speed": "Seconds of whole commands; differences below a tenth mean nothing.",
        "models head": ["model YAML", "backbone", "strides", "parameters", "GFLOPs"],
        "latency": ["CPU, ms", "× YOLOv5s"],
        "latency note": "Milliseconds: one image, fused, in turns with `yolov5s.yaml`; {date}, {machine}.",
        "accuracy": "mAP50-95, {data}",
    },
    "zh": {
        "stock head": "| | YOLOv5 | 本项目 | |",
        "val": "官方 `yolov5n.pt` 的 {column}：COCO val2017 的 128 张图片、640 像素、批次大小 16",
        "parameters": "`yolov5n.yaml` 的参数量",
        "gflops": "`yolov5n.yaml` 在 640 像素时的 GFLOPs",
        "equal": "相同",
        "faster": "速度是其 {ratio} 倍",
        "stock": "YOLOv5：ultralytics/yolov5，{commit} 的提交；{date} 测于 {machine}。",
        "both": "YOLOv5：ultralytics/yolov5，{theirs} 的提交；本项目：提交 {commit}；{date} 交替测于 {machine}。",
        "here": "本项目：提交 {commit}；{date} 测于 {machine}。",
        "seconds": "（秒）",
        "space": "",
        "speed": "秒数是整条命令的用时；不到一成的差别没有意义。",
        "models head": ["模型 YAML", "主干", "步长", "参数量", "GFLOPs"],
        "latency": ["CPU 毫秒", "× YOLOv5s"],
        "latency note": "毫秒：单张图片，融合之后，与 `yolov5s.yaml` 交替测量；{date}，{machine}。",
        "accuracy": "mAP50-95，{data}",
    },
}


def read(name: str, folder: Path = FIGURES) -> dict:
    """What a file of the figures holds; empty where there is none yet."""
    path = folder / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(name: str, figures: dict) -> None:
    FIGURES.mkdir(exist_ok=True)
    (FIGURES / name).write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def stamp() -> dict:
    """When, where and at which commit something was measured."""
    line = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(line, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return {"date": datetime.date.today().isoformat(), "machine": describe_machine(), "commit": commit}


def comparable(one: dict, other: dict) -> bool:
    """Whether two files were measured on processors of one make and kind, «AMD EPYC» say: else their times mean nothing
    side by side."""
    makes = [re.findall(r"\w{2,}", side["machine"])[:2] for side in (one, other)]
    return makes[0] == makes[1]


# the tables


def stock_table(language: str, folder: Path = FIGURES) -> str:
    """YOLOv5's figures beside those of this project, in Markdown; rows that one side lacks are left out."""
    words = WORDS[language]
    stock, models, val, speed = (read(f"{name}.json", folder) for name in ("stock", "models", "val", "speed"))
    rows = []
    pair = (side.get("val", {}).get(VAL, [None] * len(VAL_COLUMNS)) for side in (stock, val))
    for column, *figures in zip(VAL_COLUMNS, *pair, strict=True):
        if column.startswith("mAP"):
            rows.append(_compared(words["val"].format(column=column), figures, ".3f", words["equal"]))
    pair = [side.get("yolov5n.yaml", {}) for side in (stock.get("models", {}), models)]
    for key, form in (("parameters", ","), ("gflops", ".1f")):
        rows.append(_compared(words[key], [side.get(key) for side in pair], form, words["equal"]))
    if speed and not (stock and comparable(stock, speed)):
        speed = {}
    for name, titles in COMMANDS.items():
        seconds = [side.get("seconds", {}).get(name) for side in (stock, speed)]
        rows.append(_timed(titles[language] + words["seconds"], seconds, words["faster"]))
    measured = speed or val
    if measured and (stock["date"], stock["machine"]) == (measured["date"], measured["machine"]):
        notes = [words["both"].format(**measured, theirs=stock["commit"])]
    else:
        notes = [words[side].format(**about) for side, about in (("stock", stock), ("here", measured)) if about]
    notes += [words["speed"]] if speed else []
    table = [words["stock head"], "| --- | ---: | ---: | --- |", *(row for row in rows if row)]
    return "\n".join([*table, "", words["space"].join(notes)])


def _compared(title: str, pair: list[float | None], form: str, equal: str) -> str:
    """A row with both figures of ``pair``; empty where one is missing."""
    if None in pair:
        return ""
    theirs, ours = (format(figure, form) for figure in pair)
    return f"| {title} | {theirs} | {ours} | {equal if theirs == ours else ''} |"


def _timed(title: str, pair: list[float | None], faster: str) -> str:
    """A row with the seconds of ``pair`` and how many times as fast the second is; empty where one is missing."""
    if None in pair:
        return ""
    theirs, ours = (f"{seconds:.{1 if seconds >= 1 else 2}f}" for seconds in pair)
    ratio = pair[0] / pair[1]
    return f"| {title} | {theirs} | {ours} | {faster.format(ratio=f'{ratio:.{2 if ratio < 10 else 0}f}')} |"


def models_table(language: str, folder: Path = FIGURES) -> str:
    """The YAMLs with their figures, in Markdown; a column more for latencies and for every file of accuracies."""
    words = WORDS[language]
    models, latency = read("models.json", folder), read("latency.json", folder)
    accuracies = [read(path.name, folder) for path in sorted(folder.glob("accuracy_*.json"))]
    head = [*words["models head"], *(words["latency"] if latency else [])]
    head += [words["accuracy"].format(data=accuracy["data"]) for accuracy in accuracies]
    rules = ["---"] * 3 + ["---:"] * (len(head) - 3)
    lines = []
    for name, texts in MODELS.items():
        if name not in models:
            continue
        figures = models[name]
        strides = ", ".join(map(str, figures["strides"]))
        row = [f"`{name}`", texts[language], strides, f"{figures['parameters']:,}", f"{figures['gflops']:.1f}"]
        if latency:
            row += [_or_dash(latency["ms"].get(name), ".0f"), _or_dash(latency["of_stock"].get(name), ".2f")]
        row += [_or_dash(accuracy["map50_95"].get(name), ".3f") for accuracy in accuracies]
        lines.append(row)
    notes = [words["latency note"].format(**latency)] if latency else []
    notes += [f"{accuracy['data']}: {accuracy['recipe'][language]}" for accuracy in accuracies]
    table = "\n".join(f"| {' | '.join(row)} |" for row in [head, rules, *lines])
    return "\n\n".join([table, *notes])


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def write_pages() -> None:
    """Put the tables between the marks of both READMEs."""
    for language, page in PAGES.items():
        text = page.read_text(encoding="utf-8")
        text = replace_between(text, "figures: stock", stock_table(language))
        page.write_text(replace_between(text, "figures: models", models_table(language)), encoding="utf-8")


# the measurements


def take_over_stock(folder: Path) -> None:
    """stock.json, from stock_speed.json and model_facts.json in ``folder``; and speed.json, which --speed replaces, with the
    times that this project took in the same session."""
    speed, facts = (json.loads((folder / name).read_text()) for name in ("stock_speed.json", "model_facts.json"))
    seconds = {name: speed[name]["stock"] for name in COMMANDS}
    models = {
        f"{name}.yaml": {"parameters": facts[name]["params"], "gflops": facts[name]["gflops_640"]}
        for name in ("yolov5n", "yolov5s")
    }
    val = {VAL: speed["accuracy"]["val_coco_val128_640_b16"]["stock"]}
    commit = re.search(r"commit of ([\d-]+)", speed["stock"]).group(1)
    about = {"date": speed["date"], "machine": speed["machine"].partition(";")[0], "commit": commit}
    write("stock.json", about | {"seconds": seconds, "val": val, "models": models})
    commit = re.search(r"ours: commit (\w+)", speed["note"]).group(1)
    write("speed.json", about | {"commit": commit, "seconds": {name: speed[name]["ours"] for name in COMMANDS}})


def measure_models() -> None:
    """models.json: each YAML of the table built for 80 classes."""
    found = {}
    for name in tqdm(MODELS, desc="models"):
        model = DetectionModel(name)
        found[name] = {
            "parameters": count_parameters(model)[0],
            "gflops": round(count_gflops(model, SIZE), 3),
            "strides": model.stride.int().tolist(),
        }
    write("models.json", found)


def measure_latency() -> None:
    """latency.json: each YAML of the table in turns with stock YOLOv5s, in this process."""
    figures = stamp() | {"ms": {}, "of_stock": {}}
    stock = _ready(STOCK)
    image = torch.rand(1, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    for name in tqdm(MODELS, desc="latencies"):
        ms, beside = times_in_turns((_ready(name), stock), image)
        figures["ms"][name], figures["of_stock"][name] = round(ms, 1), round(ms / beside, 2)
    write("latency.json", figures)


def _ready(name: str) -> DetectionModel:
    return DetectionModel(name).fuse().to(memory_format=torch.channels_last)


def measure_val(weights: Path, images: Path) -> None:
    """val.json: what val.py gives at 640 px and batch 16 for ``images``, a set in YOLO's layout with COCO's 80 classes."""
    import val

    with tempfile.TemporaryDirectory() as folder:
        data = _coco_yaml(images, Path(folder))
        options = {"imgsz": 640, "batch_size": 16, "project": folder}
        figures = val.run(weights=[weights.resolve()], data=data, **options)
    row = [figures.p, figures.r, figures.map50, figures.map50_95]
    write("val.json", stamp() | {"val": {VAL: [round(float(value), 4) for value in row]}})


def measure_speed(weights: Path, coco: Path, bccd: Path) -> None:
    """speed.json: the wall time of whole commands, each the median of several runs."""
    with tempfile.TemporaryDirectory() as folder:
        lines = timed_commands(Path(folder), weights.resolve(), coco, bccd)
        seconds = {name: _seconds(line) for name, line in tqdm(lines.items(), desc="commands")}
    write("speed.json", stamp() | {"seconds": seconds})


def timed_commands(folder: Path, weights: Path, coco: Path, bccd: Path) -> dict[str, str]:
    """{name in speed.json: command line}; what the commands read and write is put into ``folder``."""
    images = sorted(path for path in (coco / "images").rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    (folder / "two").mkdir()
    for path in images[:2]:
        shutil.copy(path, folder / "two")
    _write_video(images, folder / "video.mp4")
    cells = _data_yaml(bccd, folder, ["Platelets", "RBC", "WBC"])
    given = f"--project {folder}/runs"
    loaded = f"--weights {weights} --imgsz 640 {given}"
    return {
        "train_3_epochs_whole_command_s": f"train.py --data {cells} --cfg yolov5n.yaml --imgsz 320 --batch-size 16 "
        f"--epochs 3 {given}",
        "val_128_images_640_b16_s": f"val.py --data {_coco_yaml(coco, folder)} --batch-size 16 {loaded}",
        "detect_2_images_640_s": f"detect.py --source {folder}/two {loaded}",
        "detect_video_300_frames_640x480_s": f"detect.py --source {folder}/video.mp4 {loaded}",
        "train_help_s": "train.py --help",
    }


def _seconds(line: str) -> float:
    """Median wall time of a command of the project; what a first run leaves in caches is there for all that count."""
    times = []
    for _ in range(1 + REPEATS):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, *line.split()], cwd=ROOT, capture_output=True, text=True)
        times.append(time.perf_counter() - started)
        if done.returncode:
            raise UserError(f"{line}: {done.stderr[-500:]}")
    median = statistics.median(times[1:])
    return round(median, 1 if median >= 1 else 2)


def _data_yaml(root: Path, folder: Path, names: list[str]) -> Path:
    """A data YAML for a set of YOLO's layout, with its caches kept out of it by a copy of the set."""
    copy = folder / root.resolve().name
    if not copy.exists():
        shutil.copytree(root, copy, ignore=shutil.ignore_patterns("*.cache"))
    # a set without parts is both
    parts = {part: str(next((copy / "images").glob(f"{part}*/"), copy / "images")) for part in ("train", "val")}
    path = folder / f"{copy.name}.yaml"
    path.write_text(json.dumps(parts | {"names": names}))
    return path


def _coco_yaml(root: Path, folder: Path) -> Path:
    import yaml

    names = yaml.safe_load((ROOT / "data" / "coco.yaml").read_text(encoding="utf-8"))["names"]
    return _data_yaml(root, folder, list(names.values()))


def _write_video(images: list[Path], path: Path, frames: int = 300) -> None:
    """A video of 640 × 480: the images, three frames each, from the first again where they don't suffice."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, (640, 480))
    for i in range(frames):
        picture = cv2.imdecode(np.fromfile(images[i // 3 % len(images)], np.uint8), cv2.IMREAD_COLOR)
        writer.write(cv2.resize(picture, (640, 480)))
    writer.release()


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stock", type=Path, metavar="FOLDER", help="take stock's figures over from FOLDER")
    parser.add_argument("--models", action="store_true", help="build the YAMLs")
    parser.add_argument("--latency", action="store_true", help="time the YAMLs")
    parser.add_argument(
        "--val", type=Path, nargs=2, metavar=("WEIGHTS", "COCO"), help="validate the official yolov5n.pt"
    )
    parser.add_argument("--speed", type=Path, nargs=3, metavar=("WEIGHTS", "COCO", "BCCD"), help="time whole commands")
    return parser


def main() -> None:
    options = build_parser().parse_args()
    if options.stock:
        take_over_stock(options.stock)
    if options.models:
        measure_models()
    if options.latency:
        measure_latency()
    if options.val:
        measure_val(*options.val)
    if options.speed:
        measure_speed(*options.speed)
    write_pages()


if __name__ == "__main__":
    exit_on_user_error(main)
