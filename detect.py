"""Find objects in pictures and videos.

python detect.py --weights runs/train/exp/weights/best.pt --source data/images
python detect.py --source video.mp4 --save-txt
python detect.py --source 0                                      a camera; rtsp://…, http://…, screen likewise
python detect.py --source cameras.streams                        several at once, one a line
"""

import argparse
from pathlib import Path

from utils.cli import merge_options
from utils.errors import exit_on_user_error
from utils.paths import ROOT


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--weights", nargs="+", default=None, help="checkpoint or exported file; several checkpoints: an ensemble")
    add("--plugins", nargs="+", default=[], help="Python files with blocks of your own (docs/add-a-block.md)")
    add(
        "--source",
        default=str(ROOT / "data" / "images"),
        help="image, video, folder, glob, .txt list, URL, camera number, stream (rtsp://, http://), .streams list, "
        "screen [number] [left top width height] (default: data/images)",
    )
    add(
        "--imgsz",
        "--img",
        "--img-size",
        type=int,
        nargs="+",
        default=[640],
        help="size, or height width (default: 640)",
    )
    add("--conf-thres", type=float, default=0.25, help="least confidence of a box (default: %(default)s)")
    add("--iou-thres", type=float, default=0.45, help="overlap above which the weaker box goes (default: %(default)s)")
    add("--max-det", type=int, default=1000, help="most boxes per image (default: %(default)s)")
    add("--device", default="", help="cpu, mps, or a CUDA index such as 0; default: the best there is")
    add("--half", action="store_true", help="compute in float16 (checkpoints; an exported file has its own precision)")
    add("--dnn", action="store_true", help="run ONNX by OpenCV instead of ONNX Runtime")
    add("--classes", type=int, nargs="+", default=None, help="only these classes: --classes 0 2")
    add("--agnostic-nms", action="store_true", help="let boxes of different classes suppress each other")
    add("--augment", action="store_true", help="test-time augmentation: three scales and a flip")
    add("--vid-stride", type=int, default=1, help="of videos and streams, every so many-th frame (default: 1)")
    add("--view-img", action="store_true", help="show what is found; a key for the next picture, q to stop")
    add("--visualize", action="store_true", help="draw the feature maps of every layer, to a folder per image")
    add("--line-thickness", type=int, default=None, help="of the boxes, in pixels (default: by the picture's size)")
    add("--hide-labels", action="store_true", help="draw boxes without class and confidence")
    add("--hide-conf", action="store_true", help="draw boxes with the class alone")
    add("--nosave", action="store_true", help="write no drawn pictures and videos")
    add("--save-txt", action="store_true", help="write boxes to labels/*.txt")
    add("--save-conf", action="store_true", help="with --save-txt: the confidence, too")
    add("--save-crop", action="store_true", help="cut every box out, to crops/CLASS/")
    add("--save-csv", action="store_true", help="write boxes to predictions.csv")
    add("--save-json", action="store_true", help="write boxes to predictions.json, in COCO's results format")
    add("--project", default=str(ROOT / "runs" / "detect"), help="folder of the runs (default: runs/detect)")
    add("--name", default="exp", help="name of the run in --project (default: %(default)s)")
    add("--exist-ok", action="store_true", help="write into an existing run's folder instead of numbering a new one")
    return parser


def run(**options) -> Path:
    """Detect with the flags given as keywords, the others at their defaults; returns the folder of the results."""
    from engine.detection.predictor import predict

    return predict(merge_options(build_parser(), options))


if __name__ == "__main__":
    exit_on_user_error(lambda: run(**vars(build_parser().parse_args())))
