"""The Python API: pictures of every kind in, results as users of YOLOv5 know them out; weights by name."""

import re
import runpy
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
import torch

import detect
import hubconf
import train
import utils.checkpoint
import val
from engine.detection.autoshape import AutoShape
from engine.detection.hub import load_hub_model
from engine.detection.pictures import common_shape
from engine.detection.pipeline import Pipeline, Thresholds
from engine.detection.predictor import Predictor
from tests.helpers.models import make_weights
from tests.helpers.project import ROOT, shared
from utils.boxes import xyxy2xywh
from utils.checkpoint import OFFICIAL, find_weights, read_checkpoint
from utils.data.images import read_image
from utils.errors import UserError


@pytest.fixture
def weights(tmp_path):
    return make_weights(tmp_path / "tiny.pt", seed=0)


@pytest.fixture
def model(weights):
    model = load_hub_model(weights, device="cpu")
    model.conf, model.max_det = 0.2, 20
    return model


@pytest.fixture
def image(tmp_path):
    """A picture file, 96 × 64 px, and its pixels."""
    path = tmp_path / "bild.png"
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    cv2.imwrite(str(path), pixels[..., ::-1])
    return path, pixels


def same(one, other, atol=1e-4):
    assert one.shape == other.shape and len(one) > 0
    torch.testing.assert_close(one, other, atol=atol, rtol=0)


def test_torch_hub_loads_it_as_users_do(weights, image, capsys):
    model = torch.hub.load(str(ROOT), "custom", str(weights), source="local", device="cpu")
    assert "2 classes" in capsys.readouterr().out
    model.conf = 0.2
    results = model(str(image[0]), size=96)
    found = Predictor(str(weights), (96, 96), "cpu", Thresholds(conf_thres=0.2))(image[1])
    same(results.xyxy[0], found)
    assert model.names == {0: "rectangle", 1: "disc"}
    entries = {name for name in vars(hubconf) if callable(getattr(hubconf, name)) and not name.startswith("_")}
    assert entries == {"custom", "backbone", *(name.removesuffix(".pt") for name in OFFICIAL)}


def test_a_photograph_gives_the_stock_boxes(yolov5n):
    """The same as detect.py's, which is held against stock's figures."""
    photo = shared("datasets", "coco-val128", "images", "000000000285.jpg")
    results = load_hub_model(yolov5n, device="cpu")(photo, size=320)
    assert str(results).startswith("image 1/1: 640x586 1 bear\nSpeed: ")
    assert float(results.xyxy[0][0, 4]) == pytest.approx(0.9136, abs=1e-3)


def test_pictures_of_every_kind(model, image, tmp_path):
    path, rgb = image
    base = model(rgb, size=96).xyxy[0]
    kinds = {
        "path": path,
        "text": str(path),
        "url": path.as_uri(),
        "channels first": rgb.transpose(2, 0, 1),
        "opencv": cv2.imread(str(path))[..., ::-1],
        "alpha": np.dstack((rgb, np.zeros((64, 96), np.uint8))),
        "fractions": rgb.astype(np.float32) / 255,
        "floats": rgb.astype(np.float64),
    }
    for name, kind in kinds.items():
        results = model(kind, size=96)
        assert (results.ims[0] == rgb).all(), name
        same(results.xyxy[0], base)
    grey = model(np.ascontiguousarray(rgb[..., 0]), size=96)
    assert (grey.ims[0] == rgb[..., :1]).all()
    assert not torch.equal(model(rgb[..., ::-1], size=96).xyxy[0], base)  # the order of the channels matters


def test_pil_pictures_turned_upright(model, image):
    pil = pytest.importorskip("PIL.Image")
    path, rgb = image
    opened = pil.open(path)
    results = model(opened, size=96)
    same(results.xyxy[0], model(rgb, size=96).xyxy[0])
    assert results.files == ["bild.jpg"]
    opened.getexif()[0x0112] = 6  # lies on its side
    assert model(opened, size=96).ims[0].shape == (96, 64, 3)


def test_batches_of_different_sizes(model, image):
    path, rgb = image
    small = rgb[:40, :40]
    results = model([path, small, rgb], size=96)
    assert results.n == len(results) == 3 and results.files == ["bild.jpg", "image1.jpg", "image2.jpg"]
    assert results.s == (3, 3, 96, 96)
    same(results.xyxy[0], results.xyxy[2])
    same(results.xyxy[1], model(small, size=96).xyxy[0])  # square: no other padding alone
    for found, im in zip(results.xyxy, results.ims, strict=True):
        assert (found[:, :4] >= 0).all() and (found[:, 2] <= im.shape[1]).all() and (found[:, 3] <= im.shape[0]).all()


def test_the_common_shape_of_a_batch(model):
    images = [np.zeros((480, 640, 3), np.uint8), np.zeros((300, 100, 3), np.uint8)]
    pipeline = Pipeline(model.model.model, model.device, Thresholds())
    batch = pipeline.prepare(images, common_shape(images, 320, 32))
    assert batch.images.shape == (2, 3, 320, 320) and batch.natives == [(480, 640), (300, 100)]
    assert batch.ratios[0][0] == pytest.approx(0.5) and batch.pads[0] == (0, 40)
    assert common_shape(images[:1], 320, 32) == (256, 320)
    assert common_shape(images[:1], (320, 640), 64) == (512, 640)


def test_tensors_go_through_as_they_are(model):
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[0], model.model(x)[0])


def test_settings_are_attributes(model, image):
    rgb = image[1]
    model.max_det = 1000
    base = model(rgb, size=96).pred[0]
    assert set(base[:, 5].tolist()) == {0, 1}

    def changed(**settings):
        one = AutoShape(model.model)
        one.conf = 0.2
        for name, value in settings.items():
            setattr(one, name, value)
        return one(rgb, size=96).pred[0]

    assert set(changed(classes=[1])[:, 5].tolist()) == {1}
    assert len(changed(conf=0.3)) < len(base) and len(changed(iou=0.05)) < len(base)
    assert len(changed(agnostic=True)) < len(base) < len(changed(multi_label=True))
    assert len(changed(max_det=3)) == 3
    assert not torch.equal(model(rgb, size=96, augment=True).pred[0], base)
    with pytest.raises(UserError, match="model.conf = 25"):
        changed(conf=25)


def test_boxes_in_their_four_forms(model, image):
    results = model(image[1], size=96)
    size = torch.tensor([96, 64, 96, 64, 1, 1])
    same(results.xyxyn[0] * size, results.xyxy[0])
    same(results.xywhn[0] * size, results.xywh[0])
    same(results.xywh[0][:, :4], xyxy2xywh(results.xyxy[0][:, :4]))
    assert results.pred is results.xyxy and results.xyxy[0].shape[1] == 6
    results.xyxy[0][:, 0] += 1  # the caller may compute with it in place
    assert len(results.t) == 3 and results.t[1] > 0


def test_words(model, image, capsys):
    results = model([image[1], image[1]], size=96)
    results.print()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("image 1/2: 64x96 ") and said[1].startswith("image 2/2: 64x96 ")
    assert said[2].startswith("Speed: ") and said[2].endswith("per image at shape (2, 3, 64, 96)")
    assert "disc" in said[0] and str(results) in repr(results)


def test_save_crop_and_render(model, image, tmp_path, capsys):
    path, rgb = image
    results = model([path, path], size=96)
    folder = results.save(save_dir=tmp_path / "out")
    assert sorted(p.name for p in folder.iterdir()) == ["bild-2.jpg", "bild.jpg"]
    assert (read_image(folder / "bild.jpg") != rgb).any() and (results.ims[0] == rgb).all()
    assert results.save(save_dir=tmp_path / "out").name == "out2"
    assert results.save(save_dir=tmp_path / "out", exist_ok=True) == folder

    crops = results.crop(save_dir=tmp_path / "crops")
    assert len(crops) == sum(map(len, results.pred)) == len(list((tmp_path / "crops").rglob("*.jpg")))
    first = crops[0]
    assert first["label"] == f"{model.names[int(first['cls'])]} {float(first['conf']):.2f}"
    x1, y1, x2, y2 = (float(v) for v in first["box"])
    left, top = max(int(x1 - (x2 - x1) * 0.01 - 5), 0), max(int(y1 - (y2 - y1) * 0.01 - 5), 0)
    height, width = first["im"].shape[:2]
    assert (first["im"] == rgb[top : top + height, left : left + width, ::-1]).all()  # BGR
    before = set(tmp_path.rglob("*"))
    assert len(results.crop(save=False)) == len(crops) and set(tmp_path.rglob("*")) == before

    plain = results.render(labels=False)[0].copy()
    assert plain is not results.ims[0] and (plain != rgb).any() and results.ims[0].shape == rgb.shape
    labelled = model([path], size=96).render()[0]
    assert (labelled != plain).any()


def test_tolist_gives_one_per_picture(model, image):
    results = model([image[1], image[1][:40]], size=96)
    single = results.tolist()
    assert [r.n for r in single] == [1, 1]
    assert torch.equal(single[1].xyxy[0], results.xyxy[1]) and single[1].ims[0].shape == (40, 96, 3)
    assert str(single[1]).startswith("image 1/1: 40x96")


def test_show_without_a_display_says_so(model, image, monkeypatch, capsys):
    monkeypatch.setattr("engine.detection.results.why_no_display", lambda: "there is no display here")
    model(image[1], size=96).show()
    assert "there is no display here; use results.save()" in capsys.readouterr().out


def test_show_opens_a_window_per_picture(model, image, monkeypatch):
    shown = []
    monkeypatch.setattr("engine.detection.results.why_no_display", lambda: None)
    monkeypatch.setattr(cv2, "imshow", lambda title, picture: shown.append((title, picture)))
    monkeypatch.setattr(cv2, "waitKey", lambda wait: ord("x"))
    model([image[0], image[1]], size=96).show()
    assert [title for title, _ in shown] == ["bild.jpg", "image1.jpg"]
    assert (shown[0][1] != image[1][..., ::-1]).any()


def test_pandas_tables(model, image):
    pytest.importorskip("pandas")
    results = model(image[1], size=96)
    tables = results.pandas()
    table = tables.xyxy[0]
    assert list(table.columns) == ["xmin", "ymin", "xmax", "ymax", "confidence", "class", "name"]
    assert list(tables.xywhn[0].columns) == ["xcenter", "ycenter", "width", "height", "confidence", "class", "name"]
    np.testing.assert_allclose(table[["xmin", "ymin", "xmax", "ymax"]], results.xyxy[0][:, :4], atol=1e-5)
    assert table["name"].tolist() == [model.names[int(c)] for c in results.xyxy[0][:, 5]]
    assert table["class"].dtype == int and isinstance(results.xyxy[0], torch.Tensor)


def test_pandas_is_asked_for_where_it_is_missing(model, image, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pip install pandas"):
        model(image[1], size=96).pandas()


def test_supervision_reads_the_results(model, image):
    supervision = pytest.importorskip("supervision")
    results = model(image[1], size=96)
    detections = supervision.Detections.from_yolov5(results)
    np.testing.assert_allclose(detections.xyxy, results.xyxy[0][:, :4])
    np.testing.assert_allclose(detections.confidence, results.xyxy[0][:, 4])
    assert detections.class_id.tolist() == results.xyxy[0][:, 5].int().tolist()


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ("nowhere.jpg", "nowhere.jpg: no such file"),
        (b"bytes", "image 0 is of type bytes"),
        ([np.zeros((4, 5, 6, 7))], "image 0 has the shape"),
        ([], "the list of images is empty"),
        ("http://127.0.0.1:1/a.jpg", "not downloaded"),
    ],
)
def test_what_is_no_picture_is_named(model, images, words):
    with pytest.raises(UserError, match=words):
        model(images, size=96)


def test_initial_weights_other_classes_and_the_bare_model(weights):
    assert type(hubconf.yolov5n(pretrained=False, device="cpu")) is AutoShape
    bare = hubconf.yolov5n(pretrained=False, classes=3, channels=1, autoshape=False, device="cpu")
    assert bare.nc == 3 and bare.model[0].conv.weight.shape == (16, 1, 6, 6)
    bare.train()(torch.rand(1, 1, 64, 64))[0].sum().backward()  # not fused: it learns
    more = load_hub_model(weights, classes=5, autoshape=False, device="cpu")
    own = read_checkpoint(weights).model
    assert more.nc == 5 and torch.equal(more.state_dict()["model.0.conv.weight"], own["model.0.conv.weight"])
    assert load_hub_model("yolov5s-ghost.yaml", device="cpu").model.model.name == "yolov5s-ghost"


def test_a_backbone_by_name_is_an_entry():
    line = {"source": "local", "classes": 3, "autoshape": False, "device": "cpu"}
    model = torch.hub.load(str(ROOT), "backbone", "mobilenet_v3_small", cfg="yolov5n.yaml", **line)
    assert model.nc == 3 and model.backbone[0].name == "torchvision/mobilenet_v3_small"
    assert model(torch.rand(1, 3, 64, 64))[0].shape == (1, 3, 8, 8, 8)
    with pytest.raises(UserError, match="did you mean"):
        hubconf.backbone("mobilenet_v3_smal")


def test_an_exported_file_is_a_model_too(weights, model, image, tmp_path):
    pytest.importorskip("onnxruntime")
    import export

    export.run(weights=str(weights), include=["onnx"], imgsz=[96], device="cpu")
    exported = torch.hub.load(str(ROOT), "custom", str(weights.with_suffix(".onnx")), source="local", device="cpu")
    for one in (exported, model):  # every box: the order of equal confidences is nobody's promise
        one.conf, one.iou, one.max_det = 0.0, 1.0, 10**6
    square = np.ascontiguousarray(image[1][:64, :64])
    found, expected = exported([square, square]).xyxy[1], model(square, size=96).xyxy[0]
    assert len(found) == len(expected) > 300
    torch.testing.assert_close(found[:, :5].mean(0), expected[:, :5].mean(0), atol=1e-3, rtol=0)


# --- weights by name ---------------------------------------------------------------


@pytest.fixture
def release(weights, monkeypatch):
    """A server that has yolov5n.pt whole and yolov5s.pt cut off; the list of what was asked for."""
    data, asked = weights.read_bytes(), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path not in {"/v7/yolov5n.pt", "/v7/yolov5s.pt"}:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data if "5n" in self.path else data[:1000])
            return None

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("YOLO_RELEASE_URL", f"http://127.0.0.1:{server.server_port}/v7/")
    yield asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_official_name_is_fetched_once(release, tmp_path, monkeypatch, weights, capfd):
    monkeypatch.chdir(tmp_path)
    assert find_weights("yolov5n.pt").read_bytes() == weights.read_bytes()
    assert "yolov5n.pt" in capfd.readouterr().err  # the progress bar
    find_weights("yolov5n.pt")
    find_weights(tmp_path / "deep" / "folder" / "yolov5n.pt")
    assert release == ["/v7/yolov5n.pt"] * 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "tiny.pt", "yolov5n.pt"]


def test_every_command_fetches(release, tmp_path, monkeypatch, image, tiny_set):
    monkeypatch.chdir(tmp_path)
    small = {"imgsz": 96, "workers": 0, "device": "cpu", "data": str(tiny_set)}
    detect.run(weights=["d/yolov5n.pt"], source=str(image[0]), imgsz=[96], device="cpu", project=str(tmp_path / "r"))
    val.run(weights=["v/yolov5n.pt"], batch_size=4, project=str(tmp_path / "r"), **small)
    train.run(weights="t/yolov5n.pt", batch_size=8, epochs=1, project=str(tmp_path / "r"), **small)
    monkeypatch.chdir(tmp_path / "r")
    torch.hub.load(str(ROOT), "yolov5n", source="local", classes=2, device="cpu")
    assert release == ["/v7/yolov5n.pt"] * 4


def test_a_download_that_breaks_off_leaves_nothing(release, tmp_path):
    with pytest.raises(
        UserError, match="yolov5s.pt: not downloaded: .*broke off after 1000 of .* put it at .*yolov5s.pt"
    ):
        read_checkpoint(tmp_path / "sub" / "yolov5s.pt")
    assert list((tmp_path / "sub").iterdir()) == []


def test_offline_names_the_url_and_the_place(tmp_path, monkeypatch):
    monkeypatch.setenv("YOLO_RELEASE_URL", "http://127.0.0.1:1/v7")
    with pytest.raises(UserError) as e:
        read_checkpoint(tmp_path / "yolov5x6.pt")
    assert str(e.value).startswith("http://127.0.0.1:1/v7/yolov5x6.pt: not downloaded")
    assert str(e.value).endswith(f"put it at {tmp_path / 'yolov5x6.pt'}") and "\n" not in str(e.value)


def test_other_names_are_not_looked_for(release, tmp_path):
    with pytest.raises(UserError, match="best.pt: no such checkpoint; those fetched by name are yolov5n.pt, "):
        find_weights(tmp_path / "best.pt")
    assert release == []
    assert utils.checkpoint.RELEASE.startswith("https://") and len(OFFICIAL) == 10


# --- the documentation -------------------------------------------------------------


def code_blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / name).read_text(encoding="utf-8"), re.S)


def test_every_line_of_the_documentation_runs(tmp_path, monkeypatch, capsys):
    for extra in ("pandas", "supervision"):
        pytest.importorskip(extra)
    (tmp_path / "release").mkdir()
    make_weights(tmp_path / "release" / "yolov5n.pt", seed=0, nc=80)
    make_weights(tmp_path / "best.pt", seed=0)
    for name in ("a.jpg", "b.jpg"):
        cv2.imwrite(str(tmp_path / name), np.random.default_rng(1).integers(0, 255, (96, 128, 3), dtype=np.uint8))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("YOLO_RELEASE_URL", (tmp_path / "release").as_uri())
    code = "\n".join(code_blocks("python-api.md")).replace("path/to/project", str(ROOT)).replace("size=640", "size=96")
    (tmp_path / "program.py").write_text(code)
    made = runpy.run_path(str(tmp_path / "program.py"))
    assert made["boxes"].shape[1] == 6 and len(made["coco"].names) == 80 and made["empty"].nc == 3
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.jpg", "b.jpg"]
    assert len(made["detections"]) == len(made["table"]) == len(made["results"].pred[0])
    assert "image 1/1: 96x128" in capsys.readouterr().out
