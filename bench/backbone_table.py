"""The table of docs/backbones.md: networks by name under YOLOv5s's neck.

    python bench/backbone_table.py              sizes of the networks that bench/backbones.json lacks, then both tables
    python bench/backbone_table.py --latency    also their latencies, measured here; leave the machine alone meanwhile

What is measured is kept in bench/backbones.json as it is found, so that an interrupted run goes on where it was.
Each network is timed in turns with stock YOLOv5s, so that the ratio of the two holds where the machine's speed varies.
"""

if __name__ == "__main__":  # run as a script: the project's folder comes before bench/ on the import path
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import os
import re
import statistics
import time
from pathlib import Path

import torch
from tqdm import tqdm

from models.flops import count_gflops, count_parameters
from models.yolo import DetectionModel
from utils.device import processor_name

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "bench" / "backbones.json"
PAGES = (ROOT / "docs" / "backbones.md", ROOT / "docs" / "backbones.zh-CN.md")
SIZE, WARM_UP, ROUNDS = 640, 2, 15
STOCK = "stock (rows)"

NETWORKS = """
efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6
efficientnet_b7 efficientnet_v2_s efficientnet_v2_m efficientnet_v2_l resnet18 resnet50 convnext_tiny swin_t mobilenet_v2
mobilenet_v3_small mobilenet_v3_large shufflenet_v2_x0_5 shufflenet_v2_x1_0 densenet121 regnet_y_400mf regnet_x_800mf
mnasnet1_0 googlenet vgg16_bn timm/tf_efficientnet_lite0 timm/tf_efficientnet_lite2 timm/tf_efficientnet_lite4
timm/mobilenetv4_conv_small timm/mobilenetv4_conv_medium timm/mobilenetv4_hybrid_medium timm/ghostnet_100
timm/ghostnetv2_100 timm/convnext_atto timm/convnextv2_nano timm/swin_tiny_patch4_window7_224 timm/darknet53
timm/cspdarknet53 timm/repvgg_a0 timm/fastvit_t8 timm/pvt_v2_b0 timm/hgnetv2_b0
timm/starnet_s1 timm/edgenext_xx_small timm/res2net50_26w_4s
""".split()


def build(name: str) -> DetectionModel:
    """YOLOv5s with the network ``name``, or as it is."""
    return DetectionModel("yolov5s.yaml", backbone="" if name == STOCK else name)


def measure_sizes(record: dict) -> None:
    """Parameters, GFLOPs and levels of what the record lacks."""
    for name in tqdm([n for n in (STOCK, *NETWORKS) if n not in record["networks"]], desc="sizes"):
        model = build(name)
        levels = {} if name == STOCK else model.model[0].channels
        row = {
            "parameters": count_parameters(model)[0],
            "gflops": round(count_gflops(model, SIZE), 2),
            "levels": levels,
        }
        record["networks"][name] = row
        write(record)


def measure_latencies(record: dict) -> None:
    """Median milliseconds of one image, fused, after a warm-up, in turns with stock YOLOv5s in the same process."""
    if record.get("machine") != describe_machine():
        record["machine"] = describe_machine()
        for row in record["networks"].values():
            row.pop("ms", None)
    stock = ready(STOCK)
    image = torch.rand(1, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    for name in tqdm([n for n in (STOCK, *NETWORKS) if "ms" not in record["networks"][n]], desc="latencies"):
        ms, beside = times_in_turns((ready(name), stock), image)
        record["networks"][name] |= {"ms": round(ms, 1), "of_stock": round(ms / beside, 2)}
        write(record)


def times_in_turns(models: tuple[DetectionModel, ...], image: torch.Tensor) -> list[float]:
    """The median milliseconds that each model takes for ``image``, after a warm-up; they take turns, as the machine's
    speed varies."""
    times: tuple[list[float], ...] = tuple([] for _ in models)
    for turn in range(WARM_UP + ROUNDS):
        for model, spent in zip(models, times, strict=True):
            start = time.perf_counter()
            with torch.inference_mode():
                model(image)
            if turn >= WARM_UP:
                spent.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(spent) for spent in times]


def ready(name: str) -> DetectionModel:
    return build(name).fuse().to(memory_format=torch.channels_last)


def describe_machine() -> str:
    """Processor, cores and PyTorch, as one line."""
    return f"{processor_name()}, {torch.get_num_threads()} of {os.cpu_count()} cores, PyTorch {torch.__version__.split('+')[0]}"


def table(record: dict, pending: str) -> str:
    """The rows in Markdown; ``pending`` stands where a latency has not been measured."""
    lines = []
    for name in (STOCK, *NETWORKS):
        row = record["networks"][name]
        levels = " · ".join(f"{k} {v}" for k, v in row["levels"].items()) or "–"
        ms, ratio = (f"{row['ms']:.1f}", f"{row['of_stock']:.2f}") if "ms" in row else (pending, pending)
        shown = name if name == STOCK else f"`{name}`"
        lines.append(f"| {shown} | {row['parameters']:,} | {row['gflops']:.1f} | {ms} | {ratio} | {levels} |")
    return "\n".join(lines)


def write_pages(record: dict) -> None:
    """Put rows and machine between the marks of both pages."""
    for page, pending, unmeasured in zip(PAGES, ("pending", "待测"), ("not measured yet", "尚未测量"), strict=True):
        text = page.read_text(encoding="utf-8")
        text = replace_between(text, "machine", record.get("machine", unmeasured))
        head = re.search(r"<!-- rows -->\n(\|.*\n\|.*\n)", text).group(1)
        page.write_text(replace_between(text, "rows", head + table(record, pending)), encoding="utf-8")


def replace_between(text: str, mark: str, content: str) -> str:
    """``text`` with ``content`` between <!-- mark --> and <!-- /mark -->."""
    return re.sub(
        rf"(<!-- {mark} -->\n).*?(\n<!-- /{mark} -->)", lambda m: m.group(1) + content + m.group(2), text, flags=re.S
    )


def read() -> dict:
    return json.loads(RECORD.read_text()) if RECORD.exists() else {"networks": {}}


def write(record: dict) -> None:
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", action="store_true", help="measure the latencies that are missing, too")
    options = parser.parse_args()
    record = read()
    measure_sizes(record)
    if options.latency:
        measure_latencies(record)
    write_pages(record)


if __name__ == "__main__":
    main()
