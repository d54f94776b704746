"""docs/images/detections.jpg of both READMEs: what trained detectors find, a row of pictures for each of them.

    python bench/readme_pictures.py --row runs/train/exp/weights/best.pt 192 data/images
    python bench/readme_pictures.py --row shapes.pt 192 data/images --row bccd.pt 320 ../datasets/bccd/images/val

A row is a checkpoint, the size in pixels to detect at, and a folder of pictures. As many of them as --pictures says are
taken, evenly spread over the folder by name, so that the same command draws the same picture.
"""

# Run as a script: the project's folder comes before bench/ on the import path.
if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from pathlib import Path

import cv2
import numpy as np

from engine.detection.hub import load_hub_model
from utils.data.images import IMAGE_SUFFIXES
from utils.errors import UserError, exit_on_user_error
from utils.plots.draw import draw_boxes, save_image

ROOT = Path(__file__).resolve().parents[1]
# pixels of the whole picture from left to right, and of the white between two
WIDTH, GAP = 1280, 8
# boxes in a picture, above which tags on all of them would hide it
CROWD = 8


def spread(folder: Path, number: int) -> list[Path]:
    """``number`` pictures of a folder, evenly spread by name. Raises UserError where there are none."""
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise UserError(f"{folder}: no pictures in it")
    places = np.linspace(0, len(paths) - 1, min(number, len(paths))).round().astype(int)
    return [paths[i] for i in places]


def drawn_row(weights: str, size: int, paths: list[Path], least: float) -> np.ndarray:
    """The pictures with the boxes that the checkpoint finds in them, side by side: uint8 [h, WIDTH, 3] RGB."""
    model = load_hub_model(weights)
    model.conf = least
    results = model([str(path) for path in paths], size=size)
    shapes = [image.shape[:2] for image in results.ims]
    height = round((WIDTH - GAP * (len(paths) - 1)) / sum(w / h for h, w in shapes))
    cells = []
    for image, found in zip(results.ims, results.xyxy, strict=True):
        scale = height / image.shape[0]
        way = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
        cell = cv2.resize(image, (round(image.shape[1] * scale), height), interpolation=way)
        found = found.cpu().numpy()
        boxes, scores, classes = found[:, :4] * scale, found[:, 4], found[:, 5]
        drawn = draw_boxes(cell, boxes, classes, model.names, scores, line_width=2, labels=tags(found, model.names))
        cells += [drawn, np.full((height, GAP, 3), 255, np.uint8)]
    row = np.hstack(cells[:-1])
    # rounding may have left it some pixels too wide or too narrow
    return cv2.resize(row, (WIDTH, height), interpolation=cv2.INTER_AREA)


def tags(found: np.ndarray, names: dict[int, str]) -> list[str]:
    """What stands on each of the boxes [m, 6], which come by falling confidence; in a crowd only on the surest of a class."""
    classes = found[:, 5].astype(int).tolist()
    crowded = len(found) > CROWD
    return [
        "" if crowded and cls in classes[:i] else f"{names[cls]} {score:.2f}"
        for i, (cls, score) in enumerate(zip(classes, found[:, 4], strict=True))
    ]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--row", nargs=3, action="append", required=True, metavar=("WEIGHTS", "SIZE", "FOLDER"), help="may be repeated"
    )
    parser.add_argument("--pictures", type=int, nargs="+", default=[5, 4], help="in each row (default: 5 4)")
    parser.add_argument("--conf-thres", type=float, default=0.4, help="least confidence of a box (default: 0.4)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "detections.jpg")
    return parser


def main() -> None:
    options = build_parser().parse_args()
    rows = []
    for i, (weights, size, folder) in enumerate(options.row):
        number = options.pictures[min(i, len(options.pictures) - 1)]
        rows += [drawn_row(weights, int(size), spread(Path(folder), number), options.conf_thres)]
        rows += [np.full((GAP, WIDTH, 3), 255, np.uint8)]
    save_image(options.out, np.vstack(rows[:-1]))
    print(f"{options.out}: {options.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    exit_on_user_error(main)
