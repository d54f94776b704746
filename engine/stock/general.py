"""Small functions that programs written for YOLOv5 import: messages, files, sizes, devices, times."""

import contextlib
import importlib.metadata
import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from engine.training.records import KEPT, in_half
from utils.checkpoint import find_weights, read_checkpoint, save_checkpoint
from utils.data.images import fit_size
from utils.device import now
from utils.device import select_device as choose_device
from utils.download import download_file, is_url
from utils.errors import UserError
from utils.files import free_path
from utils.paths import ROOT
from utils.plots.display import why_no_display

LOGGER = logging.getLogger("yolov5")
# fmt: off
STYLES = {"black": 30, "red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36, "white": 37,
          "bright_black": 90, "bright_red": 91, "bright_green": 92, "bright_yellow": 93, "bright_blue": 94,
          "bright_magenta": 95, "bright_cyan": 96, "bright_white": 97, "end": 0, "bold": 1, "underline": 4}
# fmt: on


def set_logging(name: str | None = None, verbose: bool = True) -> logging.Logger:
    """Let LOGGER, or the logger ``name``, print its messages as they are; only errors where not ``verbose``."""
    logger = logging.getLogger(name) if name else LOGGER
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(logging.INFO if verbose else logging.ERROR)
    return logger


set_logging()


def colorstr(*words: Any) -> str:
    """``colorstr("blue", "bold", "text")``: the last word in these styles, for a terminal; blue and bold where none is given."""
    *styles, text = words if len(words) > 1 else ("blue", "bold", words[0])
    return "".join(f"\033[{STYLES[style]}m" for style in styles) + f"{text}\033[0m"


def print_args(args: Any = None, show_file: bool = True, show_func: bool = False) -> None:
    """Log the arguments of a program, a namespace or a mapping, on one line."""
    values = args if isinstance(args, dict) else vars(args) if args is not None else {}
    LOGGER.info(", ".join(f"{key}={value}" for key, value in values.items()))


def check_img_size(imgsz: int | Sequence[int], s: int | torch.Tensor = 32, floor: int = 0) -> int | list[int]:
    """A size in pixels, or several, as multiples of the stride ``s``, rounded up; ``floor`` is the least."""
    stride = int(torch.as_tensor(s).max())
    if isinstance(imgsz, int | float):
        fitted = max(fit_size(imgsz, stride), floor)
        given = int(imgsz)
    else:
        given = [int(side) for side in imgsz]
        fitted = [max(fit_size(side, stride), floor) for side in given]
    if fitted != given:
        LOGGER.warning(f"warning: --img-size {given} is no multiple of the largest stride {stride}; {fitted} is used")
    return fitted


def check_file(file: str | Path, suffix: str | tuple[str, ...] = "") -> str:
    """The path of ``file`` as it stands, within the project, or downloaded where it is a URL; "" for "".

    Raises UserError where there is no such file, or where its suffix is another.
    """
    text = str(file)
    check_suffix(text, suffix)
    if not text or Path(text).is_file():
        return text
    if is_url(text):
        return str(download_file(text, Path(re.sub(r"[?#].*", "", text)).name))
    found = [path for name in ("data", "models", "utils") for path in sorted((ROOT / name).rglob(Path(text).name))]
    if not found:
        raise UserError(f"{text}: no such file, here or in data/ and models/")
    return str(found[0])


def check_suffix(file: str | Path | Sequence[str], suffix: str | tuple[str, ...] = (".pt",), msg: str = "") -> None:
    """Raises UserError for a file, or one of several, with a suffix other than these."""
    wanted = (suffix,) if isinstance(suffix, str) else tuple(suffix)
    for name in [file] if isinstance(file, str | Path) else file:
        found = Path(name).suffix.lower()
        if found and any(wanted) and found not in wanted:
            raise UserError(f"{msg}{name}: the suffix must be {' or '.join(wanted)}")


def check_requirements(
    requirements: str | Path | Iterable[str] = ROOT / "requirements.txt",
    exclude: Sequence[str] = (),
    install: bool = True,
    cmds: str = "",
) -> bool:
    """Whether packages are there: a requirements.txt, or names such as "numpy>=1.23". Says which are not.

    Nothing is installed: the line that does it is printed.
    """
    if isinstance(requirements, Path):
        lines = requirements.read_text(encoding="utf-8").splitlines()
        requirements = [line for line in lines if line.strip() and not line.startswith(("#", "-"))]
    wanted = requirements.split() if isinstance(requirements, str) else list(requirements)
    missing = []
    for requirement in wanted:
        name = re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0]
        if name in exclude:
            continue
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(requirement.strip())
    if missing:
        LOGGER.warning(f"warning: not installed: pip install {' '.join(missing)}")
    return not missing


def check_imshow(warn: bool = False) -> bool:
    """Whether windows can be shown here."""
    why = why_no_display()
    if why and warn:
        LOGGER.warning(f"warning: {why}")
    return why is None


def increment_path(path: str | Path, exist_ok: bool = False, sep: str = "", mkdir: bool = False) -> Path:
    """``path``, or path2, path3, … where it exists and ``exist_ok`` is not set; ``mkdir`` makes that folder."""
    path = Path(path)
    found = path if exist_ok else free_path(path, sep)
    if mkdir:
        found.mkdir(parents=True, exist_ok=True)
    return found


def attempt_download(file: str | Path, repo: str = "", release: str = "") -> str:
    """The path of a checkpoint, fetched where it isn't there and its name is an official one."""
    return str(find_weights(str(file).strip().replace("'", "")))


def strip_optimizer(f: str | Path = "best.pt", s: str | Path = "") -> None:
    """Write a checkpoint of ours anew, as a finished run leaves it: without what only training needs; to ``s``, or in place."""
    checkpoint = read_checkpoint(f)
    kept = {key: checkpoint.training[key] for key in KEPT if key in checkpoint.training}
    save_checkpoint(s or f, kept | {"model": in_half(checkpoint.model)})


class Profile(contextlib.ContextDecorator):
    """``with Profile() as dt: …`` adds the seconds within to ``dt.t``; ``dt.dt`` are those of the last time."""

    def __init__(self, t: float = 0.0, device: torch.device | None = None):
        self.t, self.dt = t, 0.0
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def __enter__(self) -> "Profile":
        self.start = self.time()
        return self

    def __exit__(self, *error) -> None:
        self.dt = self.time() - self.start
        self.t += self.dt

    def time(self) -> float:
        """Seconds on a clock, once the device has done what it was asked."""
        return now(self.device)


def select_device(device: str | torch.device = "", batch_size: int = 0, newline: bool = True) -> torch.device:
    """The device that a text names, see utils/device.py. Raises UserError for one this machine doesn't have."""
    return device if isinstance(device, torch.device) else choose_device(device)


def time_sync() -> float:
    """Seconds of the wall clock, once CUDA has done what it was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.time()


def smart_inference_mode(torch_1_9: bool = True) -> Callable[[Callable], Callable]:
    """A decorator: the function runs in inference mode."""
    return torch.inference_mode()
