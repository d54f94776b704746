"""What the write-ups claim, measured here by compare.py: docs/claims.md and .zh-CN.md.

    python bench/comparison/claims.py                          all, one study after another; what is done is not done again
    python bench/comparison/claims.py --only c3-uib            one of them
    python bench/comparison/claims.py --device 0 --jobs 8      on a GPU, eight trainings at once
    python bench/comparison/claims.py --pages                  the pages alone, of the figures that are there

Studies lie in runs/claims, figures in docs/figures/claims.json. Nothing else should run on the machine meanwhile.
"""

# Run as a script: the project's folder comes before bench/ on the import path.
if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from engine.comparison.options import CompareOptions
from engine.comparison.record import END_TO_END, FIRST, MODEL, SECOND, Candidate, Comparison, Pair
from engine.comparison.study import compare
from utils.console.typed import command_line
from utils.errors import UserError, exit_on_user_error
from utils.paths import ROOT
from utils.yaml_file import read_yaml, write_yaml

RECORD = ROOT / "docs" / "figures" / "claims.json"
PAGES = {"en": ROOT / "docs" / "claims.md", "zh": ROOT / "docs" / "claims.zh-CN.md"}
REPRODUCED, REFUTED, NOT_SHOWN = "reproduced", "refuted", "not shown"
RUNS = Path("runs", "claims")
MBCONV = RUNS / "yolov5s_MBConv-P3.yaml"
COST = {"imgsz": 640, "epochs": 0, "runs": 10}
# hyp.shapes.yaml is made for AdamW, which a study file asks for
ADAMW = "bench/comparison/adamw.yaml"
SHAPES = {"data": "data/shapes.yaml", "imgsz": 96, "epochs": 8, "hyp": "hyp.shapes.yaml", "study": ADAMW}
# flags of this script, with their defaults
PRESENT = {"device": "cpu", "workers": 2, "jobs": 1}


@dataclass(frozen=True)
class Fact:
    """One figure beside what was claimed; ``holds``: whether it is so, None where the data don't tell, and where nothing was
    ``claimed`` of it.

    ``low`` and ``high``: its 95 % interval, where there is one.
    """

    en: str
    zh: str
    value: float
    low: float | None = None
    high: float | None = None
    holds: bool | None = None
    claimed: bool = True


@dataclass(frozen=True)
class Claim:
    """What a write-up says, the study that puts it to the test, and what is to be read from that."""

    key: str
    en: str
    zh: str
    study: dict[str, Any]
    read: Callable[[Comparison], list[Fact]]


def claims() -> list[Claim]:
    """All of them."""
    attention = [f"models/zoo/attention/yolov5s_{name}.yaml" for name in ATTENTION]
    return [
        Claim(
            "shufflenetv2",
            "YOLOv5l with ShuffleNetV2 as its backbone needs 62 % less computation.",
            "YOLOv5l 换成 ShuffleNetV2 主干后，计算量减少 62 %。",
            COST | {"cfg": ["yolov5l.yaml", "yolov5l_ShuffleNetV2.yaml"]},
            lambda found: [less("GFLOPs", found, lambda c: c.gflops, 0.62), *costs(found)],
        ),
        Claim(
            "c3-uib",
            "YOLOv5n with C3_UIB has 1.3 M parameters and 3.3 GFLOPs, fewer than YOLOv5n.",
            "YOLOv5n 换成 C3_UIB 后只有 1.3 M 参数量、3.3 GFLOPs，少于 YOLOv5n。",
            COST | {"cfg": ["yolov5n.yaml", "yolov5n_C3_UIB.yaml"]},
            lambda found: [*at_most("yolov5n_C3_UIB", found), *costs(found)],
        ),
        Claim(
            "light",
            "ShuffleNetV2 and C3_UIB find as much as the backbone of YOLOv5 does.",
            "ShuffleNetV2 和 C3_UIB 的精度与 YOLOv5 原来的主干相当。",
            SHAPES | {"cfg": ["yolov5n.yaml", *(f"{name}.yaml" for name in LIGHT)]},
            lambda found: [difference(found, name, "yolov5n") for name in LIGHT],
        ),
        Claim(
            "fused-mbconv",
            "In the early stages Fused-MBConv trains faster than MBConv.",
            "在前几个阶段，Fused-MBConv 比 MBConv 训练得更快。",
            COST | {"imgsz": 320, "cfg": ["yolov5s_EfficientNetV2-P3.yaml", str(MBCONV)]},
            lambda found: [faster_training(found)],
        ),
        Claim(
            "efficientnet-b0",
            "YOLOv5s with EfficientNet-B0 by name is faster and smaller than the stock backbone on a CPU.",
            "YOLOv5s 按名字换成 EfficientNet-B0 主干后，在 CPU 上比原来的主干更快、更小。",
            COST | {"cfg": ["yolov5s.yaml"], "backbone": ["efficientnet_b0"]},
            lambda found: costs(found, claimed=True),
        ),
        Claim(
            "efficientnetv2",
            "EfficientNetV2 as published finds as much as with outputs at strides 8, 16 and 32 (-P3).",
            "原样发表的 EfficientNetV2 与在步长 8、16、32 上输出的 -P3 精度相当。",
            {"data": "data/bccd.yaml", "imgsz": 256, "epochs": 40}
            | {"cfg": [f"{name}.yaml" for name in EFFICIENTNETV2]},
            lambda found: [difference(found, *EFFICIENTNETV2), *(ap_small(found, name) for name in EFFICIENTNETV2)],
        ),
        Claim(
            "attention",
            "An attention block before the head makes YOLOv5n find more.",
            "在检测头之前加一个注意力模块，YOLOv5n 的精度会提高。",
            SHAPES | {"epochs": 40, "cfg": ["yolov5n.yaml", *attention], "size": "n"},
            lambda found: [difference(found, f"yolov5s_{name}-n", "yolov5n-n") for name in ATTENTION],
        ),
    ]


LIGHT = ("yolov5n_ShuffleNetV2", "yolov5n_C3_UIB")
EFFICIENTNETV2 = ("yolov5s_EfficientNetV2", "yolov5s_EfficientNetV2-P3")
ATTENTION = ("SE", "CBAM", "CoordAtt", "ECA", "SOCA", "SimAM")


def write_mbconv(file: Path) -> None:
    """The YAML of EfficientNetV2 with MBConv in the place of every Fused-MBConv."""
    description = read_yaml(ROOT / "models" / "yolov5s_EfficientNetV2-P3.yaml", "model YAML")
    rows = []
    for source, number, block, args in description["backbone"]:
        fused = block == "FusedMBConv"
        rows.append([source, number, "MBConv", [*args[:4], 0.25]] if fused else [source, number, block, args])
    file.parent.mkdir(parents=True, exist_ok=True)
    write_yaml(file, description | {"backbone": rows})


# What is read from a study --------------------------------------------------------------------------------------------


def less(what: str, found: Comparison, of: Callable[[Candidate], float], claimed: float) -> Fact:
    """By what share the second candidate has less than the first."""
    first, second = map(of, found.candidates)
    share = 1 - second / first
    return Fact(f"{what}, share saved", f"{what}，减少的比例", share, holds=abs(share - claimed) < 0.01)


def at_most(name: str, found: Comparison) -> list[Fact]:
    """Whether C3_UIB's model is as small as was published, for a number of classes that was not told."""
    candidate = found.candidate(name)
    parameters, gflops = candidate.parameters / 1e6, candidate.gflops
    return [
        Fact(
            "parameters, 10⁶, with 5 classes; claimed: 1.3 at most",
            "参数量，10⁶（5 个类别；说法：最多 1.3）",
            parameters,
            holds=parameters < 1.35,
        ),
        Fact(
            "GFLOPs, with 5 classes; claimed: 3.3 at most",
            "GFLOPs（5 个类别；说法：最多 3.3）",
            gflops,
            holds=gflops < 3.35,
        ),
    ]


def costs(found: Comparison, claimed: bool = False) -> list[Fact]:
    """What the second candidate costs, as a multiple of the first; ``claimed``: that it is less."""
    first, second = found.candidates
    noise = found.machine.noise or 0.0
    ratios = [
        ("parameters", "参数量", second.parameters / first.parameters, 0.0),
        (
            "latency, file to boxes",
            "延迟，从文件到检测框",
            latency(second, END_TO_END) / latency(first, END_TO_END),
            noise,
        ),
        ("latency of the model", "延迟，仅模型", latency(second, MODEL) / latency(first, MODEL), noise),
        ("memory of inference", "推理内存", second.inference_mb / first.inference_mb, 0.02),
    ]
    facts = []
    for en, zh, ratio, apart in ratios:
        # within the noise nothing is shown
        holds = None if abs(ratio - 1) <= apart or not claimed else ratio < 1
        facts.append(Fact(f"{en}, times", f"{zh}，倍数", ratio, holds=holds, claimed=claimed))
    return facts


def latency(candidate: Candidate, part: str) -> float:
    """Milliseconds of one image under PyTorch."""
    return next(t.median_ms for t in candidate.latencies if (t.part, t.batch, t.runtime) == (part, 1, "pytorch"))


def faster_training(found: Comparison) -> Fact:
    """Images a second in training: the first candidate's over the second's."""
    first, second = found.candidates
    ratio = first.images_per_second / second.images_per_second
    return Fact("training images/s, times", "每秒训练图片数，倍数", ratio, holds=ratio > 1)


def difference(found: Comparison, one: str, other: str) -> Fact:
    """By how much more ``one`` finds than ``other``, where it is claimed to find as much or more."""
    pair, sign = pair_of(found, one, other)
    bounds = sorted(sign * bound for bound in (pair.low, pair.high))
    wins, loses = (FIRST, SECOND) if sign > 0 else (SECOND, FIRST)
    holds = {wins: True, loses: False}.get(pair.verdict)
    label = f"{found.settings.metric} of {one} less that of {other}"
    return Fact(label, f"{one} 的 {found.settings.metric} 减去 {other} 的", sign * pair.difference, *bounds, holds)


def ap_small(found: Comparison, name: str) -> Fact:
    """How much of small objects is found: a mean without an interval, of which nothing is claimed."""
    small = "of whose validation boxes 9 in 1,137 are small", "验证集的 1,137 个框中只有 9 个是小目标"
    value = found.candidate(name).accuracy["ap_small"].mean
    return Fact(
        f"ap_small of {name} (BCCD, {small[0]})", f"{name} 的 ap_small（BCCD，{small[1]}）", value, claimed=False
    )


def pair_of(found: Comparison, one: str, other: str) -> tuple[Pair, int]:
    """The pair of two candidates, and -1 where it is the other way about."""
    for pair in found.pairs:
        if {pair.first, pair.second} == {one, other}:
            return pair, 1 if pair.first == one else -1
    raise UserError(f"no pair of {one} and {other} in the study")


def judge(facts: list[Fact]) -> str:
    """What has become of a claim."""
    told = [fact.holds for fact in facts if fact.claimed]
    return REFUTED if False in told else REPRODUCED if told and all(told) else NOT_SHOWN


# Studies and pages --------------------------------------------------------------------------------------------------------


def write_studies() -> None:
    """What studies need beside the files of the project, and BCCD where data/bccd.yaml has it."""
    write_mbconv(MBCONV)


def options_of(claim: Claim, **present: Any) -> CompareOptions:
    """What compare.py is asked for; ``present``: device, workers and jobs."""
    return CompareOptions.of(claim.study | present | {"project": str(RUNS), "name": claim.key})


def carry_out(claim: Claim, options: CompareOptions) -> dict[str, Any]:
    """Run, or go on with, the study of a claim; what is written down of it. Where it trains, nothing is timed."""
    found = compare(options, timed=not options.epochs)
    if found.failed:
        raise UserError(f"{claim.key}: a run of its study has failed")
    facts = claim.read(found)
    machine = f"{found.machine.device}, {found.machine.name}"
    where = {"machine": machine, "torch": found.machine.torch, "date": date.today().isoformat()}
    command = command_line("compare.py", *options.as_words(*claim.study))
    return {"facts": [asdict(fact) for fact in facts], "verdict": judge(facts), "command": command, **where}


WORDS = {
    "en": {
        "title": "# What the write-ups claim, measured",
        "links": "[中文](claims.zh-CN.md) · [README](../README.md)",
        "intro": (
            "Each claim was put to the test by `compare.py`, with the same data, epochs and seeds for both sides. Differences\n"
            "of accuracy have 95 % intervals over images and seeds, each for itself; whether a difference is shown is judged\n"
            "with a correction for all pairs of a study. Written by `python bench/comparison/claims.py`."
        ),
        "head": "| figure | measured | 95 % interval | as claimed |",
        "holds": {True: "yes", False: "no", None: ""},
        REPRODUCED: "Reproduced.", REFUTED: "Refuted.", NOT_SHOWN: "Neither shown nor refuted by this much data.",
        "machine": "{machine}, PyTorch {torch}, {date}.",
    },
    "zh": {
        "title": "# 对各教程说法的实测",
        "links": "[English](claims.md) · [README](../README.zh-CN.md)",
        "intro": (
            "每种说法都用 `compare.py` 检验，两边的数据、轮数和随机种子都相同。精度的差附有 95 % 区间（对图片和种子），\n"
            "每个区间单独计算；差异是否成立，则按一次比较中的所有候选对校正后判断。由 `python bench/comparison/claims.py` 生成。"
        ),
        "head": "| 数值 | 实测 | 95 % 区间 | 与说法一致 |",
        "holds": {True: "是", False: "否", None: ""},
        REPRODUCED: "成立。", REFUTED: "不成立。", NOT_SHOWN: "这些数据既不能证明，也不能否定。",
        "machine": "{machine}，PyTorch {torch}，{date}。",
    },
}  # fmt: skip


def page(record: dict[str, Any], language: str) -> str:
    """The page in one language, of the claims that are in ``record``."""
    words = WORDS[language]
    lines = [words["title"], "", words["links"], "", words["intro"], ""]
    for claim in claims():
        if claim.key not in record:
            continue
        entry = record[claim.key]
        title = (claim.en if language == "en" else claim.zh).rstrip(".。")
        lines += [f"## {title}", "", words["head"], "| --- | ---: | ---: | --- |"]
        for fact in entry["facts"]:
            interval = "" if fact["low"] is None else f"{fact['low']:+.3f} … {fact['high']:+.3f}"
            signed = f"{fact['value']:+.3f}" if interval else f"{fact['value']:.2f}"
            lines.append(f"| {fact[language]} | {signed} | {interval} | {words['holds'][fact['holds']]} |")
        lines += ["", f"**{words[entry['verdict']]}** {words['machine'].format(**entry)}", "", "```bash"]
        lines += [entry["command"], "```", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [claim.key for claim in claims()]
    parser.add_argument("--only", nargs="+", choices=known, default=known, help="some of the claims")
    parser.add_argument("--pages", action="store_true", help="write the pages again, and measure nothing")
    for name in PRESENT:
        parser.add_argument(f"--{name}", default=PRESENT[name], type=type(PRESENT[name]), help="as of compare.py")
    given = parser.parse_args()
    write_studies()
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for claim in [] if given.pages else claims():
        if claim.key in given.only:
            present = {name: getattr(given, name) for name in PRESENT}
            record[claim.key] = carry_out(claim, options_of(claim, **present))
            RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
            print(f"{claim.key}: {record[claim.key]['verdict']}")
    for language, file in PAGES.items():
        file.write_text(page(record, language))
    print(f"figures are in {RECORD}, pages in {' and '.join(map(str, PAGES.values()))}")


if __name__ == "__main__":
    exit_on_user_error(main)
