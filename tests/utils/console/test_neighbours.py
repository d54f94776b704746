"""Computing beside other programs: when way is made for them, and that turns are taken."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from utils.console import neighbours
from utils.console.neighbours import LOOK, QUIET, Neighbours
from utils.paths import ROOT

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="only Linux says how long threads wait"
)


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


def test_the_watch_is_kept_once_and_only_where_it_is_of_use():
    line = (
        "import threading, torch; from utils.console.neighbours import make_way; from utils.device import usable_cores\n"
        "def there(): return sum(thread.name == 'neighbours' for thread in threading.enumerate())\n"
        "torch.set_num_threads(1); make_way(torch.device('cpu')); print(there())\n"
        "torch.set_num_threads(max(usable_cores(), 2)); make_way(torch.device('cuda')); print(there())\n"
        "import os; os.environ['WORLD_SIZE'] = '2'; make_way(torch.device('cpu')); print(there())\n"
        "del os.environ['WORLD_SIZE']; make_way(torch.device('cpu')); make_way(torch.device('cpu')); print(there())"
    )
    said = subprocess.run([sys.executable, "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert said.stdout.split() == ["0", "0", "0", "1"], said.stderr


def crowded(folder: Path) -> Neighbours:
    """One that knows of others, with turns of its own."""
    (folder / "none").mkdir(exist_ok=True)
    watch = Neighbours(folder / "none", folder / "turns.lock")
    watch.alone.clear()
    return watch


def test_two_that_are_crowded_work_one_at_a_time(tmp_path):
    working, most, done = [], [], []

    def work(watch: Neighbours) -> None:
        for _ in range(20):
            with watch.turn():
                working.append(1)
                most.append(len(working))
                time.sleep(0.005)
                working.pop()
        done.append(watch.calm)

    both = [threading.Thread(target=work, args=(crowded(tmp_path),)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(60)
    assert len(done) == 2 and max(most) == 1 and len(most) == 40


def test_one_that_is_alone_asks_nobody_and_one_that_was_stopped_holds_nobody_up(tmp_path, monkeypatch):
    monkeypatch.setattr(neighbours, "MOST", 0.2)
    holder, other = crowded(tmp_path), crowded(tmp_path)
    other.calm = 3
    with holder.turn():
        began = time.monotonic()
        with other.turn():
            assert time.monotonic() - began >= 0.2
        # whoever had to wait is not alone yet
        assert other.calm == 0
        other.turns = tmp_path / "no such folder" / "turns.lock"
        with other.turn():
            pass
        other.turns = holder.turns
        other.alone.set()
        began = time.monotonic()
        with other.turn():
            assert time.monotonic() - began < 0.2
