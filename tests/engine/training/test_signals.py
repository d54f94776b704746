"""Ctrl-C and SIGTERM: noted once, acted upon at once the second time, and not disturbed after that."""

import os
import signal

import pytest

from engine.training.signals import Stopped, StopSignal, stopping_at_once

BOTH = [signal.SIGINT, signal.SIGTERM]


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", BOTH)
def test_the_first_is_noted_and_the_second_ends_the_process(number, capfd):
    before = [signal.getsignal(n) for n in BOTH]
    with pytest.raises(Stopped) as end, StopSignal() as stop:
        send(number)
        assert stop.received == number
        send(number)
    assert end.value.code == 128 + number
    assert [signal.getsignal(n) for n in BOTH] == before
    assert capfd.readouterr().out.count("stopping after this batch") == 1


def test_a_second_one_changes_nothing_where_torchrun_passes_it_on():
    with StopSignal(patient=True) as stop:
        send(signal.SIGINT)
        send(signal.SIGTERM)
    assert stop.received == signal.SIGTERM


@pytest.mark.parametrize("number", BOTH)
def test_what_can_be_done_again_is_left_at_once_and_undisturbed(number, capsys):
    before = [signal.getsignal(n) for n in BOTH]
    cleaned = []
    with pytest.raises(Stopped) as end, stopping_at_once(lambda: "go on"):
        try:
            send(number)
        finally:
            send(signal.SIGTERM)
            send(signal.SIGINT)
            cleaned.append(True)
    assert end.value.code == 128 + number and cleaned
    assert capsys.readouterr().out == "\nstopped; go on\n"
    assert [signal.getsignal(n) for n in BOTH] == before


def test_the_words_are_said_once_after_a_stop_within(capsys):
    with pytest.raises(Stopped), stopping_at_once(lambda: "go on"), StopSignal():
        send(signal.SIGTERM)
        send(signal.SIGTERM)
    assert capsys.readouterr().out.count("go on") == 1
