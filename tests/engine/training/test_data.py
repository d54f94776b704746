"""The images of a run: what is said of them before it begins, and when they are loaded."""

import re

import pytest
import torch

from tests.helpers.training import trainer_of
from utils.data.config import read_data_yaml


@pytest.mark.parametrize(
    ("val", "words"),
    [
        ("images/train", "8 of the 8 images of val are images of train, too"),
        ("val.txt", "2 of the 3 images of val are images of train, too"),
        ("images/val", None),
    ],
)
def test_images_of_both_train_and_val_are_told_once(val, words, tiny_set, tmp_path, capsys):
    root = read_data_yaml(tiny_set).root
    (root / "val.txt").write_text("./images/val/0.png\n./images/train/0.png\n./images/train/../train/1.png\n")
    yaml = tiny_set.with_name("mine.yaml")
    yaml.write_text(tiny_set.read_text().replace("val: images/val", f"val: {val}"))
    trainer_of(yaml, tmp_path)
    warnings = re.findall(r"^warning: .*", capsys.readouterr().out, re.M)
    assert len(warnings) == (words is not None)
    if words:
        assert warnings[0].startswith(f"warning: {yaml}: {words}: ") and "data/convert.py split" in warnings[0]


def test_the_next_epoch_is_loaded_while_this_one_is_validated(tiny_set, tmp_path):
    """The same batches as are loaded when they are wanted; none beyond the last epoch, nor of images to be drawn by what
    the validation finds, nor by a training process that loads its own."""
    ahead, alone = (trainer_of(tiny_set, tmp_path, workers=workers, epochs=3) for workers in (2, 0))
    for trainer in (ahead, alone):
        trainer.train_epoch()
        trainer.state.epoch_done()
    assert ahead.begun[0] == 1 and alone.begun is None
    # which the processes have in hand
    assert ahead.begun[1]._tasks_outstanding
    found, expected = (list(trainer.batches_left()) for trainer in (ahead, alone))
    assert [batch.paths for batch in found] == [batch.paths for batch in expected]
    assert all(torch.equal(a.images, b.images) for a, b in zip(found, expected, strict=True))
    # an epoch that is taken up within is not the one that was begun
    ahead.begin_loading()
    ahead.state.epoch, ahead.state.batches_done = 2, 1
    assert len(list(ahead.batches_left())) == len(expected) - 1
    ahead.begin_loading()
    assert ahead.begun is None
    drawn = trainer_of(tiny_set, tmp_path, workers=2, epochs=3, image_weights=True)
    drawn.train_epoch()
    assert drawn.begun is None
