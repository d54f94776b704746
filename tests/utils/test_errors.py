"""What a message shows of what was read."""

from utils.errors import UserError, one_line, shown


def test_a_message_is_short_and_controls_no_terminal():
    assert shown("best.pt") == "best.pt"
    assert shown("\x1b[2J\x00\n\udc80") == "\\x1b[2J\\x00\\n\\udc80"
    assert len(shown("x" * 10_000)) == 200 and shown("x" * 10_000).endswith("…")
    assert len(one_line(UserError("y" * 10_000))) == 2000
    assert one_line(UserError("two\nlines \x07")) == "two lines \\x07"


def test_objects_are_shown_however_deep_and_large():
    deep, wide = [], dict.fromkeys(range(1000), "z" * 1000)
    for _ in range(100_000):
        deep = [deep]
    assert len(shown(deep)) <= 200 and len(shown(wide)) <= 200
    itself = []
    itself.append(itself)
    assert shown(itself).startswith("[[")
    assert shown(10**5000) == "a huge int"
