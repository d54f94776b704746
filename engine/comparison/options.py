"""What a comparison is asked for. Imports no torch: ``python compare.py --help`` reads it."""

from dataclasses import dataclass

from engine.comparison.record import METRICS
from engine.export.formats.table import variants
from engine.training.options import DEFAULT_BATCH, DEFAULT_EPOCHS
from utils.cli import (
    MOST,
    MOST_IMAGES,
    BackboneFlags,
    Detector,
    Device,
    Plugins,
    RunFolder,
    SquareImages,
    Workers,
    flag,
    project_flag,
    with_default,
)
from utils.errors import UserError

PYTORCH = "pytorch"
RUNTIMES = [PYTORCH, *variants()]
MOST_SEEDS, MOST_JOBS = 1000, 256


@dataclass(frozen=True)
class CompareOptions(RunFolder, Plugins, SquareImages, Device, Workers):
    """The flags of compare.py."""

    project: str = project_flag("compare")
    name: str = with_default(RunFolder, "name", "exp", help="name of the study in --project (default: %(default)s)")
    exist_ok: bool = with_default(
        RunFolder, "exist_ok", False, help="write into a folder that holds something other than a study"
    )
    imgsz: int = with_default(SquareImages, "imgsz", 640, at_least=32)
    device: str | int = with_default(
        Device, "device", "", help="cpu, mps, or CUDA indices such as 0,1: a run on each; default: the best there is"
    )

    cfg: list[str] = flag([], "model YAMLs to train, each a candidate", "model")
    backbone: list[str] = flag(
        [], "networks of torchvision or timm to train under YOLOv5's head, each a candidate", "model", metavar="NAME"
    )
    size: str | None = with_default(BackboneFlags, "size", None)
    weights: list[str] = flag(
        [], "what is finished, each a candidate: checkpoints, exported files, folders of runs", "model"
    )
    study: str = flag("", "YAML of candidates and settings (docs/compare.md); flags stand over it", "model")
    backbone_weights: str = flag("", "of all --backbone: imagenet (downloaded once), or a file; empty: none", "model")
    trust: bool = with_default(Detector, "trust", False)

    data: str = flag("data/shapes.yaml", "data YAML (default: %(default)s, the set that comes along)", "data")

    hyp: str = flag("data/hyps/hyp.scratch-low.yaml", "hyper-parameter YAML (default: %(default)s)", "learning")
    epochs: int = flag(
        DEFAULT_EPOCHS,
        "passes over the images; 0: size and speed alone (default: %(default)s)",
        "learning",
        at_least=0,
        at_most=MOST,
    )
    seeds: int = flag(
        3,
        "trainings of each candidate; below 3 no winner is named (default: %(default)s)",
        "learning",
        at_least=1,
        at_most=MOST_SEEDS,
    )
    batch_size: int = flag(
        DEFAULT_BATCH, "images per batch (default: %(default)s)", "learning", at_least=1, at_most=MOST_IMAGES
    )

    metric: str = flag(
        "map50_95",
        f"what the best is best in, of {', '.join(METRICS)}; those by area need faster-coco-eval (default: %(default)s)",
        "measuring",
        choices=METRICS,
        metavar="FIGURE",
    )
    runtimes: list[str] = flag(
        [PYTORCH],
        f"what latency is measured under, of {', '.join(RUNTIMES)}; --max-latency goes by the first (default: {PYTORCH})",
        "measuring",
        choices=RUNTIMES,
        noun="runtime",
        metavar="RUNTIME",
    )
    runs: int = flag(50, "timed calls of each latency (default: %(default)s)", "measuring", at_least=1, at_most=MOST)
    max_latency: float | None = flag(
        None, "pick among those of at most so many ms, one image from file to boxes", "measuring", above=0, at_most=MOST
    )
    max_params: float | None = flag(
        None, "pick among those of at most so many parameters", "measuring", above=0, at_most=10**12
    )
    max_gflops: float | None = flag(
        None, "pick among those of at most so many GFLOPs at --imgsz", "measuring", above=0, at_most=MOST
    )

    watch: bool = flag(False, "rewrite comparison.html while runs go on, with progress and time left", "output")

    jobs: int = flag(
        1,
        "trainings at once; on a CPU they share its cores (default: %(default)s)",
        "speed",
        at_least=1,
        at_most=MOST_JOBS,
    )
    ray: str = flag(
        "",
        "train on the machines of a Ray cluster that see the same folders, --jobs at once: its address, such as auto or "
        "10.0.0.1:6379; local: one that is started here (an extra)",
        "speed",
        metavar="ADDRESS",
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("cfg", "backbone", "weights", "runtimes"):
            words = getattr(self, name)
            if twice := next((word for word in words if words.count(word) > 1), None):
                raise UserError(f"--{name} {twice}: is given twice; leave one of the two out")
