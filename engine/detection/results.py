"""What a model found in pictures, to look at, to write and to compute with."""

from collections import Counter
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.boxes import xyxy2xywh
from utils.extras import load_extra
from utils.files import short_name, unique_name
from utils.paths import ROOT, new_run_folder
from utils.plots.crops import crop_box, crop_folders, save_crop
from utils.plots.display import show_image, why_no_display
from utils.plots.draw import draw_boxes, save_image

DETECT_RUNS = ROOT / "runs" / "detect"


class Detections:
    """The boxes of one or several pictures.

    | attribute | what it is |
    | --- | --- |
    | pred, xyxy | per picture a tensor [m, 6]: x1 y1 x2 y2 in its pixels, confidence, class |
    | xywh | the same as centre and size; xyxyn, xywhn: as fractions of the picture |
    | ims | the pictures, uint8 [h, w, 3] RGB; render() draws into them |
    | names, files, n | {class: name}; a file name per picture; their number |
    | t, s | milliseconds per picture of pre-processing, inference and NMS; shape of the batch |
    """

    def __init__(
        self,
        ims: list[np.ndarray],
        pred: list[torch.Tensor],
        files: list[str],
        names: dict[int, str],
        times: tuple[float, ...] = (0.0, 0.0, 0.0),
        shape: tuple[int, ...] = (),
    ):
        self.ims = ims
        self.pred = self.xyxy = pred
        self.files = files
        self.names = names
        self.n = len(pred)
        self.times = times
        self.t = tuple(float(total) / self.n for total in times)
        self.s = tuple(shape)
        self.xywh = [torch.cat((xyxy2xywh(p[:, :4]), p[:, 4:]), 1) for p in pred]
        sizes = [
            torch.tensor([*im.shape[1::-1], *im.shape[1::-1], 1, 1], dtype=p.dtype, device=p.device)
            for im, p in zip(ims, pred, strict=True)
        ]
        self.xyxyn = [p / size for p, size in zip(self.xyxy, sizes, strict=True)]
        self.xywhn = [p / size for p, size in zip(self.xywh, sizes, strict=True)]

    def __len__(self) -> int:
        return self.n

    def __str__(self) -> str:
        lines = []
        for i, (im, found) in enumerate(zip(self.ims, self.pred, strict=True), 1):
            height, width = im.shape[:2]
            lines.append(f"image {i}/{self.n}: {height}x{width} {describe(found, self.names)}")
        before, inference, nms = self.t
        shape = f" at shape {self.s}" if self.s else ""
        speed = f"Speed: {before:.1f}ms pre-process, {inference:.1f}ms inference, {nms:.1f}ms NMS per image{shape}"
        return "\n".join([*lines, speed])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.n} images>\n{self}"

    def print(self) -> None:
        """Print what was found, a line per picture, and the times."""
        print(self)

    def _drawn(self, labels: bool) -> list[np.ndarray]:
        pictures = []
        for im, found in zip(self.ims, self.pred, strict=True):
            rows = found.float().cpu().numpy()
            tags = None if labels else [""] * len(rows)
            pictures.append(draw_boxes(im, rows[:, :4], rows[:, 5], self.names, rows[:, 4], labels=tags))
        return pictures

    def render(self, labels: bool = True) -> list[np.ndarray]:
        """Draw the boxes into ``ims`` and return them, uint8 [h, w, 3] RGB."""
        self.ims = self._drawn(labels)
        return self.ims

    def show(self, labels: bool = True) -> None:
        """Show the pictures with their boxes in windows, a key for the next; where there is no display, say so."""
        if why_no_display():
            print(f"note: {why_no_display()}; use results.save(), or results.render() and what your notebook shows")
            return
        for file, drawn in zip(self.files, self._drawn(labels), strict=True):
            if not show_image(file, drawn, wait=0):
                break

    def save(self, labels: bool = True, save_dir: str | Path | None = None, exist_ok: bool = False) -> Path:
        """Write the pictures with their boxes to ``save_dir`` (default: the next runs/detect/exp); returns the folder."""
        folder = _folder(save_dir, exist_ok)
        for file, drawn in zip(unique_names(self.files), self._drawn(labels), strict=True):
            save_image(folder / file, drawn)
        print(f"Saved {self.n} image{'s' if self.n > 1 else ''} to {folder}")
        return folder

    def crop(
        self, save: bool = True, save_dir: str | Path | None = None, exist_ok: bool = False
    ) -> list[dict[str, Any]]:
        """Cut every box out; ``save`` writes them to ``save_dir``/crops/CLASS/PICTURE.jpg, PICTURE2.jpg, ….

        Returns a mapping per box, picture by picture, in each the least confident first, as YOLOv5 goes through them: ``box``
        [4] corners, ``conf``, ``cls``, ``label`` («person 0.87») and ``im``, uint8 [h, w, 3] in OpenCV's order BGR.
        """
        folder = _folder(save_dir, exist_ok) / "crops" if save else None
        folders = crop_folders(self.names)
        crops = []
        for file, im, found in zip(self.files, self.ims, self.pred, strict=True):
            for *box, conf, cls in found.flip(0):
                name = self.names[int(cls)]
                cut = crop_box(im, box)
                if folder is not None and cut.size:
                    save_crop(folder / folders[int(cls)], short_name(Path(file).stem), cut, numbered=True)
                row = {"box": box, "conf": conf, "cls": cls, "label": f"{name} {float(conf):.2f}"}
                crops.append(row | {"im": np.ascontiguousarray(cut[..., ::-1])})
        if folder is not None:
            print(f"Saved {len(crops)} crops to {folder}")
        return crops

    def pandas(self) -> "Detections":
        """A copy whose xyxy, xyxyn, xywh and xywhn are pandas tables, with columns confidence, class and name.

        Raises UserError where pandas is not installed.
        """
        frame = load_extra("pandas", "results.pandas()").DataFrame
        tables = copy(self)
        corners, centres = ["xmin", "ymin", "xmax", "ymax"], ["xcenter", "ycenter", "width", "height"]
        for attribute in ("xyxy", "xyxyn", "xywh", "xywhn"):
            columns = [*(corners if attribute.startswith("xyxy") else centres), "confidence", "class", "name"]
            rows = [
                [[*row[:5], int(row[5]), self.names[int(row[5])]] for row in found.tolist()]
                for found in getattr(self, attribute)
            ]
            setattr(tables, attribute, [frame(table, columns=columns) for table in rows])
        return tables

    def tolist(self) -> list["Detections"]:
        """One Detections per picture."""
        return [
            Detections([self.ims[i]], [self.pred[i]], [self.files[i]], self.names, self.t, self.s)
            for i in range(self.n)
        ]


def describe(detections: torch.Tensor, names: dict[int, str]) -> str:
    """«2 persons, 1 bus», or «(no detections)»."""
    counts = Counter(int(c) for c in detections[:, 5].tolist())
    words = [f"{n} {names[c]}{'s' if n > 1 and names[c].isascii() else ''}" for c, n in sorted(counts.items())]
    return ", ".join(words) or "(no detections)"


def unique_names(files: list[str]) -> list[str]:
    """File names, those that occur before numbered: a.jpg, a-2.jpg."""
    names: list[str] = []
    for file in files:
        names.append(unique_name(short_name(Path(file).stem), names, Path(file).suffix))
    return names


def _folder(save_dir: str | Path | None, exist_ok: bool) -> Path:
    path = Path(save_dir) if save_dir is not None else DETECT_RUNS / "exp"
    return new_run_folder(path.parent, path.name, exist_ok)
