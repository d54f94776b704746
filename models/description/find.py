"""Which file a model's YAML is, by path or by name, and the sizes n to x."""

import os
from copy import deepcopy
from pathlib import Path

from models.description.check import check_extent
from models.description.rows import nearest
from utils.errors import UserError, shown
from utils.paths import ROOT
from utils.yaml_file import read_yaml

MODELS = ROOT / "models"
SIZES = {"n": (0.33, 0.25), "s": (0.33, 0.5), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}  # depth, width


def find_model_yaml(cfg: str | Path | dict) -> tuple[dict, str]:
    """The description and its file, of a path, of a name anywhere below models/, or of a mapping as it is."""
    if isinstance(cfg, dict):
        file = cfg.get("yaml_file", "model")
        file = shown(file) if isinstance(file, str) else "model"
        check_extent(cfg, file)
        return deepcopy(cfg), file
    path = Path(cfg)
    # unlike Path.exists, without an error for what can be no path
    if not os.path.exists(path):
        shipped = {p.name: p for p in reversed(model_yamls())}
        if path.name not in shipped:
            hint = nearest(path.name, list(shipped))
            raise UserError(f"{shown(str(cfg))}: no such model YAML here or below models/{hint}")
        path = shipped[path.name]
    description = read_yaml(path, "model YAML")
    check_extent(description, str(path))
    return description, str(path)


def apply_size(description: dict, file: str) -> None:
    """Where ``description`` has a size, put its depth and width in. Raises UserError for a size that doesn't exist."""
    size = description.get("size")
    if size is None:
        return
    if not isinstance(size, str) or size not in SIZES:
        raise UserError(f"{file}: size is {shown(repr(size))}; there are {', '.join(SIZES)}")
    description["depth_multiple"], description["width_multiple"] = SIZES[size]


def model_yamls() -> list[Path]:
    """Every model YAML below models/: its own folder first, then zoo/ and hub/."""
    return [path for folder in (".", "zoo/*", "hub") for path in sorted(MODELS.glob(f"{folder}/*.yaml"))]
