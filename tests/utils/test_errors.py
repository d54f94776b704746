"""What a message shows of what was read."""

import errno
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.helpers.project import ROOT
from utils.device import OutOfMemory
from utils.errors import UserError, exit_on_user_error, one_line, shown


def test_a_message_is_short_and_controls_no_terminal():
    assert shown("best.pt") == "best.pt"
    assert shown("\x1b[2J\x00\n\udc80") == "\\x1b[2J\\x00\\n\\udc80"
    assert len(shown("x" * 10_000)) == 200 and shown("x" * 10_000).endswith("…")
    assert len(one_line(UserError("y" * 10_000))) == 2000
    assert one_line(UserError("two\nlines \x07")) == "two lines \\x07"


def test_objects_are_shown_however_deep_and_large():
    deep, wide = [], dict.fromkeys(range(1000), "z" * 1000)
    for _ in range(100_000):
        deep = [deep]
    assert len(shown(deep)) <= 200 and len(shown(wide)) <= 200
    itself = []
    itself.append(itself)
    assert shown(itself).startswith("[[")
    assert shown(10**5000) == "a huge int"


def ends(run, capsys) -> tuple[int, str]:
    """The status with which ``run`` ends a command, and what is said on stderr."""
    with pytest.raises(SystemExit) as end:
        exit_on_user_error(run)
    return end.value.code, capsys.readouterr().err


def test_ctrl_c_is_no_traceback(capsys):
    def interrupted():
        raise KeyboardInterrupt

    assert ends(interrupted, capsys) == (130, "\nstopped\n")


@pytest.mark.parametrize("ask", [lambda: np.zeros(2**58), lambda: torch.empty(2**58), lambda: bytes(2**62)])
def test_too_little_memory_is_one_line(ask, capsys):
    code, said = ends(ask, capsys)
    assert code == 2 and said.startswith("error: there is not enough memory") and said.count("\n") == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ENAMETOOLONG])
def test_what_the_system_refuses_is_one_line_with_a_remedy(number, capsys):
    def refused():
        raise OSError(number, os.strerror(number), "a" * 5000)

    code, said = ends(refused, capsys)
    assert code == 2 and os.strerror(number) in said and len(said) < 400 and said.count("\n") == 1


def test_bugs_keep_their_traceback():
    for error in (ValueError("wrong"), RuntimeError("size mismatch"), OSError(errno.EBADF, "bad")):

        def broken(error=error):
            raise error

        with pytest.raises(type(error)):
            exit_on_user_error(broken)


def test_ctrl_c_while_an_object_is_cleared_away_is_not_lost():
    code = (
        "import os, signal, time\n"
        "from utils.errors import exit_on_user_error\n"
        # a shell starts what it runs in the background with Ctrl-C ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Loader:\n    def __del__(self):\n        os.kill(os.getpid(), signal.SIGINT); time.sleep(1)\n"
        "def run():\n    loader = Loader()\n    del loader\n    for _ in range(50): time.sleep(0.1)\n    print('went on')\n"
        "exit_on_user_error(run)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "\nstopped\n")


def test_ctrl_c_while_the_interpreter_ends_is_no_traceback():
    code = (
        "import atexit, os, signal\n"
        "from utils.errors import exit_on_user_error\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
        "exit_on_user_error(lambda: print('done'))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (-signal.SIGINT, "done\n", "")


def test_a_device_that_runs_out_of_memory_is_one_line(capsys):
    def run():
        raise OutOfMemory("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has a total")

    with pytest.raises(SystemExit) as end:
        exit_on_user_error(run)
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.startswith("error: the device is out of memory; lower --batch-size or --imgsz")
    assert said.count("\n") == 1


def test_letters_that_an_output_lacks_end_nothing():
    """As on Windows, where what is sent to a file has the encoding of its country."""
    code = (
        "from utils.errors import UserError, exit_on_user_error\n"
        "def run():\n    print('\u732b \u00d7 2')\n    raise UserError('\u72d7')\nexit_on_user_error(run)"
    )
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, env=environment)
    assert (done.returncode, done.stdout.strip()) == (2, rb"\u732b \xd7 2") and b"error: \\u72d7" in done.stderr
