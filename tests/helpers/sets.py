"""Data sets made for a test."""

import zipfile
from pathlib import Path

import cv2
import numpy as np


def make_set(root: Path, train: int = 8, val: int = 4, size: tuple[int, int] = (64, 96), seed: int = 0) -> Path:
    """A data set of bright rectangles (class 0) and discs (class 1) on dark noise; returns its data YAML."""
    rng = np.random.default_rng(seed)
    height, width = size
    for split, count in (("train", train), ("val", val)):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
            lines = []
            for cls in (0, 1):
                side = int(rng.integers(height // 4, height // 2))
                x, y = int(rng.integers(0, width // 2 - side)) + cls * width // 2, int(rng.integers(0, height - side))
                color = [int(v) for v in rng.integers(150, 255, 3)]
                if cls == 0:
                    cv2.rectangle(image, (x, y), (x + side - 1, y + side - 1), color, -1)
                else:
                    cv2.circle(image, (x + side // 2, y + side // 2), side // 2, color, -1)
                box = ((x + side / 2) / width, (y + side / 2) / height, side / width, side / height)
                lines.append(f"{cls} " + " ".join(f"{v:.6f}" for v in box))
            cv2.imwrite(str(root / "images" / split / f"{i}.png"), image)
            (root / "labels" / split / f"{i}.txt").write_text("\n".join(lines) + "\n")
    yaml = root / "data.yaml"
    yaml.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: [rectangle, disc]\n")
    return yaml


def make_zip(file: Path, **members: str) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return file
