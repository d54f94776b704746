"""Pickles as plain data: what is plain comes back, what calls code is refused, what is large, deep or endless is named."""

import collections
import datetime
import io
import pickle
import struct
from pathlib import Path

import pytest

from utils.saved.pickled import MOST_STEPS, CallsCode, Name, NotPlain, PickledObject, read_pickle

PLAIN = [
    *(None, True, False, 0, -1, 255, 2**40, -(2**100), 1.5, "", "类别", b"\0\xff", [], (), {}, set(), [[1], (2, "a")]),
    *((1, 2, 3, 4), {"a": [1, 2], 3: None}, {1, "b"}, collections.OrderedDict(a=1, b=(2,)), bytearray(b"ab")),
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", PLAIN, ids=range(len(PLAIN)))
def test_plain_data_comes_back(value, protocol):
    if isinstance(value, bytes | bytearray) and protocol < (3 if isinstance(value, bytes) else 5):
        pytest.skip("earlier protocols write bytes as a call")
    assert read_pickle(io.BytesIO(pickle.dumps(value, protocol))) == value


def test_what_is_named_many_times_is_one_thing():
    part = ["a"]
    found = read_pickle(io.BytesIO(pickle.dumps([part, part], 2)))
    assert found[0] is found[1]


@pytest.mark.parametrize("protocol", [2, 4])
def test_objects_are_records_that_do_nothing(protocol):
    found = read_pickle(
        io.BytesIO(pickle.dumps({"when": datetime.date(2020, 1, 2), "where": Path("x"), "of": Path}, protocol))
    )
    assert isinstance(found["when"], PickledObject) and found["when"].pickled_name == "datetime.date"
    assert found["where"].pickled_name == "pathlib.PosixPath" and found["where"].args == ("x",)
    assert isinstance(found["of"], Name) and found["of"].text == "pathlib.Path"
    assert repr(found["where"]) == "<object pathlib.PosixPath>"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


@pytest.mark.parametrize(
    "steps",
    [
        b"cos\nsystem\n" + text("touch x") + b"\x85R.",
        b"cbuiltins\nexec\n" + text("x") + b"\x85R.",
        b"c__builtin__\neval\n" + text("x") + b"\x85\x81.",
        text("posix") + text("system") + b"\x93" + text("x") + b"\x85R.",
        # the texts of a name from the memo, with others between
        text("posix") + b"q\x00" + text("torch") + text("system") + b"q\x010" + b"0h\x00h\x01\x93.",
        b"csubprocess\nPopen\n)\x81.",
    ],
)
def test_code_is_refused(steps):
    with pytest.raises(CallsCode):
        read_pickle(io.BytesIO(steps))


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (b"}" * (MOST_STEPS + 1) + b".", "more than"),
        (b")" + b"\x85" * 1000 + b"q\x00}h\x00K\x01s.", "a key that is"),
        (b"}](K\x01ee.", "do not fit"),
        (b"}]K\x01s.", "a key that is"),
        (b"\x8b" + struct.pack("<i", 1000) + b"\x7f" * 1000 + b".", "a number of 7999 bits"),
        (b"L" + b"9" * 4000 + b"L\n.", "a number of"),
        (b"L" + b"9" * 9000 + b"L\n.", "holds no pickle"),
        (b"\x8d" + struct.pack("<Q", 2**62) + b"x.", "holds no pickle"),
        (b"X\x03\x00\x00\x00\xed\xa0\x80.", "no valid Unicode"),
        (b"}\x8a\x08" + struct.pack("<q", 2**61 - 1) + b"Ns.", "a key that is"),
        (b"K\x01K\x02\x85R.", "calls a int"),
        (b"ctorch\nload\n}b.", "gives a Name a state"),
        (b"\x82\x01.", "EXT1"),
        (text("x") + b"Q.", "takes something other"),
        (b"h\x00.", "do not fit"),
        (b"", "holds no pickle"),
        (b"N", "holds no pickle"),
        (b"\xff\xfe", "holds no pickle"),
    ],
)
def test_what_is_not_read_is_named(steps, words):
    with pytest.raises(NotPlain, match=words):
        read_pickle(io.BytesIO(steps))


def test_a_place_in_the_memo_takes_no_memory_for_those_before_it():
    assert read_pickle(io.BytesIO(b"}r\xff\xff\xff\xff0j\xff\xff\xff\xff.")) == {}
