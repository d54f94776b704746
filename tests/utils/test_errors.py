"""What a message shows of what was read."""

import pytest

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


def test_a_device_that_runs_out_of_memory_is_one_line(capsys):
    def run():
        raise OutOfMemory("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has a total")

    with pytest.raises(SystemExit) as end:
        exit_on_user_error(run)
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.startswith("error: the device is out of memory; lower --batch-size or --imgsz")
    assert said.count("\n") == 1


def test_other_errors_keep_their_traceback():
    def run():
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        exit_on_user_error(run)
