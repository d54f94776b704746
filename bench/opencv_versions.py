"""Which releases of OpenCV read our ONNX files, and how far their boxes are from PyTorch's: the table of docs/deploy.md.

    python bench/opencv_versions.py yolov5n.pt               the table, printed and put into both pages; some minutes
    python bench/opencv_versions.py yolov5n_C3_UIB.yaml --opset 10 --print

Each model is exported once, for one image of 128 × 96: a checkpoint, or a YAML with initial weights that are made to find
something. Each release is installed into a virtual environment of its own (pip, 60 MB a release, removed again), in which a
program of NumPy and OpenCV alone reads and runs the files. A cell gives the worst difference of a side of a box, in pixels, or
the operator for which the release refuses the file; ✗ stands for other rows or another failure. OpenCV 4.8 is also asked for one
thread: with several its means and maxima are wrong.
"""

# Run as a script: the project's folder comes before bench/ on the import path.
if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import re
import subprocess
import tempfile
import venv
from pathlib import Path

import numpy as np
import torch

from engine.export.formats.onnx import export_onnx
from models.load import detector_from
from models.yolo import DetectionModel
from utils.checkpoint import read_checkpoint

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "docs" / "deploy.md", ROOT / "docs" / "deploy.zh-CN.md")
# releases of opencv-python-headless and the NumPy that each was built for; the last is the newest there is
RELEASES = {
    "==4.5.5.64": "numpy<2",
    "==4.6.0.66": "numpy<2",
    "==4.7.0.72": "numpy<2",
    "==4.8.1.78": "numpy<2",
    "==4.10.0.84": "numpy>=2",
    "": "numpy>=2",
}
MODELS = """
yolov5s_EfficientNet.yaml yolov5s_EfficientNetV2-P3.yaml yolov7_EfficientNet.yaml yolov5s_ShuffleNetV2.yaml yolov5n_C3_UIB.yaml
yolov5s_MobileNetV3-small.yaml yolov5s_MobileNetV4-conv-small.yaml yolov5s_GhostNet.yaml yolov5s-ghost.yaml
yolov5s-transformer.yaml yolov5s_SE.yaml yolov5s_CBAM.yaml yolov5s_ECA.yaml yolov5s_CoordAtt.yaml yolov5s_SimAM.yaml
yolov5s_SOCA.yaml yolov5s_MobileMQA.yaml yolov3-tiny.yaml yolov7-tiny.yaml
""".split()
SIZE = 128, 96
# pixels: what no rounding explains
WRONG = 0.01
# what runs in each environment: a line of JSON, for each number of threads {file: worst difference in px, or what OpenCV says}
READER = """
import json, pathlib, sys
import cv2, numpy as np
def difference(file):
    net = cv2.dnn.readNetFromONNX(str(file))
    net.setInput(np.load(file.with_suffix(".images.npy")))
    rows, expected = net.forward(), np.load(file.with_suffix(".rows.npy"))
    apart = np.abs(rows - expected)
    return float(apart[..., :4].max()) if apart[..., 4:].max() < 1e-3 else "other rows"
columns = {}
for threads in (2, 1) if cv2.__version__.startswith("4.8.") else (2,):
    cv2.setNumThreads(threads)
    name = cv2.__version__ + ", 1 thread" * (threads == 1)
    columns[name] = {}
    for file in sorted(pathlib.Path(sys.argv[1]).glob("*.onnx")):
        try:
            columns[name][file.stem] = difference(file)
        except Exception as e:
            columns[name][file.stem] = str(e)
print(json.dumps(columns))
"""


def enliven(model: DetectionModel) -> DetectionModel:
    """Let a model of initial weights find something: its normalisations have seen noise, and its logits spread around zero."""
    noise = torch.nn.functional.interpolate(torch.rand(6, 3, 8, 6), size=SIZE, mode="bilinear")
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
        model.train()(noise)
        for norm in norms:
            # a channel that hardly varies would blow up rounding errors
            norm.running_var.clamp_(min=0.1)
        for conv, raw in zip(model.detect.m, model.eval()(noise)[1], strict=True):
            conv.weight *= 0.5 / raw.std()
            conv.bias.zero_()
    return model


def write_example(name: str, folder: Path, opset: int) -> None:
    """A model as ONNX, an image, and the rows that PyTorch gives for it."""
    torch.manual_seed(0)
    model = detector_from(read_checkpoint(name)) if name.endswith(".pt") else enliven(DetectionModel(name, nc=3))
    file = folder / f"{Path(name).name}.onnx"
    export_onnx(model, file, SIZE, opset=opset)
    images = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 6), size=SIZE, mode="bilinear")
    with torch.inference_mode():
        rows = model.fuse()(images)[0]
    np.save(file.with_suffix(".images.npy"), images.numpy())
    np.save(file.with_suffix(".rows.npy"), rows.numpy())


def try_release(release: str, numpy: str, folder: Path) -> dict[str, dict[str, float | str]]:
    """For each way of running it, by its name, what a release of OpenCV makes of each file in ``folder``."""
    with tempfile.TemporaryDirectory() as place:
        venv.create(place, with_pip=True)
        python = Path(place, "bin", "python")
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", f"opencv-python-headless{release}", numpy], check=True
        )
        answer = subprocess.run([python, "-c", READER, folder], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(answer.splitlines()[-1])


def cell(found: float | str) -> str:
    """«0.0001», the operator that OpenCV names, or «✗»."""
    if isinstance(found, float):
        figure = np.format_float_positional(found, 1, fractional=False)
        return figure if found < WRONG else f"✗ {figure}"
    operator = re.search(r"Node \[(\w+)@", found)
    return f"`{operator[1]}`" if operator else "✗"


def table(names: list[str], columns: dict[str, dict[str, float | str]]) -> str:
    """A line for each model, a column for each release."""
    lines = [["OpenCV", *columns], ["---", *["---:"] * len(columns)]]
    lines += [[f"`{name}`", *(cell(found[name]) for found in columns.values())] for name in names]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "models", nargs="+", help="checkpoints and model YAMLs; a checkpoint alone: with those of the table"
    )
    parser.add_argument("--opset", type=int, default=17, help="of the files (default: %(default)s)")
    parser.add_argument("--print", action="store_true", help="leave the pages as they are")
    options = parser.parse_args()
    models = options.models
    if all(name.endswith(".pt") for name in models):
        models = [*models, *MODELS]
    with tempfile.TemporaryDirectory() as folder:
        for name in models:
            write_example(name, Path(folder), options.opset)
        columns = {}
        for release, numpy in RELEASES.items():
            columns |= try_release(release, numpy, Path(folder))
    written = table([Path(name).name for name in models], columns)
    print(written)
    for page in [] if options.print else PAGES:
        text = page.read_text(encoding="utf-8")
        marked = re.compile(r"(<!-- opencv -->\n).*?(<!-- /opencv -->)", re.DOTALL)
        page.write_text(marked.sub(lambda m: f"{m[1]}\n{written}\n\n{m[2]}", text), encoding="utf-8")


if __name__ == "__main__":
    main()
