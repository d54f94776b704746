"""Entries of saved data, asked for by what they have to be."""

import pytest
import torch

from utils.errors import UserError
from utils.saved.schema import Entries, Unfit, misfits, reading

NAN = float("nan")


@pytest.mark.parametrize(
    ("ask", "right", "wrong"),
    [
        (lambda e: e.whole("a"), [0, 7], [-1, True, 1.0, "1", None, 2**70]),
        (lambda e: e.whole("a", least=-1), [-1], [-2]),
        (lambda e: e.number("a", least=0), [0, 0.5], [-0.1, NAN, float("inf"), True, "1"]),
        (lambda e: e.number("a", finite=False), [-1.5, float("inf")], [False, [1]]),
        (lambda e: e.text("a"), ["", "x"], [1, b"x", "x" * 5000]),
        (lambda e: e.mapping("a"), [{}, {"x": 1}], [[], {1: 2}, None]),
        (lambda e: e.rows("a"), [[], [1]], [(), {}, None]),
        (
            lambda e: e.tensor("a", (2,)),
            [torch.ones(2)],
            [torch.ones(3), torch.ones(2).long(), torch.tensor([1, NAN]), [1, 2]],
        ),
        (lambda e: e.tensors("a"), [{"x": torch.ones(1)}], [{}, {"x": 1}, {1: torch.ones(1)}, torch.ones(2), None]),
    ],
)
def test_what_fits_and_what_does_not(ask, right, wrong):
    for value in right:
        assert ask(Entries({"a": value})) is value
    for value in wrong:
        with pytest.raises(Unfit, match="a "):
            ask(Entries({"a": value}))
    with pytest.raises(Unfit, match="a is missing"):
        ask(Entries({}))


def test_names_of_classes():
    for found in (["x", 7], {0: "x", 1: "7"}, {1: "7", 0: "x"}, ("x", "7")):
        assert Entries({"names": found}).class_names("names") == {0: "x", 1: "7"}
    many = dict.fromkeys(range(200_000), "x")
    for found in ([], {1: "x"}, {"0": "x"}, [None], [["x"]], ["x" * 5000], "xy", None, many):
        with pytest.raises(Unfit, match="class"):
            Entries({"names": found}).class_names("names")


def test_the_file_is_named_in_one_short_line():
    with pytest.raises(UserError) as caught, reading("last.pt"):
        Entries({"a": torch.ones(1000, 1000)}, "of").whole("a")
    assert str(caught.value).startswith("last.pt: of.a is a tensor of 1000×1000, not a whole number")
    with pytest.raises(UserError, match="a is missing") as caught, reading("last.pt"):
        Entries({}).whole("a")
    assert len(str(caught.value)) < 200


def test_misfits():
    wanted = {"a": torch.ones(2), "b": torch.tensor(0), "c": torch.ones(1)}
    assert misfits({"a": torch.ones(2).half(), "b": torch.tensor(3), "c": torch.zeros(1)}, wanted) == []
    given = {"a": torch.ones(3), "b": torch.tensor(0.0), "d": torch.ones(1), "c": torch.tensor([NAN])}
    assert misfits(given, wanted) == ["a", "b", "c", "d"]
    assert misfits({"a": torch.ones(2) * 1j, "b": torch.tensor(0)}, wanted) == ["a", "c"]
