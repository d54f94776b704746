"""A stranger's file is tried out in a process of its own, so that faults of the libraries that run it don't end ours.

A library may crash upon a damaged file, never end, or take all memory there is; its own checks don't reach that far. This is
no sandbox: it keeps a damaged file from harm, not a program. Linux only: elsewhere a process can't be forked off safely.
"""

import faulthandler
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import torch

from utils.device import available_memory
from utils.errors import MOST_SAID, UserError, one_line

SECONDS, SECONDS_PER_MEGABYTE = 10, 2
DONE = b"+"


def try_out(file: Path, size: int, use: Callable[[], None]) -> None:
    """Call ``use`` in a child; ``size`` is that of ``file``, in bytes, by which it gets its time.

    Raises the UserError that it raised, or one that says how the child came to its end.
    """
    if sys.platform != "linux":
        return
    seconds = SECONDS + SECONDS_PER_MEGABYTE * size / 1e6
    receiver, sender = os.pipe()
    # OpenCV's threads are ended ahead: a child that wants fewer of them waits in vain for those it has not
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    # not multiprocessing: its workers, such as those of a pool, may have no children
    child = os.fork()
    if child == 0:
        _live(use, sender)
    os.close(sender)
    cv2.setNumThreads(threads)
    answer = None
    try:
        heard = select.poll()
        heard.register(receiver, select.POLLIN)
        if heard.poll(seconds * 1e3):
            answer = os.read(receiver, 4 * MOST_SAID)
    finally:
        # an empty answer: it has come to its end, and its status says how
        if answer != b"":
            os.kill(child, signal.SIGKILL)
        os.close(receiver)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if answer is None:
        raise UserError(f"{file}: was not loaded and run in {seconds:.0f} s; --trust runs it without this trial")
    if answer.removeprefix(DONE):
        raise UserError(answer.removeprefix(DONE).decode("utf-8", "replace"))
    # one that ended of itself without an answer has met a fault of ours, which will show here, too
    if not answer and code < 0:
        how = signal.Signals(-code).name
        raise UserError(f"{file}: the library that runs it crashes upon it ({how}): it is damaged; export it anew")


def _live(use: Callable[[], None], sender: int) -> None:
    """The child: what ``use`` comes to, to ``sender``."""
    try:
        # Python's own report upon a crash would go to where the parent's errors go
        faulthandler.disable()
        # what this thread alone does needs none of those that were left behind
        torch.set_num_threads(1)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        answer = ""
        try:
            use()
        except UserError as e:
            answer = one_line(e)
        os.write(sender, DONE + answer.encode("utf-8", "replace"))
    finally:
        os._exit(0)


def limit_memory(more: int) -> None:
    """From now on this process gets at most ``more`` bytes above what it has, and half of what is free."""
    import resource

    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    free = available_memory()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = held + (more if free is None else min(more, free // 2))
    resource.setrlimit(resource.RLIMIT_AS, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
