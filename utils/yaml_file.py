"""YAML files as data, with errors that name the file and the line."""

from pathlib import Path

import yaml

from utils.errors import UserError


def read_yaml(path: str | Path, what: str = "YAML file") -> dict:
    """Read a mapping from a YAML file; ``what`` names its role in the messages.

    Raises UserError when the file is missing, is not UTF-8 text, is not valid YAML, or holds anything but a mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such {what}") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, a {what} was expected") from None
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: not UTF-8 text (byte {e.start}); save the {what} as UTF-8") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {getattr(e, 'problem', None) or e}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: a {what} holds `key: value` lines, this one holds {type(data).__name__}")
    return data


def write_yaml(path: str | Path, data: dict) -> None:
    """Write a mapping as UTF-8 YAML, keys in their order."""
    Path(path).write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")
