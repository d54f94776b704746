"""Whose exported files are run: programs (TorchScript, TensorRT) of this user's export.py, or upon --trust."""

import os
import shutil
import stat

import pytest
import torch

from engine.detection.detector import load_detector
from engine.detection.hub import load_hub_model
from engine.export.runtime import Runtime
from engine.export.trust import MOST_FILES, files_of, is_own, remember
from tests.helpers.export import export_quietly
from tests.helpers.hostile_scripts import OnLoad
from tests.helpers.models import make_weights
from tests.helpers.project import assert_user_error, command_here
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, where the list isn't yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "yolov5-apart" / "exports.sha256"


@pytest.fixture
def exported(cache, tmp_path):
    """A TorchScript file that export.py has written."""
    return export_quietly(make_weights(tmp_path / "best.pt", seed=0), "torchscript", imgsz=[64])[0].file


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_program_of_others_is_run_upon_trust_only(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    torch.jit.save(torch.jit.script(OnLoad()), "best.torchscript")
    (tmp_path / "best.engine").write_bytes(b"plan")
    words = ("--source", "nothing.jpg", "--device", "cpu")
    for name in ("best.torchscript", "best.engine"):
        (tmp_path / "nothing.jpg").touch()
        result = command_here("detect.py", "--weights", name, *words, cwd=tmp_path)
        assert_user_error(result, f"{name}: is a program", "add --trust (in Python: trust=True)")
        result = command_here("val.py", "--weights", name, "--device", "cpu", cwd=tmp_path)
        assert_user_error(result, f"{name}: is a program")
    with pytest.raises(UserError, match="is a program"):
        load_hub_model("best.torchscript", device="cpu")
    assert not (tmp_path / "canary").exists()
    # the payload is a real one
    with pytest.raises(UserError, match="its metadata are no JSON"):
        load_hub_model("best.torchscript", device="cpu", trust=True)
    assert (tmp_path / "canary").exists()


def test_what_export_has_written_here_is_run_as_it_is(exported, cache, tmp_path):
    assert load_detector(exported, CPU).nc == 2
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600
    assert cache.read_text().count("\n") == 1
    remember(exported)
    assert cache.read_text().count("\n") == 1
    # the same file elsewhere; then one byte of it differs
    copy = shutil.copyfile(exported, tmp_path / "copy.torchscript")
    assert is_own(copy)
    with open(copy, "r+b") as f:
        f.write(b"Q")
    assert not is_own(copy)
    with pytest.raises(UserError, match="is a program"):
        Runtime(copy)


def test_files_of_another_account_or_machine_need_trust(exported, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(UserError, match="is a program"):
        load_detector(exported, CPU)
    assert load_detector(exported, CPU, trust=True).nc == 2
    assert not (tmp_path / "elsewhere").exists()


def test_a_list_that_others_may_write_says_nothing(exported, cache):
    cache.chmod(0o666)
    assert not is_own(exported)
    cache.chmod(0o600)
    assert is_own(exported)


def test_a_list_that_can_not_be_written_does_not_stop_an_export(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    (tmp_path / "file").touch()
    (result,) = export_quietly(make_weights(tmp_path / "best.pt", seed=0), "torchscript", imgsz=[64])
    # compared with PyTorch all the same
    assert result.ok and result.difference is not None
    assert "best.torchscript needs --trust" in capsys.readouterr().out
    with pytest.raises(UserError, match="is a program"):
        Runtime(result.file)


def test_of_a_folder_every_file_counts(tmp_path, cache):
    folder = tmp_path / "a_ncnn_model"
    (folder / "within").mkdir(parents=True)
    (folder / "a").write_text("1")
    (folder / "within" / "b").write_text("2")
    remember(folder)
    assert is_own(folder)
    (folder / "within" / "b").write_text("3")
    assert not is_own(folder)
    (folder / "within" / "b").write_text("2")
    (folder / "a").rename(folder / "c")
    assert not is_own(folder)


def test_only_regular_files_are_read(tmp_path):
    for name in ("a.onnx", "a_openvino_model"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(UserError, match="is a pipe, device or socket"):
            Runtime(tmp_path / name)
    (tmp_path / "b.onnx").mkdir()
    with pytest.raises(UserError, match="is a folder, a model file was expected"):
        Runtime(tmp_path / "b.onnx")
    (tmp_path / "b_ncnn_model").touch()
    with pytest.raises(UserError, match="b_ncnn_model: is a file, and what export.py writes as ncnn is a folder"):
        Runtime(tmp_path / "b_ncnn_model")
    folder = tmp_path / "c_ncnn_model"
    folder.mkdir()
    (folder / "model.ncnn.bin").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="model.ncnn.bin: is a pipe, device or socket"):
        Runtime(folder)
    (folder / "model.ncnn.bin").unlink()
    with pytest.raises(UserError, match="holds no files"):
        Runtime(folder)
    for i in range(MOST_FILES + 1):
        (folder / str(i)).touch()
    with pytest.raises(UserError, match=f"holds {MOST_FILES + 1} files"):
        files_of(folder)


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="a regular file that can't be read is there on Linux")
@pytest.mark.parametrize("name", ["a.torchscript", "a.onnx"])
def test_a_file_that_can_not_be_read_is_one_error(name, tmp_path):
    (tmp_path / name).symlink_to("/proc/self/mem")
    with pytest.raises(UserError, match=f"{name}: this model file can't be read: Input/output error"):
        Runtime(tmp_path / name)
