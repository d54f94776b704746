"""Validation: how well a detector finds what is labelled: ``evaluate(model, loader, …)`` → Evaluation."""

from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import DataLoader

from engine.detection.detector import Detector
from engine.detection.pipeline import VALIDATION, Pipeline, Thresholds
from engine.evaluation.figures import Evaluation, Tally, evaluation_of
from engine.evaluation.matches import ImageMatches
from engine.evaluation.recorder import Recorder
from models.heads.protocol import Loss
from utils.boxes import box_iou, scale_boxes, xywh2xyxy
from utils.console.progress import track
from utils.data.loader import watching_workers
from utils.distributed import World
from utils.metrics import ConfusionMatrix, match_detections


@watching_workers()
@torch.inference_mode()
def evaluate(
    model: Detector,
    loader: DataLoader,
    device: torch.device,
    names: dict[int, str],
    thresholds: Thresholds = VALIDATION,
    augment: bool = False,
    single_cls: bool = False,
    loss: Loss | None = None,
    recorder: "Recorder | None" = None,
    progress: str | None = Evaluation.HEADER,
    world: World | None = None,
) -> Evaluation:
    """Run ``model`` (eval mode) over the batches of ``loader`` and hold its boxes against the labels, in native pixels.

    With ``single_cls`` all that is found and labelled is of one class. ``loss`` is that of the model's maps.
    With ``world`` the loader has this process's share of the batches, and every process returns the figures of all.
    """
    world = world or World()
    nc = len(names)
    tally = Tally(nc)
    confusion = ConfusionMatrix(nc)
    pipeline = Pipeline(model, device, replace(thresholds, agnostic=single_cls), augment)
    hidden = progress is None or not world.is_first
    for number, batch in enumerate(track(loader, progress, hidden)):
        # on the CPU, as the targets are: per image a GPU would be waited for several times
        found, maps = pipeline.detect(batch)
        targets = batch.targets
        if loss is not None:
            tally.losses += loss(maps, targets)[1].cpu().numpy()
        height, width = batch.images.shape[2:]
        size = torch.tensor([width, height, width, height])
        images = []
        for i, detections in enumerate(found):
            labels = targets[targets[:, 0] == i, 1:]
            boxes = scale_boxes(xywh2xyxy(labels[:, 1:] * size), batch.ratios[i], batch.pads[i], batch.natives[i])
            if single_cls:
                detections[:, 5] = 0
            iou = box_iou(boxes, detections[:, :4]).numpy()
            label_cls, (conf, cls) = labels[:, 0].numpy(), detections[:, 4:].T.numpy()
            hits = match_detections(iou, label_cls, cls)
            images.append(ImageMatches(batch.paths[i], hits, conf, cls, label_cls))
            tally.images_per_class[np.unique(label_cls).astype(int)] += 1
            confusion.add(iou, label_cls, conf, cls)
            if recorder is not None:
                labelled = torch.cat((boxes, torch.ones(len(boxes), 1), labels[:, :1]), 1)
                recorder.image(batch.paths[i], batch.natives[i], detections, labelled)
        tally.pieces[number * world.size + world.rank] = images
        if recorder is not None:
            recorder.batch(number, batch, found)
    tally.confusion, tally.clock = confusion.matrix, pipeline.clock.seconds
    return evaluation_of(Tally(nc).add(world.gather(tally)), names)
