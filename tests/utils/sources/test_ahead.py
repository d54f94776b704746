"""Reading ahead and writing behind: order, overlap, limits and errors."""

import threading
from pathlib import Path

import numpy as np
import pytest

from utils.sources import ahead
from utils.sources.ahead import Behind, look_abreast, read_ahead
from utils.sources.frame import Frame

# far more than any of these steps takes, on whatever machine
PATIENCE = 60


def frames(count, begun, side=4):
    """So many frames; each sets its event in ``begun`` when its making begins."""
    for i in range(count):
        begun[i].set()
        yield Frame(Path(f"{i}.png"), np.full((side, side, 3), i, np.uint8))


def test_the_next_frame_is_made_while_one_is_in_use():
    begun = [threading.Event() for _ in range(5)]
    seen = []
    for frame in read_ahead(frames(5, begun)):
        number = int(frame.image[0, 0, 0])
        seen.append(number)
        if number < 4:
            assert begun[number + 1].wait(PATIENCE)
        assert not any(event.is_set() for event in begun[number + 2 :])
    assert seen == [0, 1, 2, 3, 4]


def test_nothing_is_made_beside_a_large_frame(monkeypatch):
    monkeypatch.setattr(ahead, "LARGE", 10)
    begun = [threading.Event() for _ in range(3)]
    for frame in read_ahead(frames(3, begun)):
        assert not begun[int(frame.image[0, 0, 0]) + 1 :] or not begun[int(frame.image[0, 0, 0]) + 1].wait(0.05)


def test_what_fails_while_reading_is_raised_in_its_place():
    def broken():
        yield Frame(Path("a"), np.zeros((1, 1, 3), np.uint8))
        raise OSError("the disk is gone")

    seen = []
    with pytest.raises(OSError, match="the disk is gone"):
        for frame in read_ahead(broken()):
            seen.append(frame.path.name)
    assert seen == ["a"]


def test_a_reader_that_is_left_is_closed():
    closed = []

    def endless():
        try:
            while True:
                yield Frame(Path("a"), np.zeros((1, 1, 3), np.uint8))
        finally:
            closed.append(True)

    for _ in read_ahead(endless()):
        break
    assert closed == [True]


def clip(count, name="clip.mp4", side=4, **more):
    """The frames of a video, as an iterator that can be closed."""
    yield from (Frame(Path(name), np.full((side, side, 3), i, np.uint8), i, **more) for i in range(1, count + 1))


def test_frames_of_a_video_are_looked_at_at_once_and_given_in_order():
    # the second frame is done only once the third is being looked at
    third = threading.Event()
    threads = {}

    def look(frame):
        threads[frame.number] = threading.current_thread()
        if frame.number == 3:
            third.set()
        assert frame.number != 2 or third.wait(PATIENCE)
        return frame.number * 10

    assert [(f.number, seen) for f, seen in look_abreast(clip(6), look, look, 2)] == [(n, 10 * n) for n in range(1, 7)]
    # the first one shows the model the size of all others, alone
    assert threads[1] is threading.current_thread()
    assert threading.current_thread() not in [threads[n] for n in range(2, 7)]


@pytest.mark.parametrize("kind", ["pictures", "live", "large", "one at a time"])
def test_all_else_is_looked_at_alone(kind, monkeypatch):
    monkeypatch.setattr(ahead, "LARGE", 10 if kind == "large" else 1000)
    given = frames(5, [threading.Event() for _ in range(5)]) if kind == "pictures" else clip(5, live=kind == "live")
    at_once = 1 if kind == "one at a time" else 3
    own = threading.current_thread()

    def alone(frame):
        assert threading.current_thread() is own
        return int(frame.image[0, 0, 0])

    first = 0 if kind == "pictures" else 1
    assert [seen for _, seen in look_abreast(given, alone, None, at_once)] == list(range(first, 5 + first))


def test_a_video_that_follows_another_begins_alone_and_behind_it():
    def both():
        yield from clip(4, "a.mp4")
        yield from clip(3, "b.mp4")

    found = list(look_abreast(both(), lambda frame: "alone", lambda frame: "together", 3))
    assert [frame.path.name for frame, _ in found] == ["a.mp4"] * 4 + ["b.mp4"] * 3
    assert [seen for _, seen in found] == ["alone", *["together"] * 3, "alone", *["together"] * 2]


def test_an_error_comes_in_the_place_of_its_frame_and_ends_what_is_left():
    def look(frame):
        if frame.number == 3:
            raise OSError("damaged")
        return frame.number

    seen = []
    with pytest.raises(OSError, match="damaged"):
        seen.extend(number for _, number in look_abreast(clip(100), look, look, 2))
    assert seen == [1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("looker")]


def test_calls_are_made_in_order_one_behind():
    done, may_go = [], threading.Event()

    def slow(number):
        assert number or may_go.wait(PATIENCE)
        done.append(number)
        return number

    with Behind() as behind:
        behind.do(slow, 0)
        # that the first one waits did not hold us up
        assert done == []
        may_go.set()
        behind.do(slow, 1)
        assert done[0] == 0
        behind.do(slow, 2)
        assert behind.wait() == 2 and behind.wait() is None
        behind.do(slow, 3)
    assert done == [0, 1, 2, 3]


def test_what_fails_behind_is_raised_at_the_next_step_or_at_the_end():
    def fail():
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"), Behind() as behind:
        behind.do(fail)
        behind.do(print)
    with pytest.raises(OSError, match="full"), Behind() as behind:
        behind.do(fail)
    # an error of our own is not replaced by it
    with pytest.raises(ValueError, match="ours"), Behind() as behind:
        behind.do(fail)
        raise ValueError("ours")
