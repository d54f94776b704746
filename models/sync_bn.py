"""BatchNorm over the images of all processes (--sync-bn)."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronize_batchnorm(model: nn.Module) -> None:
    """Let every BatchNorm of ``model`` take its statistics over all processes, in place.

    nn.SyncBatchNorm.convert_sync_batchnorm would put plain ones in the place of those that do more, such as timm's
    BatchNormAct2d with its activation. Here each stays what it is, and so do its parameters and their names. One whose
    forward computes by itself, without that of nn.BatchNorm2d, keeps its own statistics.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            module.__class__ = _synchronized(type(module))
            module.process_group = None


def _synchronized(kind: type[_BatchNorm]) -> type[nn.SyncBatchNorm]:
    """The class that is ``kind`` but for what it calls to normalise."""
    if kind.__module__.startswith("timm.") and kind.__name__ == "BatchNormAct2d":
        # computes by itself, and has a synchronised form
        from timm.layers.norm_act import SyncBatchNormAct

        return SyncBatchNormAct
    if kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        return nn.SyncBatchNorm
    # in the order of its bases SyncBatchNorm comes after nn.BatchNorm2d, which leaves the forward to what follows
    return type(f"Sync{kind.__name__}", (kind, nn.SyncBatchNorm), {})
