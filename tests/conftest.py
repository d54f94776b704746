"""What tests of several rooms are given: the reference figures, a tiny data set, a checkpoint that has learnt another."""

import fcntl
import os
from pathlib import Path

import numpy as np
import pytest

# asserts in helpers show their values, as those in tests do; before anything imports them
pytest.register_assert_rewrite("tests.helpers")

from tests.helpers.project import shared  # noqa: E402
from tests.helpers.sets import make_set  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """The list of the files that export.py has written, apart from that of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


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


@pytest.fixture(scope="session")
def learnt(tmp_path_factory) -> tuple[Path, Path, Path]:
    """A data YAML whose validation images are those of training, hyper-parameters without augmentation, and a checkpoint
    that has learnt these images: mAP50 about 0.5."""
    base = tmp_path_factory.getbasetemp()
    # processes of pytest-xdist have a folder each in a common one: the first that needs the checkpoint trains, others wait
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "learnt"
    with open(root.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            learn(root)
    return root / "set" / "data.yaml", root / "hyp.yaml", root / "runs" / "exp" / "weights" / "last.pt"


def learn(root: Path) -> None:
    import train
    from engine.recipe.hyp import read_hyp
    from utils.yaml_file import write_yaml

    data = make_set(root / "set", train=12, val=1)
    data.write_text(data.read_text().replace("val: images/val", "val: images/train"))
    gains = {"lr0": 0.004, "nominal_batch": 4, "obj": 3.0, "cls": 2.0, "warmup_epochs": 0.0}
    write_yaml(root / "hyp.yaml", read_hyp("hyp.no-augmentation.yaml") | gains)
    size = {"cfg": "yolov5n.yaml", "imgsz": 64, "batch_size": 4, "epochs": 30, "workers": 0, "device": "cpu"}
    places = {"data": str(data), "hyp": str(root / "hyp.yaml"), "project": str(root / "runs")}
    train.run(**size, **places, optimizer="AdamW", noplots=True, noval=True)


@pytest.fixture
def tiny_set(tmp_path) -> Path:
    """The data YAML of eight training and four validation images, 96 × 64 px, two classes."""
    return make_set(tmp_path / "tiny")
