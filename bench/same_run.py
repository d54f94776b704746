"""Show that this checkout computes what another one does: weights, figures and exported files, equal to the bit.

    git worktree add ../before 0747bcf              the older commit, in a folder of its own
    python bench/same_run.py ../before              everything: about a quarter of an hour on two cores
    python bench/same_run.py ../before --only training --models yolov5n.yaml --epochs 1

| part     | what is compared                                                                            |
| -------- | ------------------------------------------------------------------------------------------- |
| training | results.csv and all weights of a short run from scratch with the default recipe             |
| val      | figures and boxes of val.py on photographs; skipped where images or weights are missing     |
| export   | what ONNX Runtime gives for the ONNX files of one checkpoint (pip install onnx onnxruntime) |
| resume   | a run that the other checkout began, killed and resumed here, with one that went through    |

Each command runs on the CPU, as a process of its own in its checkout, on its own copy of the data set. One line says what
was compared and how it came out; the exit status is 1 where anything differs, and the runs are then kept to look at.
Equal to the bit holds on one machine with one set of packages and as many threads.
"""

# Run as a script: the project's folder comes before bench/ on the import path.
if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from utils.errors import UserError, exit_on_user_error

ROOT = Path(__file__).resolve().parents[1]
# Photographs and a checkpoint that are not part of the project.
SHARED = ROOT.parent / "shared"


class Pair(NamedTuple):
    """What both checkouts have computed."""

    what: str
    reference: Any
    here: Any


class CommandFailed(Exception):
    """A command that should have run to its end did not."""


# to train on: equal runs are equal after few steps, too
MOST_IMAGES = 160


@dataclass(frozen=True)
class Side:
    """One of the two checkouts, with a folder for its runs and its copy of the data set."""

    checkout: Path
    folder: Path
    epochs: int
    imgsz: int

    def line(self, script: str, *flags: object) -> list[str]:
        return [sys.executable, script, *map(str, flags), "--device", "cpu"]

    def run(self, script: str, *flags: object) -> str:
        """Run one of the commands; returns what it said. Raises CommandFailed for another status than 0."""
        line = self.line(script, *flags)
        result = subprocess.run(line, cwd=self.checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if result.returncode:
            raise CommandFailed(f"{self.checkout}: {' '.join(line)}\n{result.stdout[-2000:]}")
        return result.stdout

    def training_flags(self, model: str, name: str) -> list[object]:
        """A run from scratch that keeps weights in full precision, too: finished checkpoints hold float16 only."""
        size = ["--epochs", self.epochs, "--imgsz", self.imgsz, "--seed", 0, "--save-period", 1]
        return ["--cfg", model, "--data", self.folder / "data.yaml", *size, "--project", self.folder, "--name", name]


@cache
def trained(side: Side, model: str) -> Path:
    """The folder of an uninterrupted run."""
    name = Path(model).stem
    side.run("train.py", *side.training_flags(model, name))
    return side.folder / name


def killed(side: Side, model: str, name: str, within_epoch: bool) -> Path:
    """The last.pt of a run killed in its second epoch, saved within that epoch or else at the end of the first."""
    from utils.checkpoint import read_checkpoint

    folder = side.folder / name / "weights"
    last, complete = folder / "last.pt", folder / "epoch0.pt"
    often = ["--save-minutes", 1e-5] if within_epoch else []
    line = side.line("train.py", *side.training_flags(model, name), *often)
    # In a group of its own, with the processes that load images.
    with open(side.folder / f"{name}.log", "w") as log:
        process = subprocess.Popen(line, cwd=side.checkout, stdout=log, stderr=log, start_new_session=True)
    seen = 0
    try:
        while process.poll() is None:
            time.sleep(0.005)
            # epoch0.pt is written after last.pt and best.pt: killed before that, a run has lost a file.
            if complete.exists() and last.stat().st_mtime_ns != seen:
                # It must not write the next one while this one is read.
                os.killpg(process.pid, signal.SIGSTOP)
                seen = last.stat().st_mtime_ns
                state = read_checkpoint(last).training
                if state["epoch"] == 1 and bool(state["batches_done"]) == within_epoch:
                    return last
                os.killpg(process.pid, signal.SIGCONT)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    raise CommandFailed(f"{name} ended before it could be killed; see {log.name}")


# The parts --------------------------------------------------------------------------------------------------------------


def compare_training(reference: Side, here: Side, options: argparse.Namespace) -> Iterator[Pair]:
    for model in options.models:
        yield from compare_runs(model, trained(reference, model), trained(here, model))


def compare_resume(reference: Side, here: Side, options: argparse.Namespace) -> Iterator[Pair]:
    for model in options.models:
        for within_epoch, when in ((True, "within-epoch"), (False, "between-epochs")):
            name = f"{Path(model).stem}-killed-{when}"
            here.run("train.py", "--resume", killed(reference, model, name, within_epoch))
            yield from compare_runs(f"{model} killed {when}", trained(reference, model), reference.folder / name)


def compare_runs(what: str, reference: Path, here: Path) -> Iterator[Pair]:
    """The tables of two finished runs, and the weights of all checkpoints."""
    yield Pair(f"{what}: results.csv", lines(reference / "results.csv"), lines(here / "results.csv"))
    names, found = (sorted(p.name for p in (folder / "weights").glob("*.pt")) for folder in (reference, here))
    yield Pair(f"{what}: names of the checkpoints", names, found)
    for name in sorted({*names} & {*found}):
        yield Pair(f"{what}: {name}", weights(reference / "weights" / name), weights(here / "weights" / name))


def compare_val(reference: Side, here: Side, options: argparse.Namespace) -> Iterator[Pair]:
    missing = [path for path in (options.val_set, options.val_weights) if not path.exists()]
    if missing:
        print(f"skipped    val.py: {missing[0]} is not there")
        return
    rows, boxes = [], []
    for side in (reference, here):
        data = link_val_set(options.val_set.resolve(), side.folder / "val-set")
        flags = ["--weights", options.val_weights.resolve(), "--data", data, "--save-json"]
        said = side.run("val.py", *flags, "--project", side.folder, "--name", "val")
        rows.append(next(line.split() for line in said.splitlines() if line.split()[:1] == ["all"]))
        boxes.append(json.loads((side.folder / "val" / "predictions.json").read_text()))
    yield Pair(f"val.py: P, R, mAP50, mAP50-95 of {' '.join(rows[0][3:])}", *rows)
    yield Pair(f"val.py: {len(boxes[0])} boxes of predictions.json", *boxes)


def compare_export(reference: Side, here: Side, options: argparse.Namespace) -> Iterator[Pair]:
    for model in options.models:
        outputs = []
        for side in (reference, here):
            copy = side.folder / f"{Path(model).stem}.pt"
            shutil.copyfile(trained(reference, model) / "weights" / "best.pt", copy)
            side.run("export.py", "--weights", copy, "--include", "onnx", "--imgsz", side.imgsz)
            outputs.append(onnx_outputs(copy.with_suffix(".onnx"), here))
        yield Pair(f"{model}: ONNX on {len(outputs[0])} images", *outputs)


PARTS = {"training": compare_training, "val": compare_val, "export": compare_export, "resume": compare_resume}


# What is compared -------------------------------------------------------------------------------------------------------


def lines(file: Path) -> list[str]:
    """The lines of a text with their ends: equal only where the bytes are."""
    return file.read_bytes().decode().splitlines(keepends=True)


def weights(file: Path) -> dict[str, dict]:
    """The tensors of a checkpoint: those of the model and, of an unfinished run, their average."""
    from utils.checkpoint import read_checkpoint

    data = read_checkpoint(file).training
    return {key: dict(data[key]) for key in ("model", "ema") if key in data}


def onnx_outputs(file: Path, side: Side) -> list:
    """The outputs for the first validation images, each as float32 [1, 3, h, w], 0..1."""
    import numpy as np
    import onnxruntime

    from utils.data.config import image_files, read_data_yaml
    from utils.data.images import letterbox, read_image

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    taken, outputs = session.get_inputs()[0], []
    for path in image_files(read_data_yaml(side.folder / "data.yaml").splits["val"])[:8]:
        image = letterbox(read_image(path), tuple(taken.shape[2:]), auto=False)[0].transpose(2, 0, 1)[None]
        outputs.append(session.run(None, {taken.name: image.astype(np.float32) / 255}))
    return outputs


# Data sets --------------------------------------------------------------------------------------------------------------


def copy_data(data: str, sides: list[Side]) -> None:
    """Give each side a copy of the data set, so that neither reads what the other has cached beside the labels; of its
    training images the first MOST_IMAGES."""
    from utils.data.config import image_files, prepare_data, read_data_yaml
    from utils.yaml_file import read_yaml, write_yaml

    config = prepare_data(read_data_yaml(data))
    left_out = {os.path.relpath(file, config.root) for file in image_files(config.splits["train"])[MOST_IMAGES:]}
    for side in sides:
        copy = side.folder / "data"
        shutil.copytree(config.root, copy, ignore=shutil.ignore_patterns("*.cache"), copy_function=shutil.copyfile)
        for name in left_out:
            (copy / name).unlink(missing_ok=True)
        write_yaml(side.folder / "data.yaml", read_yaml(config.file) | {"path": str(copy)})


def link_val_set(val_set: Path, folder: Path) -> Path:
    """A data YAML for photographs of the COCO classes, which may lie where nothing can be written."""
    from utils.yaml_file import read_yaml, write_yaml

    folder.mkdir()
    for name in ("images", "labels"):
        (folder / name).symlink_to(val_set / name)
    names = read_yaml(ROOT / "data" / "coco128.yaml")["names"]
    write_yaml(folder / "data.yaml", {"path": str(folder), "train": "images", "val": "images", "names": names})
    return folder / "data.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("reference", metavar="REF_CHECKOUT", type=Path, help="folder with the commit to compare with")
    add("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts (default: all)")
    add("--models", nargs="+", default=["yolov5n.yaml", "yolov5s_EfficientNetV2.yaml"], help="default: %(default)s")
    add("--data", default="data/shapes.yaml", help="data YAML to train on (default: %(default)s)")
    add("--epochs", type=int, default=3, help="of training; resume needs two (default: %(default)s)")
    add("--imgsz", type=int, default=96, help="pixels, of training and export (default: %(default)s)")
    add("--val-set", type=Path, default=SHARED / "datasets" / "coco-val128", help="images/ and labels/ of COCO classes")
    add("--val-weights", type=Path, default=SHARED / "weights" / "yolov5n.pt", help="checkpoint for --val-set")
    options = parser.parse_args()
    if not (options.reference / "train.py").is_file():
        raise UserError(f"{options.reference}: is no checkout of this project: it has no train.py")
    if options.epochs == 1 and "resume" in options.only:
        raise UserError("--epochs 1: resume kills a run in its second epoch; name the other parts by --only")

    # Imports numpy, which --help does without.
    from bench.difference import first_difference

    folder = Path(tempfile.mkdtemp(prefix="same-run-"))
    checkouts = {"reference": options.reference.resolve(), "here": ROOT}
    sides = [Side(checkout, folder / name, options.epochs, options.imgsz) for name, checkout in checkouts.items()]
    copy_data(options.data, sides)
    different = 0
    for part in options.only:
        try:
            for what, *values in PARTS[part](*sides, options):
                difference = first_difference(*values, what)
                print(f"DIFFERENT  {difference}" if difference else f"equal      {what}", flush=True)
                different += bool(difference)
        except CommandFailed as e:
            print(f"FAILED     {part}: {e}", flush=True)
            different += 1
    if different:
        print(f"{different} differ; the runs are in {folder}")
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    exit_on_user_error(main)
