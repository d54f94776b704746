"""Checkpoints: what is written comes back, what is foreign is read without running it, what is damaged is named."""

import errno
import os
import pickle
import subprocess
import zipfile

import numpy as np
import pytest
import torch

from engine.detection.detector import load_detector
from models.load import detector_from
from models.yolo import DetectionModel
from tests.helpers.models import own_checkpoint
from tests.helpers.project import ROOT, assert_user_error, command_here
from utils import checkpoint as module
from utils.checkpoint import read_checkpoint, save_checkpoint
from utils.errors import UserError

CPU = torch.device("cpu")


def test_what_is_written_comes_back(tmp_path):
    model = own_checkpoint(tmp_path / "a.pt")
    loaded = detector_from(read_checkpoint(tmp_path / "a.pt"))
    assert loaded.names == {0: "class 0", 1: "class 1"}
    assert loaded.trained_size == 96
    for (name, a), b in zip(model.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_the_average_is_preferred(tmp_path):
    model = DetectionModel("yolov5n.yaml", nc=1)
    average = {k: torch.ones_like(v) for k, v in model.state_dict().items()}
    data = {"yaml": model.yaml, "names": {0: "a"}, "model": model.state_dict(), "ema": average}
    save_checkpoint(tmp_path / "a.pt", data)
    assert read_checkpoint(tmp_path / "a.pt").model["model.0.conv.weight"].eq(1).all()


def holding(tensor: torch.Tensor) -> dict:
    return {"yaml": {}, "names": {0: "a"}, "model": {"a": tensor}}


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path):
    """On a small file system of its own; where that can't be made, a limit on the size of files does the same."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True).returncode
        == 0
    )
    try:
        save_checkpoint(folder / "last.pt", holding(torch.ones(10)))
        if mounted:
            with pytest.raises(UserError, match=os.strerror(errno.ENOSPC)):
                save_checkpoint(folder / "last.pt", holding(torch.ones(10**6)))
        else:
            import resource
            import signal

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, before[1]))
            try:
                with pytest.raises(UserError, match=os.strerror(errno.EFBIG)):
                    save_checkpoint(folder / "last.pt", holding(torch.ones(10**6)))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert read_checkpoint(folder / "last.pt").model["a"].tolist() == [1] * 10
        assert [p.name for p in folder.iterdir()] == ["last.pt"]
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def test_official_checkpoint(yolov5n):
    checkpoint = read_checkpoint(yolov5n)
    assert len(checkpoint.model) == 349
    assert checkpoint.names[0] == "person" and len(checkpoint.names) == 80
    assert checkpoint.yaml["depth_multiple"] == 0.33 and checkpoint.yaml["width_multiple"] == 0.25
    model = detector_from(checkpoint)
    assert list(model.state_dict()) == list(checkpoint.model)


def test_reading_the_official_checkpoint_imports_and_runs_nothing_of_its_classes(yolov5n):
    """Its pickle names models.yolo.Model and its like: reading it must not even look them up."""
    script = (
        "import sys, builtins\n"
        "from utils.checkpoint import read_checkpoint\n"
        "real = builtins.__import__\n"
        "def watched(name, *args, **kwargs):\n"
        "    assert not name.startswith(('models', 'ultralytics')), name\n"
        "    return real(name, *args, **kwargs)\n"
        "builtins.__import__ = watched\n"
        f"print(len(read_checkpoint({str(yolov5n)!r}).model))\n"
        "assert not any(name.startswith('models') for name in sys.modules)\n"
    )
    result = subprocess.run([os.sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.strip() == "349", result.stderr


class Evil:
    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


def evil_files(folder):
    """Pickles whose loading would touch ``folder``/ran, in every dress a checkpoint comes in."""
    command = f"touch {folder / 'ran'}"
    calls = {
        "system": (os.system, (command,)),
        "exec": (exec, (f"import os; os.system({command!r})",)),
        "popen": (subprocess.Popen, (["touch", str(folder / "ran")],)),
        "getattr": (getattr, ("", "upper")),
    }
    for name, call in calls.items():
        for protocol in (2, 4):
            torch.save({"model": Evil(call)}, folder / f"{name}{protocol}.pt", pickle_protocol=protocol)
            (folder / f"{name}{protocol}-bare.pt").write_bytes(pickle.dumps({"model": Evil(call)}, protocol))
        torch.save({"model": Evil(call)}, folder / f"{name}-old.pt", _use_new_zipfile_serialization=False)
    return sorted(folder.glob("*.pt"))


def test_pickles_that_call_code_are_refused_and_nothing_runs(tmp_path):
    files = evil_files(tmp_path)
    assert len(files) == 20
    for file in files:
        with pytest.raises(UserError, match=file.name):
            read_checkpoint(file)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("script", ["detect.py", "val.py", "train.py"])
def test_the_commands_refuse_such_a_file(script, tmp_path, tiny_set):
    torch.save({"model": Evil((os.system, (f"touch {tmp_path / 'ran'}",)))}, tmp_path / "evil.pt")
    data = [] if script == "detect.py" else ["--data", tiny_set]
    result = command_here(script, "--weights", tmp_path / "evil.pt", "--project", tmp_path, *data)
    assert_user_error(result, "evil.pt", "system", "refused")
    assert not (tmp_path / "ran").exists()


def fake_fork(tmp_path, save=torch.save, **extra):
    """A checkpoint pickled as a fork would: module objects of classes that this process then no longer has."""
    import sys
    import types

    fork = types.ModuleType("fork_of_yolo")
    sys.modules["fork_of_yolo"] = fork
    try:

        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = DetectionModel("yolov5n.yaml", nc=2).model
                self.yaml = {**DetectionModel("yolov5n.yaml", nc=2).yaml}
                self.names = ["cat", "dog"]

        Model.__module__, Model.__qualname__ = "fork_of_yolo", "Model"
        fork.Model = Model
        model = Model()
        data = {"epoch": 3, "best_fitness": np.array([0.5]), "model": model, "ema": None, "date": "2024", **extra}
        save(data, tmp_path / "fork.pt")
        return model.state_dict()
    finally:
        del sys.modules["fork_of_yolo"]


def test_the_oldest_format_is_read_alike(tmp_path):
    state = fake_fork(tmp_path, lambda data, path: torch.save(data, path, _use_new_zipfile_serialization=False))
    found = read_checkpoint(tmp_path / "fork.pt").model
    assert list(found) == list(state) and all(torch.equal(found[k], v) for k, v in state.items())
    torch.save({"a": torch.ones(3)}, tmp_path / "state.pt", _use_new_zipfile_serialization=False)
    assert read_checkpoint(tmp_path / "state.pt").model["a"].tolist() == [1, 1, 1]  # bare weights are fine


def test_checkpoint_of_a_fork(tmp_path):
    state = fake_fork(tmp_path, opt={"path": module.Path("x")})
    known = set(torch.serialization.get_safe_globals())
    checkpoint = read_checkpoint(tmp_path / "fork.pt")
    assert set(torch.serialization.get_safe_globals()) == known
    assert checkpoint.names == {0: "cat", 1: "dog"}
    assert list(checkpoint.model) == list(state)
    model = load_detector(tmp_path / "fork.pt", CPU)
    assert model.nc == 2


def test_damaged_and_foreign_files_are_named(tmp_path):
    own_checkpoint(tmp_path / "a.pt")
    data = (tmp_path / "a.pt").read_bytes()
    cases = {
        "cut.pt": data[: len(data) // 2],
        "empty.pt": b"",
        "text.pt": b"<html>404 Not Found</html>",
        "zeros.pt": bytes(5000),
        "picture.pt": b"\x89PNG\r\n\x1a\n" + bytes(100),
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            read_checkpoint(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match="no training checkpoint"):
        read_checkpoint(tmp_path / "other.pt")
    with pytest.raises(UserError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "missing.pt")


def test_a_flipped_byte_is_noticed(tmp_path):
    own_checkpoint(tmp_path / "a.pt")
    data = bytearray((tmp_path / "a.pt").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(tmp_path / "a.pt")


def test_tensors_that_do_not_fit_their_yaml(tmp_path):
    model = DetectionModel("yolov5n.yaml", nc=2)
    state = model.state_dict()
    state["model.0.conv.weight"] = torch.zeros(3, 3)
    save_checkpoint(tmp_path / "a.pt", {"yaml": model.yaml, "names": {0: "a", 1: "b"}, "model": state})
    with pytest.raises(UserError, match=r"1 of its tensors.*model\.0\.conv\.weight"):
        load_detector(tmp_path / "a.pt", CPU)
