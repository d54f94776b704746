"""Pascal VOC's layout: an XML file per image in Annotations/, lists of names in ImageSets/Main/, JPEGImages/."""

import xml.etree.ElementTree as ET
from pathlib import Path
from xml.parsers import expat

from utils.data.config import MOST_LIST
from utils.data.images import ImageError, is_image, read_image
from utils.data.labels import Fault
from utils.errors import UserError, shown
from utils.files import read_text, why_unreadable
from utils.layouts.collection import (
    Box,
    Collection,
    Picture,
    keep_box,
    name_apart,
    place_image,
    require_empty,
    usable_image,
)

SPLITS = ("train", "val", "test")
MOST_BYTES = 16 << 20  # of an XML file


def read_voc(
    source: str | Path,
    images: str | Path | None = None,
    names: list[str] | None = None,
    one_based: bool = False,
    drop_difficult: bool = False,
    suffix: str = "",
) -> Collection:
    """A data set in VOC's layout. Splits are those of ImageSets/Main (train, val, test; else trainval; else all: train).

    ``images``: the folder of the images, searched with all below it; default: JPEGImages, or beside the XML files.
    ``names``: the classes in their order, others are dropped; default: all there are, sorted. ``one_based``: pixels are
    counted from 1 and the last one is part of the box, as in VOC's own files. ``suffix`` is added to the splits' names.

    Raises UserError where ``source`` holds no annotations or there are no images.
    """
    source = Path(source)
    folder = source / "Annotations" if (source / "Annotations").is_dir() else source
    files = {p.stem: p for p in sorted(folder.glob("*.xml"))}
    if not files:
        raise UserError(f"{source}: holds no XML files, neither itself nor in Annotations")
    pictures_of = _find_images(Path(images) if images else source / "JPEGImages", folder)
    found = Collection([], [])
    seen = set()
    for split, stems in _splits(source, files).items():
        for stem in stems:
            seen.add(stem)
            if stem not in files:
                _drop(found, "no annotation", source, f"{stem}, listed in {split}.txt, has no XML file; dropped")
            elif picture := _read_file(files[stem], pictures_of, one_based, drop_difficult, found.faults):
                picture.split = f"{split}{suffix}"
                found.pictures.append(picture)
    for stem in sorted(set(files) - seen):
        _drop(found, "in no split", files[stem], "no list of ImageSets/Main names it; dropped")
    found.names = names or sorted({box.name for picture in found.pictures for box in picture.boxes})
    for picture in found.pictures:
        for box in picture.boxes:
            if box.name not in found.names:
                _drop(
                    found,
                    "other class",
                    files.get(picture.stem, picture.image),
                    f"{shown(box.name)!r} is not among --names; dropped",
                )
        picture.boxes = [box for box in picture.boxes if box.name in found.names]
    return found


def _drop(found: Collection, kind: str, file: Path, detail: str) -> None:
    found.faults.append(Fault(kind, str(file), None, detail))


def _find_images(folder: Path, beside: Path) -> dict[str, Path]:
    root = folder if folder.is_dir() else beside
    found = {p.stem: p for p in sorted(root.rglob("*")) if is_image(p)}
    if not found:
        raise UserError(f"{folder}: holds no images; name their folder with --images")
    return found


def _splits(source: Path, files: dict[str, Path]) -> dict[str, list[str]]:
    lists = source / "ImageSets" / "Main"
    for group in (SPLITS, ("trainval",)):
        found = {s: lists / f"{s}.txt" for s in group if (lists / f"{s}.txt").exists()}
        if found:
            return {s: [words[0] for line in _lines(p) if (words := line.split())] for s, p in found.items()}
    return {"train": list(files)}


def _lines(path: Path) -> list[str]:
    try:
        return read_text(path, "list", MOST_LIST).splitlines()
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: not UTF-8 text (byte {e.start}); save the list as UTF-8") from None


def parse_xml(data: bytes) -> ET.Element:
    """The root of an XML document that declares no types or entities: such can grow to gigabytes, or name other files.

    Raises ValueError with the reason.
    """

    def refuse(*_):
        raise ValueError("has a DOCTYPE, which annotations don't need; refused")

    guard = expat.ParserCreate()
    guard.StartDoctypeDeclHandler = refuse
    try:
        guard.Parse(data, True)
        return ET.fromstring(data)
    # LookupError: an encoding that Python doesn't know
    except (expat.ExpatError, ET.ParseError, LookupError) as e:
        raise ValueError(f"not XML: {e}") from None


def _read_file(
    path: Path, images: dict[str, Path], one_based: bool, drop_difficult: bool, faults: list[Fault]
) -> Picture | None:
    """The picture of one XML file, None where it can't be used."""
    try:
        if reason := why_unreadable(path, "XML file", MOST_BYTES):
            raise ValueError(reason)
        root = parse_xml(path.read_bytes())
    except (ValueError, OSError) as e:
        faults.append(Fault("annotation refused", str(path), None, f"{shown(str(e))}; dropped"))
        return None
    image = images.get(path.stem) or images.get(Path(root.findtext("filename") or "").stem)
    if image is None:
        faults.append(Fault("no image", str(path), None, "there is no image of its name; dropped"))
        return None
    if not usable_image(image, faults):
        return None
    size = tuple(_whole(root.findtext(f"size/{side}")) for side in ("width", "height"))
    if min(size) < 1:  # some tools leave it out or write 0
        try:
            height, width = read_image(image).shape[:2]
        except ImageError as e:
            faults.append(Fault("image refused", str(image), None, f"{e}; dropped"))
            return None
        size = (width, height)
    boxes = []
    for number, node in enumerate(root.iter("object"), 1):
        name = " ".join((node.findtext("name") or "").split())
        if drop_difficult and (node.findtext("difficult") or "0").strip() == "1":
            faults.append(
                Fault("difficult", str(path), None, f"object {number} ({shown(name)}): marked difficult; dropped")
            )
            continue
        try:
            x1, y1, x2, y2 = (float(node.findtext(f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax"))
        except (TypeError, ValueError):
            faults.append(
                Fault("no box", str(path), None, f"object {number} ({shown(name)}): has no four numbers; dropped")
            )
            continue
        shift = int(one_based)
        box = keep_box(Box(name, x1 - shift, y1 - shift, x2, y2), size, str(path), f"object {number}", faults)
        if box is not None:
            boxes.append(box)
    return Picture(image, "", size, boxes, path.stem)


def _whole(text: str | None) -> int:
    """A number of pixels; 0 where the text is none."""
    try:
        value = float(text or 0)
    except ValueError:
        return 0
    return int(value) if abs(value) < 1e9 else 0


def write_voc(found: Collection, dest: Path, link: bool, one_based: bool = False) -> None:
    """Annotations/, ImageSets/Main/ and JPEGImages/ in ``dest``. Corners are whole pixels, as readers of VOC expect.

    A box that rounds to nothing is dropped and named.
    """
    for folder in ("Annotations", "ImageSets"):
        require_empty(dest / folder)
    for folder in ("Annotations", "ImageSets/Main"):
        (dest / folder).mkdir(parents=True, exist_ok=True)
    splits = {split: [p for p in found.pictures if p.split == split] for split in found.splits}
    for picture in found.pictures:  # all images share one folder here
        picture.split = ""
    name_apart(found.pictures)
    for picture in found.pictures:
        image = place_image(picture, dest / "JPEGImages", link)
        root = _annotation(picture, image.name, one_based, found.faults)
        ET.indent(root)
        (dest / "Annotations" / f"{picture.stem}.xml").write_bytes(ET.tostring(root, encoding="utf-8"))
    for split, pictures in splits.items():
        for picture in pictures:
            picture.split = split
        text = "".join(f"{p.stem}\n" for p in pictures)
        (dest / "ImageSets" / "Main" / f"{split}.txt").write_text(text, encoding="utf-8")


def _annotation(picture: Picture, file: str, one_based: bool, faults: list[Fault]) -> ET.Element:
    root = ET.Element("annotation")
    _text(root, "folder", "JPEGImages")
    _text(root, "filename", file)
    size = ET.SubElement(root, "size")
    for tag, value in zip(("width", "height", "depth"), (*picture.size, 3), strict=True):
        _text(size, tag, value)
    kept = []
    for number, box in enumerate(picture.boxes, 1):
        x1, y1, x2, y2 = (round(v) for v in (box.x1, box.y1, box.x2, box.y2))
        if x2 <= x1 or y2 <= y1:
            detail = f"box {number} ({box.name}): less than half a pixel wide or high; dropped"
            faults.append(Fault("degenerate box", str(picture.image), None, detail))
            continue
        kept.append(box)
        node = ET.SubElement(root, "object")
        for tag, value in (("name", box.name), ("pose", "Unspecified"), ("truncated", 0), ("difficult", 0)):
            _text(node, tag, value)
        corners = ET.SubElement(node, "bndbox")
        shift = int(one_based)
        for tag, value in (("xmin", x1 + shift), ("ymin", y1 + shift), ("xmax", x2), ("ymax", y2)):
            _text(corners, tag, value)
    picture.boxes = kept
    return root


def _text(parent: ET.Element, tag: str, value: object) -> None:
    ET.SubElement(parent, tag).text = str(value)
