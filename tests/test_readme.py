"""What the READMEs and docs/ say: in both languages the same commands, all of them commands that exist."""

import ast
import importlib
import re
import shlex
import subprocess

import pytest
import yaml

from bench.backbone_table import NETWORKS
from models.description.find import find_model_yaml, model_yamls
from models.yolo import DetectionModel
from tests.helpers.models import make_weights
from tests.helpers.project import ROOT

ENGLISH, CHINESE = (ROOT / name for name in ("README.md", "README.zh-CN.md"))
TEXTS = [ENGLISH, *sorted(p for p in (ROOT / "docs").glob("*.md") if not p.name.endswith(".zh-CN.md"))]
# of the words for one thing, those that are not taken, and the one that is
ONE_NAME = {
    "检查点": "权重文件",
    "骨干": "主干",
    "图像": "图片",
    "个 epoch": "轮",
    "批大小": "批次大小",
    "您": "你",
    "| 参数 | GFLOPs": "参数量",
}


def chinese_of(english):
    return english.with_suffix(".zh-CN.md")


def text_of(path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path) -> list[tuple[str, str]]:
    """(language, content) of every code block."""
    return re.findall(r"```(\w+)\n(.*?)```", text_of(path), re.S)


def code_of(language: str, content: str) -> str:
    """A code block without its comments, which are in the language of the page; of a diagram the names in it."""
    if language == "text":
        return " ".join(re.findall(r"[\w./-]*\w\.\w+|\w*_\w+", content))
    return re.sub(r"(^|\s)#.*", "", content, flags=re.M)


def comments_of(language: str, content: str) -> list[str]:
    return [] if language == "text" else re.findall(r"(?:^|\s)# ?(.*)", content)


def heading_anchor(heading: str) -> str:
    """What links to a heading name it by."""
    return re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-").lower()


def commands(path) -> list[list[str]]:
    """Every `python x.py …` of the file, in code blocks and in running text."""
    found = re.findall(r"python ((?:models/|data/)?\w+\.py[^`&\n]*)", text_of(path))
    return [shlex.split(line, comments=True) for line in found]


@pytest.mark.parametrize("english", TEXTS, ids=lambda path: path.stem)
def test_both_languages_have_the_same_code_and_figures(english):
    chinese = chinese_of(english)
    code = [
        [(language, code_of(language, content)) for language, content in blocks(path)] for path in (english, chinese)
    ]
    assert code[0] == code[1]
    assert commands(english) == commands(chinese)
    numbers = [re.findall(r"\d[\d,.]*\d", text_of(path)) for path in (english, chinese)]
    assert [n for n in numbers[0] if "," in n or "." in n] == [n for n in numbers[1] if "," in n or "." in n]


@pytest.mark.parametrize("english", TEXTS, ids=lambda path: path.stem)
def test_comments_in_code_are_in_the_language_of_the_page(english):
    for language, content in blocks(chinese_of(english)):
        for comment in comments_of(language, content):
            words = re.sub(r"\{.*?\}|\[.*?\]", "", comment)
            assert re.search("[\u4e00-\u9fff]", comment) or len(re.findall("[A-Za-z]{2,}", words)) < 2, comment
    for language, content in blocks(english):
        assert not re.search("[\u4e00-\u9fff]", content), (language, content)


@pytest.mark.parametrize("english", TEXTS, ids=lambda path: path.stem)
def test_one_thing_has_one_name_in_chinese(english):
    text = re.sub("PIL 图像", "", text_of(chinese_of(english)))
    for word, name in ONE_NAME.items():
        assert word not in text, f"{word}: {name}"


@pytest.mark.parametrize("english", TEXTS, ids=lambda path: path.stem)
def test_every_page_begins_with_a_link_to_the_other_language(english):
    chinese = chinese_of(english)
    for path, other in ((english, chinese), (chinese, english)):
        title, empty, links = text_of(path).split("\n")[:3]
        assert title.startswith("# ") and not empty and f"({other.name})" in links, path


@pytest.mark.parametrize("english", TEXTS, ids=lambda path: path.stem)
def test_links_lead_to_files_and_headings(english):
    for path in (english, chinese_of(english)):
        for target in re.findall(r"\]\(([^)\s]+)\)", text_of(path)):
            file, _, anchor = target.partition("#")
            if "://" in file:
                continue
            page = path.parent / file if file else path
            assert page.exists(), (path.name, target)
            if anchor:
                assert anchor in map(heading_anchor, re.findall("^#+ (.*)", text_of(page), re.M)), (path.name, target)


@pytest.mark.parametrize("english", TEXTS, ids=lambda path: path.stem)
def test_every_command_has_the_flags_it_is_shown_with(english):
    for script, *flags in commands(english):
        importlib.import_module(script.removesuffix(".py").replace("/", ".")).build_parser().parse_args(flags)


def test_there_are_commands_in_the_readme():
    assert len({script for script, *_ in commands(ENGLISH)}) >= 6


def test_ci_runs_the_command_of_the_readme():
    command = re.search(r"<!-- tests -->\n```bash\n(.*?)\n```", ENGLISH.read_text(), re.S).group(1)
    assert "requirements-dev.txt" in command and command.endswith("pytest -n 2")
    script = (ROOT / ".ci" / "run").read_text().replace("exec bash -euo pipefail -c", "echo RUN:")
    script = script.replace("if [ -e .venv ]; then", "if false; then").replace('"$(dirname "$0")/.."', f'"{ROOT}"')
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True).stdout
    assert f"RUN: {command}" in said


@pytest.mark.parametrize("language", ["", ".zh-CN"])
def test_the_page_of_the_house_names_what_there_is(language):
    """Every file and folder exists, and a class or function named beside its file stands in it."""
    text = (ROOT / "docs" / f"architecture{language}.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"(?<![\w./-])(?:(?:utils|models|engine|data|tests|bench)/[\w./-]*|\w+\.py)", text))
    for path in paths - {"options.py", "__init__.py"}:
        assert (ROOT / path).exists(), path
    code = "".join(re.findall(r"```\w+\n(.*?)```", text, re.S))
    beside = re.findall(r"(\w+) {2,}((?:utils|models|engine)/[\w/]+\.py)", code)
    assert len(beside) > 25
    for name, path in beside:
        assert re.search(rf"^ *(def|class) {name}\b", (ROOT / path).read_text(encoding="utf-8"), re.M), (name, path)


@pytest.mark.parametrize("path", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_files_that_are_named_exist(path):
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:models|data|utils)/[\w./-]+)`", text):
        if name != "data/images":
            assert (ROOT / name).exists(), name
    for name in re.findall(r"`(yolov\w[\w.-]*\.yaml)`", text):
        assert find_model_yaml(name)


def test_the_lines_of_python_run(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"<!-- python -->\n```python\n(.*?)```", text_of(ENGLISH), re.S)
    weights = "runs/train/exp/weights/best.pt"
    assert weights in code
    monkeypatch.chdir(ROOT)
    exec(code.replace(weights, str(make_weights(tmp_path / "best.pt", seed=0))), {})
    said = capsys.readouterr().out
    assert "image 1/1" in said and "tensor(" in said


def test_lines_that_train_are_safe_where_processes_are_spawned():
    """A spawned process imports the script anew: what trains has to stand below the question for __main__."""
    for path in [*TEXTS, *map(chinese_of, TEXTS)]:
        for language, content in blocks(path):
            if language == "python" and re.search(r"\b(train|val)\.run\(", content):
                top = [node for node in ast.parse(content).body if not isinstance(node, ast.If)]
                assert not any(".run(" in ast.unparse(node) for node in top), path


def test_what_the_readme_says_of_the_models():
    text = text_of(ENGLISH)
    for page, pattern in (
        (ENGLISH, r"all (\d+) YAMLs.*lists (\d+) with"),
        (CHINESE, r"全部 (\d+) 个 YAML.*其中 (\d+) 个的"),
    ):
        yamls, networks = re.search(pattern, text_of(page), re.S).groups()
        assert (int(yamls), int(networks)) == (len(model_yamls()), len(NETWORKS))
    trap, four = (int(n.replace(",", "")) for n in re.findall(r"(?:has|\() ?(5,\d{3},\d{3})", text))
    for nc, parameters, channels in ((3, trap, 24), (4, four, 16)):
        model = DetectionModel("yolov5s_EfficientNetV2.yaml", nc=nc)
        assert sum(p.numel() for p in model.parameters()) == parameters
        assert model.model[0].conv.out_channels == channels


def test_the_citation_names_the_project():
    citation = yaml.safe_load(text_of(ROOT / "CITATION.cff"))
    assert citation["title"] == text_of(ENGLISH).partition("\n")[0].removeprefix("# ")
    assert citation["authors"] == [{"name": f"The {citation['title']} contributors"}]
    assert {"cff-version", "message", "license"} <= set(citation) and citation["license"] == "Apache-2.0"


def test_pictures_of_the_readme_are_small():
    pictures = list((ROOT / "docs" / "images").glob("*"))
    assert pictures and sum(path.stat().st_size for path in pictures) < 600_000
