"""YAML files as data, with errors that name the file and the line."""

from pathlib import Path

import yaml

from utils.errors import UserError

# what an input method for Chinese types in place of , : [ ] and quotes
FULL_WIDTH = "，：；［］（）【】“”‘’　"
# what the parser says, and what to do about it in a file written by hand
REMEDIES = (
    ("'\\t'", "indent by spaces: YAML takes no tabs"),
    ("expected ',' or ']'", "a comma or a closing bracket is missing"),
    ("but found '<block sequence start>'", "indent it like the rows above"),
    ("but found '-'", "indent it like the rows above"),
    ("but found ']'", "there is a closing bracket too many"),
    ("could not find expected ':'", "a row begins with a dash and a space, a setting reads `key: value`"),
    ("expected '<document start>'", "a colon is missing in the line above, or the indentation differs"),
    ("found unknown escape character", "in double quotes a backslash has another meaning: write the path with slashes"),
    ("mapping values are not allowed", "a colon is missing in the line above, or the indentation differs"),
)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also refuses a key that is given twice: it would silently take the last."""

    def construct_mapping(self, node, deep=False):
        seen = {}
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                first = seen[key.value].line + 1
                raise yaml.MarkedYAMLError(
                    problem=f"`{key.value}` is given twice, first in line {first}", problem_mark=key.start_mark
                )
            seen[key.value if isinstance(key, yaml.ScalarNode) else id(key)] = key.start_mark
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path, what: str = "YAML file") -> dict:
    """Read a mapping from a YAML file; ``what`` names its role in the messages.

    Raises UserError when the file is missing, is not UTF-8 text, is not valid YAML, gives a key twice, or holds anything
    but a mapping.
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
        data = yaml.load(text, _Loader)
    except yaml.YAMLError as e:
        raise UserError(f"{path}{_explain(e, text.splitlines())}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: a {what} holds `key: value` lines, this one holds {type(data).__name__}")
    return data


def _explain(error: yaml.YAMLError, lines: list[str]) -> str:
    """Which line, what the parser says, the line itself, and the likely remedy."""
    problem = getattr(error, "problem", None) or str(error)
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f": not valid YAML: {problem}"
    if getattr(error, "context", None) in ("while parsing a flow sequence", "while scanning a simple key"):
        mark = error.context_mark  # where the row begins; the parser noticed only later
    line = lines[mark.line].strip() if mark.line < len(lines) else ""
    remedy = next((f"; {words}" for found, words in REMEDIES if found in problem), "")
    around = "".join(lines[max(mark.line - 1, 0) : mark.line + 1])
    typed = [c for c in around if c in FULL_WIDTH]
    if remedy and typed:
        remedy = f"; type the full-width {typed[0]!r} in half width"
    quoted = f" in `{line}`" if line and "`" not in problem else ""
    return f", line {mark.line + 1}: not valid YAML: {problem}{quoted}{remedy}"


def write_yaml(path: str | Path, data: dict) -> None:
    """Write a mapping as UTF-8 YAML, keys in their order."""
    Path(path).write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")
