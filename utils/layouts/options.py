"""What a conversion between layouts is asked for. Imports no numpy: ``python data/convert.py --help`` reads it."""

from dataclasses import dataclass

from utils.cli import Options, flag
from utils.errors import UserError, shown

# Which layouts a flag is for; the others are for all.
LAYOUTS_OF = {
    "images": ("voc", "coco"),
    "names": ("voc", "split"),
    "one_based": ("voc", "to-voc"),
    "drop_difficult": ("voc",),
    "suffix": ("voc",),
    "shares": ("split",),
    "groups": ("split",),
    "seed": ("split",),
    "link": ("voc", "coco", "to-voc", "to-coco"),
}


@dataclass(frozen=True)
class ConvertOptions(Options):
    """The arguments and flags of data/convert.py."""

    layout: str = flag(
        "",
        "what is read, or after to-: what is written; split: what is done",
        "data",
        positional=True,
        choices=("voc", "coco", "to-voc", "to-coco", "darknet", "split"),
    )
    source: list[str] = flag(
        [],
        "voc: folder; coco: JSON files; to-voc, to-coco: data YAML; darknet: folder or obj.data; split: data YAML or folder",
        "data",
        positional=True,
    )
    dest: str = flag("", "folder to write to", "data", positional=True)
    images: str | None = flag(None, "voc, coco: folder of the images, where they lie elsewhere", "data")
    names: list[str] | None = flag(
        None, "voc: the classes in their order; default: all, sorted; split: those of a folder's labels", "data"
    )
    one_based: bool = flag(False, "voc, to-voc: pixels are counted from 1, as in VOC's own sets", "data")
    drop_difficult: bool = flag(False, "voc: leave objects out that are marked difficult", "data")
    suffix: str = flag("", "voc: added to the splits' names, such as 2007", "data")
    shares: list[float] = flag(
        [0.8, 0.1, 0.1],
        "split: of train, val and test, or of train and val (default: 0.8 0.1 0.1)",
        "data",
        above=0,
        at_most=1,
    )
    groups: str = flag(
        "",
        "split: keep together what differs in the number at the end of the name alone, as frames do; or each folder",
        "data",
        alone="name",
        choices=("name", "folder"),
    )
    seed: int = flag(
        0, "split: another one gives other lists (default: %(default)s)", "data", at_least=0, at_most=2**63 - 1
    )
    link: bool = flag(False, "link to the images instead of copying them", "output")

    def __post_init__(self):
        super().__post_init__()
        defaults = {name: declared.default for name, declared, _ in self.flags()}
        for name, layouts in LAYOUTS_OF.items():
            if getattr(self, name) != defaults[name] and self.layout not in layouts:
                raise UserError(f"--{name.replace('_', '-')}: is for {' and '.join(layouts)}, not for {self.layout}")
        if len(self.shares) not in (2, 3) or abs(sum(self.shares) - 1) > 1e-6:
            said = " ".join(f"{share:g}" for share in self.shares)
            raise UserError(f"--shares {shown(said)}: two or three shares that sum up to 1, such as 0.8 0.1 0.1")
        if self.layout != "coco" and len(self.source) > 1:
            raise UserError(
                f"{self.layout} takes one source and one destination; given were {' '.join([*self.source, self.dest])}"
            )
