"""A study that is killed at random moments ends as if nothing had happened: python -m tests.kill_study --kills 10

The same small study is run twice: undisturbed, and killed (SIGKILL to compare.py alone, whose trainings live on) after a time
that is drawn anew for every start, until it comes to its end. Its rows, accuracies, curves and weights must then be those of
the other. Times are its own. Ends with status 1 where anything differs, 0 otherwise.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml

from engine.comparison.record import METRICS, Comparison, read_record
from tests.helpers.descriptions import TINY
from tests.helpers.project import ROOT
from tests.helpers.sets import make_set
from utils.checkpoint import read_checkpoint

SECONDS = 600


def command(folder: Path, name: str) -> list[str]:
    """Two candidates, two seeds, two epochs."""
    return [
        *(sys.executable, str(ROOT / "compare.py"), "--cfg", str(folder / "a.yaml"), str(folder / "b.yaml")),
        *("--data", str(folder / "set" / "data.yaml"), "--project", str(folder / "runs"), "--name", name),
        *"--imgsz 32 --batch-size 2 --epochs 2 --seeds 2 --runs 1 --workers 0 --device cpu".split(),
    ]


def prepare(folder: Path) -> None:
    make_set(folder / "set", train=4, val=4)
    for name, width in (("a", 16), ("b", 8)):
        backbone = [*TINY["backbone"][:2], [-1, 1, "Conv", [width, 3, 2]]]
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(TINY | {"backbone": backbone}), encoding="utf-8")


def start(words: list[str], log: Path) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with open(log, "ab") as file:
        return subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True)


def outcome(study: Path) -> dict[str, object]:
    """All of a study that does not depend on time."""
    comparison: Comparison = read_record(study / "comparison.json")
    found: dict[str, object] = {"pairs": comparison.pairs, "pictures": comparison.pictures, "data": comparison.data}
    for c in comparison.candidates:
        found[c.name] = (c.parameters, c.gflops, c.file_mb, c.accuracy, c.message)
        for run in c.runs:
            curve = [(p.epoch, p.map50, p.map50_95) for p in run.curve]
            found[f"{c.name} {run.seed}"] = (run.status, run.message, curve, *(getattr(run, m) for m in METRICS))
            found[f"{c.name} {run.seed} weights"] = read_checkpoint(study / run.weights).model
    return found


def differing(first: dict[str, object], second: dict[str, object]) -> list[str]:
    """The names of what is not the same, to the bit."""

    def same(a: object, b: object) -> bool:
        if isinstance(a, dict) and a and isinstance(next(iter(a.values())), torch.Tensor):
            return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
        return a == b

    return [
        k for k in first.keys() | second.keys() if k not in first or k not in second or not same(first[k], second[k])
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        prepare(folder)
        log = folder / "log.txt"
        began = time.monotonic()
        code = start(command(folder, "calm"), log).wait(SECONDS)
        if code:
            sys.exit(f"the undisturbed study ended with status {code}:\n{log.read_text()[-3000:]}")
        whole, kills = time.monotonic() - began, 0
        print(f"undisturbed: {whole:.0f} s")
        while True:
            process = start(command(folder, "killed"), log)
            # the later starts have less to do: so the moments are of any part of it
            wait = rng.uniform(0.02, 0.5) * whole if kills < given.kills else SECONDS
            try:
                code = process.wait(wait)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                print(f"killed after {wait:.1f} s", flush=True)
        wrong = differing(outcome(folder / "runs" / "calm"), outcome(folder / "runs" / "killed"))
        if code or wrong:
            print(log.read_text()[-3000:])
        print(f"{kills} kills, status {code}, differing: {', '.join(sorted(wrong)) or 'nothing'}")
        sys.exit(bool(wrong) or code)


if __name__ == "__main__":
    main()
