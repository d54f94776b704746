"""Programs written for YOLOv5 find its names here: imports, a tracker's usual script, a slicing client, both unchanged."""

import subprocess
import sys
from importlib import import_module

import cv2
import numpy as np
import pytest
import torch

from tests.helpers.models import make_weights
from tests.helpers.project import ROOT

NAMES = {
    "models.common": "DetectMultiBackend AutoShape Detections",
    "models.experimental": "attempt_load Ensemble",
    "models.yolo": "Model",
    "utils.general": "non_max_suppression scale_coords scale_boxes check_img_size xyxy2xywh xywh2xyxy increment_path check_file"
    " LOGGER colorstr check_requirements set_logging check_imshow print_args strip_optimizer Profile clip_boxes clip_coords"
    " xywhn2xyxy xyxy2xywhn check_suffix",
    "utils.torch_utils": "select_device time_sync time_synchronized smart_inference_mode",
    "utils.dataloaders": "LoadImages LoadStreams letterbox IMG_FORMATS VID_FORMATS",
    "utils.datasets": "LoadImages LoadStreams letterbox IMG_FORMATS VID_FORMATS",
    "utils.augmentations": "letterbox",
    "utils.plots": "Annotator colors save_one_box plot_one_box",
    "utils.metrics": "box_iou bbox_iou",
    "utils.downloads": "attempt_download",
}


@pytest.mark.parametrize("module", NAMES)
def test_the_names_are_there(module):
    for name in NAMES[module].split():
        assert getattr(import_module(module), name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        import_module(module).nonsense  # noqa: B018


TRACKER = """
import argparse
import os
import sys
from pathlib import Path

import cv2
import torch
import torch.backends.cudnn as cudnn

FILE = Path(__file__).resolve()
ROOT = FILE.parents[0]
sys.path.append(sys.argv[1])

from models.common import DetectMultiBackend
from utils.dataloaders import IMG_FORMATS, VID_FORMATS, LoadImages, LoadStreams
from utils.general import (LOGGER, check_file, check_img_size, check_imshow, check_requirements, colorstr,
                           increment_path, non_max_suppression, print_args, scale_coords, strip_optimizer, xyxy2xywh)
from utils.plots import Annotator, colors, save_one_box
from utils.torch_utils import select_device, time_sync


@torch.no_grad()
def run(weights, source, project, imgsz=(64, 64), conf_thres=0.0, iou_thres=0.45, max_det=5, half=False):
    source = str(source)
    is_file = Path(source).suffix[1:] in (IMG_FORMATS + VID_FORMATS)
    save_dir = increment_path(Path(project) / 'exp', exist_ok=False)
    (save_dir / 'labels').mkdir(parents=True, exist_ok=True)
    device = select_device('cpu')
    model = DetectMultiBackend(weights, device=device, dnn=False, data=None, fp16=half)
    stride, names, pt = model.stride, model.names, model.pt
    imgsz = check_img_size(imgsz, s=stride)
    dataset = LoadImages(source, img_size=imgsz, stride=stride, auto=pt)
    bs = 1
    model.warmup(imgsz=(1 if pt else bs, 3, *imgsz))
    seen, dt = 0, [0.0, 0.0, 0.0]
    for path, im, im0s, vid_cap, s in dataset:
        t1 = time_sync()
        im = torch.from_numpy(im).to(device)
        im = im.half() if model.fp16 else im.float()
        im /= 255
        if len(im.shape) == 3:
            im = im[None]
        t2 = time_sync()
        dt[0] += t2 - t1
        pred = model(im, augment=False, visualize=False)
        pred = non_max_suppression(pred, conf_thres, iou_thres, None, False, max_det=max_det)
        for i, det in enumerate(pred):
            seen += 1
            p, im0, frame = path, im0s.copy(), getattr(dataset, 'frame', 0)
            p = Path(p)
            s += '%gx%g ' % im.shape[2:]
            gn = torch.tensor(im0.shape)[[1, 0, 1, 0]]
            annotator = Annotator(im0, line_width=2, example=str(names))
            if len(det):
                det[:, :4] = scale_coords(im.shape[2:], det[:, :4], im0.shape).round()
                for c in det[:, 5].unique():
                    n = (det[:, 5] == c).sum()
                    s += f"{n} {names[int(c)]}{'s' * (n > 1)}, "
                for *xyxy, conf, cls in reversed(det):
                    xywh = (xyxy2xywh(torch.tensor(xyxy).view(1, 4)) / gn).view(-1).tolist()
                    c = int(cls)
                    annotator.box_label(xyxy, f'{names[c]} {conf:.2f}', color=colors(c, True))
                    save_one_box(xyxy, im0s, file=save_dir / 'crops' / names[c] / f'{p.stem}.jpg', BGR=True)
                    print('box', frame, c, *[round(v, 4) for v in xywh])
            im0 = annotator.result()
            cv2.imwrite(str(save_dir / f'{p.stem}_{frame}.jpg'), im0)
            if dataset.mode == 'video':
                print('video', vid_cap.get(cv2.CAP_PROP_FPS), int(vid_cap.get(cv2.CAP_PROP_FRAME_WIDTH)))
        LOGGER.info(f'{s}Done. ({t2 - t1:.3f}s)')
    LOGGER.info(f"Results saved to {colorstr('bold', save_dir)}")


if __name__ == '__main__':
    check_requirements(requirements=['numpy', 'torch'], exclude=('tensorboard', 'thop'))
    run(check_file(sys.argv[2]), sys.argv[3], sys.argv[4])
"""


def video_of(path, frames):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (frames[0].shape[1], frames[0].shape[0]))
    for frame in frames:
        writer.write(frame)
    writer.release()


def test_a_trackers_script_runs_unchanged(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "in"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), rng.integers(0, 255, (48, 80, 3), np.uint8))
    video_of(folder / "b.avi", [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(3)])
    weights = make_weights(tmp_path / "m.pt", seed=0)
    script = tmp_path / "track.py"
    script.write_text(TRACKER)
    words = [sys.executable, script, ROOT, weights, folder, tmp_path / "out"]
    result = subprocess.run(list(map(str, words)), capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    boxes = [line.split() for line in result.stdout.splitlines() if line.startswith("box")]
    assert {line[1] for line in boxes} == {"0", "1", "2", "3"} and len(boxes) == 20
    assert all(0 <= float(v) <= 1 for line in boxes for v in line[3:])
    assert result.stdout.count("video 10.0 64") == 3
    assert {path.name for path in (tmp_path / "out" / "exp").glob("*.jpg")} == {
        "a_0.jpg",
        "b_1.jpg",
        "b_2.jpg",
        "b_3.jpg",
    }
    assert "image 1/2" in result.stderr and "Results saved to" in result.stderr


def test_the_boxes_are_those_of_the_pipeline(tmp_path):
    from engine.detection.predictor import Predictor
    from models.common import DetectMultiBackend
    from utils.dataloaders import LoadImages
    from utils.general import non_max_suppression, scale_boxes

    image = np.random.default_rng(1).integers(0, 255, (48, 96, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    weights = make_weights(tmp_path / "m.pt", seed=0)
    wanted = Predictor(weights, (64, 64), device="cpu")(image[..., ::-1])
    model = DetectMultiBackend(weights)
    for _, im, im0, _, _ in LoadImages(str(tmp_path / "a.png"), img_size=64, stride=model.stride):
        with torch.no_grad():
            found = non_max_suppression(model(torch.from_numpy(im)[None] / 255), 0.25, max_det=1000)[0]
        found[:, :4] = scale_boxes((im.shape[1], im.shape[2]), found[:, :4], im0.shape)
        assert np.array_equal(im0, image)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)


def test_streams_come_as_stock_gives_them(tmp_path):
    from utils.dataloaders import LoadStreams

    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(4)]
    for name in ("a.avi", "b.avi"):
        video_of(tmp_path / name, frames)
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path)

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    (tmp_path / "two.streams").write_text(f"{address}/a.avi\n{address}/b.avi\n")
    try:
        streams = LoadStreams(str(tmp_path / "two.streams"), img_size=64)
        sources, im, im0s, cap, words = next(iter(streams))
    finally:
        server.shutdown()
    assert len(streams) == 2 and sources == [f"{address}/a.avi", f"{address}/b.avi"]
    assert im.shape == (2, 3, 64, 64) and [x.shape for x in im0s] == [(48, 64, 3)] * 2 and cap is None and words == ""


def test_small_functions_answer_as_stocks(tmp_path):
    from utils.general import check_file, check_img_size, check_requirements, colorstr, increment_path, scale_coords
    from utils.metrics import bbox_iou, box_iou
    from utils.torch_utils import smart_inference_mode

    assert check_img_size(100, s=32) == 128 and check_img_size([60, 64], s=torch.tensor([8, 32])) == [64, 64]
    assert colorstr("bold", "x") == "\033[1mx\033[0m"
    assert check_file("") == "" and check_file("shapes.yaml").endswith("data/shapes.yaml")
    assert check_requirements(["numpy>=1.0"]) and not check_requirements("no-such-package-1")
    assert increment_path(tmp_path) == tmp_path.with_name(f"{tmp_path.name}2")
    boxes = scale_coords((64, 64), np.array([[0.0, 8, 64, 56]]), (48, 64))
    assert boxes.tolist() == [[0, 0, 64, 48]]
    a, b = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3], [0, 0, 2, 2]])
    torch.testing.assert_close(box_iou(a, b), torch.tensor([[1 / 7, 1.0]]))
    torch.testing.assert_close(bbox_iou(a, b, xywh=False), torch.tensor([[1 / 7], [1.0]]), rtol=0, atol=1e-6)
    assert bbox_iou(a, b, xywh=False, CIoU=True)[0] < 1 / 7
    assert torch.is_inference(smart_inference_mode()(lambda: torch.ones(1))())


def test_sure_labels_join_the_suppression():
    from utils.general import non_max_suppression

    nothing = torch.zeros(1, 3, 7)
    found = non_max_suppression((nothing, []), labels=[torch.tensor([[1.0, 10, 10, 4, 4]])])
    assert found[0].tolist() == [[8, 8, 12, 12, 1, 1]]
    with pytest.raises(ValueError, match="segmentation"):
        non_max_suppression(nothing, nm=32)


def test_an_older_script_loads_and_draws(tmp_path):
    from models.experimental import attempt_load
    from utils.general import non_max_suppression
    from utils.plots import plot_one_box

    model = attempt_load(make_weights(tmp_path / "m.pt", seed=0), map_location="cpu")
    assert int(model.stride.max()) == 32
    names = model.module.names if hasattr(model, "module") else model.names
    with torch.no_grad():
        prediction = model(torch.zeros(1, 3, 64, 64), augment=False)[0]
    assert prediction.shape[2] == len(names) + 5
    assert len(non_max_suppression(prediction, 0.99)) == 1
    image = np.zeros((60, 60, 3), np.uint8)
    plot_one_box([10, 20, 40, 50], image, label="b", color=(255, 0, 0), line_thickness=2)
    assert image[35, 10].tolist() == [255, 0, 0] and image[35, 25].tolist() == [0, 0, 0]


def test_the_hub_model_is_as_programs_know_it(tmp_path):
    import hubconf

    model = hubconf.custom(make_weights(tmp_path / "m.pt", seed=0), device="cpu", _verbose=False)
    assert type(model).__module__ == "models.common" and int(model.stride) == 32
    assert (model.amp, model.pt, model.dmb, model.fp16) == (False, True, True, False)
    assert type(model.model.model.model[-2]).__name__ == "C3"
    images = torch.zeros(2, 3, 64, 64)
    predictions, maps = model(images)
    assert predictions.shape == (2, 3 * (64 + 16 + 4), 7) and [m.shape[2] for m in maps] == [8, 4, 2]
    results = model([np.zeros((60, 60, 3), np.uint8)] * 2, size=64, profile=True)
    assert len(results.times) == 3 and results.n == 2


def test_an_eigencam_recipe_runs(tmp_path):
    EigenCAM = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed").EigenCAM
    model = torch.hub.load(
        str(ROOT), "custom", str(make_weights(tmp_path / "m.pt", seed=0)), source="local", device="cpu"
    )
    model.eval()
    model.cpu()
    target_layers = [model.model.model.model[-2]]
    tensor = torch.rand(1, 3, 64, 96)
    grey = EigenCAM(model, target_layers)(tensor, targets=None)[0, :, :]
    assert grey.shape == (64, 96) and grey.max() > grey.min()


def test_a_slicing_client_runs(tmp_path, monkeypatch):
    pytest.importorskip("sahi", reason="sahi is not installed")
    # it asks for a package of this name, and takes the model from us
    (tmp_path / "site" / "yolov5").mkdir(parents=True)
    (tmp_path / "site" / "yolov5" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    from sahi import AutoDetectionModel
    from sahi.predict import get_sliced_prediction

    hub = torch.hub.load(
        str(ROOT), "custom", str(make_weights(tmp_path / "m.pt", seed=0)), source="local", device="cpu"
    )
    client = AutoDetectionModel.from_pretrained(
        "yolov5", model=hub, confidence_threshold=0.05, device="cpu", image_size=64
    )
    image = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    sliced = get_sliced_prediction(image, client, 64, 64, perform_standard_pred=False, verbose=0)
    assert {prediction.category.name for prediction in sliced.object_prediction_list} <= {"rectangle", "disc"}
    assert max(prediction.bbox.maxx for prediction in sliced.object_prediction_list) > 64
