"""Hostile files and flags, made from a seed, against the commands: python -m tests.fuzz --cases 20000 --seed 7

Each kind of case is a file beside this one, with two functions:

    prepare(sound)               makes, once, sound files in that folder that cases are made from
    make(rng, folder, sound)     → Case: a command line, and in ``folder`` the files it names

A case depends on seed, kind and number alone: --kinds exports --first 137 --cases 1 runs that one again; its files are kept.
Ends with status 1 where a case went wrong, 0 otherwise.
"""

import argparse
import importlib
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.fuzz.arena import remake, run, warm

KINDS = ("checkpoints", "states", "descriptions", "data_yamls", "images", "downloads", "flags", "exports", "studies")


def main() -> int:
    """Run the cases; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=300, help="how many, over all kinds in turn")
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at a time")
    parser.add_argument(
        "--folder", type=Path, help="where files of failed cases are kept (default: a temporary folder)"
    )
    options = parser.parse_args()
    folder = remake((options.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))).resolve())
    begun = time.monotonic()
    warm()
    kinds = {name: importlib.import_module(f"tests.fuzz.{name}") for name in options.kinds}
    for name, kind in kinds.items():
        _in_child(lambda kind=kind, name=name: kind.prepare(remake(folder / "sound" / name)))
    print(f"prepared in {time.monotonic() - begun:.0f} s; cases of {', '.join(kinds)} in {folder}", flush=True)
    lanes = [_lane(kinds, options, folder, lane) for lane in range(options.jobs)]
    wrong = sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in lanes)
    failed = [line for file in sorted(folder.glob("failed-*.txt")) for line in file.read_text().splitlines()]
    print(f"{options.cases} cases, seed {options.seed}, {time.monotonic() - begun:.0f} s: {len(failed)} went wrong")
    if wrong:
        print(f"  {wrong} of {options.jobs} processes broke off: what they said is above, and not all cases were tried")
    for kind, count in Counter(line.split()[0] for line in failed).items():
        print(f"  {kind}: {count}")
    if not failed and not wrong and options.folder is None:
        shutil.rmtree(folder)
    return int(bool(failed or wrong))


def _lane(kinds: dict, options: argparse.Namespace, folder: Path, lane: int) -> int:
    """A process that runs every ``jobs``-th case; its id."""

    def cases() -> None:
        names = list(kinds)
        failures = folder / f"failed-{lane}.txt"
        for number in range(options.first + lane, options.first + options.cases, options.jobs):
            name = names[(number - options.first) % len(names)]
            place = remake(folder / f"{name}-{number}")
            case = kinds[name].make(random.Random(f"{options.seed} {name} {number}"), place, folder / "sound" / name)
            if found := run(case, place):
                line = f"{name} {number}: {found} | {' '.join(case.argv)}".encode("unicode_escape").decode()
                print(line[:1000], flush=True)
                with failures.open("a") as file:
                    file.write(f"{line}\n")
            else:
                shutil.rmtree(place)

    return _in_child(cases, wait=False)


def _in_child(work, wait: bool = True) -> int:
    """Do ``work`` in a child, so that this process stays as it was: no thread is ever started in it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    if wait and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise SystemExit("a kind of cases could not be prepared")
    return child


if __name__ == "__main__":
    raise SystemExit(main())
