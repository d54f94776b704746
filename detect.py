"""Find objects in pictures and videos.

python detect.py --imgsz 192              # the newest best.pt on data/images
python detect.py --weights best.pt --source video.mp4 --save-txt
python detect.py --source 0               # a camera; or rtsp://, http://, screen
python detect.py --source cameras.streams # several at once, one a line
"""

import argparse
from pathlib import Path

from engine.detection.options import DetectOptions
from utils.console.guard import keep_freed_memory
from utils.errors import exit_on_user_error


def build_parser() -> argparse.ArgumentParser:
    return DetectOptions.parser(__doc__)


def run(**given) -> Path:
    """Detect with the flags given as keywords, the others at their defaults; returns the folder of the results."""
    keep_freed_memory()
    from engine.detection.predictor import predict

    return predict(DetectOptions.of(given))


if __name__ == "__main__":
    exit_on_user_error(lambda: run(**vars(build_parser().parse_args())))
