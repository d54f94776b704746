"""Validation: how well a detector finds what is labelled: ``evaluate(model, loader, …)`` → Evaluation."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.ops import box_iou
from tqdm import tqdm

from engine.evaluation.figures import Evaluation, Tally, evaluation_of
from engine.evaluation.recorder import Recorder
from engine.export.runtime import Runtime, find_boxes
from utils.boxes import scale_boxes, xywh2xyxy
from utils.data.loader import watching_workers
from utils.device import now
from utils.distributed import World
from utils.loss.detection import DetectionLoss
from utils.metrics import ConfusionMatrix, match_detections


@watching_workers()
@torch.inference_mode()
def evaluate(
    model: nn.Module | Runtime,
    loader: DataLoader,
    device: torch.device,
    names: dict[int, str],
    conf_thres: float = 0.001,
    iou_thres: float = 0.6,
    max_det: int = 300,
    augment: bool = False,
    single_cls: bool = False,
    loss: DetectionLoss | None = None,
    recorder: "Recorder | None" = None,
    progress: str | None = Evaluation.HEADER,
    world: World | None = None,
) -> Evaluation:
    """Run ``model`` (eval mode) over the batches of ``loader`` and hold its boxes against the labels, in native pixels.

    With ``world`` the loader has this process's share of the batches, and every process returns the figures of all.
    """
    world = world or World()
    nc = len(names)
    tally = Tally(nc)
    confusion = ConfusionMatrix(nc)
    hidden = progress is None or not world.is_first
    for number, batch in enumerate(tqdm(loader, desc=progress, disable=hidden, bar_format="{l_bar}{bar:10}{r_bar}")):
        times = [now(device)]
        pixels = batch.images.to(device, non_blocking=True)
        targets = batch.targets.to(device)
        pixels = pixels.float() / 255
        times.append(now(device))
        predictions, maps = model(pixels, augment=augment)
        times.append(now(device))
        if loss is not None:
            tally.losses += loss(maps, targets)[1].cpu().numpy()
        started = now(device)
        thresholds = {"conf_thres": conf_thres, "iou_thres": iou_thres, "max_det": max_det}
        found = find_boxes(model, predictions, agnostic=single_cls, multi_label=True, **thresholds)
        finished = now(device)
        tally.clock += np.diff(times).tolist() + [finished - started]
        height, width = batch.images.shape[2:]
        size = torch.tensor([width, height, width, height], device=device)
        images = []
        for i, detections in enumerate(found):
            where = (batch.ratios[i], batch.pads[i], batch.natives[i])
            labels = targets[targets[:, 0] == i, 1:]
            boxes = scale_boxes(xywh2xyxy(labels[:, 1:] * size), *where)
            detections[:, :4] = scale_boxes(detections[:, :4].float(), *where)
            if single_cls:
                detections[:, 5] = 0
            iou = box_iou(boxes, detections[:, :4].float()).cpu().numpy()
            label_cls, (conf, cls) = labels[:, 0].cpu().numpy(), detections[:, 4:].T.float().cpu().numpy()
            images.append((match_detections(iou, label_cls, cls), conf, cls, label_cls))
            tally.images_per_class[np.unique(label_cls).astype(int)] += 1
            confusion.add(iou, label_cls, conf, cls)
            if recorder is not None:
                recorder.image(batch.paths[i], batch.natives[i], detections.cpu())
        tally.pieces[number * world.size + world.rank] = images
        if recorder is not None:
            recorder.batch(number, batch, found)
    tally.confusion = confusion.matrix
    return evaluation_of(Tally(nc).add(world.gather(tally)), names)
