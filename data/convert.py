"""Turn data sets of other layouts into YOLO's, and back.

python data/convert.py voc VOCdevkit/VOC2007 ../datasets/VOC       Pascal VOC's XML files → YOLO
python data/convert.py coco instances_val2017.json ../datasets/c   COCO's JSON, one file per split → YOLO
python data/convert.py to-voc data/shapes.yaml ../datasets/voc     YOLO, by its data YAML → Pascal VOC
python data/convert.py to-coco data/shapes.yaml ../datasets/coco   … → COCO

Splits are kept. What can't be kept is counted, named, and listed in dropped.txt.
"""

if __name__ == "__main__":  # run as a script: the project's folder comes before data/ on the import path
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from typing import TYPE_CHECKING

from utils.errors import UserError, exit_on_user_error

if TYPE_CHECKING:
    from utils.layouts.collection import Collection

FLAGS = {  # which layouts each flag is for
    "images": ("voc", "coco"),
    "names": ("voc",),
    "one_based": ("voc", "to-voc"),
    "drop_difficult": ("voc",),
    "suffix": ("voc",),
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("layout", choices=["voc", "coco", "to-voc", "to-coco"], help="what is read, or after to-: what is written")
    add("source", nargs="+", help="voc: folder; coco: JSON files; to-voc, to-coco: data YAML")
    add("dest", help="folder to write to")
    add("--images", default=None, help="voc, coco: folder of the images, where they lie elsewhere")
    add("--names", nargs="+", default=None, help="voc: the classes in their order; default: all, sorted")
    add("--link", action="store_true", help="link to the images instead of copying them")
    add("--one-based", action="store_true", help="voc, to-voc: pixels are counted from 1, as in VOC's own sets")
    add("--drop-difficult", action="store_true", help="voc: leave objects out that are marked difficult")
    add("--suffix", default="", help="voc: added to the splits' names, such as 2007")
    return parser


def run(layout: str, source: str | list[str], dest: str, **flags) -> "Collection":
    """Convert with the flags given as keywords; returns what was written, and what was dropped (``.faults``)."""
    sources = [str(s) for s in (source if isinstance(source, (list, tuple)) else [source])]
    options = build_parser().parse_args([layout, *sources, str(dest)])
    unknown = sorted(set(flags) - set(vars(options)))
    if unknown:
        raise TypeError(f"no such option: {', '.join(unknown)}")
    vars(options).update(flags)
    for flag, layouts in FLAGS.items():
        if getattr(options, flag) and layout not in layouts:
            raise UserError(f"--{flag.replace('_', '-')}: is for {' and '.join(layouts)}, not for {layout}")
    if layout != "coco" and len(sources) > 1:
        raise UserError(f"{layout} takes one source and one destination; given were {' '.join([*sources, str(dest)])}")

    from utils.layouts.convert import convert

    return convert(options)


if __name__ == "__main__":
    exit_on_user_error(lambda: run(**vars(build_parser().parse_args())))
