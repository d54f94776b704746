"""Turn data sets of other layouts into YOLO's, and back.

python data/convert.py voc VOCdevkit/VOC2007 ../datasets/VOC   # XML → YOLO
python data/convert.py coco instances_val.json ../datasets/c   # JSON → YOLO
python data/convert.py to-voc data/shapes.yaml ../datasets/v   # YOLO → VOC
python data/convert.py to-coco data/shapes.yaml ../datasets/c  # YOLO → COCO
python data/convert.py darknet export ../datasets/d            # obj.data → YOLO
python data/convert.py split data.yaml ../datasets/mine        # train, val, test

COCO has one JSON file per split: name them all. Splits are kept. What can't be
kept is counted, named, and listed in dropped.txt. With darknet (CVAT's "YOLO
1.1") and split, images and labels stay where they are.
"""

if __name__ == "__main__":  # run as a script: the project's folder comes before data/ on the import path
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from typing import TYPE_CHECKING

from utils.errors import exit_on_user_error
from utils.layouts.options import ConvertOptions

if TYPE_CHECKING:
    from pathlib import Path

    from utils.layouts.collection import Collection


def build_parser() -> argparse.ArgumentParser:
    return ConvertOptions.parser(__doc__)


def run(layout: str, source: str | list[str], dest: str, **flags) -> "Collection | Path":
    """Convert with the flags given as keywords; returns what was written, and what was dropped (``.faults``).

    For darknet and split, which copy nothing, it is the data YAML that was written.
    """
    sources = [str(s) for s in (source if isinstance(source, (list, tuple)) else [source])]
    options = ConvertOptions.of({"layout": layout, "source": sources, "dest": str(dest), **flags})

    from utils.layouts.convert import convert

    return convert(options)


if __name__ == "__main__":
    exit_on_user_error(lambda: run(**vars(build_parser().parse_args())))
