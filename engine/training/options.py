"""What a training run is asked for, checked before anything is built."""

import argparse

from engine.recipe.hyp import read_hyp
from utils.cli import require_at_least, require_share
from utils.distributed import World
from utils.errors import UserError

DEFAULT_BATCH = 16


def check_options(options: argparse.Namespace, world: World) -> None:
    """Raises UserError for values out of range and for flags of train.py that contradict each other."""
    for flag, minimum in (("epochs", 1), ("imgsz", 32), ("workers", 0), ("patience", 0)):
        require_at_least(flag, getattr(options, flag), minimum)
    require_share("label-smoothing", options.label_smoothing)
    if options.drop_path is not None:
        require_share("drop-path", options.drop_path)
    if not options.backbone_lr > 0:
        raise UserError(
            f"--backbone-lr {options.backbone_lr}: must be above 0; to stop its learning: --freeze backbone"
        )
    if options.batch_size != -1:
        require_at_least("batch-size", options.batch_size, 1)
    multiple = world.size * (4 if options.quad else 1)
    if options.batch_size != -1 and options.batch_size % multiple:
        reason = f"{world.size} processes" + (" and quads of four images" if options.quad else "")
        raise UserError(f"--batch-size {options.batch_size}: {reason} need a multiple of {multiple}")
    if options.batch_size == -1 and world.size > 1:
        raise UserError("--batch-size -1 measures one process alone; give the number for all processes together")
    if options.rect and options.quad:
        raise UserError("--rect and --quad: quads are made of squares; leave one of the two out")
    if options.rect and options.image_weights:
        raise UserError("--rect and --image-weights: --rect fixes which images share a batch; leave one of the two out")
    if options.image_weights and options.noval:
        raise UserError("--image-weights draws by the accuracy of each class, which --noval does not measure")
    if options.sync_bn and (world.size == 1 or world.device.type != "cuda"):
        raise UserError(
            "--sync-bn: PyTorch synchronises BatchNorm between several CUDA processes only "
            f"(here: {world.size} on {world.device.type}); leave it out, or start with torchrun on GPUs"
        )


def read_run_hyp(options: argparse.Namespace) -> dict:
    """The hyper-parameters of --hyp, with the label smoothing of the flag where it is given."""
    hyp = read_hyp(options.hyp)
    return hyp | {"label_smoothing": options.label_smoothing} if options.label_smoothing else hyp
