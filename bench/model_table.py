"""Write docs/models.md and docs/models.zh-CN.md: every model YAML with its parameters, GFLOPs, strides and source.

    python bench/model_table.py

The figures are measured: each model is built, which takes some minutes for all.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tqdm import tqdm  # noqa: E402

from models.description.find import model_yamls  # noqa: E402
from models.flops import count_gflops, count_parameters  # noqa: E402
from models.yolo import DetectionModel  # noqa: E402

# name of a group in English and Chinese, and which YAMLs are in it: the first that fits
GROUPS = (
    ("YOLOv5", "YOLOv5", r"models/yolov5[nsmlx]\.yaml"),
    (
        "YOLOv5 with attention before SPPF",
        "SPPF 之前加注意力的 YOLOv5",
        r"_(SE|CBAM|CoordAtt|ECA|SOCA|SimAM|MobileMQA)\.",
    ),
    ("YOLOv5 with attention in C3", "C3 之内加注意力的 YOLOv5", r"_C3(SE|CBAM|CoordAtt|ECA|SOCA|SimAM|MobileMQA)\."),
    ("YOLOv5's neck on another backbone", "YOLOv5 的颈部配其他主干", r"/yolov5\w_"),
    ("YOLOv7", "YOLOv7", r"/yolov7"),
    ("More of YOLOv5 and YOLOv3 (models/hub)", "其他 YOLOv5 与 YOLOv3（models/hub）", r"models/hub/"),
)
ENGLISH = """# The models that come with the project

[中文](models.zh-CN.md) · [README](../README.md)

Written by `python bench/model_table.py`. GFLOPs are of one image of 640 × 640 px, before fusing, two per multiply-add;
parameters are for 80 classes. Each of these files is built, trained for a step, fused, saved and read, exported to ONNX and
compared by `tests/models/test_every_yaml.py`; the backbones of MobileNetV3, ShuffleNetV2-x, EfficientNet-B0, EfficientNetV2-S,
GhostNet and MobileNetV4 are compared with torchvision's and timm's by `tests/models/blocks/test_families.py`.

A file is used by its name: `python train.py --cfg yolov5s_CBAM.yaml`. The sources are papers on arXiv, by their number.
`python models/yolo.py --cfg yolov5s_CBAM.yaml` prints every layer with parameters, arguments, output shape and stride;
`--profile` and `--line-profile` time the model and its layers, `--size n|s|m|l|x` gives it another depth and width.
`python models/yolo.py --test` builds and runs all of them.

How far does each level see? `python models/yolo.py --cfg yolov5s_CBAM.yaml --erf` draws the effective receptive fields to
`erf.png` (Luo et al., arXiv:1701.04128), and says the sides of the squares that hold 50 % and 95 % of the gradient of the unit
in the middle of each map that enters the head. They are those of fresh weights, always the same ones: what the architecture
offers before it learns, fit to compare two of them at the same `--imgsz`.

## Keys of a model YAML

| key | value |
| --- | --- |
| `nc` | number of classes; the data set's own count replaces it in training |
| `anchors` | width, height in pixels, one line per output, finest first; or how many there are per output |
| `backbone`, `head` | rows `[from, number, module, args]`; the backbone may be a network by name |
| `depth_multiple`, `width_multiple` | factors on the repeats and on the channels of each row; default: 1 |
| `channel_multiple` | scaled channels are rounded up to a multiple of this; default: 8 |
| `stock_widths` | whether rows of anchors × (classes + 5) channels are left unscaled, as in YOLOv5; default: `true` |
| `size` | `n`, `s`, `m`, `l` or `x`, in the place of both factors |
| `activation` | of every convolution, such as `nn.LeakyReLU(0.1)`; default: SiLU |
| `batchnorm` | `eps` and `momentum` of the backbone's BatchNorm |
| `normalize` | `mean` and `std` of the images, for a backbone by name |
| `ch` | channels of an image; default: 3 |

YOLOv5 scales every row but those whose channels are just as many as an output of the head has. So the number of classes
can change a backbone: 24 channels are 3 × (3 + 5), and `yolov5s_EfficientNetV2.yaml` has a wider stem for 3 classes,
48 are 3 × (11 + 5), and for 11 classes it costs 9.9 GFLOPs instead of 5.4. Published YAMLs keep that, because people
compare their numbers and checkpoints of other projects have these shapes; a `warning:` tells where it happens and what it
costs. `stock_widths: false` scales every row. `yolov5s_EfficientNetV2-P3.yaml` and the sizes n, s, m and x of
`yolov5l_ShuffleNetV2.yaml` say so. A checkpoint keeps the channels that it was trained with.
"""
CHINESE = """# 项目自带的模型

[English](models.md) · [README](../README.zh-CN.md)

由 `python bench/model_table.py` 生成。GFLOPs 按一张 640 × 640 像素的图片、融合之前计算，一次乘加计为两次运算；
参数量按 80 类计算。每个文件都由 `tests/models/test_every_yaml.py` 构建、训练一步、融合、保存并读取、导出为 ONNX 并逐一比较；
MobileNetV3、ShuffleNetV2-x、EfficientNet-B0、EfficientNetV2-S、GhostNet 和 MobileNetV4 的主干由
`tests/models/blocks/test_families.py` 与 torchvision 和 timm 的网络比较。

按名字使用即可：`python train.py --cfg yolov5s_CBAM.yaml`。来源为 arXiv 论文编号。
`python models/yolo.py --cfg yolov5s_CBAM.yaml` 逐层打印参数量、参数、输出形状和步长；`--profile` 和 `--line-profile` 测量
整个模型和各层的耗时，`--size n|s|m|l|x` 换成另一种深度和宽度。`python models/yolo.py --test` 把全部模型构建并运行一遍。

每一层输出能看多远？`python models/yolo.py --cfg yolov5s_CBAM.yaml --erf` 把有效感受野画成 `erf.png`
（Luo 等，arXiv:1701.04128），并给出进入检测头的每张特征图正中那个单元的梯度有 50 % 和 95 % 落在多大的正方形里
（边长，像素）。用的是始终相同的初始权重：说明的是网络结构在学习之前的视野，适合在同样的 `--imgsz` 下比较两种结构。

## 模型 YAML 的键

| 键 | 值 |
| --- | --- |
| `nc` | 类别数；训练时以数据集的类别数为准 |
| `anchors` | 锚框的宽、高（像素），每个输出一行，从最细的开始；也可以只写每个输出的锚框个数 |
| `backbone`、`head` | 各行 `[from, number, module, args]`；主干也可以是一个网络的名字 |
| `depth_multiple`、`width_multiple` | 每行重复次数和通道数的系数；默认 1 |
| `channel_multiple` | 缩放后的通道数向上取整到它的倍数；默认 8 |
| `stock_widths` | 通道数等于 锚框数 × (类别数 + 5) 的行是否像 YOLOv5 那样不缩放；默认 `true` |
| `size` | `n`、`s`、`m`、`l` 或 `x`，代替上面两个系数 |
| `activation` | 所有卷积的激活函数，例如 `nn.LeakyReLU(0.1)`；默认 SiLU |
| `batchnorm` | 主干中 BatchNorm 的 `eps` 和 `momentum` |
| `normalize` | 图片的 `mean` 和 `std`，用于按名字指定的主干 |
| `ch` | 图片的通道数；默认 3 |

YOLOv5 缩放每一行的通道数，只有通道数恰好等于检测头一个输出的通道数的行除外。因此类别数可能改变主干：
24 个通道就是 3 × (3 + 5)，所以 3 类时 `yolov5s_EfficientNetV2.yaml` 的 stem 更宽；
48 就是 3 × (11 + 5)，11 类时它要 9.9 GFLOPs，而不是 5.4。已发表的 YAML 保留这一规则，因为人们要比较它们的数字，
其他项目的权重文件也是这样的形状；遇到这种情况时，会有一行 `warning:` 说明在哪里、代价多大。
`stock_widths: false` 会缩放每一行。`yolov5s_EfficientNetV2-P3.yaml` 以及
`yolov5l_ShuffleNetV2.yaml` 的 n、s、m、x 各尺寸都这样写。权重文件保持训练时的通道数。
"""


def source(path: Path) -> str:
    """The papers that a YAML's comment names: arXiv numbers as links, else the conference."""
    comment = path.read_text(encoding="utf-8").partition("\nnc:")[0]
    numbers = sorted(set(re.findall(r"\b(\d{4}\.\d{5})\b", comment)))
    links = [f"[{number}](https://arxiv.org/abs/{number})" for number in numbers]
    return ", ".join(links or re.findall(r"(?:CVPR|ICML) \d{4}", comment)) or "—"


def row(path: Path) -> str:
    """One line of the table, measured."""
    model = DetectionModel(path)
    strides = ", ".join(f"{s:g}" for s in model.stride.tolist())
    return (
        f"| `{path.name}` | {count_parameters(model)[0]:,} | {count_gflops(model):.1f} | {strides} | {source(path)} |"
    )


def tables() -> list[list[str]]:
    """The rows of each group."""
    found: list[list[str]] = [[] for _ in GROUPS]
    for path in tqdm(model_yamls(), desc="models"):
        name = path.relative_to(ROOT).as_posix()
        group = next(i for i, (_, _, pattern) in enumerate(GROUPS) if re.search(pattern, name))
        found[group].append(row(path))
    return found


def document(intro: str, titles: list[str], head: str, rows: list[list[str]]) -> str:
    rule = "| --- | ---: | ---: | --- | --- |"
    parts = [f"## {title}\n\n{head}\n{rule}\n" + "\n".join(lines) for title, lines in zip(titles, rows, strict=True)]
    return "\n".join([intro, *(f"{part}\n" for part in parts)])


if __name__ == "__main__":
    measured = tables()
    english, chinese = [g[0] for g in GROUPS], [g[1] for g in GROUPS]
    docs = ROOT / "docs"
    docs.mkdir(exist_ok=True)
    head = "| model YAML | parameters | GFLOPs | strides | source |"
    (docs / "models.md").write_text(document(ENGLISH, english, head, measured), encoding="utf-8")
    head = "| 模型 YAML | 参数量 | GFLOPs | 步长 | 来源 |"
    (docs / "models.zh-CN.md").write_text(document(CHINESE, chinese, head, measured), encoding="utf-8")
