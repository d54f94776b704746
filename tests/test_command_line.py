"""The command line of every command: frozen here, declared once in the command's options, checked by what they say."""

import importlib
import multiprocessing
import re
import runpy
import shlex
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import get_args

import pytest

from engine.comparison.options import CompareOptions
from engine.detection.options import DetectOptions
from engine.evaluation.options import ValOptions
from engine.export.options import ExportOptions
from engine.studies.options import BenchmarkOptions
from engine.training.options import TrainOptions
from models.yolo import ModelOptions
from tests.helpers.project import ROOT, command_here
from utils.cli import DEFAULT_WORKERS, Options, flag
from utils.errors import UserError
from utils.layouts.options import ConvertOptions

# What users, their scripts and other people's programs rely on: every flag with its default; `=?v` may stand alone, for v.
FLAGS = {
    "train": """
        --albumentations=None=? --amp=auto --backbone-lr=1.0 --backbone-weights= --backbone= --batch-size=16 --cache==?ram --cfg=
        --compile=False --cos-lr=False --data=data/shapes.yaml --deterministic=False --device= --drop-path=None
        --epochs=None --evolve=0=?300 --exist-ok=False --freeze=[0] --hyp=data/hyps/hyp.scratch-low.yaml --image-weights=False
        --img/--img-size/--imgsz=640 --label-smoothing=0.0 --multi-scale=False --name=exp --noautoanchor=False
        --noplots=False --nosave=False --noval=False --optimizer=SGD --patience=100 --plugins=[] --progressive=0=?4
        --project=runs/train --quad=False --recipe=stock --rect=False --resume-evolve/--resume_evolve=False=?True
        --resume=False=?True --save-minutes=0 --save-period=0 --seed=0 --single-cls=False --size=None --sync-bn=False
        --teacher=[] --weights= --workers=8
    """,
    "val": """
        --against=None --areas=False --augment=False --batch-size=32 --bootstrap=0=?1000 --compile=False --conf-thres=0.001
        --data=data/shapes.yaml --device= --dnn=False --errors=False --exist-ok=False --half=False
        --img/--img-size/--imgsz=None --iou-thres=0.6 --max-det=300 --name=exp --plugins=[] --project=runs/val
        --runtime=torch --save-conf=False --save-csv=False --save-hybrid=False --save-json=False --save-tex=False --save-txt=False
        --single-cls=False --task=val --trust=False --verbose=False --weights=None --workers=8
    """,
    "detect": """
        --agnostic-nms=False --augment=False --classes=None --conf-thres=0.25 --device= --dnn=False --exist-ok=False
        --explain-layer=None --explain==?layercam --half=False --hide-conf=False --hide-labels=False
        --img/--img-size/--imgsz=[640] --iou-thres=0.45 --line-thickness=None --max-det=1000 --name=exp --nosave=False
        --plugins=[] --project=runs/detect --runtime=torch --save-conf=False --save-crop=False --save-csv=False --save-json=False
        --save-txt=False --source=data/images --trust=False --vid-stride=1 --view-img=False --visualize=False
        --weights=None
    """,
    "export": """
        --backbone= --batch-size=1 --cfg= --conf-thres=0.25 --data=None --device=cpu --dynamic=False --half=False
        --img/--img-size/--imgsz=[640] --include=['torchscript','onnx'] --int8=False --iou-thres=0.45
        --multi-label=False --nms=False --opset=17 --plugins=[] --simplify=False --weights=None
    """,
    "benchmarks": """
        --batch-size=1 --data=data/shapes.yaml --device=cpu --exist-ok=False --half=False --img/--img-size/--imgsz=640
        --include=['pytorch','torchscript','onnx','onnx-dnn','openvino','openvino-int8','engine','coreml','tflite','ncnn']
        --name=exp --plugins=[] --project=runs/benchmarks --runs=50 --weights=None
    """,
    "compare": """
        --backbone-weights= --backbone=[] --batch-size=16 --cfg=[] --data=data/shapes.yaml --device= --epochs=100
        --exist-ok=False --hyp=data/hyps/hyp.scratch-low.yaml --img/--img-size/--imgsz=640 --jobs=1 --max-gflops=None
        --max-latency=None --max-params=None --metric=map50_95 --name=exp --plugins=[] --project=runs/compare --ray=
        --runs=50 --runtimes=['pytorch'] --seeds=3 --size=None --study= --trust=False --watch=False --weights=[] --workers=8
    """,
    "data.convert": """
        --drop-difficult=False --groups==?name --images=None --link=False --names=None --one-based=False --seed=0
        --shares=[0.8,0.1,0.1] --suffix= dest= layout= source=[]
    """,
    "models.yolo": """
        --backbone= --batch-size=1 --cfg= --device= --erf==?erf.png --img/--img-size/--imgsz=640 --line-profile=False --plugins=[]
        --profile=False --size=None --test=False
    """,
}
COMMANDS = {
    "train": TrainOptions,
    "val": ValOptions,
    "detect": DetectOptions,
    "export": ExportOptions,
    "benchmarks": BenchmarkOptions,
    "compare": CompareOptions,
    "data.convert": ConvertOptions,
    "models.yolo": ModelOptions,
}
RANGES = [
    (options, name, declared)
    for options in COMMANDS.values()
    for name, declared, _ in options.flags()
    if declared.at_least is not None or declared.above is not None
]
# (command, flag of YOLOv5's that it doesn't have)
ABSENT = [(name, absent) for name, options in COMMANDS.items() for absent in options.ABSENT]
# of every command: (options, name, type) of each flag
EVERY = [(options, name, hint) for options in COMMANDS.values() for name, _, hint in options.flags()]


def written(action) -> str:
    """A flag and its default as FLAGS has them."""
    default = str(action.default).replace(f"{ROOT}/", "").replace(" ", "")
    alone = f"=?{action.const}" if action.nargs == "?" else ""
    return f"{'/'.join(sorted(action.option_strings)) or action.dest}={default}{alone}"


@pytest.mark.parametrize("name", FLAGS)
def test_every_command_has_the_flags_and_defaults_it_had(name):
    actions = importlib.import_module(name).build_parser()._actions
    flags = FLAGS[name].replace("--workers=8", f"--workers={DEFAULT_WORKERS}")
    assert sorted(written(a) for a in actions if a.dest != "help") == sorted(flags.split())


@pytest.mark.parametrize(("method", "workers"), [("fork", 8), ("spawn", 4), ("forkserver", 4)])
def test_processes_that_are_not_forked_are_fewer(method, workers, monkeypatch):
    """A stand-in for the system, which is asked when the flags are declared."""
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: [method, "other"])
    assert runpy.run_path(str(ROOT / "utils" / "cli.py"))["DEFAULT_WORKERS"] == workers


@pytest.mark.parametrize("name", COMMANDS)
def test_keywords_and_command_line_give_the_same_options(name):
    parser = importlib.import_module(name).build_parser()
    words = ["voc", "a", "b"] if name == "data.convert" else []
    given = {"layout": "voc", "source": ["a"], "dest": "b"} if words else {}
    assert COMMANDS[name].of(vars(parser.parse_args(words))) == COMMANDS[name].of(given)


@pytest.mark.parametrize("options", COMMANDS.values(), ids=COMMANDS)
def test_options_are_never_changed(options):
    with pytest.raises(FrozenInstanceError):
        options().__setattr__(fields(options)[0].name, 1)


@pytest.mark.parametrize(("options", "name", "declared"), RANGES, ids=lambda v: v if isinstance(v, str) else "")
def test_ranges_hold_for_keywords_too(options, name, declared):
    low = declared.above if declared.at_least is None else declared.at_least
    for wrong in (low - 3, declared.at_most + 1):
        given = [wrong] if isinstance(declared.default, list) or name == "classes" else wrong
        with pytest.raises(UserError) as error:
            options.of({name: given})
        assert str(error.value).startswith(f"--{name.replace('_', '-')} {wrong}: must ")
        with pytest.raises(UserError):
            replace(options(), **{name: given})


@pytest.mark.parametrize("options", COMMANDS.values(), ids=COMMANDS)
def test_every_number_has_a_range(options):
    """But those of which a table elsewhere says which there are."""
    numbers = {name: declared for name, declared, hint in options.flags() if {int, float} & {hint, *kinds(hint)}}
    bare = [name for name, declared in numbers.items() if declared.at_least is None and declared.above is None]
    assert bare == (["opset"] if options is ExportOptions else [])
    assert not [name for name, declared in numbers.items() if declared.at_most is None and name != "opset"]


def kinds(hint) -> list:
    """The types within a type: of a list, of a union."""
    return [kind for part in get_args(hint) for kind in (part, *kinds(part))]


@pytest.mark.parametrize(("options", "name", "hint"), EVERY, ids=lambda v: v if isinstance(v, str) else "")
def test_keywords_of_another_type_are_one_line(options, name, hint):
    possible = {hint, *kinds(hint)}
    wrong = [{"a": 1}, [None], b"bytes", 1j]
    wrong += [] if bool in possible else [True]
    wrong += [] if NoneType in possible else [None]
    wrong += [] if str in possible else ["5"]
    wrong += [] if {int, float} & possible else [5]
    wrong += [5.5] if float not in possible else []
    for value in wrong:
        with pytest.raises(UserError, match=": must be "):
            options.of({name: value})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\0b", "holds a NUL character"),
        ("caf\udce9.yaml", "is not UTF-8 text"),
        ("a/" * 2048, "longer than the 4095 bytes"),
        ("b" * 256, "more than the 255 bytes"),
        ("字" * 86 + "/a.yaml", "more than the 255 bytes"),
    ],
)
@pytest.mark.parametrize("name", ["data", "weights", "cfg", "hyp", "project", "name", "device", "resume", "plugins"])
def test_texts_that_no_system_takes_are_one_line(name, text, words):
    with pytest.raises(UserError, match=words) as error:
        TrainOptions.of({name: [text] if name == "plugins" else text})
    assert str(error.value).startswith(f"--{name} ") and len(str(error.value)) < 350


@pytest.mark.parametrize(("name", "absent"), ABSENT, ids=str)
def test_flags_of_yolov5_that_are_not_here_say_what_to_use(name, absent):
    parser = importlib.import_module(name).build_parser()
    reason = COMMANDS[name].ABSENT[absent]
    for words in ([f"--{absent}"], [f"--{absent.replace('-', '_')}", "5"], [f"--{absent}=5", "--name", "x"]):
        said = words[0].partition("=")[0]
        with pytest.raises(UserError, match=re.escape(f"{said}: {reason}")):
            parser.parse_args(words)
    with pytest.raises(UserError, match=re.escape(f"{absent.replace('-', '_')}: {reason}")):
        COMMANDS[name].of({absent.replace("-", "_"): None})


def test_flags_that_others_say_to_use_are_there():
    """In what is said of flags that are not: those of its own command, but for those that it names with another's."""
    others = {"--weights", "--nproc_per_node", "--agnostic-nms"}
    for name, absent in ABSENT:
        known = {
            word for action in importlib.import_module(name).build_parser()._actions for word in action.option_strings
        }
        assert f"--{absent}" not in known
        assert {word.rstrip(",") for word in re.findall(r"--[\w-]+", COMMANDS[name].ABSENT[absent])} <= known | others


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("train.py", ["--local_rank=0", "--data", "a.yaml"], "--local_rank: .*torchrun --nproc_per_node 2 train.py"),
        ("train.py", ["--bbox_interval", "5"], "--bbox_interval: nothing is reported to Weights & Biases"),
        ("train.py", ["--upload_dataset"], "--upload_dataset: nothing is reported"),
        ("export.py", ["--train"], "--train: an exported file is for inference"),
        ("detect.py", ["--data", "coco.yaml"], "--data: the names of the classes are those of the checkpoint"),
    ],
)
def test_they_are_one_line_of_the_command(command, words, said):
    result = command_here(command, *words)
    assert result.returncode == 2 and re.fullmatch(f"error: {said}.*\n", result.stderr)


def test_a_long_address_is_no_path():
    url = f"https://example.org/a.jpg?signature={'0' * 400}"
    assert DetectOptions.of({"source": url}).source == url


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (TrainOptions, "data"),
        (TrainOptions, "hyp"),
        (TrainOptions, "project"),
        (TrainOptions, "name"),
        (TrainOptions, "resume"),
        (TrainOptions, "resume_evolve"),
        (ValOptions, "data"),
        (DetectOptions, "source"),
        (ExportOptions, "weights"),
        (ExportOptions, "data"),
        (ConvertOptions, "images"),
    ],
)
def test_an_empty_text_is_no_file(options, name):
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')}: is empty"):
        options.of({name: "", **({"layout": "voc"} if options is ConvertOptions else {})})


@pytest.mark.parametrize("name", ["..", "../a", "a/../../b", "/tmp/a", ".", "./."])
def test_a_run_lies_in_its_project(name):
    with pytest.raises(UserError, match=f"--name {re.escape(str(Path(name)))}: must lie in the folder"):
        TrainOptions.of({"name": name})


def test_minus_one_is_stocks_word_for_no_period():
    assert TrainOptions.of({"save_period": -1}).save_period == -1
    with pytest.raises(UserError, match="--save-period -2: must be -1 or more"):
        TrainOptions.of({"save_period": -2})


@pytest.mark.parametrize("command", ["train.py", "val.py", "detect.py"])
def test_words_that_are_no_flags_are_one_short_line(command):
    for words in (
        ["--nonsense"],
        ["@file"],
        ["--imgsz", "9" * 4000],
        ["--imgsz", "a\x1b[31m\nb" * 900],
        ["--im", "1", "x"],
    ):
        result = command_here(command, *words)
        (line,) = [line for line in result.stderr.splitlines() if "error:" in line]
        assert result.returncode == 2 and len(line) < 2100 and line.isprintable()


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("--batch_size", "did you mean --batch-size?"),
        ("--imgsizes=3", "did you mean --img-size?"),
        ("--nonsense", "--help lists the flags"),
        ("stray", "--help lists the flags"),
    ],
)
def test_the_nearest_flag_is_offered(word, hint, capsys):
    with pytest.raises(SystemExit) as end:
        TrainOptions.parser("").parse_args([word, "4"])
    usage, error = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and usage.endswith(" [flags]")
    assert f"error: unrecognized arguments: {word} 4; {hint}" in error


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["save_minutes", "backbone_lr", "label_smoothing", "drop_path"])
def test_numbers_are_finite(name, wrong):
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} {wrong}: must be a finite number"):
        TrainOptions.of({name: wrong})


def test_one_value_may_stand_alone_where_several_may_be_given(tmp_path):
    """As programs for YOLOv5 call it: detect.run(weights="yolov5s.pt", imgsz=(480, 640))."""
    options = DetectOptions.of({"weights": "a.pt", "source": "x.jpg", "imgsz": (480, 640), "classes": 0})
    assert (options.weights, options.imgsz, options.classes) == (["a.pt"], [480, 640], [0])
    assert DetectOptions.of({"weights": tmp_path / "a.pt", "imgsz": 320, "classes": None}).imgsz == [320]


def test_choices_hold_for_keywords_too():
    with pytest.raises(UserError, match="--optimizer Lion: no such choice; there are SGD Adam AdamW"):
        TrainOptions.of({"optimizer": "Lion"})


def test_a_program_may_give_the_index_of_a_device_as_a_number():
    assert TrainOptions.of({"device": 0}).device == 0


def test_a_batch_size_of_minus_one_is_the_one_exception():
    assert TrainOptions.of({"batch_size": -1}).batch_size == -1


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("train", {}),
        ("train", {"data": "my set/a.yaml", "freeze": [0, 1, "backbone"], "cos_lr": True, "batch_size": -1}),
        ("train", {"cache": "ram", "evolve": 300, "resume": True, "albumentations": "", "seed": 3, "drop_path": 0.5}),
        ("val", {"weights": ["a.pt", "b.pt"], "imgsz": 96, "plugins": ["x.py"]}),
        ("detect", {"imgsz": [64, 96], "source": "0", "device": "cpu"}),
    ],
)
def test_options_become_the_words_that_stand_for_them(name, given):
    options = COMMANDS[name].of(given)
    parser = importlib.import_module(name).build_parser()
    assert COMMANDS[name].of(vars(parser.parse_args(options.as_words()))) == options
    assert len(options.as_words()) <= 12 and options.as_words("name", "exist_ok") == []


@pytest.mark.parametrize("columns", [80, 60])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_the_terminal_and_is_grouped_by_topic(name, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    said = importlib.import_module(name).build_parser().format_help()
    assert max(map(len, said.splitlines())) <= columns
    assert set(re.findall(r"^(\w+):$", said, re.M)) - {"options"} == {f.topic for _, f, _ in COMMANDS[name].flags()}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_help_are_commands(name):
    """With their comments behind #, as a shell reads them."""
    parser = importlib.import_module(name).build_parser()
    script = f"{name.replace('.', '/')}.py"
    examples = re.findall(r"^(?:python|torchrun .*?) (\S+\.py.*)$", parser.description, re.M)
    assert len(examples) >= 2
    for example in examples:
        named, *words = shlex.split(example, comments=True)
        assert named == script and words
        COMMANDS[name].of(vars(parser.parse_args(words)))


def test_lists_are_not_shared():
    assert TrainOptions().freeze == [0] and TrainOptions().freeze is not TrainOptions().freeze


def test_what_another_release_has_saved_is_taken_as_far_as_it_is_known():
    options = TrainOptions(epochs=3).with_saved({"epochs": 7, "imgsz": 96, "warp": 9}, "last.pt", imgsz=128)
    assert (options.epochs, options.imgsz) == (7, 128)


@pytest.mark.parametrize(
    "saved",
    [{"epochs": "7"}, {"epochs": -7}, {"imgsz": None}, {"freeze": "all"}, {"name": ".."}, {"optimizer": ["SGD"]}],
)
def test_what_was_saved_wrong_is_one_line_that_names_the_file(saved):
    with pytest.raises(UserError, match=f"^last.pt: holds the settings of a run.* --{next(iter(saved))} .*: must "):
        TrainOptions().with_saved(saved, "last.pt")


def test_a_flag_is_one_declaration(capsys):
    @dataclass(frozen=True)
    class Toy(Options):
        toy_rate: float = flag(0.5, "of toys (default: %(default)s)", "learning", at_least=0, at_most=1)
        quiet: bool = flag(False, "say nothing", "output")

    options = Toy.of(vars(Toy.parser("toys").parse_args(["--toy-rate", "0.25", "--quiet"])))
    assert options == Toy(0.25, True)
    with pytest.raises(UserError, match="--toy-rate 2.0: must lie between 0 and 1"):
        Toy.of(vars(Toy.parser("toys").parse_args(["--toy-rate", "2"])))
    with pytest.raises(SystemExit):
        Toy.parser("toys").parse_args(["--help"])
    said = capsys.readouterr().out
    assert "learning:\n  --toy-rate X  of toys (default: 0.5)" in said
    assert said.index("learning:") < said.index("output:")
