"""What is asked of a device and of the machine, and names of devices that are none."""

import pytest
import torch

from utils.device import OutOfMemory, computes_bf16, free_memory, full_precision, select_device
from utils.distributed import World
from utils.errors import UserError


@pytest.mark.parametrize("name", ["²", "9" * 4000, "cuda:x", ",", "cuda:0,", "-1", "meta"])
def test_what_is_no_device_is_one_line(name):
    with pytest.raises(UserError, match="--device "):
        select_device(name)


@pytest.mark.parametrize(
    ("line", "native"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 clflush", True),
        ("flags\t\t: fpu amx_bf16", True),
        ("Features\t: fp asimd bf16 i8mm", True),
        ("flags\t\t: fpu avx512f avx512_fp16", False),
    ],
)
def test_a_processor_says_whether_it_computes_in_bfloat16(line, native, tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\n{line}\n")
    assert computes_bf16(file) is native
    assert computes_bf16(tmp_path / "none") is False


def test_only_cuda_says_how_much_memory_is_free():
    assert free_memory(torch.device("cpu")) is None


def test_full_precision_is_left_as_it_was_found():
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    with pytest.raises(OutOfMemory), full_precision():
        assert (convolutions.allow_tf32, products.allow_tf32) == (False, False)
        raise OutOfMemory
    assert (convolutions.allow_tf32, products.allow_tf32) == before == (True, False)


@pytest.mark.parametrize("told", ["two", "-1", "²", "1.5", "", "9" * 4000])
def test_what_torchrun_would_not_tell_is_one_line(told, monkeypatch):
    for variable in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("WORLD_SIZE", told)
    with pytest.raises(UserError, match="WORLD_SIZE in the environment"):
        World.join(torch.device("cpu"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="RANK in the environment: missing"):
        World.join(torch.device("cpu"))
    monkeypatch.setenv("LOCAL_RANK", told)
    with pytest.raises(UserError, match="LOCAL_RANK in the environment"):
        select_device("")
