"""The processes of a study, on a train.py that takes no time: what is run, stopped, left over, failed."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from engine.comparison.record import DONE, FAILED
from engine.comparison.runs import trainings
from engine.comparison.runs.locks import only_one
from engine.comparison.runs.trainings import Trainings
from engine.training.signals import Stopped
from tests.helpers.project import ROOT
from tests.helpers.training import calls, jobs_of
from utils.errors import UserError

posix = pytest.mark.skipif(os.name != "posix", reason="signals and locks are those of POSIX systems")


def test_each_run_is_a_call_of_train_py_and_those_that_are_done_are_passed_over(stand_in):
    jobs, told = jobs_of(stand_in, 2, epochs=1), []
    Trainings(jobs, ["cpu"], 1, lambda: told.append([job.status for job in jobs])).run()
    assert [job.status for job in jobs] == [DONE, DONE] and len(told) >= 4
    project = stand_in / "a"
    (said,) = calls(jobs[1])
    assert said == f"None --epochs 1 --seed 1 --project {project} --name seed1 --device cpu --workers 1"
    (point,) = jobs[0].curve
    assert (point.epoch, point.map50, point.map50_95) == (1, 0.25, 0.125) and 0 <= point.seconds <= jobs[
        0
    ].seconds + 0.1
    again = jobs_of(stand_in, 3, epochs=1)
    Trainings(again, ["cpu"], 1, lambda: None).run()
    assert [len(calls(job)) for job in again] == [1, 1, 1] and again[0].curve[0].seconds is None


def test_several_at_once_share_the_cores_and_each_device_has_its_own(stand_in, monkeypatch):
    monkeypatch.setattr(trainings, "usable_cores", lambda: 8)
    jobs = jobs_of(stand_in, 2, epochs=9)

    def free_both() -> None:
        """Only once both have begun."""
        while not all((job.folder / "began.txt").exists() for job in jobs):
            time.sleep(0.01)
        for job in jobs:
            (job.folder / "go.txt").touch()

    thread = threading.Thread(target=free_both, daemon=True)
    thread.start()
    Trainings(jobs, ["0", "1"], 1, lambda: None).run()
    assert all(calls(job)[0].startswith("4 ") for job in jobs)
    assert [calls(job)[0].split("--device ")[1][0] for job in jobs] == ["0", "1"]


def test_a_run_that_fails_is_told_and_the_others_go_on(stand_in, capsys):
    jobs = [*jobs_of(stand_in, 1, multi_scale=True), jobs_of(stand_in, 2, epochs=1)[1]]
    Trainings(jobs, ["cpu"], 0, lambda: None).run()
    assert [job.status for job in jobs] == [FAILED, DONE]
    assert jobs[0].message == "the card\\x1b is full" and "a, seed 0: failed: the card" in capsys.readouterr().out


def test_one_without_a_word_is_told_by_its_status(stand_in):
    (stand_in / "train.py").write_text("import sys; sys.exit(3)")
    (job,) = jobs_of(stand_in, 1)
    Trainings([job], ["cpu"], 0, lambda: None).run()
    assert (job.status, job.message) == (FAILED, "ended with status 3")
    (stand_in / "train.py").write_text("import os; os.kill(os.getpid(), 9)")
    Trainings([job], ["cpu"], 0, lambda: None).run()
    assert job.message == ("ended by signal 9 (was there enough memory?)" if os.name == "posix" else job.message)


def test_a_table_that_is_no_table_is_one_line(stand_in):
    (job,) = jobs_of(stand_in, 1)
    job.folder.mkdir(parents=True)
    (job.folder / "results.csv").write_text("epoch\nx\n")
    with pytest.raises(UserError, match="results.csv: not the table of a run"):
        job.follow()


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_trainings(number, stand_in):
    jobs = jobs_of(stand_in, 2, epochs=9)

    def send() -> None:
        while not (jobs[0].folder / "began.txt").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()
    with pytest.raises(Stopped) as end:
        Trainings(jobs, ["cpu"], 0, lambda: None).run()
    assert end.value.code == 128 + number
    assert (jobs[0].folder / "stopped.txt").read_text() == str(int(number)) and not jobs[1].folder.exists()


@posix
def test_what_a_killed_study_has_left_running_is_asked_to_stop(stand_in, tmp_path, capsys):
    """Started by a process that is killed, as compare.py may be; two trainings would write to one folder."""
    (job,) = jobs_of(stand_in, 1, epochs=9)
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "import os, subprocess\n"
        "from engine.comparison.runs.locks import note_holder, run_lock\n"
        f"log = Path({str(job.log)!r}); log.parent.mkdir(parents=True)\n"
        "lock = run_lock(log.with_suffix('.lock'))\n"
        f"words = [sys.executable, {str(stand_in / 'train.py')!r}, *{job.words('cpu', 0)!r}]\n"
        "note_holder(lock, subprocess.Popen(words, pass_fds=(lock.fileno(),)).pid)\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    deadline = time.time() + 60
    while not (job.folder / "began.txt").exists() and time.time() < deadline:
        time.sleep(0.01)
    (job.folder / "weights" / "last.pt").write_bytes((stand_in / "done.pt").read_bytes())
    Trainings([job], ["cpu"], 0, lambda: None)._start(0, job, "1 of 1")
    assert (job.folder / "stopped.txt").read_text() == "15" and job.status == DONE
    assert "a training is left of an earlier start" in capsys.readouterr().out


@posix
def test_two_studies_in_one_folder_are_refused(tmp_path):
    with only_one(tmp_path), pytest.raises(UserError, match="another compare.py is at work"), only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass
