"""Images that a quantisation sees to find the ranges of the activations."""

import numpy as np

from utils.data.config import image_files, prepare_data, read_data_yaml
from utils.data.images import ImageError, letterbox, read_image, stack_images, to_float
from utils.errors import UserError

COUNT = 300


def calibration_images(data: str | None, imgsz: tuple[int, int], batch: int) -> list[np.ndarray]:
    """Up to 300 training images of a data YAML, spread over the set, as batches float32 [batch, 3, h, w], 0..1.

    Raises UserError where no data is named, and where none of its images can be read.
    """
    if data is None:
        raise UserError("--int8 needs images to find the ranges of the values: name a set with --data")
    config = prepare_data(read_data_yaml(data), ["train"])
    files = image_files(config.splits["train"])
    boxed = []
    for file in files[:: max(len(files) // COUNT, 1)][:COUNT]:
        try:
            boxed.append(letterbox(read_image(file), imgsz, auto=False)[0])
        except ImageError as e:
            print(f"note: {file}: {e}; left out of the calibration")
    if not boxed:
        raise UserError(f"--data {data}: none of its training images can be read")
    boxed += boxed[:1] * (-len(boxed) % batch)
    return [to_float(stack_images(boxed[i : i + batch])).numpy() for i in range(0, len(boxed), batch)]
