"""The tables of the READMEs are those of docs/figures/, and bench/readme_figures.py makes them of whatever is there."""

import importlib
import json
import re
import shutil

import cv2
import numpy as np
import pytest

from bench.readme_figures import (
    COMMANDS,
    FIGURES,
    MODELS,
    PAGES,
    VAL,
    models_table,
    read,
    stock_table,
    timed_commands,
)
from models.flops import count_gflops, count_parameters
from models.yolo import DetectionModel
from utils.data.config import read_data_yaml


def cells(table: str) -> list[list[str]]:
    """The rows of a table in Markdown, without its head."""
    rows = [re.split(r" *\| *", line)[1:-1] for line in table.splitlines() if line.startswith("|")]
    return rows[2:]


def in_page(language: str, mark: str) -> str:
    text = PAGES[language].read_text(encoding="utf-8")
    return re.search(rf"<!-- figures: {mark} -->\n(.*?)\n<!-- /figures: {mark} -->", text, re.S).group(1)


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(FIGURES, tmp_path / "figures")


def put(folder, name: str, figures: dict) -> None:
    (folder / name).write_text(json.dumps(figures))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_pages_hold_what_the_files_say(language):
    assert in_page(language, "stock") == stock_table(language)
    assert in_page(language, "models") == models_table(language)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_figure_of_the_tables_is_in_the_files(language):
    models, stock, val, speed = (read(f"{name}.json") for name in ("models", "stock", "val", "speed"))
    for name, _, strides, parameters, gflops, *_ in cells(in_page(language, "models")):
        figures = models[name.strip("`")]
        assert json.loads(f"[{strides}]") == figures["strides"]
        assert int(parameters.replace(",", "")) == figures["parameters"]
        assert float(gflops) == pytest.approx(figures["gflops"], abs=0.051)
    sides = []
    for measured, size in (([stock], stock["models"]["yolov5n.yaml"]), ([val, speed], models["yolov5n.yaml"])):
        sides.append({f"{size['parameters']:,}", f"{size['gflops']:.1f}"})
        for file in measured:
            sides[-1] |= {f"{figure:.3f}" for figure in file.get("val", {}).get(VAL, ())}
            sides[-1] |= {f"{seconds:.{digits}f}" for seconds in file.get("seconds", {}).values() for digits in (1, 2)}
    for _, theirs, ours, _ in cells(in_page(language, "stock")):
        assert theirs in sides[0] and ours in sides[1]


def test_the_models_have_these_figures():
    figures = read("models.json")
    assert list(figures) == list(MODELS)
    for name in ("yolov5n.yaml", "yolov5n_C3_UIB.yaml", "yolov5n_ShuffleNetV2.yaml"):
        model = DetectionModel(name)
        assert count_parameters(model)[0] == figures[name]["parameters"]
        assert count_gflops(model) == pytest.approx(figures[name]["gflops"], rel=1e-3)
        assert model.stride.int().tolist() == figures[name]["strides"]


def test_a_row_is_there_once_both_sides_have_its_figure(folder):
    (folder / "speed.json").unlink(missing_ok=True)
    before = stock_table("en", folder)
    assert "train.py" not in before
    seconds = {"train_3_epochs_whole_command_s": 30.0, "train_help_s": 0.05, "of no command": 1.0}
    speed = {"date": "2030-01-02", "machine": "AMD EPYC, 2 cores", "commit": "1234567", "seconds": seconds}
    put(folder, "speed.json", speed)
    added = cells(stock_table("en", folder))[len(cells(before)) :]
    assert [row[1:] for row in added] == [["60.1", "30.0", "2.00 × as fast"], ["7.6", "0.05", "152 × as fast"]]
    assert "Here: commit 1234567; measured 2030-01-02, AMD EPYC, 2 cores." in stock_table("en", folder)
    assert "本项目：提交 1234567；2030-01-02 测于 AMD EPYC, 2 cores。" in stock_table("zh", folder)
    put(folder, "speed.json", speed | {key: read("stock.json")[key] for key in ("date", "machine")})
    assert stock_table("en", folder).count("measured") == 1 and "measured in turns" in stock_table("en", folder)


def test_times_of_another_make_of_processor_are_left_out(folder):
    speed = read("speed.json") | {
        "machine": "Intel(R) Xeon(R) Processor, 2 of 2 cores",
        "seconds": {"train_help_s": 0.05},
    }
    put(folder, "speed.json", speed)
    assert "--help" not in stock_table("en", folder) and "Seconds" not in stock_table("en", folder)
    assert "parameters" in stock_table("en", folder)


def test_validation_figures_that_differ_are_not_called_equal(folder):
    put(folder, "val.json", read("val.json") | {"val": {VAL: [0.554, 0.48, 0.526, 0.341]}})
    rows = {row[0].split(" of ")[0]: row[1:] for row in cells(stock_table("en", folder))}
    assert rows["mAP50"] == ["0.526", "0.526", "equal"]
    assert rows["mAP50-95"] == ["0.343", "0.341", ""]


def test_a_column_is_there_once_its_file_is(folder):
    for path in [*folder.glob("accuracy_*"), *folder.glob("latency.json")]:
        path.unlink()
    assert {len(row) for row in cells(models_table("en", folder))} == {5}
    latency = {
        "date": "2030-01-02",
        "machine": "a machine",
        "ms": {"yolov5n.yaml": 41.3},
        "of_stock": {"yolov5n.yaml": 0.4},
    }
    put(folder, "latency.json", latency)
    recipe = {"en": "60 epochs", "zh": "60 轮"}
    put(folder, "accuracy_bccd.json", {"data": "BCCD", "recipe": recipe, "map50_95": {"yolov5n.yaml": 0.42}})
    for language in ("en", "zh"):
        table = models_table(language, folder)
        rows = {row[0]: row[5:] for row in cells(table)}
        assert rows["`yolov5n.yaml`"] == ["41", "0.40", "0.420"]
        assert rows["`yolov5s.yaml`"] == ["–", "–", "–"]
        assert f"BCCD: {recipe[language]}" in table and "2030-01-02" in table


def test_the_commands_to_time_can_be_run(tmp_path):
    """Their flags exist, and what they read has been put where they look for it."""
    for place in ("coco/images", "bccd/images/train", "bccd/images/val"):
        (tmp_path / place).mkdir(parents=True)
        for i in range(3):
            cv2.imwrite(str(tmp_path / place / f"{i}.jpg"), np.full((48, 64, 3), 80 * i, np.uint8))
    (tmp_path / "work").mkdir()
    lines = timed_commands(tmp_path / "work", tmp_path / "best.pt", tmp_path / "coco", tmp_path / "bccd")
    assert set(lines) == set(COMMANDS) == set(read("stock.json")["seconds"])
    parsed = {}
    for name, line in lines.items():
        script, *flags = line.split()
        if flags != ["--help"]:
            parser = importlib.import_module(script.removesuffix(".py")).build_parser()
            parsed[name] = parser.parse_args(flags)
    train, val = (parsed[name] for name in ("train_3_epochs_whole_command_s", "val_128_images_640_b16_s"))
    sets = [read_data_yaml(options.data) for options in (train, val)]
    assert [data.nc for data in sets] == [3, 80]
    assert sets[0].splits["train"] != sets[0].splits["val"] and sets[1].splits["train"] == sets[1].splits["val"]
    video = cv2.VideoCapture(parsed["detect_video_300_frames_640x480_s"].source)
    sizes = (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    assert [video.get(size) for size in sizes] == [300, 640, 480]
