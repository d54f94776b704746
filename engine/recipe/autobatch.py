"""The batch size that fills a CUDA device's memory, from measurements at small ones."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from utils.errors import UserError

TRIAL_SIZES = (1, 2, 4, 8, 16)
SHARE = 0.8  # of the free memory: validation and the data loader need some, too


def find_batch_size(model: nn.Module, imgsz: int, device: torch.device, amp: bool) -> int:
    """Train ``model`` on noise at a few batch sizes; returns what fits 80 % of the device's free memory.

    Raises UserError where not even one image fits.
    """
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device)
    return largest_batch(lambda size: _peak_memory(model, size, imgsz, device, amp), SHARE * free)


def largest_batch(measure: Callable[[int], float], budget: float, sizes: Sequence[int] = TRIAL_SIZES) -> int:
    """The batch size at which a line through ``measure(size)``, bytes, reaches ``budget``.

    Trial sizes that run out of memory end the measurement. Raises UserError where not even one image fits.
    """
    tried, taken = [], []
    for size in sizes:
        try:
            bytes_taken = measure(size)
        except torch.OutOfMemoryError:
            break
        tried.append(size)
        taken.append(bytes_taken)
        if bytes_taken > budget:
            break
    if not tried or taken[0] > budget:
        raise UserError("--batch-size -1: not even one image fits the device's memory; lower --imgsz")
    if len(tried) == 1:
        return 1
    per_image, fixed = np.polyfit(tried, taken, 1)
    if per_image <= 0:
        return tried[-1]
    return max(int((budget - fixed) / per_image), 1)


def _peak_memory(model: nn.Module, size: int, imgsz: int, device: torch.device, amp: bool) -> int:
    """Bytes that one training step on ``size`` images takes at its peak."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    images = torch.rand(size, model.yaml["ch"], imgsz, imgsz, device=device)
    with torch.amp.autocast(device.type, enabled=amp):
        maps = model.train()(images)
    sum(m.float().mean() for m in maps).backward()
    model.zero_grad(set_to_none=True)
    return torch.cuda.max_memory_reserved(device)
