"""What a training run leaves in its folder. Of several processes only the first has Records; the others are Silent."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.evaluation.figures import Evaluation
from engine.evaluation.recorder import Recorder, plot_evaluation
from utils.checkpoint import read_checkpoint, save_checkpoint
from utils.console.typed import quoted
from utils.data.labels import Annotation
from utils.data.loader import Batch
from utils.files import write_table
from utils.plots.grid import plot_images
from utils.plots.labels import plot_labels
from utils.plots.runs import plot_results
from utils.results import columns_of, write_cells
from utils.yaml_file import write_yaml

# in finished checkpoints
KEPT = "yaml names earlier_epochs epoch best_fitness best_epoch hyp args date results launch".split()


class Records:
    """Settings, tables, checkpoints and pictures in ``folder``; no pictures without ``plots``."""

    def __init__(self, folder: Path, names: dict[int, str], plots: bool):
        self.folder = folder
        self.names = names
        self.plots = plots
        self.weights = folder / "weights"
        self.weights.mkdir(exist_ok=True)
        self.unwritten: list[dict[str, float]] = []  # all rows of results.csv, where it couldn't be written
        self.board = None  # opened with the first results, so that a run can be loaded where nothing can be written

    def start(self, arguments: dict, hyp: dict, annotations: list[Annotation]) -> None:
        """What the run was asked for, and a picture of its labels."""
        write_yaml(self.folder / "opt.yaml", arguments)
        write_yaml(self.folder / "hyp.yaml", hyp)
        if self.plots:
            plot_labels(np.concatenate([a.labels for a in annotations]), self.names, self.folder / "labels.jpg")

    def batch(self, number: int, batch: Batch) -> None:
        """A picture of one of the first batches, as the model sees it."""
        if self.plots and number < 3:
            images = batch.images.permute(0, 2, 3, 1).contiguous().numpy()
            titles = [Path(p).name for p in batch.paths]
            plot_images(images, batch.targets.numpy(), self.folder / f"train_batch{number}.jpg", self.names, titles)

    def results(self, rows: list[dict[str, float]]) -> None:
        """results.csv, written whole, so that a resumed run has no row twice; the last row to TensorBoard, too.

        Where it is open elsewhere, the next epoch writes the rows of this one.
        """
        self._write(rows)
        self.board = self.board or open_board(self.folder)
        if self.board:
            for column in columns_of(rows[-1])[1:]:
                self.board.add_scalar(column.name, rows[-1][column.name], rows[-1]["epoch"])
            self.board.flush()

    def _write(self, rows: list[dict[str, float]]) -> None:
        header = [column.name for column in columns_of(rows[-1])]
        written = write_table(self.folder / "results.csv", [header, *map(write_cells, rows)])
        self.unwritten = [] if written else rows

    def checkpoints(self, data: dict[str, Any], names: list[str]) -> None:
        """The same state under each of ``names``, in weights/."""
        for name in names:
            save_checkpoint(self.weights / name, data)

    def strip(self) -> None:
        """Leave the averaged weights in half precision and what describes them: files to keep and to share.

        last.pt is the last of them: as long as it holds the full state, the run can be resumed.
        """
        for path in (self.weights / "best.pt", self.weights / "last.pt"):
            if path.exists() and "optimizer" in (found := read_checkpoint(path)).training:
                kept = {k: found.training[k] for k in KEPT if k in found.training}
                save_checkpoint(path, {**kept, "model": in_half(found.model)})

    def recorder(self) -> Recorder:
        """For pictures of the last validation."""
        return Recorder(self.folder, self.names, plots=self.plots)

    def curves(self, evaluation: Evaluation) -> None:
        """Pictures of the whole run and of its last validation."""
        if self.unwritten:
            self._write(self.unwritten)
        if self.plots and not self.unwritten:
            plot_results(self.folder / "results.csv", self.folder / "results.png")
        if self.plots:
            plot_evaluation(evaluation, self.folder)
        if self.board:
            self.board.close()


def in_half(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights as finished checkpoints hold them: in half precision, but for counters."""
    return {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}


class Silent:
    """The methods of Records for a process that leaves none: each does nothing."""

    def start(self, arguments: dict, hyp: dict, annotations: list[Annotation]) -> None:
        pass

    def batch(self, number: int, batch: Batch) -> None:
        pass

    def results(self, rows: list[dict[str, float]]) -> None:
        pass

    def checkpoints(self, data: dict[str, Any], names: list[str]) -> None:
        pass

    def strip(self) -> None:
        pass

    def recorder(self) -> None:
        pass

    def curves(self, evaluation: Evaluation) -> None:
        pass


def open_board(folder: Path):
    """A writer of TensorBoard's files, where that package is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    print(f"TensorBoard: {quoted('tensorboard', '--logdir', str(folder.parent))}")
    if not isinstance(threading.excepthook, _ToldOnce):
        threading.excepthook = _ToldOnce(threading.excepthook)
    return SummaryWriter(str(folder))


class _ToldOnce:
    """A hook for errors of threads, which leaves out those of the one that writes for TensorBoard: ``flush`` raises them again
    where they become a line. ``others`` takes the rest."""

    def __init__(self, others: Callable[[Any], None]):
        self.others = others

    def __call__(self, args: Any) -> None:
        if type(args.thread).__name__ != "_AsyncWriterThread":
            self.others(args)
