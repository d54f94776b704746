"""Ways of distillation, compared: the same student without a teacher and with one, seed by seed.

    python bench/teachers.py runs/train/large/weights/best.pt --out teachers.json \\
        --cfg yolov5n.yaml --data data/shapes.yaml --hyp hyp.shapes.yaml --optimizer AdamW --imgsz 96 --epochs 10

All flags but its own are those of train.py. What a run came to is kept in --out as soon as it ends, so that an interrupted
comparison goes on where it was; for other flags take another file. Leave the machine alone meanwhile: minutes are told, too.
"""

if __name__ == "__main__":  # run as a script: the project's folder comes before bench/ on the import path
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import csv
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import train
from engine.recipe.hyp import read_hyp
from utils.files import replacing
from utils.yaml_file import write_yaml

FIGURE = "metrics/mAP_0.5:0.95"
NONE = {"distill_box": 0.0, "distill_obj": 0.0, "distill_cls": 0.0, "distill_cwd": 0.0, "distill_mgd": 0.0}
ANSWERS = {"distill_box": 1.0, "distill_obj": 1.0, "distill_cls": 1.0}
# what is taught in each; the first has no teacher
METHODS: dict[str, dict[str, float]] = {
    "untaught": {},
    "answers": ANSWERS,
    "answers without boxes": ANSWERS | {"distill_box": 0.0},
    "answers without objectness": ANSWERS | {"distill_obj": 0.0},
    "distill_cwd": {"distill_cwd": 0.3},
    "distill_mgd": {"distill_mgd": 5.0},
    "answers and distill_cwd": ANSWERS | {"distill_cwd": 0.3},
    "answers and distill_mgd": ANSWERS | {"distill_mgd": 5.0},
}


def run_once(weights: dict[str, float], teachers: list[str], flags: dict[str, Any], seed: int) -> dict[str, float]:
    """Train once; the mAP50-95 of the last epoch, and the minutes that it took."""
    with tempfile.TemporaryDirectory() as folder:
        hyp = Path(folder) / "hyp.yaml"
        write_yaml(hyp, read_hyp(flags["hyp"]) | NONE | weights)
        places = {"hyp": str(hyp), "project": folder, "seed": seed, "teacher": teachers if weights else []}
        begun = time.monotonic()
        run = train.run(**flags | places | {"noplots": True})
        minutes = (time.monotonic() - begun) / 60
        with open(run / "results.csv", newline="", encoding="utf-8") as file:
            return {"map": float([*csv.DictReader(file)][-1][FIGURE]), "minutes": minutes}


def table(record: dict[str, dict[str, dict[str, float]]]) -> str:
    """A row for each method in Markdown: mean and spread over the seeds, and of the difference to no teacher by seed."""
    lines = ["| method | seeds | mAP50-95 | spread | gain | spread | minutes |", "| --- |" + " ---: |" * 6]
    untaught = record.get(next(iter(METHODS)), {})
    for method, runs in record.items():
        figures = [run["map"] for run in runs.values()]
        gains = [run["map"] - untaught[seed]["map"] for seed, run in runs.items() if seed in untaught]
        cells = [method, str(len(runs)), *spread(figures), *(spread(gains) if runs is not untaught else ("", ""))]
        lines.append(f"| {' | '.join(cells)} | {statistics.fmean(run['minutes'] for run in runs.values()):.1f} |")
    return "\n".join(lines)


def spread(values: list[float]) -> tuple[str, str]:
    """Mean and standard deviation, which takes two values at least."""
    mean = f"{statistics.fmean(values):.4f}" if values else ""
    return mean, f"{statistics.stdev(values):.4f}" if len(values) > 1 else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teachers", nargs="+", help="checkpoints that teach")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of what the runs came to")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options, words = parser.parse_known_args()
    flags = vars(train.build_parser().parse_args(words))
    record = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    # seed by seed, so that what is there at any time can be compared
    for seed in options.seeds:
        for method in options.methods:
            runs = record.setdefault(method, {})
            if str(seed) in runs:
                continue
            runs[str(seed)] = run_once(METHODS[method], options.teachers, flags, seed)
            with replacing(options.out) as temporary:
                Path(temporary).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            print(f"{method}, seed {seed}: {runs[str(seed)]['map']:.4f}")
    print(table(record))


if __name__ == "__main__":
    main()
