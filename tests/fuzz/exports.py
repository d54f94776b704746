"""Exported files: bytes, metadata, graphs and archives of every format, and programs that pass for detectors."""

import contextlib
import json
import os
import random
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.arena import CANARY, Case

MODEL = """
nc: 2
depth_multiple: 1.0
width_multiple: 1.0
anchors: [[10, 13, 16, 30, 33, 23]]
backbone: [[-1, 1, Conv, [8, 3, 2]], [-1, 1, Conv, [8, 3, 2]], [-1, 1, Conv, [8, 3, 2]]]
head: [[-1, 1, C3, [8]], [[3], 1, Detect, [nc, anchors]]]
"""
# name of the sound file → format and settings of its export
SOUND = {
    "plain.torchscript": ("torchscript", {}),
    "plain.onnx": ("onnx", {}),
    "dynamic.onnx": ("onnx", {"dynamic": True}),
    "nms.onnx": ("onnx", {"nms": True, "max_det": 20}),
    "plain_openvino_model": ("openvino", {}),
    "nms_openvino_model": ("openvino", {"nms": True, "max_det": 20}),
    "plain_ncnn_model": ("ncnn", {}),
}
# what numbers and texts of metadata and graphs become
NUMBERS = (0, 1, 2, -1, -7, 3, 31, 33, 1024, 65536, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -1.0, 1e-45, 3e38, -3e38, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    "",
    "a",
    "\x1b[2J\x07",
    "é" * 300,
    "a" * 100_000,
    "../../" + CANARY,
    "\0",
    "{0: 1}",
    "images",
    "output0",
    "None",
)
DEEP = ("[" * 20_000, "-" * 100_000 + "1", "{0:" * 500, "(" * 150 + "1" + ")" * 150, "1+" * 20_000 + "1", "9" * 5000)
VALUES = (
    *(
        "None",
        "True",
        "[]",
        "{}",
        "[[]]",
        "nan",
        "inf",
        "-1",
        "0",
        "32.5",
        "1e999",
        "[0, 0]",
        "[32]",
        "[32, 64]",
        "{{}: 0}",
    ),
    *(
        "[32, -32]",
        "[1e9, 1e9]",
        "[1000000, 1000000]",
        "'detect'",
        "segment",
        "{0: 'a'}",
        "{1: 'a', 2: 'b'}",
        "['a', 'b', 'c']",
    ),
    *("{0: ['a'], 1: 'b'}", "{'x': 'a', 'y': 'b'}", "{0: 'a', 0.5: 'b'}", "{0: '\\x1b[31m', 1: 'b'}", "range(10**9)"),
    *("['a'] * 10**9", "__import__('os').system('touch canary')", str(10**9), str(10**30), "[8192, 8192]", "999999"),
)
KEYS = ("names", "stride", "imgsz", "batch", "dynamic", "nms", "task", "other")


def prepare(sound: Path) -> None:
    """A tiny detector in every format whose packages are there, a list of their digests, a picture and a set of it."""
    import cv2
    import numpy as np
    import torch

    from engine.export.exporter import export_one
    from engine.export.settings import Settings
    from models.yolo import DetectionModel

    os.environ["XDG_CACHE_HOME"] = str(sound / "cache")
    (sound / "model.yaml").write_text(MODEL)
    torch.manual_seed(0)
    model = DetectionModel(str(sound / "model.yaml")).eval()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        for name, (kind, settings) in SOUND.items():
            stem = name.partition("." if "." in name else "_")[0]
            export_one(kind, model, sound / f"{stem}.pt", Settings(imgsz=(32, 32), **settings))
    for kind in ("images", "labels"):
        (sound / "set" / kind).mkdir(parents=True)
    cv2.imwrite(
        str(sound / "set" / "images" / "a.png"), np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8)
    )
    (sound / "set" / "labels" / "a.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (sound / "set" / "data.yaml").write_text("path: .\ntrain: images\nval: images\nnames: [a, b]\n")
    for file in (_hostile_script(True), _hostile_script(False)):
        torch.jit.save(file, str(sound / f"hostile-{file.original_name}.torchscript"))


def _hostile_script(at_once: bool):
    """A program that makes a file when it is loaded, or when it is run."""
    import torch

    class Load(torch.nn.Module):
        def forward(self, x):
            return x

        @torch.jit.export
        def __getstate__(self):
            return (1, self.training)

        @torch.jit.export
        def __setstate__(self, state: tuple[int, bool]):
            torch.from_file("canary", shared=True, size=4)
            self.training = state[1]

    class Run(torch.nn.Module):
        def forward(self, x):
            return x + torch.from_file("canary", shared=True, size=4)[0]

    return torch.jit.script(Load() if at_once else Run())


def make(rng: random.Random, folder: Path, sound: Path) -> Case:
    """One exported file, sound, damaged or hostile, given to detect.py or val.py."""
    shutil.copytree(sound / "set", folder / "set")
    # the digests of the sound files are known now and then
    if rng.random() < 0.3 and (sound / "cache").exists():
        shutil.copytree(sound / "cache", folder / "home" / "cache")
    way = rng.choice([_onnx] * 8 + [_openvino] * 4 + [_ncnn] * 4 + [_torchscript] * 3 + [_others, _irregular])
    name, flags = way(rng, folder, sound)
    words = ["--weights", name, "--device", "cpu", "--project", "runs", *flags]
    if rng.random() < 0.6:
        more = [[], ["--save-txt"], ["--save-csv", "--save-crop"], ["--classes", "0"], ["--conf-thres", "0"]]
        return Case(["detect.py", "--source", "set/images", *words, *rng.choice(more)])
    more = [[], ["--single-cls"], ["--imgsz", "32"], ["--task", "speed"], ["--batch-size", "2"]]
    return Case(["val.py", "--data", "set/data.yaml", "--workers", "0", *words, *rng.choice(more)])


def _taken(rng: random.Random, folder: Path, sound: Path, suffix: str) -> Path:
    """A copy of a sound file or folder of that suffix; a made-up file where there is none."""
    names = [name for name in SOUND if name.endswith(suffix) and (sound / name).exists()]
    if not names:
        (folder / f"none{suffix}").write_bytes(rng.randbytes(rng.randrange(2000)))
        return folder / f"none{suffix}"
    name = rng.choice(names)
    copy = shutil.copytree if (sound / name).is_dir() else shutil.copyfile
    return Path(copy(sound / name, folder / name))


# Damage of any file ------------------------------------------------------------------------------------------------------


def _damage(rng: random.Random, data: bytes) -> bytes:
    """The bytes, changed in some places."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 40))):
        at = rng.randrange(len(data) + 1)
        how = rng.randrange(8)
        if how <= 2 and data:
            data[at % len(data)] = rng.choice((0, 255, 127, 128, rng.randrange(256)))
        elif how == 3 and data:
            at = rng.randrange(min(len(data), 64))
            data[at] ^= 1 << rng.randrange(8)
        elif how == 4:
            del data[at:]
        elif how == 5:
            data[at:at] = data[at : at + rng.choice((1, 8, 400))]
        elif how == 6:
            del data[at : at + rng.choice((1, 4, 100))]
        else:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 100)))
    return bytes(data)


def _damage_file(rng: random.Random, file: Path) -> None:
    file.write_bytes(_damage(rng, file.read_bytes()))


def _value(rng: random.Random) -> str:
    return rng.choice((*VALUES, *VALUES, *DEEP, *TEXTS))


def _damage_numbers(rng: random.Random, text: str, most: int = 3) -> str:
    """A text with other numbers in some places."""
    for _ in range(rng.randint(1, most)):
        if found := list(re.finditer(r"-?\d+", text)):
            one = rng.choice(found)
            text = text[: one.start()] + str(rng.choice((*NUMBERS, *FLOATS))) + text[one.end() :]
    return text


def _damage_metadata(rng: random.Random, file: Path) -> None:
    """Another value of a key, a key less, or a text that is nothing of the kind."""
    text = file.read_text()
    how = rng.randrange(4)
    if how == 0:
        key = rng.choice(KEYS)
        text = re.sub(rf"^{key}:.*\n(^[ -].*\n)*", "", text, flags=re.M) + f"{key}: {_value(rng)}\n"
    elif how == 1:
        lines = text.splitlines(keepends=True)
        del lines[rng.randrange(len(lines))]
        text = "".join(lines)
    elif how == 2:
        text = _damage_numbers(rng, text)
    else:
        text = _damage(rng, text.encode()).decode("latin-1")
    file.write_text(text, encoding="utf-8")


# The formats -------------------------------------------------------------------------------------------------------------


def _onnx(rng: random.Random, folder: Path, sound: Path) -> tuple[str, list[str]]:
    file = _taken(rng, folder, sound, ".onnx")
    how = rng.randrange(12)
    if how <= 3:
        _damage_file(rng, file)
    elif how <= 10:
        import onnx

        model = onnx.load(str(file))
        for _ in range(rng.choice((1, 1, 2, 4))):
            with contextlib.suppress(ValueError, TypeError, IndexError, OverflowError):
                rng.choice(ONNX_CHANGES)(rng, model)
        with contextlib.suppress(ValueError):
            file.write_bytes(model.SerializeToString())
    return file.name, ["--dnn"] if rng.random() < 0.5 else []


def _any_tensor(rng: random.Random, model):
    tensors = [*model.graph.initializer, *(a.t for node in model.graph.node for a in node.attribute if a.HasField("t"))]
    return rng.choice(tensors)


def _change_dims(rng, model):
    tensor = _any_tensor(rng, model)
    tensor.dims.append(rng.choice(NUMBERS)) if rng.random() < 0.3 else tensor.dims.__setitem__(0, rng.choice(NUMBERS))


def _change_values(rng, model):
    """The same number of bytes: shapes, axes and pads that lead anywhere, weights that are no numbers."""
    tensor = _any_tensor(rng, model)
    if tensor.data_type == 7:
        count = len(tensor.raw_data) // 8
        tensor.raw_data = b"".join(rng.choice(NUMBERS).to_bytes(8, "little", signed=True) for _ in range(count))
    else:
        import struct

        count = len(tensor.raw_data) // 4
        tensor.raw_data = struct.pack(f"<{count}f", *([rng.choice(FLOATS)] * count))


def _change_type(rng, model):
    _any_tensor(rng, model).data_type = rng.randrange(25)


def _change_attribute(rng, model):
    node = rng.choice([node for node in model.graph.node if node.attribute])
    attribute = rng.choice(node.attribute)
    attribute.i = rng.choice(NUMBERS)
    attribute.f = rng.choice(FLOATS)
    attribute.s = rng.choice(TEXTS).encode()
    if attribute.ints and rng.random() < 0.7:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(NUMBERS)
    elif attribute.ints:
        del attribute.ints[0]
    if rng.random() < 0.2:
        attribute.type = rng.randrange(14)


def _change_operator(rng, model):
    node = rng.choice(model.graph.node)
    others = [other.op_type for other in model.graph.node]
    node.op_type = rng.choice(
        (*others, "Nothing", "", "Tile", "Expand", "Resize", "Pad", "Gather", "Split", "LSTM", "QLinearConv", "Einsum")
    )
    if rng.random() < 0.2:
        node.domain = rng.choice(("com.microsoft", "ai.onnx.ml", "nowhere", ""))


def _change_wires(rng, model):
    """A node takes or gives what another does, nothing, or itself."""
    node, other = rng.choice(model.graph.node), rng.choice(model.graph.node)
    names = [*node.output, *other.output, *other.input, "", "nothing", *(i.name for i in model.graph.input)]
    wires = node.input if rng.random() < 0.7 else node.output
    if rng.random() < 0.2:
        del wires[:]
    elif wires:
        wires[rng.randrange(len(wires))] = rng.choice(names)


def _change_order(rng, model):
    nodes = list(model.graph.node)
    if rng.random() < 0.5:
        rng.shuffle(nodes)
    else:
        del nodes[rng.randrange(len(nodes))]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _change_ends(rng, model):
    """Other shapes and names of the input and the output, or none."""
    ends = rng.choice((model.graph.input, model.graph.output))
    how = rng.randrange(4)
    if how == 0:
        del ends[:]
    elif how == 1:
        ends[0].name = rng.choice(TEXTS)
    elif how == 2:
        ends[0].type.tensor_type.elem_type = rng.randrange(20)
    else:
        rng.choice(ends[0].type.tensor_type.shape.dim).dim_value = rng.choice(NUMBERS)


def _grow(rng, model):
    """A node ahead of the output that asks for more memory or time than there is."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    last = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["before" if name == last else name for name in node.output]
    size = rng.choice((2**20, 2**28, 2**31, 2**36, 2**40, 2**62))
    how = rng.randrange(3)
    if how == 0:
        shape = numpy_helper.from_array(np.array([size], np.int64), "huge")
        model.graph.initializer.append(shape)
        model.graph.node.append(helper.make_node("ConstantOfShape", ["huge"], ["much"]))
        model.graph.node.append(helper.make_node("ReduceSum", ["much"], ["one"]))
        model.graph.node.append(helper.make_node("Add", ["before", "one"], [last]))
    elif how == 1:
        repeats = numpy_helper.from_array(np.array([1, size, 1], np.int64), "huge")
        model.graph.initializer.append(repeats)
        model.graph.node.append(helper.make_node("Tile", ["before", "huge"], [last]))
    else:
        model.graph.initializer.append(numpy_helper.from_array(np.array(size, np.int64), "trips"))
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "go"))
        body = helper.make_graph(
            [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Relu", ["x"], ["x2"])],
            "body",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("c", TensorProto.BOOL, []),
                helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
            ],
            [
                helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
                helper.make_tensor_value_info("x2", TensorProto.FLOAT, None),
            ],
        )
        model.graph.node.append(helper.make_node("Loop", ["trips", "go", "before"], [last], body=body))


def _nest(rng, model):
    """Graphs within graphs."""
    from onnx import helper

    graph = helper.make_graph([], "in", [], [])
    for depth in range(rng.choice((3, 20, 60))):
        graph = helper.make_graph([helper.make_node("If", ["go"], [f"n{depth}"], then_branch=graph)], "in", [], [])
    model.graph.node.append(graph.node[0]) if graph.node else None


def _point_elsewhere(rng, model):
    """The values of a tensor are in another file."""
    tensor = _any_tensor(rng, model)
    tensor.data_location = 1
    for key, value in (
        ("location", rng.choice(("/etc/passwd", "../../../etc/passwd", "plain.onnx", "/dev/zero", "a\0b", ""))),
        ("offset", str(rng.choice(NUMBERS))),
        ("length", str(rng.choice(NUMBERS))),
    ):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    if rng.random() < 0.5:
        tensor.ClearField("raw_data")


def _change_properties(rng, model):
    how = rng.randrange(4)
    if how == 0:
        del model.metadata_props[rng.randrange(len(model.metadata_props)) :]
    else:
        for entry in model.metadata_props:
            if entry.key == "names" or rng.random() < 0.3:
                entry.value = _value(rng)
                break


def _change_versions(rng, model):
    model.ir_version = rng.choice(NUMBERS)
    model.opset_import[0].version = rng.choice(NUMBERS)
    if rng.random() < 0.3:
        model.opset_import[0].domain = rng.choice(("nowhere", "com.microsoft"))


ONNX_CHANGES: tuple[Callable, ...] = (
    *(
        _change_dims,
        _change_values,
        _change_type,
        _change_attribute,
        _change_attribute,
        _change_operator,
        _change_wires,
    ),
    *(
        _change_order,
        _change_ends,
        _grow,
        _nest,
        _point_elsewhere,
        _change_properties,
        _change_properties,
        _change_versions,
    ),
)


def _openvino(rng: random.Random, folder: Path, sound: Path) -> tuple[str, list[str]]:
    place = _taken(rng, folder, sound, "_openvino_model")
    if place.is_dir():
        (graph,), (weights,) = place.glob("*.xml"), place.glob("*.bin")
        how = rng.randrange(9)
        if how == 0:
            _damage_file(rng, weights)
        elif how <= 2:
            _damage_file(rng, graph)
        elif how <= 4:
            graph.write_text(_damage_numbers(rng, graph.read_text()))
        elif how == 5:
            text = graph.read_text()
            kinds = sorted(set(re.findall(r'type="(\w+)"', text)))
            old, new = rng.choice(kinds), rng.choice([*kinds, "Nothing", "Loop", "TensorIterator", "If", ""])
            graph.write_text(text.replace(f'type="{old}"', f'type="{new}"', rng.choice((1, -1))))
        elif how <= 7:
            _damage_metadata(rng, place / "metadata.yaml")
        _lose(rng, place)
    return place.name, []


def _ncnn(rng: random.Random, folder: Path, sound: Path) -> tuple[str, list[str]]:
    place = _taken(rng, folder, sound, "_ncnn_model")
    if place.is_dir():
        graph, how = place / "model.ncnn.param", rng.randrange(9)
        if how == 0:
            _damage_file(rng, place / "model.ncnn.bin")
        elif how <= 2:
            _damage_file(rng, graph)
        elif how <= 4:
            graph.write_text(_damage_numbers(rng, graph.read_text()))
        elif how == 5:
            words = graph.read_text().split(" ")
            words[rng.randrange(len(words))] = rng.choice((*words, *TEXTS))
            graph.write_text(" ".join(words))
        elif how <= 7:
            _damage_metadata(rng, place / "metadata.yaml")
        _lose(rng, place)
    return place.name, []


def _lose(rng: random.Random, place: Path) -> None:
    """A file of the folder is missing, a pipe, or a folder, now and then."""
    if rng.random() < 0.1:
        file = rng.choice(sorted(place.iterdir()))
        file.unlink()
        rng.choice((lambda: None, lambda: os.mkfifo(file), file.mkdir, lambda: file.symlink_to("/dev/zero")))()


def _torchscript(rng: random.Random, folder: Path, sound: Path) -> tuple[str, list[str]]:
    how = rng.randrange(6)
    # these are programs: without --trust
    if how == 0:
        file = rng.choice(sorted(sound.glob("hostile-*.torchscript")))
        shutil.copyfile(file, folder / "best.torchscript")
        return "best.torchscript", []
    file = _taken(rng, folder, sound, ".torchscript")
    if how <= 2:
        _damage_file(rng, file)
        return file.name, []
    if how <= 4:
        _rewrite_zip(rng, file)
    return file.name, ["--trust"] if rng.random() < 0.7 else []


def _rewrite_zip(rng: random.Random, file: Path) -> None:
    """Other metadata, a member less, or one twice."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = next(name for name in members if name.endswith("config.txt"))
    how = rng.randrange(4)
    if how == 0:
        values = json.loads(members[config]) | {
            rng.choice(KEYS): rng.choice((_value(rng), rng.choice(NUMBERS), [], {}))
        }
        members[config] = json.dumps(values).encode()
    elif how == 1:
        members[config] = rng.choice((*DEEP, *VALUES)).encode()
    elif how == 2:
        del members[rng.choice([config, *sorted(members)])]
    else:
        members[config] = _damage(rng, members[config])
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def _others(rng: random.Random, folder: Path, sound: Path) -> tuple[str, list[str]]:
    """Formats whose packages are hardly ever there, and names of no format."""
    suffix = rng.choice((".engine", ".tflite", ".mlpackage", ".onnx.data", "", ".bin"))
    file = folder / f"best{suffix}"
    if suffix == ".mlpackage":
        (file / "Data").mkdir(parents=True)
        (file / "Manifest.json").write_text(rng.choice((*DEEP, *VALUES)))
    else:
        file.write_bytes(rng.randbytes(rng.choice((0, 1, 5000))))
    (folder / f"{file.name}.yaml").write_text(f"names: {_value(rng)}\n")
    return file.name, rng.choice(([], ["--trust"], ["--dnn"], ["--half"]))


def _irregular(rng: random.Random, folder: Path, sound: Path) -> tuple[str, list[str]]:
    """What is no file, or no folder, under the name of a format."""
    file = folder / f"best{rng.choice(('.onnx', '.torchscript', '_openvino_model', '_ncnn_model', '.mlpackage'))}"
    how = rng.randrange(6)
    if how == 0:
        os.mkfifo(file)
    elif how == 1:
        file.mkdir()
    elif how == 2:
        file.symlink_to(rng.choice(("/dev/zero", "/dev/random", file.name, "/proc/self/mem", "nothing")))
    elif how == 3:
        with open(file, "wb") as f:
            f.truncate(rng.choice((0, 1, 2**33)))
    elif how == 4:
        file.mkdir()
        for i in range(rng.choice((3, 400))):
            (file / f"{i}.xml").write_text("<net/>")
        (file / "metadata.yaml").write_text("names: [a, b]\n")
    return file.name, rng.choice(([], ["--trust"]))
