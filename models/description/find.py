"""Which file a model's YAML is, by path or by name, and the sizes n to x."""

from copy import deepcopy
from pathlib import Path

from models.description.rows import nearest
from utils.errors import UserError
from utils.yaml_file import read_yaml

MODELS = Path(__file__).resolve().parent


SIZES = {"n": (0.33, 0.25), "s": (0.33, 0.5), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}  # depth, width


def find_model_yaml(cfg: str | Path | dict) -> tuple[dict, str]:
    if isinstance(cfg, dict):
        return deepcopy(cfg), cfg.get("yaml_file", "model")
    path = Path(cfg)
    if not path.exists():
        found = [p for p in (MODELS / path.name, MODELS / "hub" / path.name) if p.is_file()]
        if not found:
            names = [p.name for p in model_yamls()]
            raise UserError(f"{cfg}: no such model YAML here, in models/ or in models/hub/{nearest(path.name, names)}")
        path = found[0]
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
    """Every model YAML that comes with the project."""
    return sorted(MODELS.glob("*.yaml")) + sorted((MODELS / "hub").glob("*.yaml"))
