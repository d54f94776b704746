"""How an exported file is compared with PyTorch."""

import torch

from engine.export.settings import Settings
from engine.export.verify import compare
from models.load import detector_from
from tests.helpers.export import export_quietly
from utils.checkpoint import read_checkpoint


def test_convolutions_are_not_rounded_where_files_are_compared(own):
    """TF32 is how CUDA computes them unless told otherwise: it would be off by more than the file."""
    (result,) = export_quietly(own, "torchscript")
    model, seen = detector_from(read_checkpoint(own)), []
    model.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    before = torch.backends.cudnn.allow_tf32
    boxes, scores = compare(model, result.file, Settings(imgsz=(128, 128)))
    assert (boxes < 0.01 and scores < 1e-4) and seen == [False] and before is True is torch.backends.cudnn.allow_tf32
