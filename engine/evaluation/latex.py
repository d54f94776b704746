"""Tables for LaTeX, with the rules of its package booktabs."""

from collections.abc import Sequence

from engine.evaluation.bootstrap import FIGURES
from engine.evaluation.figures import Evaluation

ESCAPES = str.maketrans(
    {char: f"\\{char}" for char in "{}$&#_%"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
)


def escaped(text: str) -> str:
    """``text`` as LaTeX sets it, letter by letter; what can't be printed becomes a space."""
    return "".join(c if c.isprintable() else " " for c in text).translate(ESCAPES)


def tabular(header: Sequence[str], *groups: Sequence[Sequence[str]]) -> str:
    """A table: the names of its columns, and groups of rows of LaTeX with a rule between; the first column is text."""
    lines = ["% \\usepackage{booktabs}", f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", "\\toprule"]
    for group in ([header], *groups):
        lines += [f"{' & '.join(row)} \\\\" for row in group]
        lines.append("\\midrule")
    return "\n".join([*lines[:-1], "\\bottomrule", "\\end{tabular}", ""])


def metrics_table(evaluation: Evaluation) -> str:
    """The row of all classes and one per class, as in metrics.csv, to three decimals; intervals stand behind their figures."""
    header, *rows = evaluation.cells()
    ends = {f"{figure}_{end}" for figure in FIGURES for end in ("low", "high")}
    shown = [name for name in header if name not in ends]
    table = []
    for row in rows:
        cells = dict(zip(header, row, strict=True))
        figures = [_figure(cells, name) for name in shown[3:]]
        table.append([escaped(cells["class"]), cells["images"], cells["instances"], *figures])
    return tabular([escaped(name) for name in shown], table[:1], *([table[1:]] if table[1:] else []))


def _figure(cells: dict[str, str], name: str) -> str:
    value, low, high = (_decimals(cells.get(key, "")) for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value or '--'} {{\\footnotesize ({low}--{high})}}" if low else value or "--"


def _decimals(cell: str) -> str:
    return f"{float(cell):.3f}" if cell else ""


def errors_table(cells: Sequence[Sequence[str]]) -> str:
    """The rows of errors.csv: the six kinds, and the two of all."""
    header, *rows = cells
    rows = [[kind, count, _decimals(gain)] for kind, count, gain in rows]
    return tabular(header, rows[:-2], rows[-2:])
