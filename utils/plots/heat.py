"""Heat over an image."""

import cv2
import numpy as np

# how much of the picture the hottest place covers
OPACITY = 0.65


def draw_heat(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A copy of ``image``, uint8 [h, w, 3] RGB, under ``heat`` [h, w], 0..1: clear where that is 0, then purple to yellow.

    The opacity rises with its root: half as hot is seen well.
    """
    heat = heat.clip(0, 1)
    levels = (heat * 255).round().astype(np.uint8)
    colors = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    opacity = OPACITY * np.sqrt(heat)[..., None]
    return (image * (1 - opacity) + colors * opacity).round().astype(np.uint8)
