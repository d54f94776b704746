"""Records and Silent can stand for each other."""

import inspect
import os
import threading
import time
from pathlib import Path

import pytest

from engine.training import records
from engine.training.records import Records, Silent, open_board
from tests.helpers.training import rows, trainer_of


def public_methods(cls: type) -> dict[str, list[str]]:
    """Name → names of the parameters."""
    methods = inspect.getmembers(cls, inspect.isfunction)
    return {name: list(inspect.signature(m).parameters) for name, m in methods if not name.startswith("_")}


def test_both_answer_the_same_calls():
    assert public_methods(Records) == public_methods(Silent)


def test_silent_does_nothing_and_knows_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    silent = Silent()
    for name, parameters in public_methods(Silent).items():
        assert getattr(silent, name)(*parameters[1:]) is None
    assert not list(tmp_path.iterdir())
    with pytest.raises(AttributeError):
        silent.recorders()


@pytest.mark.parametrize("refusals", [4, 99])
def test_an_open_spreadsheet_costs_no_epoch(refusals, tiny_set, tmp_path, monkeypatch, capsys):
    """A stand-in refuses to replace results.csv, as Windows does: at the first epoch, or for the whole of the run."""
    refused, replace = [], os.replace

    def refuse(source, target):
        if Path(target).name == "results.csv" and len(refused) < refusals:
            refused.append(target)
            raise PermissionError(13, "Access is denied", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    for drawing in ("plot_evaluation", "plot_labels", "plot_images"):
        monkeypatch.setattr(records, drawing, lambda *_: None)
    folder = trainer_of(tiny_set, tmp_path, epochs=2, noval=True, noplots=False).run()
    said = capsys.readouterr().out
    assert "2 epochs completed" in said and (folder / "weights" / "best.pt").exists()
    # at the end once more
    assert said.count("results.csv can't be replaced now") == (1 if refusals == 4 else 3)
    assert (folder / "results.csv").exists() == (folder / "results.png").exists() == (refusals == 4)
    if refusals == 4:
        assert [row["epoch"] for row in rows(folder)] == ["0", "1"]


def test_what_tensorboard_cannot_write_is_told_by_the_run_alone(tmp_path, monkeypatch):
    """Not by a traceback of its thread besides, as on a disk that can't be written any more."""
    pytest.importorskip("tensorboard")
    told = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    board = open_board(tmp_path)

    class ReadOnly:
        def write(self, data):
            raise OSError(30, "Read-only file system")

        flush = close = lambda self: None

    board.file_writer.event_writer._async_writer._worker._record_writer._writer = ReadOnly()
    with pytest.raises(OSError, match="Read-only"):
        board.add_scalar("loss", 1.0, 0)
        board.flush()

    def fails():
        raise ValueError("of another thread")

    thread = threading.Thread(target=fails)
    thread.start()
    thread.join()
    assert [args.exc_type for args in told] == [ValueError]
