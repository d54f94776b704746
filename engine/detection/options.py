"""What a detection is asked for. Imports no torch: ``python detect.py --help`` reads it."""

from dataclasses import dataclass

from utils.cli import MOST, MOST_BOXES, BoxThresholds, Detector, Device, Images, Plugins, RunFolder, flag, project_flag
from utils.errors import UserError
from utils.paths import ROOT


@dataclass(frozen=True)
class DetectOptions(RunFolder, Plugins, Detector, BoxThresholds, Images, Device):
    """The flags of detect.py."""

    ABSENT = {
        "data": "the names of the classes are those of the checkpoint or the exported file; leave it out",
        "update": "checkpoints hold no code that could grow old; leave it out",
        "save-format": "--save-txt writes class x y w h, --save-csv corners in pixels; leave it out",
    }

    project: str = project_flag("detect")

    source: str | int = flag(
        str(ROOT / "data" / "images"),
        "image, video, folder, glob, .txt list, URL, camera number, stream (rtsp://, http://), .streams list, "
        "screen [number] [left top width height] (default: data/images)",
        "data",
        at_least=0,
        at_most=MOST,
    )
    vid_stride: int = flag(
        1, "of videos and streams, every so many-th frame (default: 1)", "data", at_least=1, at_most=MOST
    )

    max_det: int = flag(
        1000, "most boxes per image (default: %(default)s)", "detection", at_least=1, at_most=MOST_BOXES
    )
    classes: list[int] | None = flag(None, "only these classes: --classes 0 2", "detection", at_least=0, at_most=MOST)
    agnostic_nms: bool = flag(False, "let boxes of different classes suppress each other", "detection")

    view_img: bool = flag(False, "show what is found; a key for the next picture, q to stop", "output")
    visualize: bool = flag(False, "draw the feature maps of every layer, to a folder per image", "output")
    explain: str = flag(
        "",
        "draw where the model looked, to heatmaps/: for each detection (layercam, when alone), or on the whole (eigencam)",
        "output",
        choices=("layercam", "eigencam"),
        noun="method",
        alone="layercam",
    )
    explain_layer: list[str] | None = flag(
        None,
        "with --explain: where to look, numbers of layers, or levels such as P3 of a backbone by name",
        "output",
        metavar="LAYER",
    )
    line_thickness: int | None = flag(
        None, "of the boxes, in pixels (default: by the picture's size)", "output", at_least=1, at_most=100
    )
    hide_labels: bool = flag(False, "draw boxes without class and confidence", "output")
    hide_conf: bool = flag(False, "draw boxes with the class alone", "output")
    nosave: bool = flag(False, "write no drawn pictures and videos", "output")
    save_crop: bool = flag(False, "cut every box out, to crops/CLASS/", "output")
    save_csv: bool = flag(False, "write boxes to predictions.csv", "output")

    def __post_init__(self):
        super().__post_init__()
        if self.explain_layer and not self.explain:
            raise UserError("--explain-layer: says where --explain looks; give that, too")
        if self.explain and self.half:
            raise UserError("--explain --half: the gradients need float32; leave --half out")
        if self.explain and self.augment:
            raise UserError("--explain --augment: looks into one pass over the image; leave --augment out")
