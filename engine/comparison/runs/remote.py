"""Trainings on the machines of a Ray cluster: --ray ADDRESS.

with Cluster(address, jobs) as cluster:
    process = cluster.start(line, job)    a training there, which is asked what a process is: poll, send_signal, terminate

The machines see the project and the folder of the study under the same paths, as over NFS. A training whose machine is lost
begins again on another one, where its last checkpoint stands.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.errors import UserError, shown
from utils.extras import load_extra
from utils.paths import ROOT

# how often a training is begun again whose machine was lost
RETRIES = 3
KILLED = -9
LOCAL = "local"
PATIENCE = 10  # seconds until a cluster must answer
# of Linux: the signal that a process gets when its parent ends
PR_SET_PDEATHSIG = 1


class Cluster:
    """A Ray cluster that ``jobs`` trainings share; it is looked for when the first one begins."""

    def __init__(self, address: str, jobs: int):
        self.address, self.jobs = address, jobs
        self.ray: Any = None

    def _connect(self) -> None:
        """Raises UserError where Ray is missing, or no cluster answers."""
        address = self.address
        # it would report to the internet
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray = load_extra("ray", "--ray")
        handler = signal.getsignal(signal.SIGTERM)
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
        there = {"runtime_env": {"env_vars": {"PYTHONPATH": str(ROOT)}}}
        try:
            _knock(address)
            ray.init(address, **quiet, **there, **({"include_dashboard": False} if address == LOCAL else {}))
        except (OSError, OverflowError, ValueError, RuntimeError) as e:
            raise UserError(
                f"--ray {shown(address)}: no cluster answers ({shown(str(e), 200)}); start one with `ray start --head`, or take "
                f"--ray {LOCAL}, which starts one here"
            ) from None
        finally:
            # Ray takes it for itself
            signal.signal(signal.SIGTERM, handler)
        self.ray = ray
        machines = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        cores = [int(machine.get("CPU", 0)) for machine in machines]
        # a training stays on one machine
        self.cores = max(1, min(max(cores), sum(cores) // self.jobs))
        self.gpus = int(any(machine.get("GPU", 0) for machine in machines))
        print(f"--ray: {len(machines)} machines of {sum(cores)} cores; {self.cores} of them for each training")

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: Any) -> None:
        if self.ray:
            self.ray.shutdown()

    def start(self, line: Callable[[], list[str]], log: Path, said: str) -> "RemoteProcess":
        """A process of the command line that ``line`` gives, whose output is added to ``log``."""
        if not self.ray:
            self._connect()
        return RemoteProcess(self, line, log.absolute(), said)


class RemoteProcess:
    """A process on some machine of a cluster; what is asked of it is as with subprocess.Popen."""

    def __init__(self, cluster: Cluster, line: Callable[[], list[str]], log: Path, said: str):
        self.cluster, self.line, self.log, self.said = cluster, line, log, said
        self.tries, self.asked = 0, 0
        self._begin()

    def _begin(self) -> None:
        ray, cores = self.cluster.ray, self.cluster.cores
        kind = ray.remote(num_cpus=cores, num_gpus=self.cluster.gpus, max_concurrency=3)(Runner)
        self.runner = kind.remote()
        environment = {"OMP_NUM_THREADS": str(cores)}
        self.answer = self.runner.run.remote(self.line(), str(self.log), os.getcwd(), environment)

    def poll(self) -> int | None:
        """The status it has ended with; None while it runs, or waits for a machine."""
        ray = self.cluster.ray
        done, _ = ray.wait([self.answer], timeout=0)
        if not done:
            return None
        try:
            return ray.get(self.answer)
        except ray.exceptions.RayActorError:
            self.tries += 1
            if self.asked or self.tries > RETRIES:
                return KILLED
            print(f"{self.said}: its machine was lost; it goes on on another", flush=True)
            self._begin()
            return None
        except ray.exceptions.RayTaskError as e:
            with open(self.log, "a", encoding="utf-8") as log:
                log.write(f"error: {shown(str(e.cause), 300)}\n")
            return 1

    def send_signal(self, number: int) -> None:
        """Pass it on; one that still waits for a machine does not begin any more."""
        self.asked = number
        self.runner.signal.remote(number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class Runner:
    """On a machine of the cluster: holds one process, and is asked for its end and to signal it at the same time."""

    def __init__(self):
        self.process: subprocess.Popen | None = None
        self.asked = 0

    def run(self, line: list[str], log: str, folder: str, environment: dict[str, str]) -> int:
        """The status that a command line, typed in ``folder``, ends with."""
        if self.asked:
            return 128 + self.asked
        own = {"env": os.environ | environment, "cwd": folder, "start_new_session": True}
        # what outlives its holder would write into the folder of the next one
        bound = {"preexec_fn": _end_with_parent} if sys.platform.startswith("linux") else {}
        with open(log, "ab") as said:
            self.process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=said, stderr=said, **own, **bound)
        if self.asked:
            self.process.send_signal(self.asked)
        return self.process.wait()

    def number(self) -> int:
        """Of its own process, by which its machine knows it."""
        return os.getpid()

    def signal(self, number: int) -> None:
        self.asked = number
        if self.process:
            self.process.send_signal(number)


def _knock(address: str) -> None:
    """Raises OSError where nobody answers at host:port or ray://host:port: Ray itself would wait for very long."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
