"""A stranger's file is tried out in a process of its own, so that faults of the libraries that run it don't end ours.

A library may crash upon a damaged file, never end, or take all memory there is; its own checks don't reach that far. This is
no sandbox: it keeps a damaged file from harm, not a program. Linux only: elsewhere a process can't be forked off safely.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from utils.device import available_memory
from utils.errors import MOST_SAID, UserError, one_line

SECONDS, SECONDS_PER_MEGABYTE = 10, 2


def try_out(file: Path, size: int, use: Callable[[], None]) -> None:
    """Call ``use`` in a child; ``size`` is that of ``file``, in bytes, by which it gets its time.

    Raises the UserError that it raised, or one that says how the child came to its end.
    """
    if sys.platform != "linux":
        return
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(use, sender), daemon=True)
    child.start()
    sender.close()
    seconds = SECONDS + SECONDS_PER_MEGABYTE * size / 1e6
    answer = None
    ended = receiver.poll(seconds)
    # bytes, not an object: what a library has done to the child's memory is not known
    with contextlib.suppress(EOFError, OSError):
        answer = receiver.recv_bytes(4 * MOST_SAID).decode("utf-8", "replace") if ended else None
    if answer is not None or not ended:
        child.kill()
    child.join()
    if answer:
        raise UserError(answer)
    if not ended:
        raise UserError(f"{file}: was not loaded and run in {seconds:.0f} s; --trust runs it without this trial")
    # a child that ended of itself without an answer has met a fault of ours: it will show here, too
    if answer is None and child.exitcode < 0:
        how = signal.Signals(-child.exitcode).name
        raise UserError(f"{file}: the library that runs it crashes upon it ({how}): it is damaged; export it anew")


def _answer(use: Callable[[], None], sender: Connection) -> None:
    # what this thread alone does needs none of the threads that were left behind
    torch.set_num_threads(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        use()
        answer = ""
    except UserError as e:
        answer = one_line(e)
    sender.send_bytes(answer.encode("utf-8", "replace"))


def limit_memory(more: int) -> None:
    """From now on this process gets at most ``more`` bytes above what it has, and half of what is free."""
    import resource

    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    free = available_memory()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = held + (more if free is None else min(more, free // 2))
    resource.setrlimit(resource.RLIMIT_AS, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
