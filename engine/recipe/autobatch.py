"""The batch size that fills a CUDA device's memory, from measurements at small ones."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from utils.device import OutOfMemory, free_memory, peak_memory
from utils.errors import UserError

TRIAL_SIZES = (2, 4, 8, 16)  # BatchNorm over maps of one cell takes no single image
SHARE = 0.8  # of the free memory: validation and the data loader need some, too


def find_batch_size(train: Callable[[int], None], device: torch.device) -> int | None:
    """``train(size)`` with a few batch sizes; returns what fits 80 % of the device's free memory.

    None where the device does not say how much it has. Raises UserError where not even two images fit.
    """
    free = free_memory(device)
    if free is None:
        return None
    return largest_batch(lambda size: peak_memory(lambda: train(size), device), SHARE * free)


def largest_batch(measure: Callable[[int], float], budget: float, sizes: Sequence[int] = TRIAL_SIZES) -> int:
    """The batch size at which a line through ``measure(size)``, bytes, reaches ``budget``.

    Trial sizes that run out of memory end the measurement. Raises UserError where not even two images fit.
    """
    tried, taken = [], []
    for size in sizes:
        try:
            bytes_taken = measure(size)
        except OutOfMemory:
            break
        tried.append(size)
        taken.append(bytes_taken)
        if bytes_taken > budget:
            break
    if not tried or taken[0] > budget:
        raise UserError("--batch-size -1: not even two images fit the device's memory; lower --imgsz")
    if len(tried) == 1:
        return tried[0]
    per_image, fixed = np.polyfit(tried, taken, 1)
    if per_image <= 0:
        return tried[-1]
    return max(int((budget - fixed) / per_image), 1)
