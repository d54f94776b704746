"""What a validation is asked for. Imports no torch: ``python val.py --help`` reads it."""

from dataclasses import dataclass

from utils.cli import (
    MOST_BOXES,
    MOST_IMAGES,
    BoxThresholds,
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

# they lie in memory, an entry for each image
MOST_RESAMPLES = 10**4


@dataclass(frozen=True)
class ValOptions(RunFolder, Plugins, Detector, BoxThresholds, SquareImages, Device, Workers):
    """The flags of val.py."""

    project: str = project_flag("val")
    imgsz: int | None = with_default(SquareImages, "imgsz", None, help="image size (default: 640; study: up to 1536)")
    conf_thres: float = with_default(BoxThresholds, "conf_thres", 0.001)
    iou_thres: float = with_default(BoxThresholds, "iou_thres", 0.6)
    max_det: int = flag(300, "most boxes per image (default: %(default)s)", "detection", at_least=1, at_most=MOST_BOXES)

    data: str = flag("data/shapes.yaml", "data YAML (default: %(default)s)", "data")
    batch_size: int = flag(32, "images per batch (default: %(default)s)", "data", at_least=1, at_most=MOST_IMAGES)
    single_cls: bool = flag(False, "treat all classes as one", "data")
    task: str = flag(
        "val",
        "which split to measure on; speed: milliseconds at usual thresholds; study: sizes from 256 up (default: val)",
        "measuring",
        choices=("train", "val", "test", "speed", "study"),
    )
    bootstrap: int = flag(
        0,
        "95 %% intervals of mAP from so many resamples of the images (alone: 1000); not for speed",
        "measuring",
        alone=1000,
        at_least=0,
        at_most=MOST_RESAMPLES,
    )
    areas: bool = flag(False, "COCO's figures, of small, medium and large objects, too (faster-coco-eval)", "measuring")
    errors: bool = flag(False, "which kinds of errors there are, and what each costs of mAP50 (TIDE)", "measuring")
    compile: bool = flag(False, "turn the model into code of its own by torch.compile first (takes a minute)", "speed")
    verbose: bool = flag(False, "a row per class", "output")
    save_csv: bool = flag(False, "write the row per class to metrics.csv, and the curves to PR_curve.csv", "output")
    save_tex: bool = flag(False, "write the row per class to metrics.tex, a LaTeX table", "output")
    against: list[str] | None = flag(
        None, "folders of validations with --save-csv, to draw beside this one: PR_runs.png", "output", metavar="FOLDER"
    )
    save_hybrid: bool = flag(False, "as --save-txt, with the labels and what is found beside them", "output")

    def __post_init__(self):
        super().__post_init__()
        for name in ("errors", "save_tex", "against"):
            if getattr(self, name) and self.task in ("speed", "study"):
                said = f"--{name.replace('_', '-')}"
                raise UserError(
                    f"{said}: not with --task {self.task}, which measures other things; leave one of them out"
                )
