"""Which file a model's YAML is, by path or by name, and the sizes n to x."""

from copy import deepcopy
from pathlib import Path

from models.description.rows import nearest
from utils.errors import UserError
from utils.paths import ROOT
from utils.yaml_file import read_yaml

MODELS = ROOT / "models"
SIZES = {"n": (0.33, 0.25), "s": (0.33, 0.5), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}  # depth, width


def find_model_yaml(cfg: str | Path | dict) -> tuple[dict, str]:
    """The description and its file, of a path, of a name anywhere below models/, or of a mapping as it is."""
    if isinstance(cfg, dict):
        return deepcopy(cfg), cfg.get("yaml_file", "model")
    path = Path(cfg)
    if not path.exists():
        shipped = {p.name: p for p in reversed(model_yamls())}
        if path.name not in shipped:
            raise UserError(f"{cfg}: no such model YAML here or below models/{nearest(path.name, list(shipped))}")
        path = shipped[path.name]
    return read_yaml(path, "model YAML"), str(path)


def apply_size(description: dict, file: str) -> None:
    """Where ``description`` has a size, put its depth and width in. Raises UserError for a size that doesn't exist."""
    size = description.get("size")
    if size is None:
        return
    if size not in SIZES:
        raise UserError(f"{file}: size is {size!r}; there are {', '.join(SIZES)}")
    description["depth_multiple"], description["width_multiple"] = SIZES[size]


def model_yamls() -> list[Path]:
    """Every model YAML below models/: its own folder first, then zoo/ and hub/."""
    return [path for folder in (".", "zoo/*", "hub") for path in sorted(MODELS.glob(f"{folder}/*.yaml"))]
