"""docs/from-a-blog: what it says of imports and rows is so, and both languages say the same."""

import re

import pytest

from models.yolo import BLOCKS
from tests.helpers.project import ROOT

PAGES = [(ROOT / "docs" / f"from-a-blog{tongue}.md").read_text(encoding="utf-8") for tongue in ("", ".zh-CN")]


def imports(page: str) -> list[str]:
    return re.findall(r"`(from [a-z_.]+ import [\w, ]+)`", page)


@pytest.mark.parametrize("line", [line for line in imports(PAGES[0]) if "models.x" not in line])
def test_the_imports_of_the_map_work(line):
    exec(line, {})


def test_both_languages_have_the_same_imports():
    assert len(imports(PAGES[0])) > 10 and imports(PAGES[0]) == imports(PAGES[1])


def test_blocks_that_are_said_to_be_built_in_are():
    said = re.search(r"((?:`\w+`(?:, | and )?)+) and others are built in", PAGES[0])[1]
    assert set(re.findall(r"`(\w+)`", said)) <= BLOCKS.keys()
