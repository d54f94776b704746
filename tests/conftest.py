"""What several tests share: the reference figures, a tiny data set, and the commands run as a user runs them."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"  # figures, photographs and a checkpoint that are not part of the project


def shared(*parts: str) -> Path:
    """A file or folder beside the project; the test is skipped where it isn't there."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {Path('..', 'shared', *parts)}, which is not part of the project")
    return path


@pytest.fixture
def reference():
    """``reference("loss.npz")``: an array file of figures to match, open."""
    opened = []

    def load(name: str):
        opened.append(np.load(shared("reference", name)))
        return opened[-1]

    yield load
    for file in opened:
        file.close()


@pytest.fixture(scope="session")
def yolov5n() -> Path:
    """The official checkpoint."""
    return shared("weights", "yolov5n.pt")


def command(*args: object, cwd: Path = ROOT, timeout: float = 600) -> subprocess.CompletedProcess:
    """Run one of the project's commands: ``command("train.py", "--epochs", 1)``."""
    script, *rest = map(str, args)
    line = [sys.executable, str(ROOT / script), *rest]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)


def assert_user_error(result: subprocess.CompletedProcess, *words: str) -> None:
    """The command ended as for a user's mistake: status 2, one line on stderr that begins with error and holds ``words``."""
    lines = [line for line in result.stderr.replace("\r", "\n").splitlines() if line.startswith("error:")]
    assert result.returncode == 2, result.stderr[-2000:]
    assert len(lines) == 1, result.stderr[-2000:]
    assert "Traceback" not in result.stderr
    for word in words:
        assert str(word) in lines[0]


def make_set(root: Path, train: int = 8, val: int = 4, size: tuple[int, int] = (64, 96), seed: int = 0) -> Path:
    """A data set of bright rectangles (class 0) and discs (class 1) on dark noise; returns its data YAML."""
    rng = np.random.default_rng(seed)
    height, width = size
    for split, count in (("train", train), ("val", val)):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
            lines = []
            for cls in (0, 1):
                side = int(rng.integers(height // 4, height // 2))
                x, y = int(rng.integers(0, width // 2 - side)) + cls * width // 2, int(rng.integers(0, height - side))
                color = [int(v) for v in rng.integers(150, 255, 3)]
                if cls == 0:
                    cv2.rectangle(image, (x, y), (x + side - 1, y + side - 1), color, -1)
                else:
                    cv2.circle(image, (x + side // 2, y + side // 2), side // 2, color, -1)
                box = ((x + side / 2) / width, (y + side / 2) / height, side / width, side / height)
                lines.append(f"{cls} " + " ".join(f"{v:.6f}" for v in box))
            cv2.imwrite(str(root / "images" / split / f"{i}.png"), image)
            (root / "labels" / split / f"{i}.txt").write_text("\n".join(lines) + "\n")
    yaml = root / "data.yaml"
    yaml.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: [rectangle, disc]\n")
    return yaml


@pytest.fixture(scope="session")
def learnt(tmp_path_factory) -> tuple[Path, Path, Path]:
    """A data YAML whose validation images are those of training, hyper-parameters without augmentation, and a checkpoint
    that has learnt these images: mAP50 about 0.5."""
    import train
    from engine.recipe.hyp import read_hyp
    from utils.yaml_file import write_yaml

    root = tmp_path_factory.mktemp("learnt")
    data = make_set(root / "set", train=12, val=1)
    data.write_text(data.read_text().replace("val: images/val", "val: images/train"))
    gains = {"lr0": 0.004, "nominal_batch": 4, "obj": 3.0, "cls": 2.0, "warmup_epochs": 0.0}
    write_yaml(root / "hyp.yaml", read_hyp("hyp.no-augmentation.yaml") | gains)
    size = {"cfg": "yolov5n.yaml", "imgsz": 64, "batch_size": 4, "epochs": 30, "workers": 0, "device": "cpu"}
    places = {"data": str(data), "hyp": str(root / "hyp.yaml"), "project": str(root / "runs")}
    folder = train.run(**size, **places, optimizer="AdamW", noplots=True, noval=True)
    return data, root / "hyp.yaml", folder / "weights" / "last.pt"


@pytest.fixture
def tiny_set(tmp_path) -> Path:
    """The data YAML of eight training and four validation images, 96 × 64 px, two classes."""
    return make_set(tmp_path / "tiny")


def lively(model: nn.Module, image: torch.Tensor) -> nn.Module:
    """Give every BatchNorm something to do: weights and biases at random, and about the statistics of ``image`` itself.

    Statistics far from them would make the signal grow from layer to layer. Returns the model in eval mode.
    """

    def adjust(norm: nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance + 3 * (variance + mean**2).mean())  # no small ones, which amplify rounding
        nn.init.uniform_(norm.weight, 0.5, 1.0)
        nn.init.uniform_(norm.bias, -0.5, 0.5)

    hooks = [m.register_forward_pre_hook(adjust) for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        model.eval()(image)
    for hook in hooks:
        hook.remove()
    return model
