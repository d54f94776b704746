"""Lines for the user to type: as they are printed they work, in the folder where they are printed."""

import os
import shlex
from pathlib import Path
from subprocess import list2cmdline

from utils.paths import ROOT


def command_line(script: str, *words: str | Path | int | float, processes: int = 1) -> str:
    """«python detect.py --weights runs/train/exp/weights/best.pt»: one of the project's commands with its words.

    Where the current folder is another than the project's, the script has its path. A Path below the current folder is
    named from there; words are quoted for the shell of this system. Several ``processes`` are started by torchrun.
    """
    here = Path.cwd()
    where = script if here.samefile(ROOT) else str(ROOT / script)
    starter = ["python"] if processes == 1 else ["torchrun", "--nproc_per_node", str(processes)]
    return quoted(*starter, where, *(_seen_from(here, word) if isinstance(word, Path) else str(word) for word in words))


def quoted(*words: str) -> str:
    """Words as one line that the shell of this system takes apart into the same words."""
    return list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _seen_from(here: Path, path: Path) -> str:
    """A path, from ``here`` where it lies below."""
    absolute = Path(os.path.abspath(path))
    name = str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)
    # what begins so would be read as a flag
    return str(absolute) if name.startswith("-") else name
