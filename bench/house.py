"""The house as its imports draw it: which room stands on which floor, who imports whom, and docs/architecture.png of it.

    python bench/house.py [--out docs/architecture.png]

tests/test_architecture.py holds the house to the floors written here. Nothing of it is imported: files are read as text.
"""

import argparse
import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

COMMANDS = "commands"
# Files under stock's module names that hand stock's names to programs written for it. They stand on the top floor wherever
# their folder is: nothing inside the house imports them, and no folder is too full of them.
DOORS = (
    "models/experimental.py",
    "utils/augmentations.py",
    "utils/dataloaders.py",
    "utils/datasets.py",
    "utils/downloads.py",
    "utils/general.py",
    "utils/plots/__init__.py",
    "utils/torch_utils.py",
)
# From top to bottom: floor, {room: its files and folders}; where a file is named twice, the longer entry counts. A file
# imports from its own room, where no circle arises, or from a row further down; rooms of one row know nothing of each
# other. Commands are the exception: none imports another.
ROWS = (
    (6, {COMMANDS: "train.py val.py detect.py export.py benchmarks.py compare.py hubconf.py data/convert.py"}),
    (5, {"engine/stock": "engine/stock"}),
    (5, {"engine/studies": "engine/studies", "engine/comparison": "engine/comparison"}),
    (5, {"engine/report": "engine/report"}),
    # what a comparison has found, which the report shows, too
    (
        5,
        {
            "engine/comparison/tables …": "engine/comparison/record.py engine/comparison/pick.py engine/comparison/tables.py",
        },
    ),
    (5, {"engine/training": "engine/training"}),
    (5, {"engine/evaluation": "engine/evaluation"}),
    (5, {"engine/detection": "engine/detection"}),
    (5, {"engine/export": "engine/export", "engine/recipe": "engine/recipe"}),
    (4, {"models/yolo …": "models"}),
    (4, {"models/blocks": "models/blocks", "models/description": "models/description"}),
    (4, {"models/heads": "models/heads"}),
    (
        4,
        {
            "models/backbones": "models/backbones",
            "models/common …": "models/common.py models/flops.py",
            # one row of a YAML, which heads read, too
            "models/rows.py": "models/description/rows.py",
        },
    ),
    (3, {"utils/layouts": "utils/layouts", "utils/sources": "utils/sources"}),
    (3, {"utils/data": "utils/data", "utils/plots": "utils/plots", "utils/loss": "utils/loss"}),
    (2, {"utils/*.py": "utils"}),
)


def sources() -> list[Path]:
    """Every file of the house: the commands, and those of utils/, models/ and engine/ that hold something."""
    folders = [path for name in ("utils", "models", "engine") for path in sorted((ROOT / name).rglob("*.py"))]
    return [ROOT / name for name in ROWS[0][1][COMMANDS].split()] + [path for path in folders if path.stat().st_size]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(path: Path) -> tuple[int, str]:
    """(row of ROWS, room) that a file stands in. Raises KeyError where no room holds it."""
    place = path.relative_to(ROOT).as_posix()
    if place in DOORS:
        return 0, COMMANDS
    found = [
        (len(entry), row, name)
        for row, (_, rooms) in enumerate(ROWS)
        for name, entries in rooms.items()
        for entry in entries.split()
        if place == entry or place.startswith(f"{entry}/")
    ]
    if not found:
        raise KeyError(f"{place} has no room: write it into ROWS of bench/house.py")
    return max(found)[1:]


def imported_names(tree: ast.AST) -> set[str]:
    """Dotted names that a file imports anywhere in it; ``import_module(f"a.b.{x}")`` gives "a.b.*"."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            start = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            if isinstance(start, ast.Constant):
                found.add(f"{start.value}*" if start.value.endswith(".") else start.value)
    return found


def imports() -> dict[Path, set[Path]]:
    """What each file of the house imports of it."""
    files = {module_name(path): path for path in sources()}
    graph = {}
    for path in files.values():
        names = imported_names(ast.parse(path.read_text(encoding="utf-8")))
        within = {name for prefix in names if prefix.endswith(".*") for name in files if name.startswith(prefix[:-1])}
        graph[path] = {files[name] for name in names | within if name in files} - {path}
    return graph


def reached() -> set[Path]:
    """The files that the commands lead to, themselves among them."""
    graph = imports()
    found, new = set(), {path for path in graph if room(path)[0] == 0}
    while new:
        found |= new
        new = {target for path in new for target in graph[path]} - found
    return found


def arrows() -> Counter:
    """{(room, other room): how many imports of single files}, of the files that the commands lead to."""
    graph, files = imports(), reached()
    pairs = Counter((room(path)[1], room(target)[1]) for path in files for target in graph[path])
    return Counter({pair: n for pair, n in pairs.items() if pair[0] != pair[1]})


FOLDERS = {6: "", 5: "engine/", 4: "models/", 3: "utils/", 2: "utils/"}
COLORS = {6: "#8c564b", 5: "#1f77b4", 4: "#2ca02c", 3: "#e8770c", 2: "#707070"}
FLOOR_OF = {name: floor for floor, row in ROWS for name in row}


class Layout:
    """Where boxes and arrows lie, in inches, y downwards: rooms on the diagonal, each as large as its arrows need.

    An arrow leaves its room to the right and comes into the other from above. So none crosses a room, each has a lane of
    its own, and one that pointed upwards would lie below the diagonal.
    """

    def __init__(self, arrows: Counter):
        rooms = list(FLOOR_OF)
        # the farther an arrow goes, the higher and the farther right it leaves, and the farther left it comes in: few cross
        self.outgoing = {a: [b for b in reversed(rooms) if (a, b) in arrows] for a in rooms}
        self.incoming = {b: [a for a in reversed(rooms) if (a, b) in arrows] for b in rooms}
        self.across = self.spans({name: max(0.93, 0.095 * len(self.incoming[name])) for name in rooms}, gap=0.05)
        self.down = self.spans({name: max(0.4, 0.08 * len(self.outgoing[name])) for name in rooms}, gap=0.14)
        self.right, self.bottom = self.across[rooms[-1]][1] + 0.1, self.down[rooms[-1]][1] + 0.1

    @staticmethod
    def spans(sizes: dict[str, float], gap: float) -> dict[str, tuple[float, float]]:
        """(start, end) of boxes of these sizes, one behind the other."""
        found, start = {}, 0.0
        for name, size in sizes.items():
            found[name] = (start, start + size)
            start += size + gap
        return found

    def lane(self, start: str, end: str) -> tuple[float, float]:
        """(x, y) of the corner of an arrow: its place among those that come into ``end`` and among those out of ``start``."""
        sides = (self.across[end], self.incoming[end], start), (self.down[start], self.outgoing[start], end)
        x, y = (low + (high - low) * (keys.index(key) + 1) / (len(keys) + 1) for (low, high), keys, key in sides)
        return x, y


def draw_floors(axes, layout: Layout) -> None:
    from matplotlib.patches import Rectangle

    for floor, color in COLORS.items():
        own = [name for name in FLOOR_OF if FLOOR_OF[name] == floor]
        left, right = layout.across[own[0]][0] - 0.03, layout.across[own[-1]][1] + 0.03
        top, bottom = layout.down[own[0]][0] - 0.08, layout.down[own[-1]][1] + 0.08
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, color=color, alpha=0.10, lw=0))
        style = {"ha": "right", "va": "center", "color": color, "weight": "bold", "size": 12}
        axes.text(left - 0.1, (top + bottom) / 2, f"floor {floor}  {FOLDERS[floor]}".rstrip(), **style)


def draw_arrows(axes, layout: Layout, arrows: Counter) -> None:
    for (start, end), count in arrows.items():
        x, y = layout.lane(start, end)
        width, color, tip = 0.4 + 0.6 * count**0.5, COLORS[FLOOR_OF[end]], layout.down[end][0]
        axes.plot(
            [layout.across[start][1], x, x], [y, y, tip - 0.06], lw=width, color=color, solid_capstyle="butt", zorder=2
        )
        axes.plot([x], [tip - 0.045], marker="v", ms=2.5 + width, color=color, mew=0, zorder=3)


def draw_rooms(axes, layout: Layout, files: Counter) -> None:
    from matplotlib.patches import FancyBboxPatch

    for name, floor in FLOOR_OF.items():
        (left, right), (top, bottom) = layout.across[name], layout.down[name]
        shape = {
            "boxstyle": "round,pad=0,rounding_size=0.06",
            "facecolor": "white",
            "edgecolor": COLORS[floor],
            "lw": 1.4,
        }
        axes.add_patch(FancyBboxPatch((left, top), right - left, bottom - top, zorder=4, **shape))
        x, y, style = (left + right) / 2, (top + bottom) / 2, {"ha": "center", "va": "center", "zorder": 5}
        many = f"{files[name]} file" + "s" * (files[name] != 1)
        axes.text(x, y - 0.07, name.partition("/")[2] or name, size=9, weight="bold", **style)
        axes.text(x, y + 0.1, many, size=8, color="#555555", **style)


def draw(out: Path) -> None:
    """Write the picture: rooms by floor, and an arrow for each pair of them of which one imports the other."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = arrows()
    layout, margin = Layout(found), 1.3
    plt.rcParams["font.family"] = "DejaVu Sans"
    figure = plt.figure(figsize=(margin + layout.right, layout.bottom + 0.15))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-margin, layout.right), ylim=(layout.bottom, -0.15))
    axes.axis("off")
    draw_floors(axes, layout)
    draw_arrows(axes, layout, found)
    draw_rooms(axes, layout, Counter(room(path)[1] for path in reached()))
    note = "An arrow: the room on its left imports from the room below it.\nThe more imports, the wider. None points upwards."
    axes.text(0, layout.bottom - 0.2, note, ha="left", va="bottom", size=12, color="#333333")
    figure.savefig(out, dpi=90)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "architecture.png", help="picture to write")
    out = parser.parse_args().out
    draw(out)
    print(out)


if __name__ == "__main__":
    main()
