"""Model YAMLs: those of models/ made small, with rows, values, tags and bytes that no one meant."""

import random
import re
from pathlib import Path

import yaml

from tests.fuzz.arena import Case
from tests.helpers.descriptions import small
from tests.helpers.project import ROOT

FAMILIES = (
    "yolov5n.yaml",
    "yolov5s_EfficientNetV2.yaml",
    "yolov5n_ShuffleNetV2.yaml",
    "yolov5n_C3_UIB.yaml",
    "hub/yolov3-tiny.yaml",
    "hub/yolov5s-ghost.yaml",
    "hub/yolov5s-transformer.yaml",
)
HUGE = (65, 641, 10**4, 10**6, 10**9, 2**31 - 1, 2**31, 2**63 - 1, 2**64, 10**30)
NUMBERS = (
    0,
    1,
    2,
    3,
    5,
    7,
    16,
    -1,
    -2,
    -7,
    0.5,
    1.5,
    -0.0,
    1e-320,
    1e308,
    float("inf"),
    float("-inf"),
    float("nan"),
    *HUGE,
)
WORDS = (
    *("None", "True", "none", "nc", "anchors", "nearest", "P3", "P9", "-1", "1e-3", "", " ", "~", "x" * 300, "9" * 150),
    *("nn.SiLU()", "nn.Nope()", "nn.Linear(100000, 100000)", "nn.Module", "nn.ReLU(inplace=[])", "nn.functional.relu"),
    *("__import__('os').system('touch canary')", "open('canary', 'w')", "(" * 150, "-" * 150 + "1", "{[]: 1}", "1,2,3"),
    *(
        "k=3",
        "64*width",
        "999999999*width",
        "k=3*width",
        "k=",
        "=3",
        "e=nan",
        "device=meta",
        "device=cuda",
        "dtype=float64",
        "act=nn.Mish()",
        "g=0",
        "b'x'",
        "1j",
        "...",
    ),
    *("\ud83d", "\0", "\x1b[31m", "猫" * 70, "，", "%s%n", "$(touch canary)", "nn.Sequential(open('canary', 'w'))"),
)
TAGS = (
    *("!!int", "!!float", "!!bool", "!!null", "!!str", "!!seq", "!!map", "!!set", "!!omap", "!!pairs", "!!binary"),
    *("!!timestamp", "!!merge", "!x", "!!python/name:os.system", "!!python/object/apply:os.system", "!!python/tuple"),
    *("!!python/object/new:open", "&a", "*a", "? ", "<<: ", "- ", "|", ">", "@", "`", "%YAML 9.9\n---\n"),
)
BLOCKS = (
    *(
        "Conv",
        "DWConv",
        "DWConvTranspose2d",
        "GhostConv",
        "MixConv2d",
        "CrossConv",
        "Focus",
        "Bottleneck",
        "GhostBottleneck",
    ),
    *(
        "SPP",
        "SPPF",
        "C3SPP",
        "BottleneckCSP",
        "C3",
        "C3x",
        "C3TR",
        "C3Ghost",
        "Contract",
        "Expand",
        "Concat",
        "stem",
        "MBConv",
    ),
    *(
        "FusedMBConv",
        "ShuffleNetV2_InvertedResidual",
        "Conv_maxpool",
        "MobileNetV3_InvertedResidual",
        "C3_UIB",
        "RepConv",
    ),
    *(
        "UniversalInvertedBottleneckBlock",
        "GhostNetBottleneck",
        "MP",
        "SP",
        "SPPCSPC",
        "SE",
        "CBAM",
        "CoordAtt",
        "ECA",
        "SOCA",
    ),
    *(
        "SimAM",
        "MobileMQA",
        "C3SE",
        "C3CBAM",
        "C3SOCA",
        "C3MobileMQA",
        "Detect",
        "autopad",
        "os.system",
        "nn",
        "torch",
        "Backbone",
    ),
)


def prepare(sound: Path) -> None:
    """Small descriptions: the tests' own, and the families' with a quarter of their channels at most."""
    families = [yaml.safe_load((ROOT / "models" / name).read_text(encoding="utf-8")) for name in FAMILIES]
    made = [small(nc=2), *(family | {"nc": 2, "depth_multiple": 0.1, "width_multiple": 0.0625} for family in families)]
    for number, description in enumerate(made):
        (sound / f"{number}.yaml").write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")


def make(rng: random.Random, folder: Path, sound: Path) -> Case:
    """A description with a few things wrong, or none, for a command that builds it."""
    number = 0 if rng.random() < 0.7 else rng.randrange(1 + len(FAMILIES))
    text = (sound / f"{number}.yaml").read_text(encoding="utf-8")
    if rng.random() < 0.75:
        description = yaml.safe_load(text)
        for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
            change(rng, description)
        text = yaml.safe_dump(
            description, sort_keys=False, default_flow_style=rng.choice((None, False)), allow_unicode=True
        )
    data = text.encode("utf-8", "surrogatepass")
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        data = disturb(rng, data)
    (folder / "my.yaml").write_bytes(data)
    size = [] if rng.random() < 0.5 else ["--imgsz", rng.choice(("32", "64", "320"))]
    more = rng.choice(([], [], [], [], ["--size", "n"], ["--backbone", "resnet18"]))
    return Case(["models/yolo.py", "--cfg", "my.yaml", "--device", "cpu", *size, *more])


def change(rng: random.Random, description: dict) -> None:
    """One thing that is wrong, in place."""
    rows = [row for key in ("backbone", "head") if isinstance(description.get(key), list) for row in description[key]]
    rows = [row for row in rows if isinstance(row, list) and len(row) == 4] or [[-1, 1, "Conv", [8]]]
    kinds = (
        _key,
        _key,
        _row_value,
        _row_value,
        _argument,
        _argument,
        _argument,
        _block,
        _nn,
        _nn,
        _rows,
        _name,
        _network,
    )
    rng.choice(kinds)(rng, description, rng.choice(rows))


def value(rng: random.Random, depth: int = 0) -> object:
    """Anything that a YAML can say."""
    kind = rng.randrange(9)
    if kind < 3:
        return rng.choice(NUMBERS)
    if kind < 5:
        return rng.choice(WORDS)
    if kind == 5:
        return rng.choice((None, True, False, [], {}, [[]], [[[1]]]))
    if kind == 6:
        return round(10 ** rng.uniform(-3, 12))
    if depth > 3 or rng.random() < 0.1:
        return nested(rng.choice((5, 15, 40)))
    if kind == 7:
        return [value(rng, depth + 1) for _ in range(rng.choice((0, 1, 2, 3, 30)))]
    return {str(value(rng, 9)): value(rng, depth + 1) for _ in range(rng.choice((1, 2)))}


def nested(depth: int) -> list:
    """[[[…]]]"""
    found: list = []
    for _ in range(depth):
        found = [found]
    return found


def _key(rng: random.Random, description: dict, row: list) -> None:
    known = "nc anchors backbone head depth_multiple width_multiple channel_multiple stock_widths batchnorm normalize activation"
    known += " ch size names"
    key = rng.choice([*known.split(), "yaml_file", "model", "", 3, None])
    if rng.random() < 0.15:
        description.pop(key, None)
        return
    likely = {
        "nc": (1, 80, 1000, 10**5, 10**5 + 1),
        "anchors": (3, 100, 101, [[1, 2], [3, 4]], [[1e6, 1], [1, 1]], [[1] * 300] * 2, [10**5, "10,13"]),
        "backbone": ("resnet18", "no_such_net", "timm/none", "torchvision/vit_b_16", "x" * 500, "../../etc/passwd"),
        "depth_multiple": (1, 3.7, 99, 1e4),
        "width_multiple": (1, 4, 99.9, 1e-9),
        "channel_multiple": (1, 3, 1024, 10**9),
        "stock_widths": (True, False, 0, None, "no"),
        "batchnorm": ({"eps": 1e-5}, {"eps": 0.0}, {"momentum": float("nan")}, {"eps": []}),
        "normalize": ({"mean": [0, 0, 0], "std": [0, 0, 0]}, {"std": [1, 1]}),
        "activation": (
            "nn.LeakyReLU(0.1)",
            "nn.GLU()",
            "nn.Softmax(dim=9)",
            "nn.PReLU(10000000000)",
            "nn.MaxPool2d(3)",
        ),
        "ch": (1, 4, 1024, 10**6),
        "size": ("n", "x", "q"),
    }
    description[key] = rng.choice(likely[key]) if key in likely and rng.random() < 0.6 else value(rng)


def _row_value(rng: random.Random, description: dict, row: list) -> None:
    place = rng.randrange(4)
    if place == 0:
        row[0] = rng.choice(
            (-1, -2, 0, 1, 7, 99, [], [-1], [-1, -1], [-1, 0], [-1] * 100, [-1] * 101, "P3", [3, "P4"], value(rng))
        )
    elif place == 1:
        row[1] = rng.choice((1, 2, 9, 99, 101, 10**4, 10**9, value(rng)))
    else:
        row[place] = value(rng)


def _argument(rng: random.Random, description: dict, row: list) -> None:
    args = row[3] if isinstance(row[3], list) else []
    place = rng.randrange(len(args) + 1)
    args[place : place + rng.randrange(2)] = [value(rng)] * rng.choice((1, 1, 1, 2, 40))
    row[3] = args


def _block(rng: random.Random, description: dict, row: list) -> None:
    row[2] = rng.choice(BLOCKS)
    if rng.random() < 0.7:
        row[3] = [rng.choice((8, 16, 32, *NUMBERS)) for _ in range(rng.randrange(6))]


def _nn(rng: random.Random, description: dict, row: list) -> None:
    """Any class of torch.nn as a row, with small or large arguments."""
    from torch import nn

    row[1], row[2] = rng.choice((1, 1, 3)), f"nn.{rng.choice(sorted(dir(nn)))}"
    few = (1, 2, 3, 4, 8, 16, 0, -1)
    row[3] = [rng.choice(few) if rng.random() < 0.8 else value(rng) for _ in range(rng.randrange(5))]


def _name(rng: random.Random, description: dict, row: list) -> None:
    """Rows that have names, and take others by them."""
    names = ("low", "mid", "low", "P3", "-1", "a b", "猫", "x" * 300, value(rng))
    row.append(rng.choice(names))
    for section in ("backbone", "head"):
        for other in description.get(section) if isinstance(description.get(section), list) else []:
            if isinstance(other, list) and other and rng.random() < 0.2:
                other[0] = rng.choice(("low", ["low", "mid"], [-1, "low"], [-1, row[-1]]))


def _network(rng: random.Random, description: dict, row: list) -> None:
    """A network as a first row, whose maps later rows count as layers."""
    if isinstance(description.get("backbone"), list) and description["backbone"]:
        name = rng.choice(("resnet18", "mobilenet_v3_small", "vit_b_16", "timm/none", "torchvision/resnet18"))
        description["backbone"][: rng.choice((1, 2, 100))] = [
            [rng.choice((-1, -1, 0, "P3")), rng.choice((1, 1, 3)), name, []]
        ]
        for other in description["head"] if isinstance(description.get("head"), list) else []:
            if isinstance(other, list) and other and rng.random() < 0.5:
                other[0] = rng.choice((rng.randrange(-6, 12), [-1, rng.randrange(12)], -1))


def _rows(rng: random.Random, description: dict, row: list) -> None:
    section = rng.choice(("backbone", "head"))
    rows = description.get(section)
    if not isinstance(rows, list) or not rows:
        return
    place = rng.randrange(len(rows))
    kind = rng.randrange(5)
    if kind == 0:
        del rows[place]
    elif kind == 1:
        rows.insert(place, value(rng))
    elif kind == 2:
        rows[place:place] = [rows[place]] * rng.choice((1, 3, 20, 501))
    elif kind == 3:
        rng.shuffle(rows)
    else:
        rows[place] = rows[place][: rng.randrange(5)] if isinstance(rows[place], list) else value(rng)


def disturb(rng: random.Random, data: bytes) -> bytes:
    """A text file with something wrong in its characters."""
    kind = rng.randrange(10)
    place = rng.randrange(len(data) + 1)
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
    if kind == 2:
        return data[:place] + rng.choice(TAGS).encode() + b" " + data[place:]
    if kind == 3:
        # a tag or an anchor before a value, or another value
        words = list(re.finditer(rb"[\w.]+", data))
        word = rng.choice(words or [re.match(b"", data)])
        put = rng.choice(
            (*TAGS, "!!python/object/apply:os.system ['touch canary'] #", "9" * 5000, "1:1" * 60, "2024-13-45")
        )
        return data[: word.start()] + put.encode() + b" " + data[word.start() if rng.random() < 0.5 else word.end() :]
    if kind == 4:
        return data + rng.choice(
            (b"\n{[1]: 2}", b"\n? [a]\n: b", b"\nx: &a [*a]", b"\nx: &b {<<: *b}", b"\nx: {<<: 3}", b"\n---\n")
        )
    if kind == 5:
        lines = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}' if n else 'x'] * 10)}]" for n in range(rng.choice((2, 12)))]
        return data + ("\n" + "\n".join(lines)).encode()
    if kind == 6:
        many = rng.choice((40, 60, 3000))
        return data + b"\nx: " + rng.choice((b"[", b"{a: ", b"- ", b"? ", b"!!seq [", b"'")) * many
    if kind == 7:
        return data.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-32", "latin-1", "cp037")), "replace")
    if kind == 8:
        return data.replace(
            rng.choice((b"\n", b" ", b",", b":", b"[", b"]", b"-")),
            rng.choice((b"\t", b"\r", b"", b"\0", b"\n", b",,")),
            1 + place % 5,
        )
    other = rng.randrange(len(data) + 1)
    return data[:place] + data[min(place, other) : max(place, other)] + data[place:]
