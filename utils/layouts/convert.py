"""What data/convert.py does: every reader gives a Collection, every writer takes one.

read_voc, read_coco, read_yolo   →  Collection  →   write_yolo, write_voc, write_coco

Where the images stay where they are, only a data YAML (describe_darknet), or one and lists (split_set) are written.
"""

from pathlib import Path

from utils.console.typed import command_line
from utils.errors import UserError
from utils.layouts.coco import read_coco, write_coco
from utils.layouts.collection import Collection, save_faults, writing
from utils.layouts.darknet import describe_darknet
from utils.layouts.options import ConvertOptions
from utils.layouts.split import split_set
from utils.layouts.voc import read_voc, write_voc
from utils.layouts.yolo import DATA_YAML, read_yolo, write_yolo


def convert(options: ConvertOptions) -> Collection | Path:
    """Read the one layout, write the other, say what was done; see data/convert.py for the options.

    Returns what was written; where images stay where they are, the data YAML that was written for them.
    """
    if not (options.layout and options.source and options.dest):
        raise UserError("a conversion needs a layout, a source and a destination, none of them empty")
    dest = Path(options.dest)
    if options.layout == "darknet":
        found = describe_darknet(Path(options.source[0]), dest)
    elif options.layout == "split":
        found = split_set(Path(options.source[0]), dest, options.shares, options.seed, options.groups, options.names)
    else:
        found = _copy(options, dest)
    print(f"written to {dest}")
    if options.layout in ("voc", "coco", "darknet", "split"):
        data = found if isinstance(found, Path) else dest / DATA_YAML
        print(f"next: {command_line('train.py', '--data', data)}")
    return found


def _copy(options: ConvertOptions, dest: Path) -> Collection:
    """Images, labels and lists in another layout."""
    if options.layout == "voc":
        found = read_voc(
            options.source[0],
            options.images,
            options.names,
            options.one_based,
            options.drop_difficult,
            options.suffix,
        )
    elif options.layout == "coco":
        found = read_coco(options.source, options.images)
    else:
        found = read_yolo(options.source[0])
    with writing(dest):
        if options.layout == "to-voc":
            write_voc(found, dest, options.link, options.one_based)
        elif options.layout == "to-coco":
            write_coco(found, dest, options.link)
        else:
            write_yolo(found, dest, options.link)
        save_faults(found, dest)
    print(found.report())
    return found
