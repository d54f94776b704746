"""What is asked of a device and of the machine, and names of devices that are none."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from utils.device import (
    LOOK,
    QUIET,
    Neighbours,
    OutOfMemory,
    computes_bf16,
    free_memory,
    full_precision,
    select_device,
)
from utils.errors import UserError
from utils.paths import ROOT


@pytest.mark.parametrize("name", ["²", "9" * 4000, "cuda:x", ",", "cuda:0,", "-1", "meta"])
def test_what_is_no_device_is_one_line(name):
    with pytest.raises(UserError, match="--device "):
        select_device(name)


@pytest.mark.parametrize(
    ("line", "native"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 clflush", True),
        ("flags\t\t: fpu amx_bf16", True),
        ("Features\t: fp asimd bf16 i8mm", True),
        ("flags\t\t: fpu avx512f avx512_fp16", False),
    ],
)
def test_a_processor_says_whether_it_computes_in_bfloat16(line, native, tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\n{line}\n")
    assert computes_bf16(file) is native
    assert computes_bf16(tmp_path / "none") is False


def test_only_cuda_says_how_much_memory_is_free():
    assert free_memory(torch.device("cpu")) is None


def test_full_precision_is_left_as_it_was_found():
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    with pytest.raises(OutOfMemory), full_precision():
        assert (convolutions.allow_tf32, products.allow_tf32) == (False, False)
        raise OutOfMemory
    assert (convolutions.allow_tf32, products.allow_tf32) == before == (True, False)


def team() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "neighbours-team"]


def test_while_others_want_the_cores_a_thread_that_does_nothing_is_there(tmp_path):
    def waited(*ns: int) -> dict[str, int]:
        return {str(i): n for i, n in enumerate(ns)}

    def write(*ns: int) -> None:
        for name, n in waited(*ns).items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "schedstat").write_text(f"900 {n} 3\n")

    write(10**9, 0)
    (tmp_path / "ended").mkdir()
    watch = Neighbours(tmp_path)
    assert watch.look() == watch.waited == waited(10**9, 0)
    # alone, each waits some milliseconds for the system's own work
    watch.judge(waited(10**9 + 10**7, 10**7), LOOK)
    assert watch.alone.is_set() and not team()
    # half of the time both had no core
    crowded = waited(10**9 + 26 * 10**7, 26 * 10**7)
    watch.judge(crowded, LOOK)
    assert not watch.alone.is_set() and len(team()) == 1
    # a thread that is new has not waited since the last look; one is enough, however long it lasts
    watch.judge(crowded | {"new": 10**12}, LOOK)
    watch.judge(waited(10**10, 10**10), LOOK)
    assert not watch.alone.is_set() and len(team()) == 1
    for _ in range(QUIET):
        assert not watch.alone.is_set()
        watch.judge(watch.waited, LOOK)
    assert watch.alone.is_set()
    for thread in team():
        thread.join(60)
    assert not team()


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="only Linux says how long threads wait")
def test_the_watch_is_kept_once_and_only_where_it_is_of_use():
    line = (
        "import threading, torch; from utils.device import make_way, usable_cores\n"
        "def there(): return sum(thread.name == 'neighbours' for thread in threading.enumerate())\n"
        "torch.set_num_threads(1); make_way(torch.device('cpu')); print(there())\n"
        "torch.set_num_threads(max(usable_cores(), 2)); make_way(torch.device('cuda')); print(there())\n"
        "make_way(torch.device('cpu')); make_way(torch.device('cpu')); print(there())"
    )
    said = subprocess.run([sys.executable, "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert said.stdout.split() == ["0", "0", "1"], said.stderr
