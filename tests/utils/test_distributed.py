"""What processes tell each other, and what becomes of one whose peers are gone or silent.

Real processes meet over gloo here. What only a machine with GPUs or with Windows could answer is answered by stand-ins.
"""

import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from tests.helpers.project import ROOT
from utils.distributed import PeerLost, World, backend_for, timeout_minutes
from utils.errors import UserError

START = """
import os, sys, time
sys.path.insert(0, {root!r})
import torch
from dataclasses import replace
from utils.distributed import PeerLost, World
from utils.errors import UserError
world = World.join(torch.device("cpu"))
say = lambda *words: print(*words, file=sys.stderr)
"""


def in_processes(code: str, count: int = 2, **environment: str) -> list[subprocess.CompletedProcess]:
    """Run ``code``, which has ``world`` and ``say``, in so many processes that meet each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count)}
    line = [sys.executable, "-c", START.format(root=str(ROOT)) + code]
    started = [
        subprocess.Popen(
            line,
            env={**os.environ, **place, "OMP_NUM_THREADS": "1", "RANK": str(rank), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        said = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    return [
        subprocess.CompletedProcess(line, process.returncode, *words)
        for process, words in zip(started, said, strict=True)
    ]


def test_words_between_processes_need_no_gpu():
    """Each calls itself a process on a GPU, which PyTorch refuses any tensor on here: only CPU tensors may travel."""
    done = in_processes("""
world = replace(world, device=torch.device("cuda", 0))
say(world.any(world.rank == 1), world.any(False), world.gather(world.rank), world.from_first(lambda: "found"))
with world.first_before_others():
    say("in turn")
try:
    world.from_first(lambda: (_ for _ in ()).throw(UserError("no such file")))
except UserError as e:
    say(e)
""")
    for process in done:
        assert process.returncode == 0, process.stderr
        assert process.stderr.splitlines()[-3:] == ["True False [0, 1] found", "in turn", "no such file"]


def test_an_error_in_all_processes_ends_each_with_its_own_status():
    """They exit right after a word was exchanged: gloo's threads once met an interpreter that was gone (SIGABRT)."""
    code = """
try:
    world.from_first(lambda: (_ for _ in ()).throw(UserError("no such file")))
except UserError as e:
    say(e)
    sys.exit(2)
"""
    # as a Python does that starts no threads at its end
    threadless = "import threading\ndef refuse(*_): raise RuntimeError\nthreading.Thread.start = refuse\n"
    done = [process for before in ("", "", "", threadless) for process in in_processes(before + code)]
    assert [(process.returncode, process.stderr) for process in done] == [(2, "no such file\n")] * 8


def test_a_peer_that_is_busy_for_too_long_is_told_from_one_that_has_ended():
    """The first is silent for longer than the others may wait, and then finds that they have gone."""
    done = in_processes(
        """
try:
    world.from_first(lambda: time.sleep(10))
    say("met" if world.is_first else "heard")
    world.any(False)
except PeerLost as e:
    say(e)
    sys.exit(2)
""",
        YOLO_TIMEOUT_MINUTES="0.1",
    )
    assert [process.returncode for process in done] == [2, 2]
    assert "has waited 0.1 minutes for another one; where that is only slow, set YOLO_TIMEOUT_MINUTES" in done[1].stderr
    assert "another one has ended" in done[0].stderr


LOST = [
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:38127",
    "[enforce fail at pair.cc] Read error [10.0.0.2]:4711: Connection reset by peer",
    "NCCL error in: ProcessGroupNCCL.cpp:2251, remote process exited or there was a network error, NCCL version 2.27.5\n"
    "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.",
    "NCCL communicator was aborted on rank 1.",
]
OURS = [
    "NCCL error in: ProcessGroupNCCL.cpp:3690, unhandled cuda error, NCCL version 2.27.5\nCuda failure 2 'out of memory'",
    "NCCL error: invalid usage: Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1000",
    "CUDA error: an illegal memory access was encountered",
    "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)",
]


@pytest.mark.parametrize("said", LOST)
def test_a_broken_connection_is_a_lost_peer(said):
    error = dist.DistBackendError(said)
    assert isinstance(World(1, 2).lost(error), PeerLost)
    assert World().lost(error) is error


@pytest.mark.parametrize("said", OURS)
def test_other_errors_of_the_libraries_stay_what_they_are(said):
    error = dist.DistBackendError(said)
    assert World(1, 2).lost(error) is error


def test_gpus_have_nccl_beside_gloo_and_windows_has_gloo(monkeypatch):
    """A stand-in says which of them PyTorch was built with."""
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    assert backend_for(torch.device("cuda", 1)) == "cpu:gloo,cuda:nccl"
    assert backend_for(torch.device("cpu")) == "gloo"
    monkeypatch.setattr(dist, "is_nccl_available", lambda: False)
    assert backend_for(torch.device("cuda", 1)) == "gloo"


@pytest.mark.parametrize(("platform", "said"), [("win32", "0"), ("linux", None)])
def test_windows_serves_the_store_without_libuv(platform, said, monkeypatch):
    """A stand-in for the name of the system, and for the meeting: it ends before anybody is met."""

    class Met(Exception):
        pass

    def meet(_):
        raise Met

    for name, value in {"WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    # set first, so that it is taken back afterwards
    monkeypatch.setenv("USE_LIBUV", "1")
    monkeypatch.delenv("USE_LIBUV")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(dist, "rendezvous", meet)
    with pytest.raises(Met):
        World.join(torch.device("cpu"))
    assert os.environ.get("USE_LIBUV") == said


@pytest.mark.parametrize("said", ["soon", "0", "-3", "nan", "inf", "1e300"])
def test_the_time_to_wait_is_a_number_of_minutes(said, monkeypatch):
    monkeypatch.setenv("YOLO_TIMEOUT_MINUTES", said)
    with pytest.raises(UserError, match="YOLO_TIMEOUT_MINUTES=.*: give minutes, a number above 0"):
        timeout_minutes()
    monkeypatch.setenv("YOLO_TIMEOUT_MINUTES", "2.5")
    assert timeout_minutes() == 2.5
    monkeypatch.delenv("YOLO_TIMEOUT_MINUTES")
    assert timeout_minutes() == 120


def test_alone_there_is_nobody_to_wait_for(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    world = World.join(torch.device("cpu"))
    assert world == replace(World(), restarted=True) and world.from_first(lambda: 3) == 3 and not world.any(False)
