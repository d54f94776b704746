"""How often the host waits for the device."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.fake_cuda import on_sync
from tests.helpers.project import ROOT


@contextlib.contextmanager
def host_syncs() -> Iterator[list[str]]:
    """Within ``fake_cuda()``: a list that grows by a line for every wait of the host, «place: operation».

    Waits: a value or a tensor read by the CPU, a blocking copy to the device (``torch.tensor(…, device="cuda")`` is
    one), and every operation whose result is as large as its input's content says: ``nonzero``, a mask as an index.
    """
    found: list[str] = []

    def note(operation: str) -> None:
        frame = sys._getframe(2)
        while frame and not _ours(frame.f_code.co_filename):
            frame = frame.f_back
        place = f"{Path(frame.f_code.co_filename).relative_to(ROOT)}:{frame.f_lineno}" if frame else "PyTorch"
        found.append(f"{place}: {operation}")

    on_sync.append(note)
    try:
        yield found
    finally:
        on_sync.remove(note)


def _ours(file: str) -> bool:
    path = Path(file)
    installed = "site-packages" in path.parts
    return path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / "tests" / "helpers") and not installed
