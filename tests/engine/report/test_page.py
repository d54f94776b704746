"""The page of a comparison, as far as it can be read without a browser: what it holds, what it lets in, how large it is."""

import csv
import json
import re
from base64 import b64decode, b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from engine.comparison.record import DONE, FAILED, RUNNING, TRAINING, WAITING, Candidate, Pick, Run
from engine.comparison.tables import rows, write_csv
from engine.report.content import LEAST_CONFIDENCE, content, seconds_left
from engine.report.figures import columns, written
from engine.report.page import MOST_BYTES, SCRIPTS, TEMPLATE, embedded, write_page
from tests.helpers.comparisons import HOSTILE, example


class Elements(HTMLParser):
    """The elements of a page: (name, attributes, text within)."""

    def __init__(self, text: str):
        super().__init__()
        self.found, self.within = [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append([tag, dict(attributes), ""])
        self.within = True

    def handle_endtag(self, tag):
        self.within = False

    def handle_data(self, data):
        if self.within:
            self.found[-1][2] += data

    def of(self, tag: str) -> list:
        return [element for element in self.found if element[0] == tag]


@pytest.fixture
def page(tmp_path):
    def write(comparison):
        write_page(comparison, tmp_path / "comparison.html")
        return Elements((tmp_path / "comparison.html").read_text(encoding="utf-8"))

    return write


def data_of(page: Elements) -> dict:
    return json.loads(next(text for _, attributes, text in page.of("script") if attributes.get("id") == "content"))


def test_the_page_needs_nothing_but_itself(page, tmp_path):
    found = page(example(tmp_path))
    assert {tag for tag, *_ in found.found} <= {
        *"html head meta title style body noscript p br span header main footer div script".split()
    }
    assert not [a for _, a, _ in found.found if {"src", "href", "style"} & set(a) or any(k.startswith("on") for k in a)]
    policy = next(a["content"] for _, a, _ in found.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy and "http" not in policy
    script = found.of("script")[-1][2]
    for directive, text in (("script-src", script), ("style-src", found.of("style")[0][2])):
        assert f"{directive} 'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" in policy
    # nothing is made markup of, or run
    scripts = "".join((TEMPLATE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|Function\(|fetch\(", scripts)
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", scripts + found.of("style")[0][2]))
    assert addresses == {"http://www.w3.org/2000/svg"}


def test_names_stay_text_whatever_they_hold(page, tmp_path):
    comparison = example(tmp_path, names=HOSTILE)
    comparison = replace(
        comparison,
        title="</title><script>alert(1)</script>",
        data=replace(comparison.data, names=HOSTILE[:3], file="</script>\u2028.yaml"),
        command="python compare.py --name '</script><!--'",
    )
    found = page(comparison)
    assert len(found.of("script")) == 3 and not found.of("img") and len(found.of("title")) == 1
    data = data_of(found)
    assert len(data["candidates"]) == len(HOSTILE)
    assert data["candidates"][0]["name"] == HOSTILE[0]
    assert data["title"] == comparison.title and data["command"] == comparison.command
    # a letter that turns round what follows is written out
    assert data["candidates"][2]["name"] == "a\\u2028b\\u202egnp.exe"
    assert data["classes"][1] == HOSTILE[1]
    text = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert "\u2028" not in text and "{{" not in text.replace("{{script}}", "")


@pytest.mark.parametrize("data", ["</script>", "<!--<script>", "&lt;", "\u2028\u2029", "\ud800", "'\"\\", "\u202e"])
def test_embedded_data_can_be_read_again(data):
    text = embedded({data: data})
    assert json.loads(text) == {data: data}
    assert not re.search("[<>&\u2028\u2029\ud800-\udfff]", text)
    text.encode()


def test_every_figure_is_that_of_the_csv(tmp_path):
    comparison = example(tmp_path)
    write_csv(comparison, tmp_path / "comparison.csv")
    with open(tmp_path / "comparison.csv", newline="", encoding="utf-8") as file:
        table = {row["candidate"]: row for row in csv.DictReader(file)}
    data = content(comparison, tmp_path, 100, 50)
    forms = {column.key: column.form for column in columns(comparison, rows(comparison))}
    assert len(forms) > 50 and set(forms) <= set(next(iter(table.values())))
    for candidate in data["candidates"]:
        cells = table[candidate["name"]]
        assert candidate["cells"]["map50_95"][0] == f"{float(cells['map50_95']):.4f}"
        for key, (text, value, _) in candidate["cells"].items():
            if cells[key] == "":
                assert text == "" and value is None
            else:
                number = int(cells[key]) if forms[key] == "d" else float(cells[key])
                assert text == format(number, forms[key]) and value == number
    # what the table leaves out is no figure of a candidate, or stands in another section
    others = {key for key in next(iter(table.values())) if key not in forms}
    assert {key for key in others if not key.startswith("behind_best")} == {"candidate", "seeds", "on_front", "failed"}


def test_columns_that_nobody_has_are_left_out(tmp_path):
    comparison = example(tmp_path, pictures=0)
    bare = replace(
        comparison, candidates=tuple(Candidate(c.name, parameters=5) for c in comparison.candidates), pairs=()
    )
    assert [column.key for column in columns(bare, rows(bare))] == ["parameters"]
    assert written(columns(bare, rows(bare))[0], rows(bare)[0]) == "5"


def test_small_figures_keep_their_digits(tmp_path):
    comparison = example(tmp_path, pictures=0)
    small = replace(comparison, candidates=tuple(replace(c, gflops=c.gflops / 100) for c in comparison.candidates))
    for given, text in ((comparison, "4.20"), (small, "0.0420")):
        row = next(row for row in rows(given) if row["candidate"] == "yolov5n")
        assert written(next(c for c in columns(given, rows(given)) if c.key == "gflops"), row) == text


def test_a_pair_reads_the_same_from_both_sides(tmp_path):
    comparison = example(tmp_path, pictures=0)
    pairs = content(comparison, tmp_path, 100, 50)["pairs"]
    assert len(pairs) == 8 * 7
    for pair in comparison.pairs:
        names = [c.name for c in comparison.candidates]
        there, back = (
            next(p for p in pairs if (p["first"], p["second"]) == places)
            for places in (
                (names.index(pair.first), names.index(pair.second)),
                (names.index(pair.second), names.index(pair.first)),
            )
        )
        assert there["cells"]["difference"][0] == f"{pair.difference:+.4f}"
        assert back["cells"]["low"] == [f"{-pair.high:+.4f}", -pair.high]
        assert {there["verdict"], back["verdict"]} in ({"first", "second"}, {"no_difference"})


def test_pictures_are_stored_once_and_small(tmp_path):
    comparison = example(tmp_path)
    data = content(comparison, tmp_path, 120, 60)
    assert len(data["pictures"]) == 8
    for picture, given in zip(data["pictures"], comparison.pictures, strict=True):
        image = cv2.imdecode(np.frombuffer(b64decode(picture["jpeg"]), np.uint8), cv2.IMREAD_COLOR)
        assert max(image.shape) == 120
        assert (picture["width"], picture["height"]) == (given.width, given.height)
        for candidate, boxes in zip(comparison.candidates, picture["boxes"], strict=True):
            sure = [box for box in given.boxes[candidate.name] if box[4] >= LEAST_CONFIDENCE]
            assert len(boxes) == len(sure) and boxes == sorted(boxes, key=lambda box: -box[4])


def test_a_picture_that_is_gone_is_left_out(page, tmp_path):
    comparison = example(tmp_path)
    (tmp_path / comparison.pictures[0].file).unlink()
    (tmp_path / comparison.pictures[1].file).write_bytes(b"no picture")
    assert len(data_of(page(comparison))["pictures"]) == 6


def test_the_page_keeps_within_its_size(page, tmp_path):
    """With eight photographs of many details, 24 candidates and curves of a thousand epochs."""
    comparison = example(tmp_path)
    rng = np.random.default_rng(0)
    for picture in comparison.pictures:
        cv2.imwrite(str(tmp_path / picture.file), rng.integers(0, 255, (720, 960, 3), np.uint8))
    curve = tuple(p for run in comparison.candidates[0].runs for p in run.curve) * 11
    many = [
        replace(c, name=f"{c.name}{i}", runs=tuple(replace(run, curve=curve) for run in c.runs))
        for i in range(3)
        for c in comparison.candidates
    ]
    found = page(replace(comparison, candidates=tuple(many), pairs=()))
    assert (tmp_path / "comparison.html").stat().st_size < MOST_BYTES
    assert len(data_of(found)["pictures"]) == 8


def test_the_page_loads_itself_anew_while_the_comparison_goes_on(page, tmp_path):
    def refreshes(comparison):
        return [a for _, a, _ in page(comparison).of("meta") if a.get("http-equiv") == "refresh"]

    finished = example(tmp_path, pictures=0)
    assert not refreshes(finished)
    assert refreshes(replace(finished, stage=TRAINING)) == [{"http-equiv": "refresh", "content": "10"}]
    assert refreshes(replace(finished, stage="measuring"))


def test_time_left_goes_by_each_candidates_own_pace(tmp_path):
    """Of 10 epochs: a has 4 left at 2 s, b 10 at 5 s, c's are taken for the mean of both; two run at once."""
    a = Candidate("a", runs=(Run(0, status=DONE, epochs_done=10, seconds=20.0), Run(1, status=RUNNING, epochs_done=6)))
    b = Candidate("b", runs=(Run(0, status=DONE, epochs_done=10, seconds=50.0), Run(1, status=RUNNING, epochs_done=0)))
    c = Candidate("c", runs=(Run(0, status=WAITING), Run(1, status=FAILED, epochs_done=1)))
    comparison = example(tmp_path, pictures=0, epochs=10)
    comparison = replace(comparison, stage=TRAINING, candidates=(a, b, c), pairs=(), pick=None)
    assert seconds_left(comparison) == pytest.approx((4 * 2 + 10 * 5 + 10 * 3.5) / 2)
    progress = content(comparison, tmp_path, 100, 50)["progress"]
    assert (progress["done"], progress["total"]) == (3, 6)
    assert progress["share"] == pytest.approx((1 + 0.6 + 1 + 0 + 0 + 1) / 6, abs=1e-4)
    assert seconds_left(replace(comparison, candidates=(c,))) is None


def test_a_pick_names_its_flags(tmp_path):
    comparison = example(tmp_path, pictures=0)
    pick = content(comparison, tmp_path, 100, 50)["pick"]
    names = [c.name for c in comparison.candidates]
    assert pick["constraints"] == [["--max-latency", "40"]]
    assert names[pick["best"]] == comparison.pick.best and pick["left_out"] == [
        [7, comparison.pick.left_out["resnet18"], ["end_to_end", "61.20", "ms", "40"]]
    ]
    none = replace(comparison, pick=Pick({"max_params": 3e6}))
    assert content(none, tmp_path, 100, 50)["pick"]["best"] is None
    assert content(none, tmp_path, 100, 50)["pick"]["constraints"] == [["--max-params", "3000000"]]


def test_every_text_is_there_in_both_languages():
    texts = json.loads((TEMPLATE / "texts.json").read_text(encoding="utf-8"))
    for key, text in texts.items():
        assert set(text) == {"en", "zh"} and all(text.values()), key
        assert set(re.findall(r"\{\w+\}", text["en"])) == set(re.findall(r"\{\w+\}", text["zh"])), key
        assert not re.search("[\u4e00-\u9fff]", text["en"]), key
    scripts = "".join((TEMPLATE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    for key in re.findall(r'\b(?:text|pieces)\("([\w.]+\w)"', scripts):
        assert key in texts, key
    # each is used, by its name or by the beginning of it
    starts = set(re.findall(r'\b(?:text|pieces)\("([\w.]+\.)" \+', scripts))
    named = set(re.findall(r'"([\w.]+)"', scripts))
    assert not {key for key in texts if key not in named and not any(key.startswith(start) for start in starts)}
