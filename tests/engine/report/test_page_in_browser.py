"""The page of a comparison as a reader has it, in headless Chromium: sorting, hovering, language, colours, paper."""

import csv
import re
from dataclasses import replace

import pytest

from engine.comparison.record import DONE, FAILED, RUNNING, TOO_FEW, TRAINING, WAITING, Candidate, Pick, Run
from engine.comparison.tables import write_csv
from engine.report.page import write_page
from tests.helpers.browser import Browser, find_browser
from tests.helpers.comparisons import HOSTILE, example

pytestmark = pytest.mark.skipif(find_browser() is None, reason="there is no Chromium to look at the page with")

NAMES = "[...document.querySelectorAll('#table tbody th')].map((head) => head.textContent)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """comparison.html and comparison.csv of a finished comparison, hostile.html of one with hostile names that goes on."""
    folder = tmp_path_factory.mktemp("study")
    comparison = example(folder)
    write_page(comparison, folder / "comparison.html")
    write_csv(comparison, folder / "comparison.csv")
    hostile = example(folder, names=HOSTILE)
    states = [(DONE, 30), (RUNNING, 12), (WAITING, 0)]
    candidates = [
        replace(
            candidate,
            runs=tuple(
                replace(run, status=status, epochs_done=epochs, curve=run.curve[:epochs])
                for run, (status, epochs) in zip(candidate.runs, states, strict=True)
            ),
        )
        for candidate in hostile.candidates
    ]
    hostile = replace(hostile, title=HOSTILE[0], stage=TRAINING, candidates=tuple(candidates))
    write_page(hostile, folder / "hostile.html")
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser.start(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser, folder):
    """The finished comparison on a wide screen, as one sees it first. Nothing may have been complained of in the end."""
    browser.screen(1600)
    browser.open(folder / "comparison.html")
    yield browser
    browser.run("sessionStorage.clear()")
    assert not browser.complaints


def choose(page: Browser, selector: str, value) -> None:
    """Give a control another value, as its user does."""
    events = "for (const kind of ['input', 'change']) control.dispatchEvent(new Event(kind));"
    page.run(f"{{ const control = document.querySelector('{selector}'); control.value = '{value}'; {events} }}")


def table(folder) -> list[dict]:
    with open(folder / "comparison.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_click_sorts_the_table_and_another_turns_it_round(page, folder):
    by = {
        key: [row["candidate"] for row in sorted(table(folder), key=lambda r: float(r[key]))]
        for key in ("map50_95", "gflops")
    }
    assert page.run(NAMES) == by["map50_95"][::-1]
    page.point_at("#table th[data-key=gflops] button", click=True)
    assert page.run(NAMES) == by["gflops"]
    heads = "Object.fromEntries([...document.querySelectorAll('#table [aria-sort]')].map((h) => [h.dataset.key, h.ariaSort]))"
    sorts = page.run(heads)
    assert sorts.pop("gflops") == "ascending" and set(sorts.values()) == {"none"}
    # by the keyboard, since the focus has stayed where it was
    page.press("Enter")
    assert page.run(NAMES) == by["gflops"][::-1]
    assert page.run(heads)["gflops"] == "descending"


def test_the_table_is_filtered_by_name_and_by_the_front(page, folder):
    page.point_at("#table input[type=search]", click=True)
    page.send("Input.insertText", text="NET")
    assert sorted(page.run(NAMES)) == sorted(row["candidate"] for row in table(folder) if "net" in row["candidate"])
    page.send("Input.insertText", text=" _b0")
    assert page.run(NAMES) == ["efficientnet_b0"]
    assert page.run("document.activeElement.value") == "NET _b0"
    page.run("remember({filter: ''}); render()")
    page.point_at("#table input[type=checkbox]", click=True)
    assert sorted(page.run(NAMES)) == sorted(row["candidate"] for row in table(folder) if row["on_front"] == "True")


def test_figures_on_the_page_are_those_of_the_csv(page, folder):
    page.run("remember({groups: GROUPS}); render()")
    cells = page.run(
        """[...document.querySelectorAll('#table tbody tr, #errors tbody tr')].map((row) => [row.querySelector('th').textContent,
        Object.fromEntries([...row.querySelectorAll('[data-column]')].map((cell) => [cell.dataset.column,
            [...cell.childNodes].filter((n) => n.className !== 'between').map((n) => n.textContent).join('')]))])"""
    )
    found = {}
    for name, row in cells:
        found.setdefault(name, {}).update(row)
    rows = table(folder)
    assert set(found) == {row["candidate"] for row in rows}
    for row in rows:
        shown = found[row["candidate"]]
        assert len(shown) > 30
        for key, text in shown.items():
            digits = len(text.partition(".")[2])
            assert text == (f"{float(row[key]):.{digits}f}" if row[key] else "–"), (row["candidate"], key)
    bounds = page.run("document.querySelector('#table [data-column=map50_95] .between').textContent")
    best = max(rows, key=lambda row: float(row["map50_95"]))
    assert bounds == f"{float(best['map50_95_low']):.4f} – {float(best['map50_95_high']):.4f}"


def test_a_point_tells_its_figures_to_the_pointer_and_to_the_keyboard(page, folder):
    row = table(folder)[0]
    assert page.run("document.getElementById('tip').hidden")
    names = page.run("[...document.querySelectorAll('#chart .mark')].map((mark) => mark.ariaLabel.split(',')[0])")
    assert sorted(names) == sorted(r["candidate"] for r in table(folder))
    page.run(f"document.querySelectorAll('#chart .mark')[{names.index(row['candidate'])}].id = 'best'")
    page.point_at("#best")
    said = page.run("document.getElementById('tip').textContent")
    for figure in (
        row["candidate"],
        f"{float(row['map50_95']):.4f}",
        f"{float(row['pytorch_batch1_end_to_end_ms']):.2f}",
    ):
        assert figure in said
    page.point_at("h1")
    assert page.run("document.getElementById('tip').hidden")
    page.run("document.getElementById('best').focus()")
    assert row["candidate"] in page.run("document.getElementById('tip').textContent")
    page.press("Escape")
    assert page.run("document.getElementById('tip').hidden")


def test_the_front_and_the_axes_follow_what_is_chosen(page):
    first = page.run("document.querySelector('#chart .front').getAttribute('d')")
    choose(page, "#chart label:nth-of-type(2) select", "parameters")
    second = page.run("document.querySelector('#chart .front').getAttribute('d')")
    assert first != second and "Parameters" in page.run("document.querySelector('#chart .chart').textContent")
    # one that is hidden is no longer drawn
    page.point_at("#chart .legend button", click=True)
    assert page.run("document.querySelectorAll('#chart .mark').length") == 7


def test_curves_run_over_epochs_and_over_time(page):
    assert page.run("document.querySelectorAll('#curves .curve').length") == 8 * (3 + 1)
    before = page.run("document.querySelector('#curves .curve').getAttribute('d')")
    page.point_at("#curves [data-key=seconds]", click=True)
    assert page.run("document.querySelector('#curves .curve').getAttribute('d')") != before
    page.point_at("#curves .curve")
    assert "Seed" in page.run("document.getElementById('tip').textContent")


def test_each_candidate_can_be_what_the_others_are_held_against(page):
    choose(page, "#pairs select", "yolov5n")
    said = page.run("[...document.querySelectorAll('#pairs tbody tr')].map((row) => row.innerText)")
    assert len(said) == 7
    better = next(row for row in said if row.startswith("efficientnet_b0"))
    assert "better than yolov5n" in better and re.search(r"\+0\.0\d{3}", better)
    worse = next(row for row in said if row.startswith("mobilenet_v3_small"))
    assert "worse than yolov5n" in worse
    assert any("no difference shown" in row and "9 more seeds" in row for row in said)


def test_the_language_is_the_readers_until_another_is_chosen(page, folder):
    assert page.run("document.documentElement.lang") == "en" and "The pick" in page.run("document.body.innerText")
    page.point_at(".switches [data-key=zh]", click=True)
    text = page.run("document.body.innerText")
    assert page.run("document.documentElement.lang") == "zh-CN" and "选型结论" in text and "The pick" not in text
    # nothing but names, figures and terms is left in English
    words = set(re.findall(r"[A-Z][a-z]{4,}", page.run("document.querySelector('#chart').innerText")))
    assert not words, words
    page.open(folder / "comparison.html")
    assert page.run("document.documentElement.lang") == "zh-CN"
    page.point_at(".switches [data-key=en]", click=True)
    assert page.run("document.documentElement.lang") == "en"


def test_a_chinese_browser_shows_chinese(page, folder):
    page.speak("zh-CN")
    page.open(folder / "comparison.html")
    assert page.run("document.documentElement.lang") == "zh-CN"
    page.speak("en-US")


def test_dark_is_as_the_system_says_until_another_is_chosen(page, folder):
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    assert page.run(ground) == "rgb(255, 255, 255)"
    page.screen(1600, dark=True)
    page.open(folder / "comparison.html")
    assert page.run(ground) != "rgb(255, 255, 255)"
    page.point_at(".switches [data-key=light]", click=True)
    assert page.run(ground) == "rgb(255, 255, 255)"


@pytest.mark.parametrize("width", [1600, 390])
@pytest.mark.parametrize("name", ["comparison.html", "hostile.html"])
def test_it_is_as_wide_as_the_screen(page, folder, name, width):
    page.screen(width)
    page.open(folder / name)
    assert page.run("document.documentElement.scrollWidth") == width


def test_hostile_names_are_shown_and_nothing_more(page, folder):
    page.open(folder / "hostile.html")
    assert page.run("document.title") == HOSTILE[0]
    assert page.run("document.querySelectorAll('img').length") == 0
    assert page.run("document.scripts.length") == 3
    names = page.run(NAMES)
    assert HOSTILE[0] in names and HOSTILE[1] in names and "a\\u2028b\\u202egnp.exe" in names
    runs = page.run("document.querySelector('#runs').innerText")
    assert "12 / 30" in runs and "waits" in runs
    assert "8 of 24" in page.run("document.querySelector('.progress').innerText")
    # it stays where its reader has got to
    page.run("scrollTo(0, 700)")
    page.open(folder / "hostile.html")
    assert page.run("scrollY") == 700


def test_the_policy_forbids_what_is_not_the_pages_own(browser, folder):
    browser.open(folder / "comparison.html")
    script = """(() => { const s = document.createElement('script'); s.textContent = 'window.broken = 1';
        document.body.append(s); return window.broken === undefined; })()"""
    assert browser.run(script)
    assert browser.complaints


def test_a_picture_is_enlarged_and_turned_over_by_the_arrow_keys(page):
    assert page.run("document.querySelectorAll('#pictures .row').length") == 8
    assert page.run("document.querySelectorAll('#pictures .view').length") == 8 * 9
    page.point_at("#pictures .view", click=True)
    assert page.run("document.querySelector('dialog strong').textContent") == "Labels"
    page.press("ArrowRight")
    assert page.run("document.querySelector('dialog strong').textContent") == "yolov5n"
    assert page.run("document.querySelector('dialog image').getBBox().width > 0")
    page.press("Escape")
    # a browser tells that a dialog was closed when it finds the time
    assert page.run("""new Promise((done) => {
        const look = () => document.querySelector('dialog') ? setTimeout(look, 20) : done(true);
        look();
    })""")
    # fewer boxes where more confidence is asked for
    count = "document.querySelectorAll('#pictures .box').length"
    before = page.run(count)
    choose(page, "#pictures input", 0.8)
    assert 8 * 5 < page.run(count) < before


def test_a_command_is_copied_as_it_is(page, folder):
    page.run("navigator.clipboard.writeText = (words) => { window.copied = words; return Promise.resolve(); }")
    page.point_at("#commands .command:nth-of-type(2) button", click=True)
    assert page.run("window.copied").startswith("python train.py --cfg yolov5n.yaml --backbone yolov5n ")
    assert page.run("window.copied").count("\n") == 2


def test_the_table_is_one_to_those_who_hear_it(page):
    heads = page.run("[...document.querySelectorAll('#main table th')].map((head) => head.getAttribute('scope'))")
    assert len(heads) >= 50 and set(heads) == {"col", "row", "colgroup"}
    # whatever can be pressed has a name
    name = "n.ariaLabel || n.textContent.trim() || n.closest('label')?.textContent.trim()"
    unnamed = f"[...document.querySelectorAll('button, select, input')].filter((n) => !({name})).length"
    assert page.run(unnamed) == 0


def test_it_can_be_printed(page, folder, tmp_path):
    page.screen(390)
    page.open(folder / "comparison.html")
    page.print(tmp_path / "page.pdf")
    data = (tmp_path / "page.pdf").read_bytes()
    assert data.startswith(b"%PDF") and 5 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 14
    # A4 across
    box = re.search(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)", data)
    assert [round(float(side)) for side in box.groups()] == [842, 595] or [round(float(s)) for s in box.groups()] == [
        841,
        595,
    ]
    assert page.run("document.querySelector('#chart .chart > svg').getAttribute('viewBox').startsWith('0 0 3')")


def variants(folder) -> dict:
    """Comparisons that lack what others have."""
    whole = example(folder, pictures=0)
    few = example(folder, pictures=0, seeds=1)
    bare = [Candidate(c.name, parameters=c.parameters, latencies=c.latencies[:1]) for c in whole.candidates]
    waits = [Candidate(c.name, runs=tuple(Run(seed) for seed in range(3))) for c in whole.candidates]
    lost = tuple(replace(run, status=FAILED, message="error: no space", curve=()) for run in whole.candidates[0].runs)
    broken = (Candidate("broken", runs=lost, message="no run of it is done"), *whole.candidates[1:])
    many = tuple(replace(c, name=f"{c.name}_{i}") for i in range(5) for c in whole.candidates)
    none = replace(whole, candidates=(), pairs=(), pick=None)
    unnamed = tuple(replace(pair, verdict=TOO_FEW, low=None, high=None, p=None, p_holm=None) for pair in few.pairs)
    return {
        "sizes alone": replace(
            whole, candidates=tuple(bare), pairs=(), pick=Pick(), settings=replace(whole.settings, epochs=0, seeds=())
        ),
        "just begun": replace(none, stage=TRAINING, candidates=tuple(waits)),
        "one seed": replace(few, pairs=unnamed, pick=Pick(open="below three seeds of each no winner is named")),
        "none fits": replace(
            whole, pick=Pick({"max_gflops": 1.0}, left_out={c.name: "more" for c in whole.candidates})
        ),
        "one failed": replace(whole, candidates=broken, pairs=(), pick=Pick(best="yolov5n")),
        "one candidate": replace(whole, candidates=whole.candidates[:1], pairs=(), pick=Pick(best="yolov5n")),
        "many": replace(whole, candidates=many, pairs=(), pick=None),
        "nothing": none,
    }


def test_what_is_not_known_is_left_out(page, tmp_path):
    said = {}
    for name, comparison in variants(tmp_path).items():
        write_page(comparison, tmp_path / "page.html")
        for width in (390, 1600):
            page.screen(width)
            page.open(tmp_path / "page.html")
            assert not page.complaints, name
            assert page.run("document.documentElement.scrollWidth") == width, name
        said[name] = page.run("document.body.innerText")
        assert not re.search(r"\b(null|undefined|NaN|Infinity)\b|\{\w+\}", said[name]), name
    assert "No accuracy was measured" in said["sizes alone"] and "Training curves" not in said["sizes alone"]
    assert "0 of 24 runs are done" in said["just begun"] and "Runs" in said["just begun"]
    assert "Below three seeds" in said["one seed"] and "not judged" in said["one seed"]
    assert "No candidate keeps within these limits" in said["none fits"]
    assert "error: no space" in said["one failed"]
