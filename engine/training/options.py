"""What a training run is asked for. Imports no torch: ``python train.py --help`` reads it."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from engine.recipe.recipes import RECIPES, recipe_flags
from utils.cli import (
    MOST,
    MOST_IMAGES,
    BackboneFlags,
    Device,
    Plugins,
    RunFolder,
    SquareImages,
    Workers,
    flag,
    project_flag,
    with_default,
)
from utils.console.typed import quoted
from utils.errors import UserError, shown

DEFAULT_BATCH, DEFAULT_EPOCHS = 16, 100
# for flags of YOLOv5 that have no place here
TORCHRUN = (
    "comes from torch.distributed.launch; start with `torchrun --nproc_per_node 2 train.py`, which needs no such flag"
)
NO_SERVICE = (
    "nothing is reported to Weights & Biases; results.csv has all figures, and TensorBoard shows them where it is installed: "
    "leave it out"
)


def _layer(word: str) -> int | str:
    return int(word) if word.lstrip("-").isdigit() else word


@dataclass(frozen=True)
class TrainOptions(RunFolder, Plugins, BackboneFlags, SquareImages, Device, Workers):
    """The flags of train.py."""

    ABSENT = {
        "local-rank": TORCHRUN,
        **dict.fromkeys(("entity", "upload-dataset", "bbox-interval", "artifact-alias"), NO_SERVICE),
        **dict.fromkeys(
            ("ndjson-console", "ndjson-file"), "the figures of every epoch are in results.csv; leave it out"
        ),
        "bucket": "nothing is uploaded; copy the folder of the run, leave it out",
        "evolve-population": "a search keeps its own in its folder; --resume-evolve FOLDER goes on with it",
        "adam": "is --optimizer Adam by now",
        "linear-lr": "is the default by now; --cos-lr is the other",
        "notest": "is --noval by now",
        "cache-images": "is --cache by now",
    }

    project: str = project_flag("train")
    imgsz: int = with_default(SquareImages, "imgsz", 640, at_least=32)

    weights: str = flag("", "checkpoint to start from, such as yolov5s.pt (fetched); empty: from scratch", "model")
    cfg: str = flag(
        "",
        "model YAML; default: that of --weights, else yolov5s_EfficientNetV2.yaml, yolov5s.yaml with --backbone",
        "model",
    )
    teacher: list[str] = flag(
        [],
        "trained checkpoints to learn from beside the labels (docs/train.md); how is said by distill_… of --hyp",
        "model",
    )
    backbone_weights: str = flag(
        "", "of a backbone by name: imagenet (downloaded once), or a file; empty: none", "model"
    )
    freeze: list[int | str] = flag(
        [0],
        "layers that do not learn: 10 means 0 to 9, or list them: 0 1 2; or the word backbone",
        "model",
        read=_layer,
        at_least=0,
        at_most=MOST,
    )
    noautoanchor: bool = flag(False, "keep the anchors of the YAML, whatever the data", "model")
    drop_path: float | None = flag(
        None,
        "stochastic depth: rate of the deepest block, from 0 at the first",
        "model",
        at_least=0,
        at_most=1,
    )

    data: str = flag("data/shapes.yaml", "data YAML (default: %(default)s, the set that comes along)", "data")
    rect: bool = flag(False, "batches of one aspect ratio each, padded little; no mosaics", "data")
    single_cls: bool = flag(False, "treat all classes as one", "data")
    image_weights: bool = flag(False, "draw images by how badly their classes are found so far", "data")
    multi_scale: bool = flag(False, "resize every batch at random, to 0.5 to 1.5 times --imgsz", "data")
    quad: bool = flag(False, "a quarter as many images of twice the size: four in one, or one enlarged", "data")

    recipe: str = flag(
        "stock",
        "flags and hyper-parameters that go well together, where none are given: small is for a few hundred images, fast "
        "learns those in less time (default: %(default)s)",
        "learning",
        choices=tuple(RECIPES),
    )
    hyp: str = flag("data/hyps/hyp.scratch-low.yaml", "hyper-parameter YAML (default: %(default)s)", "learning")
    # None, and not the number that stands for: beside --resume it matters whether it is given
    epochs: int | None = flag(
        None,
        f"passes over the images (default: {DEFAULT_EPOCHS}); beside --resume of a finished run: how many are to be done in all",
        "learning",
        at_least=1,
        at_most=MOST,
    )
    batch_size: int = flag(
        DEFAULT_BATCH,
        "images per batch over all processes; -1: what fits the memory of a CUDA device (default: %(default)s)",
        "learning",
        at_least=1,
        at_most=MOST_IMAGES,
        apart=(-1,),
    )
    optimizer: str = flag("SGD", "optimiser (default: %(default)s)", "learning", choices=("SGD", "Adam", "AdamW"))
    cos_lr: bool = flag(False, "let the learning rate fall along a cosine instead of a line", "learning")
    backbone_lr: float = flag(
        1.0,
        "factor on the learning rate of the backbone (default: %(default)s)",
        "learning",
        above=0,
        at_most=1000,
        remedy="to stop its learning: --freeze backbone",
    )
    progressive: int = flag(
        0,
        "learn in so many stages, from half of --imgsz and weak augmentation up to all of both; alone: %(const)s",
        "learning",
        alone=4,
        at_least=2,
        at_most=100,
        apart=(0,),
    )
    label_smoothing: float = flag(
        0.0, "of the class targets, 0 to 1 (default: %(default)s)", "learning", at_least=0, at_most=1
    )
    patience: int = flag(
        100,
        "epochs without improvement before stopping; 0: never (default: %(default)s)",
        "learning",
        at_least=0,
        at_most=2**31,
    )
    sync_bn: bool = flag(False, "BatchNorm over the images of all processes (CUDA)", "learning")
    seed: int = flag(
        0,
        "of the initial weights and of augmentation (default: %(default)s)",
        "learning",
        at_least=0,
        at_most=2**63 - 1,
    )
    deterministic: bool = flag(
        False, "the same bits in every run on CUDA, where PyTorch can: slower; warns where it cannot", "learning"
    )
    resume: str | bool = flag(
        False,
        "go on with an unfinished run: its last.pt, or the newest; with --epochs N: train a finished one on, in a folder "
        "of its own, until N epochs are done",
        "learning",
        alone=True,
    )
    evolve: int = flag(
        0,
        "search hyper-parameters: so many trainings, each from mutated best ones so far (default: %(const)s)",
        "learning",
        alone=300,
        at_least=0,
        at_most=MOST,
    )
    resume_evolve: str | bool = flag(
        False,
        "go on with a search: its folder, or the newest",
        "learning",
        spellings=("--resume_evolve",),
        alone=True,
    )

    albumentations: str | None = flag(
        None,
        "augment by albumentations, too (an extra): a pipeline saved as YAML or JSON; alone: rare blur, grey, contrast",
        "augmentation",
        alone="",
    )

    amp: str = flag(
        "auto",
        "mixed precision; auto: fp16 on CUDA where a trial of it is sound, else off; fastest: also bf16 on a processor that "
        "computes it (default: %(default)s)",
        "speed",
        choices=("auto", "fastest", "off", "fp16", "bf16"),
    )
    compile: bool = flag(
        False, "turn the model into code of its own by torch.compile at the first batch (takes minutes)", "speed"
    )
    cache: str = flag(
        "",
        "keep decoded images in memory or as .npy files beside the labels",
        "speed",
        alone="ram",
        choices=("ram", "disk"),
    )

    save_minutes: float = flag(
        0, "also save within an epoch, this often; 0: at epoch ends only", "output", at_least=0, at_most=MOST
    )
    # -1 is stock's word for none
    save_period: int = flag(
        0,
        "also keep epochN.pt every N epochs; 0 or -1: none (default: %(default)s)",
        "output",
        at_least=-1,
        at_most=MOST,
    )
    nosave: bool = flag(False, "save the last checkpoint only", "output")
    noval: bool = flag(False, "validate the last epoch only", "output")
    noplots: bool = flag(False, "draw nothing", "output")

    @classmethod
    def of(cls, given: dict[str, Any]):
        """As of every command, with the flags of --recipe that are not given; a run that goes on has its own."""
        options = super().of(given)
        if options.resume or options.resume_evolve:
            return options
        return super().of(recipe_flags(options.recipe, given) | given)

    def as_words(self, *names: str) -> list[str]:
        """As of every command, and flags at their defaults that --recipe would set to something else."""
        words, defaults = super().as_words(*names), {f.name: f.default for f in fields(self)}
        for name, value in recipe_flags(self.recipe, {}).items():
            own = getattr(self, name)
            if (not names or name in names) and own == defaults[name] != value:
                words += [f"--{name}", str(own)]
        return words


# What a resumed run takes from the command line: what it runs on; and the files of code.
PRESENT = ("device", "workers", "cache")
# Options whose files are code, or say which code of a library is run: they come from the command line alone. What each is for.
CODE = {"plugins": "blocks of your own", "albumentations": "a pipeline of albumentations"}


def code_files(value: Any) -> list[str]:
    """The files that an option of CODE names."""
    named = value if isinstance(value, list | tuple) else [value]
    return [str(file) for file in named if isinstance(file, str | Path) and str(file)]


def require_code(options: TrainOptions, saved: dict[str, Any], file: Path) -> dict[str, Any]:
    """The options of CODE that a run goes on with, of which ``file`` has saved the options: those given now.

    Raises UserError where it needs files that are not given.
    """
    for name, what in CODE.items():
        if (named := code_files(saved.get(name))) and not code_files(getattr(options, name)):
            words = shown(quoted(f"--{name}", *map(shown, named)))
            raise UserError(f"{file}: was begun with {what}, whose files are code: add {words}")
    return {name: getattr(options, name) for name in CODE if code_files(saved.get(name)) or name == "plugins"}


def check_together(options: TrainOptions, processes: int, device_type: str) -> None:
    """Raises UserError for flags that contradict each other, or the processes and the kind of device there are."""
    multiple = processes * (4 if options.quad else 1)
    if options.batch_size != -1 and options.batch_size % multiple:
        reason = f"{processes} processes" + (" and quads of four images" if options.quad else "")
        raise UserError(f"--batch-size {options.batch_size}: {reason} need a multiple of {multiple}")
    if options.batch_size == -1 and processes > 1:
        raise UserError("--batch-size -1 measures one process alone; give the number for all processes together")
    if options.rect and options.quad:
        raise UserError("--rect and --quad: quads are made of squares; leave one of the two out")
    if options.rect and options.image_weights:
        raise UserError("--rect and --image-weights: --rect fixes which images share a batch; leave one of the two out")
    if options.progressive and options.multi_scale:
        raise UserError(
            "--progressive and --multi-scale: both set the size of images; leave one out, or take --progressive 0"
        )
    if options.image_weights and options.noval:
        raise UserError("--image-weights draws by the accuracy of each class, which --noval does not measure")
    if options.sync_bn and (processes == 1 or device_type != "cuda"):
        raise UserError(
            "--sync-bn: PyTorch synchronises BatchNorm between several CUDA processes only "
            f"(here: {processes} on {device_type}); leave it out, or start with torchrun on GPUs"
        )
