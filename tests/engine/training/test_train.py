"""Training: it learns, repeats itself, keeps its records, and says what is wrong in one line."""

import cv2
import numpy as np
import pytest
import torch
import yaml

import train
from engine.training.options import TrainOptions
from engine.training.setup import set_up
from engine.training.trainer import Trainer
from models.yolo import DetectionModel
from tests.helpers.project import assert_user_error, command_here
from tests.helpers.sets import make_set
from tests.helpers.training import hyp_file, options, rows, trainer_of
from utils.checkpoint import read_checkpoint
from utils.errors import UserError


def weights(folder, name="last.pt") -> dict:
    return read_checkpoint(folder / "weights" / name).model


@pytest.mark.slow
def test_training_learns_to_tell_rectangles_from_discs(tmp_path):
    data = make_set(tmp_path / "set", train=64, val=16, size=(64, 96))
    folder = train.run(
        **options(
            data, tmp_path, epochs=40, batch_size=8, imgsz=96, hyp="hyp.scratch-tiny.yaml", optimizer="AdamW", workers=2
        )
    )
    figures = rows(folder)
    assert len(figures) == 40
    assert max(float(row["metrics/mAP_0.5"]) for row in figures) > 0.5
    assert float(figures[-1]["train/box_loss"]) < 0.6 * float(figures[0]["train/box_loss"])
    assert float(figures[0]["metrics/mAP_0.5"]) < 0.1


def test_a_run_leaves_its_records(tiny_set, tmp_path, capsys):
    folder = train.run(**options(tiny_set, tmp_path, epochs=2, noplots=False))
    names = {p.name for p in folder.iterdir()}
    assert names >= {
        "opt.yaml",
        "hyp.yaml",
        "labels.jpg",
        "train_batch0.jpg",
        "train_batch1.jpg",
        "results.csv",
        "results.png",
    }
    assert names >= {
        "val_batch0_labels.jpg",
        "val_batch0_pred.jpg",
        "confusion_matrix.png",
        "PR_curve.png",
        "F1_curve.png",
    }
    header = "epoch,train/box_loss,train/obj_loss,train/cls_loss,metrics/precision,metrics/recall,metrics/mAP_0.5,"
    header += "metrics/mAP_0.5:0.95,val/box_loss,val/obj_loss,val/cls_loss,x/lr0,x/lr1,x/lr2"
    assert (folder / "results.csv").read_text().splitlines()[0] == header
    figures = rows(folder)
    assert [row["epoch"] for row in figures] == ["0", "1"]
    assert all(float(row["val/box_loss"]) > 0 for row in figures)
    assert yaml.safe_load((folder / "opt.yaml").read_text())["imgsz"] == 64
    assert yaml.safe_load((folder / "hyp.yaml").read_text())["lr0"] == 0.01
    said = capsys.readouterr().out
    assert f"results are in {folder}" in said and "rectangle" in said
    for name in ("last.pt", "best.pt"):
        checkpoint = read_checkpoint(folder / "weights" / name)
        assert checkpoint.names == {0: "rectangle", 1: "disc"}
        assert checkpoint.model["model.0.conv.weight"].dtype == torch.float16  # what is left is for inference
        assert "optimizer" not in checkpoint.training


def test_a_running_training_keeps_all_that_learns(tiny_set, tmp_path):
    trainer = Trainer(set_up(TrainOptions.of(options(tiny_set, tmp_path))))
    trainer.train_epoch()
    trainer.save(is_best=True)
    saved = read_checkpoint(trainer.weights / "best.pt").training
    assert set(saved) >= {
        "model",
        "ema",
        "updates",
        "optimizer",
        "scaler",
        "epoch",
        "best_fitness",
        "hyp",
        "args",
    }
    assert saved["updates"] == trainer.learner.ema.updates > 0
    momentum = saved["optimizer"]["state"][0]["momentum_buffer"]
    assert torch.equal(momentum, trainer.learner.optimizer.state_dict()["state"][0]["momentum_buffer"])
    assert saved["model"]["model.0.conv.weight"].dtype == torch.float32


def test_the_same_seed_gives_the_same_weights_whatever_the_workers(tiny_set, tmp_path):
    first, again, other = (
        weights(train.run(**options(tiny_set, tmp_path, seed=seed, workers=workers)))
        for seed, workers in ((0, 0), (0, 2), (1, 0))
    )
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


def test_stochastic_depth_repeats_itself_too(tiny_set, tmp_path):
    runs = [weights(train.run(**options(tiny_set, tmp_path, cfg="yolov5s_EfficientNetV2.yaml"))) for _ in range(2)]
    assert all(torch.equal(runs[0][k], runs[1][k]) for k in runs[0])


def test_runs_are_numbered_unless_exist_ok(tiny_set, tmp_path):
    folders = [train.run(**options(tiny_set, tmp_path, name="a")) for _ in range(2)]
    folders.append(train.run(**options(tiny_set, tmp_path, name="a", exist_ok=True)))
    assert [f.name for f in folders] == ["a", "a2", "a"]


def test_patience_stops_a_run_that_does_not_improve(tiny_set, tmp_path, capsys):
    hyp = hyp_file(tmp_path, lr0=1e-9, warmup_bias_lr=0.0)  # nothing is learnt
    folder = train.run(**options(tiny_set, tmp_path, hyp=hyp, epochs=9, patience=2))
    assert 3 <= len(rows(folder)) < 9
    assert "stopped early" in capsys.readouterr().out


def test_image_size_is_fitted_to_the_largest_stride(tiny_set, tmp_path, capsys):
    train.run(**options(tiny_set, tmp_path, imgsz=70))
    said = capsys.readouterr().out
    assert "--imgsz 70 is no multiple of the largest stride 32; 96 is used" in said
    assert "at 96 px" in said


def test_training_starts_from_a_checkpoint_and_takes_its_model(tiny_set, tmp_path, capsys):
    first = train.run(**options(tiny_set, tmp_path))
    capsys.readouterr()
    start = str(first / "weights" / "last.pt")
    second = train.run(
        **options(tiny_set, tmp_path, weights=start, cfg="", hyp=hyp_file(tmp_path, lr0=0.0, warmup_bias_lr=0.0))
    )
    said = capsys.readouterr().out
    assert "transferred 349 of 349 tensors" in said and "yolov5n summary" in said
    before, after = weights(first), weights(second)
    assert torch.equal(before["model.0.conv.weight"], after["model.0.conv.weight"])


def test_official_weights_are_a_start(tiny_set, tmp_path, yolov5n, capsys):
    train.run(**options(tiny_set, tmp_path, weights=str(yolov5n), cfg=""))
    assert "transferred 343 of 349 tensors" in capsys.readouterr().out


def test_noautoanchor_keeps_the_anchors(tmp_path, capsys):
    data = make_set(tmp_path / "set")
    for split in ("train", "val"):
        for file in (tmp_path / "set" / "labels" / split).iterdir():
            file.write_text("0 0.5 0.5 0.99 0.05\n")  # so flat that no stock anchor fits
    anchors = []
    for keep in (True, False):
        folder = train.run(**options(data, tmp_path, noautoanchor=keep))
        said = capsys.readouterr().out
        assert ("AutoAnchor" in said) is not keep
        anchors.append(weights(folder)["model.24.anchors"].float())
    assert torch.allclose(anchors[0], DetectionModel("yolov5n.yaml").detect.anchors, atol=0.01)
    assert not torch.allclose(anchors[0], anchors[1], atol=0.1)


def test_a_loss_that_is_no_number_stops_the_run(tiny_set, tmp_path):
    hyp = hyp_file(tmp_path, lr0=1e6, weight_decay=1e6, nominal_batch=2, warmup_epochs=0.0)
    with pytest.raises(UserError, match=r"epoch \d, batch \d: the loss is (nan|inf)"):
        train.run(**options(tiny_set, tmp_path, hyp=hyp, epochs=3))


def test_a_set_with_bad_files_is_trained_without_them(tiny_set, tmp_path, capsys):
    images, labels = tiny_set.parent / "images" / "train", tiny_set.parent / "labels" / "train"
    ok, jpeg = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8))
    (images / "cut.jpg").write_bytes(jpeg.tobytes()[: len(jpeg) // 2])
    (labels / "0.txt").write_text("this is\nno label file\n")
    (labels / "1.txt").write_text("5 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.2 0.2\n")
    train.run(**options(tiny_set, tmp_path))
    said = capsys.readouterr().out
    assert ok and "cut.jpg: truncated JPEG" in said
    assert "0.txt line 1" in said and "0.txt line 2" in said
    assert "1.txt line 1: class 5, but nc is 2; line skipped" in said
    assert "8 images, 13 boxes" in said and "4 faults" in said


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--data", "nowhere.yaml"], ["nowhere.yaml", "no such data YAML"]),
        (["--cfg", "yolov5sss.yaml"], ["yolov5sss.yaml", "did you mean"]),
        (["--weights", "none.pt"], ["none.pt", "no such checkpoint"]),
        (["--hyp", "none.yaml"], ["none.yaml"]),
        (["--device", "7"], ["--device 7", "0 CUDA devices"] if not torch.cuda.is_available() else ["--device 7"]),
        (["--epochs", "0"], ["--epochs 0"]),
        (["--batch-size", "0"], ["--batch-size 0"]),
        (["--workers", "-1"], ["--workers -1"]),
    ],
)
def test_mistakes_are_one_line(flags, words, tiny_set, tmp_path):
    result = command_here("train.py", "--data", tiny_set, "--project", tmp_path / "runs", "--device", "cpu", *flags)
    assert_user_error(result, *words)


def test_a_set_without_usable_labels_is_refused(tiny_set, tmp_path):
    for file in (tiny_set.parent / "labels" / "train").iterdir():
        file.write_text("all of this\nis text\n")
    assert_user_error(command_here("train.py", "--data", tiny_set, "--project", tmp_path / "runs"), "no boxes at all")


def test_an_empty_set_is_refused(tiny_set, tmp_path):
    for file in (tiny_set.parent / "images" / "train").iterdir():
        file.unlink()
    assert_user_error(command_here("train.py", "--data", tiny_set, "--project", tmp_path / "runs"), "no images there")


def test_unknown_keywords_are_refused():
    with pytest.raises(TypeError, match="no such option: epoch;"):
        train.run(epoch=3)


def test_cos_lr_reaches_the_schedule(tiny_set, tmp_path):
    factors = [trainer_of(tiny_set, tmp_path, epochs=8, cos_lr=c).learner.schedule.factor(2) for c in (False, True)]
    assert factors[1] > factors[0] + 0.05


def test_label_smoothing_reaches_the_loss(tiny_set, tmp_path):
    loss = trainer_of(tiny_set, tmp_path, label_smoothing=0.2).learner.loss
    assert (loss.positive, loss.negative) == (0.9, 0.1)
    with pytest.raises(UserError, match="--label-smoothing 2"):
        trainer_of(tiny_set, tmp_path, label_smoothing=2)


@pytest.mark.parametrize(("freeze", "frozen"), [([0], set()), ([3], {0, 1, 2}), ([1, 24], {1, 24})])
def test_frozen_layers_stay_and_the_others_learn(freeze, frozen, tiny_set, tmp_path):
    trainer = trainer_of(tiny_set, tmp_path, freeze=freeze)
    before = {k: p.detach().clone() for k, p in trainer.learner.model.named_parameters()}
    trainer.train_epoch()
    changed = {
        int(k.split(".")[1]) for k, p in trainer.learner.model.named_parameters() if not torch.equal(p, before[k])
    }
    learnable = {int(k.split(".")[1]) for k in before}
    assert changed == learnable - frozen


@pytest.mark.parametrize(
    ("freeze", "words"),
    [([99], "layers 0 to 24"), ([-1], "must be 0 or more"), ([3, 25], "layers 0 to 24"), ([25], "all layers")],
)
def test_layers_that_cannot_be_frozen(freeze, words, tiny_set, tmp_path):
    with pytest.raises(UserError, match=words):
        trainer_of(tiny_set, tmp_path, freeze=freeze)


def test_single_class_training(tiny_set, tmp_path):
    trainer = trainer_of(tiny_set, tmp_path, single_cls=True)
    assert trainer.learner.model.nc == 1
    trainer.train_epoch()
    assert trainer.state.mean_losses[2] == 0 and trainer.state.mean_losses[0] > 0
    assert trainer.validate().instances_per_class.tolist() == [8]


def test_save_period_keeps_checkpoints(tiny_set, tmp_path):
    folder = train.run(**options(tiny_set, tmp_path, epochs=4, save_period=2))
    assert {p.name for p in (folder / "weights").iterdir()} == {"last.pt", "best.pt", "epoch1.pt", "epoch3.pt"}
    assert read_checkpoint(folder / "weights" / "epoch1.pt").training["epoch"] == 2  # where it would go on
