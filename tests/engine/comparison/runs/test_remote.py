"""Trainings on the machines of a Ray cluster, which is started here: the same as without, and begun again where one is lost."""

import os
import signal
import sys
import threading
import time

import pytest

import compare
from engine.comparison.record import DONE
from engine.comparison.runs.remote import Cluster
from engine.comparison.runs.trainings import Trainings
from tests.helpers.training import calls, jobs_of
from utils.checkpoint import read_checkpoint
from utils.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ray():
    """Ray's own noise and its reports to the internet are off; its sockets need short paths."""
    return pytest.importorskip("ray")


def test_two_at_once_train_what_one_after_the_other_does(ray, tiny_set, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    given = {"cfg": ["yolov5n.yaml"], "data": str(tiny_set), "imgsz": 64, "epochs": 1, "seeds": 2, "batch_size": 4}
    given |= {"workers": 0, "device": "cpu", "runs": 1, "hyp": "hyp.no-augmentation.yaml", "project": str(tmp_path)}
    alone = compare.run(**given, name="alone")
    together = compare.run(**given, name="together", ray="local", jobs=2)
    for a, b in zip(alone.candidates[0].runs, together.candidates[0].runs, strict=True):
        assert (a.status, a.map50, a.map50_95) == (b.status, b.map50, b.map50_95) == (DONE, a.map50, a.map50_95)
        models = [read_checkpoint(tmp_path / name / a.weights).model for name in ("alone", "together")]
        assert all((x == y).all() for x, y in zip(*(model.values() for model in models), strict=True))


def test_a_training_whose_machine_is_lost_begins_again(ray, stand_in, capsys):
    (job,) = jobs_of(stand_in, 1, epochs=9)
    began = job.folder / "began.txt"

    def lose_it() -> None:
        while not began.exists():
            time.sleep(0.02)
        # the process of Ray that holds the training, as if its machine had gone
        (process,) = (t.process for t in running.active.values())
        began.unlink()
        os.kill(ray.get(process.runner.number.remote()), signal.SIGKILL)
        while not began.exists():
            time.sleep(0.02)
        (job.folder / "go.txt").touch()

    with Cluster("local", 1) as cluster:
        running = Trainings([job], ["cpu"], 0, lambda: None, cluster)
        thread = threading.Thread(target=lose_it, daemon=True)
        thread.start()
        running.run()
        thread.join(30)
    assert job.status == DONE and len(calls(job)) == 2
    assert "a, seed 0: its machine was lost; it goes on on another" in capsys.readouterr().out
    assert not (job.folder / "stopped.txt").exists()


def test_a_cluster_that_is_not_there_is_one_line(ray, stand_in):
    with Cluster("127.0.0.1:1", 1) as cluster, pytest.raises(UserError, match="--ray 127.0.0.1:1: no cluster answers"):
        Trainings(jobs_of(stand_in, 1), ["cpu"], 0, lambda: None, cluster).run()


def test_without_ray_it_says_how_to_install_it(stand_in, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with Cluster("local", 1) as cluster, pytest.raises(UserError, match="--ray needs a package .*: pip install ray"):
        Trainings(jobs_of(stand_in, 1), ["cpu"], 0, lambda: None, cluster).run()
