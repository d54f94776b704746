"""What a conversion between layouts is asked for. Imports no numpy: ``python data/convert.py --help`` reads it."""

from dataclasses import dataclass

from utils.cli import Options, flag
from utils.errors import UserError

# Which layouts a flag is for; the others are for all.
LAYOUTS_OF = {
    "images": ("voc", "coco"),
    "names": ("voc",),
    "one_based": ("voc", "to-voc"),
    "drop_difficult": ("voc",),
    "suffix": ("voc",),
}


@dataclass(frozen=True)
class ConvertOptions(Options):
    """The arguments and flags of data/convert.py."""

    layout: str = flag(
        "",
        "what is read, or after to-: what is written",
        "data",
        positional=True,
        choices=("voc", "coco", "to-voc", "to-coco"),
    )
    source: list[str] = flag([], "voc: folder; coco: JSON files; to-voc, to-coco: data YAML", "data", positional=True)
    dest: str = flag("", "folder to write to", "data", positional=True)
    images: str | None = flag(None, "voc, coco: folder of the images, where they lie elsewhere", "data")
    names: list[str] | None = flag(None, "voc: the classes in their order; default: all, sorted", "data")
    one_based: bool = flag(False, "voc, to-voc: pixels are counted from 1, as in VOC's own sets", "data")
    drop_difficult: bool = flag(False, "voc: leave objects out that are marked difficult", "data")
    suffix: str = flag("", "voc: added to the splits' names, such as 2007", "data")
    link: bool = flag(False, "link to the images instead of copying them", "output")

    def __post_init__(self):
        super().__post_init__()
        for name, layouts in LAYOUTS_OF.items():
            if getattr(self, name) and self.layout not in layouts:
                raise UserError(f"--{name.replace('_', '-')}: is for {' and '.join(layouts)}, not for {self.layout}")
        if self.layout != "coco" and len(self.source) > 1:
            raise UserError(
                f"{self.layout} takes one source and one destination; given were {' '.join([*self.source, self.dest])}"
            )
