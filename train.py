"""Train a detector.

python train.py --data data/shapes.yaml --imgsz 192
python train.py --weights yolov5n.pt --data data/bccd.yaml --imgsz 320 --epochs 30
torchrun --nproc_per_node 2 train.py …       on two GPUs; --batch-size is for both together
"""

import argparse
from pathlib import Path

from utils.cli import merge_options
from utils.errors import exit_on_user_error
from utils.paths import ROOT


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--weights", default="", help="checkpoint to start from, such as yolov5s.pt (fetched); empty: from scratch")
    add(
        "--cfg",
        default="",
        help="model YAML; default: that of --weights, else yolov5s_EfficientNetV2.yaml, yolov5s.yaml with --backbone",
    )
    add("--size", choices=list("nsmlx"), help="depth and width of this size in place of those of the model YAML")
    add("--plugins", nargs="+", default=[], help="Python files with blocks of your own (docs/add-a-block.md)")
    add(
        "--backbone",
        default="",
        metavar="NAME",
        help="put this network of torchvision or timm in the place of the backbone",
    )
    add(
        "--backbone-weights",
        default="",
        help="of a backbone by name: imagenet (downloaded once), or a file; empty: none",
    )
    add(
        "--backbone-lr",
        type=float,
        default=1.0,
        help="factor on the learning rate of the backbone (default: %(default)s)",
    )
    add("--data", default="data/shapes.yaml", help="data YAML (default: %(default)s, the set that comes along)")
    add("--hyp", default="data/hyps/hyp.scratch-low.yaml", help="hyper-parameter YAML (default: %(default)s)")
    add("--epochs", type=int, default=100, help="passes over the images (default: %(default)s)")
    add(
        "--batch-size",
        type=int,
        default=16,
        help="images per batch over all processes; -1: what fits the memory of a CUDA device (default: %(default)s)",
    )
    add("--rect", action="store_true", help="batches of one aspect ratio each, padded little; no mosaics")
    add("--imgsz", "--img", "--img-size", type=int, default=640, help="image size in pixels (default: %(default)s)")
    add("--device", default="", help="cpu, mps, or a CUDA index such as 0; default: the best there is")
    add(
        "--workers", type=int, default=8, help="processes that load images, at most one per core (default: %(default)s)"
    )
    add("--seed", type=int, default=0, help="of the initial weights and of augmentation (default: %(default)s)")
    add("--project", default=str(ROOT / "runs" / "train"), help="folder of the runs (default: runs/train)")
    add("--name", default="exp", help="name of the run in --project (default: %(default)s)")
    add("--exist-ok", action="store_true", help="write into an existing run's folder instead of numbering a new one")
    add(
        "--patience",
        type=int,
        default=100,
        help="epochs without improvement before stopping; 0: never (default: %(default)s)",
    )
    add("--optimizer", choices=["SGD", "Adam", "AdamW"], default="SGD", help="optimiser (default: %(default)s)")
    add(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        help="go on with an unfinished run: its last.pt, or the newest",
    )
    add("--save-minutes", type=float, default=0, help="also save within an epoch, this often; 0: at epoch ends only")
    add("--nosave", action="store_true", help="save the last checkpoint only")
    add("--noval", action="store_true", help="validate the last epoch only")
    add("--noautoanchor", action="store_true", help="keep the anchors of the YAML, whatever the data")
    add("--noplots", action="store_true", help="draw nothing")
    add(
        "--evolve",
        type=int,
        nargs="?",
        const=300,
        default=0,
        help="search hyper-parameters: so many trainings, each from mutated best ones so far (default: %(const)s)",
    )
    add(
        "--resume_evolve",
        "--resume-evolve",
        nargs="?",
        const=True,
        default=False,
        help="go on with a search: its folder, or the newest",
    )
    add(
        "--cache",
        nargs="?",
        const="ram",
        default="",
        choices=["ram", "disk"],
        help="keep decoded images in memory or as .npy files beside the labels",
    )
    add("--image-weights", action="store_true", help="draw images by how badly their classes are found so far")
    add("--multi-scale", action="store_true", help="resize every batch at random, to 0.5 to 1.5 times --imgsz")
    add("--cos-lr", action="store_true", help="let the learning rate fall along a cosine instead of a line")
    add("--label-smoothing", type=float, default=0.0, help="of the class targets, 0 to 1 (default: %(default)s)")
    add(
        "--freeze",
        type=lambda word: int(word) if word.lstrip("-").isdigit() else word,
        nargs="+",
        default=[0],
        help="layers that do not learn: 10 means 0 to 9, or list them: 0 1 2; or the word backbone",
    )
    add("--single-cls", action="store_true", help="treat all classes as one")
    add("--sync-bn", action="store_true", help="BatchNorm over the images of all processes (CUDA)")
    add("--quad", action="store_true", help="a quarter as many images of twice the size: four in one, or one enlarged")
    add(
        "--drop-path", type=float, default=None, help="stochastic depth: rate of the deepest block, from 0 at the first"
    )
    add(
        "--albumentations",
        nargs="?",
        const="",
        default=None,
        help="augment by albumentations, too (an extra): a pipeline saved as YAML or JSON; alone: rare blur, grey, contrast",
    )
    add("--save-period", type=int, default=0, help="also keep epochN.pt every N epochs; 0: none (default: %(default)s)")
    return parser


def run(**options) -> Path:
    """Train with the flags given as keywords, the others at their defaults; returns the folder of the run.

    ``run(data="data/bccd.yaml", imgsz=320, epochs=30)``; raises UserError for mistakes that can be mended.
    """
    settings = merge_options(build_parser(), options)
    if settings.evolve or settings.resume_evolve:
        from engine.studies.evolve import evolve

        return evolve(settings)
    from engine.training.trainer import Trainer

    return Trainer(settings).run()


if __name__ == "__main__":
    exit_on_user_error(lambda: run(**vars(build_parser().parse_args())))
