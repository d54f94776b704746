"""What data/convert.py does: every reader gives a Collection, every writer takes one.

read_voc, read_coco, read_yolo   →  Collection  →   write_yolo, write_voc, write_coco
"""

from pathlib import Path

from utils.console.typed import command_line
from utils.errors import UserError
from utils.layouts.coco import read_coco, write_coco
from utils.layouts.collection import Collection, save_faults
from utils.layouts.options import ConvertOptions
from utils.layouts.voc import read_voc, write_voc
from utils.layouts.yolo import DATA_YAML, read_yolo, write_yolo


def convert(options: ConvertOptions) -> Collection:
    """Read the one layout, write the other, say what was done; see data/convert.py for the options."""
    if not (options.layout and options.source and options.dest):
        raise UserError("a conversion needs a layout, a source and a destination, none of them empty")
    dest = Path(options.dest)
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
    try:
        if options.layout == "to-voc":
            write_voc(found, dest, options.link, options.one_based)
        elif options.layout == "to-coco":
            write_coco(found, dest, options.link)
        else:
            write_yolo(found, dest, options.link)
        save_faults(found, dest)
    except OSError as e:
        raise UserError(
            f"{e.filename or dest}: can't be written ({e.strerror or e}); name another destination"
        ) from None
    print(found.report())
    print(f"written to {dest}")
    if options.layout in ("voc", "coco"):
        print(f"next: {command_line('train.py', '--data', dest / DATA_YAML)}")
    return found
