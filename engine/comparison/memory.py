"""The memory that inference and training take, each in a process of its own, and how many images training takes a second.

    measure_apart(inference, ...)    what the function returns, called in a new process

A process is asked for the most that it ever held. What importing libraries takes is taken off, those of networks by name
included: importing torchvision's holds more memory than a small detector.
"""

import multiprocessing
import os
import statistics
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from engine.detection.detector import load_detector
from engine.training.options import TrainOptions
from engine.training.setup import set_up
from models.plugins import load_plugins
from utils.device import select_device, times_ms
from utils.errors import UserError, one_line, shown

# steps of a training: the first ones make what the others find there
WARM_UP, STEPS = 2, 5
# boxes of an image of noise
BOXES = 16
LIBRARIES = ("torchvision.models", "timm")


def measure_apart(function: Callable[..., Any], *given: Any) -> Any:
    """``function(*given)`` in a process of its own, which must stand in a module. Raises UserError with what it said, or that
    it was ended."""
    spawning = multiprocessing.get_context("spawn")
    receiver, sender = spawning.Pipe(duplex=False)
    process = spawning.Process(target=_answer, args=(sender, function, given), daemon=True)
    process.start()
    sender.close()
    try:
        answer, error = receiver.recv()
    except EOFError:
        process.join()
        raise UserError(f"its process ended with status {process.exitcode} (was there enough memory?)") from None
    finally:
        # it has nothing left to say
        process.join(60)
        if process.is_alive():
            process.kill()
            process.join()
    if error:
        raise UserError(error)
    return answer


def _answer(sender: Connection, function: Callable[..., Any], given: tuple) -> None:
    try:
        # what a training says of itself is of no use here
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            answer = function(*given), ""
    except UserError as e:
        answer = None, one_line(e)
    # whatever else ends a measurement is told in its row
    except Exception as e:
        answer = None, f"{type(e).__name__}: {shown(str(e))}"
    sender.send(answer)


def most_held(device: torch.device) -> int | None:
    """Bytes that this process has held at most, of a CUDA device or of the machine; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return most_resident()


def most_resident(process: int | str = "self") -> int | None:
    """Bytes of the machine's memory that a process has held at most; None where it has ended, or the system does not say."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def megabytes_since(before: int | None, device: torch.device) -> float | None:
    """By how many 10⁶ bytes the most that this process has held has grown."""
    after = most_held(device)
    return None if before is None or after is None else max(0, after - before) / 1e6


def inference(weights: str, imgsz: int, device: str | int, plugins: list[str], trust: bool) -> float | None:
    """10⁶ bytes for one image through the model."""
    load_plugins(plugins)
    device = select_device(device)
    import_libraries()
    before = most_held(device)
    model = load_detector(weights, device, trust=trust)
    height, width = model.fixed_size or (imgsz, imgsz)
    with torch.inference_mode():
        for _ in range(2):
            model.suppress(model(torch.zeros(1, 3, height, width, device=device))[0].float())
    return megabytes_since(before, device)


def import_libraries() -> None:
    """Import LIBRARIES as far as they are installed, whether or not a candidate needs them."""
    for name in LIBRARIES:
        with suppress(ImportError):
            import_module(name)


def training(options: TrainOptions) -> tuple[float | None, float]:
    """(10⁶ bytes, images a second) of steps upon batches of noise: forward, loss, backward, update."""
    device = select_device(options.device)
    import_libraries()
    before = most_held(device)
    run = set_up(options, keep_records=False)
    learner, batch, size = run.learner, run.options.batch_size, run.data.imgsz
    images = torch.rand(batch, learner.model.yaml["ch"], size, size, device=device)
    targets = torch.rand(batch * BOXES, 6)
    targets[:, 0] = torch.arange(len(targets)) // BOXES
    targets[:, 1] = 0
    learner.parallel.train()

    def step() -> None:
        # each of them changes the weights
        run.state.last_update = -learner.schedule.accumulate
        learner.step(images, targets, 0, run.state)

    times = times_ms(step, device, STEPS, WARM_UP)
    return megabytes_since(before, device), batch / statistics.median(times) * 1e3
