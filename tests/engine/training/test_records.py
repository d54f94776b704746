"""Records and Silent can stand for each other."""

import inspect

import pytest

from engine.training.records import Records, Silent


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
