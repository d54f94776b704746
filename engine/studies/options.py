"""What a comparison of formats is asked for. Imports no torch: ``python benchmarks.py --help`` reads it."""

from dataclasses import dataclass

from engine.export.formats.table import variants
from utils.cli import (
    MOST,
    MOST_IMAGES,
    CpuUnlessAsked,
    Plugins,
    RunFolder,
    SquareImages,
    flag,
    project_flag,
    with_default,
)

CANDIDATES = ["pytorch", *variants()]


@dataclass(frozen=True)
class BenchmarkOptions(RunFolder, Plugins, SquareImages, CpuUnlessAsked):
    """The flags of benchmarks.py."""

    ABSENT = {
        "test": "export.py compares each file with PyTorch; leave it out",
        "pt-only": "is --include pytorch",
        "hard-fail": "what a format can't is told in its row of the table; leave it out",
    }

    project: str = project_flag("benchmarks")
    imgsz: int = with_default(SquareImages, "imgsz", 640, help="image size, square (default: %(default)s)")

    weights: str | None = flag(None, "checkpoint to measure; default: the newest best.pt", "model")
    data: str = flag("data/shapes.yaml", "data YAML whose val split is used (default: %(default)s)", "data")
    batch_size: int = flag(1, "images per call (default: %(default)s)", "measuring", at_least=1, at_most=MOST_IMAGES)
    include: list[str] = flag(
        CANDIDATES,
        f"of {', '.join(CANDIDATES)} (default: all)",
        "measuring",
        choices=CANDIDATES,
        noun="format",
        metavar="FORMAT",
    )
    half: bool = flag(False, "float16, where the format has it", "measuring")
    runs: int = flag(50, "timed calls per format (default: %(default)s)", "measuring", at_least=1, at_most=MOST)
