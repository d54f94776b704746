"""YAML files as data, with errors that name the file and the line."""

from pathlib import Path

import yaml

from utils.errors import UserError, shown
from utils.files import read_text, replacing

# What a file may have: bytes; values, those that stand for an alias counted at every place; levels within one another;
# characters of a number. Names of some ten thousand classes are within, and all that is within is read in seconds.
MOST_BYTES, MOST_VALUES, MOST_DEPTH, MOST_DIGITS = 2 << 20, 100_000, 50, 100
# what no text of a setting has, be it written as it is or as an escape: NUL, what controls a terminal, half a surrogate pair
CONTROLS = yaml.reader.Reader.NON_PRINTABLE
# what values are made of: no dates, no bytes, no sets
PLAIN = ("bool", "int", "float", "null", "str", "seq", "map")
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
    """PyYAML's safe loader, which gives plain values alone, bounds what a file may ask of it, and names the line of all
    that can't be read; a key that is given twice is refused: it would silently take the last."""

    # a date or a lone `=`, which YAML 1.1 reads as values of their own, is a text
    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in (*PLAIN, "merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str):
        super().__init__(text)
        self.values, self.depth = 0, 0
        # of each complete node, by its id: how many values it has, itself among them
        self.sizes: dict[int, int] = {}

    def fetch_more_tokens(self):
        try:
            super().fetch_more_tokens()
        # of "\U00110000", for which there is no character
        except ValueError as e:
            raise yaml.MarkedYAMLError(problem=str(e), problem_mark=self.get_mark()) from None

    def compose_node(self, parent, index):
        alias = isinstance(event := self.peek_event(), yaml.AliasEvent)
        before, self.depth = self.values, self.depth + 1
        if self.depth > MOST_DEPTH:
            raise _refused(f"more than {MOST_DEPTH} levels of brackets or indentation", event)
        node = super().compose_node(parent, index)
        if alias and id(node) not in self.sizes:
            raise _refused(f"`{event.anchor}` holds itself", event)
        self.values += self.sizes[id(node)] if alias else 1
        self.sizes[id(node)] = self.values - before
        self.depth -= 1
        if self.values > MOST_VALUES:
            raise _refused(f"more than {MOST_VALUES:,} values, what aliases stand for among them", event)
        return node

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        seen = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _refused(f"`{key.value}` is given twice, first in line {seen[key.value] + 1}", key)
                seen[key.value] = key.start_mark.line
        return node

    def construct_object(self, node, deep=False):
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind not in PLAIN:
            raise _refused(
                f"the tag {node.tag!r} is unknown here; write plain texts, numbers, lists and mappings", node
            )
        if isinstance(node, yaml.ScalarNode) and kind != "str" and len(node.value) > MOST_DIGITS:
            raise _refused(f"a number of more than {MOST_DIGITS} characters", node)
        try:
            value = super().construct_object(node, deep)
        # the constructors of PyYAML pass on what Python says of a text that is no such number
        except (ValueError, LookupError, TypeError, ArithmeticError) as e:
            raise _refused(f"can't be read as {kind}: {e}", node) from None
        # the reader has found those that are written as they are, but not escapes such as "\x1b"
        if isinstance(value, str) and (found := CONTROLS.search(value)):
            raise _refused(f"a text with the character {found.group()!r}, which no setting has", node)
        return value


def _refused(problem: str, place: yaml.Node | yaml.Event) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


def read_yaml(path: str | Path, what: str = "YAML file") -> dict:
    """Read a mapping from a YAML file; ``what`` names its role in the messages.

    Raises UserError when the file is missing, is not UTF-8 text, is not valid YAML, gives a key twice, is larger or deeper
    than the limits above, or holds anything but a mapping.
    """
    name = shown(str(path))
    try:
        text = read_text(path, what, MOST_BYTES)
    except UnicodeDecodeError as e:
        raise UserError(f"{name}: not UTF-8 text (byte {e.start}); save the {what} as UTF-8") from None
    try:
        data = yaml.load(text, _Loader)
    except yaml.reader.ReaderError as e:
        line = text.count("\n", 0, e.position) + 1
        raise UserError(
            f"{name}, line {line}: not valid YAML: the character {chr(e.character)!r}, which it takes nowhere"
        ) from None
    except yaml.YAMLError as e:
        raise UserError(f"{name}{_explain(e, text.splitlines())}") from None
    if not isinstance(data, dict):
        raise UserError(f"{name}: a {what} holds `key: value` lines, this one holds {type(data).__name__}")
    return data


def _explain(error: yaml.YAMLError, lines: list[str]) -> str:
    """Which line, what the parser says, the line itself, and the likely remedy."""
    problem = shown(" ".join((getattr(error, "problem", None) or str(error)).split()))
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
    quoted = f" in `{shown(line)}`" if line and "`" not in problem else ""
    return f", line {mark.line + 1}: not valid YAML: {problem}{quoted}{remedy}"


def write_yaml(path: str | Path, data: dict) -> None:
    """Write a mapping as UTF-8 YAML, keys in their order; whole or not at all."""
    with replacing(Path(path)) as temporary:
        temporary.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")
