"""Pictures in a window, where there is a display."""

import subprocess
import sys
from functools import lru_cache

import cv2
import numpy as np

PROBE = "import cv2; cv2.namedWindow('probe'); cv2.waitKey(1)"
STOP_KEYS = {ord("q"), 27}  # q and Escape


@lru_cache(maxsize=1)
def why_no_display() -> str | None:
    """Why no window can be opened here, in a few words; None where one can.

    Tried in a process of its own: without a display the window system would end the process that asks.
    """
    try:
        probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, timeout=60)
    except subprocess.TimeoutExpired:
        return "the display does not answer"
    if probe.returncode == 0:
        return None
    if b"not implemented" in probe.stderr:
        return "this OpenCV has no windows (opencv-python has them, opencv-python-headless has not)"
    return "there is no display here"


def show_image(title: str, image: np.ndarray, wait: int = 1) -> bool:
    """Show an RGB image (uint8 [h, w, 3]) in the window ``title`` and wait so many milliseconds for a key, 0: as long as
    it takes. Returns False where the key was q or Escape.

    Call it only where why_no_display() is None.
    """
    cv2.imshow(title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return cv2.waitKey(wait) & 0xFF not in STOP_KEYS
