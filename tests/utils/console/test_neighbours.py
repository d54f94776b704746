"""Computing beside other programs: when way is made for them, and that turns are taken."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from utils.console import neighbours
from utils.console.neighbours import LOOK, QUIET, Look, Neighbours, look
from utils.paths import ROOT

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="only Linux says how long threads wait"
)


def team() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "neighbours-team"]


def write(system: Path, everything: int, processes: dict[str, int], threads: dict[str, int]) -> None:
    """What Linux tells: ticks that all have computed, those of processes, of which the first is this one, ns of waiting."""
    system.mkdir(exist_ok=True)
    (system / "stat").write_text(f"cpu {everything} 0 0 12345 678 0 0 9 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    own, *others = processes
    for name, ticks in processes.items():
        (system / name).mkdir(exist_ok=True)
        (system / name / "stat").write_text(f"7 (a) b ( c) R {' '.join('1' * 10)} {ticks} 0 0 0 20\n")
    for name, ns in threads.items():
        thread = system / own / "task" / name
        thread.mkdir(parents=True, exist_ok=True)
        (thread / "schedstat").write_text(f"900 {ns} 3\n")
        (thread / "children").write_text(" ".join(others) if name == "1" else "")


def test_the_system_tells_who_computes_and_who_waits(tmp_path):
    write(tmp_path, 1000, {"self": 300, "8": 50}, {"1": 10**9, "2": 5})
    (tmp_path / "self" / "task" / "3").mkdir()
    ticks = os.sysconf("SC_CLK_TCK")
    assert look(tmp_path) == Look({"1": 10**9, "2": 5}, 1000 / ticks, 350 / ticks)
    here = look()
    assert here.waited and 0 < here.own < here.all


def test_while_others_want_the_cores_a_thread_that_does_nothing_is_there(tmp_path):
    watch = Neighbours()
    watch.last = Look({"1": 10**9, "2": 0}, 100.0, 50.0)

    def after(waited: float, others: float, **more: int) -> None:
        """A look later: each of the two threads has waited for so many seconds, others have computed for so many."""
        last = watch.last
        found = {name: last.waited[name] + round(waited * 1e9) for name in ("1", "2")}
        watch.judge(Look(found | more, last.all + 0.5 + others, last.own + 0.5), LOOK)

    after(0.01, 0.02)
    assert watch.alone.is_set() and not team()
    # they wait for each other, or for processes of this one
    after(0.3, 0.02)
    assert watch.alone.is_set() and not team()
    # others compute, and are in nobody's way
    after(0.01, 0.5)
    assert watch.alone.is_set() and not team()
    after(0.26, 0.5)
    assert not watch.alone.is_set() and len(team()) == 1
    # a thread that is new has not waited since the last look; one is enough, however long it lasts
    after(0.01, 0.5, new=10**12)
    after(0.4, 0.5)
    assert not watch.alone.is_set() and len(team()) == 1
    for _ in range(QUIET):
        assert not watch.alone.is_set()
        after(0.01, 0.5)
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
    watch = Neighbours(folder / "turns.lock")
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


def test_a_system_that_does_not_tell_who_computes_ends_nothing(monkeypatch):
    def denied() -> Look:
        raise PermissionError(13, "Permission denied", "/proc/stat")

    monkeypatch.setattr(neighbours, "_NEIGHBOURS", [])
    monkeypatch.setattr(neighbours, "usable_cores", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(neighbours, "LOOK", 0.0)
    watch = Neighbours()
    monkeypatch.setattr(neighbours, "look", denied)
    # neither at the beginning nor later
    neighbours.make_way(torch.device("cpu"))
    assert neighbours._NEIGHBOURS == []
    watch.run()
