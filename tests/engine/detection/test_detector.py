"""One checkpoint or several as a detector."""

import pytest
import torch

from engine.detection.detector import Ensemble, load_detector
from tests.helpers.models import own_checkpoint
from utils.errors import UserError

CPU = torch.device("cpu")


def test_an_ensemble_is_the_boxes_of_its_members(tmp_path):
    for i in (0, 1):
        torch.manual_seed(i)
        own_checkpoint(tmp_path / f"{i}.pt", nc=2)
    ensemble = load_detector([tmp_path / "0.pt", tmp_path / "1.pt"], CPU)
    assert isinstance(ensemble, Ensemble)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        singles = [load_detector(tmp_path / f"{i}.pt", CPU)(image)[0] for i in (0, 1)]
        torch.testing.assert_close(ensemble(image)[0], torch.cat(singles, 1))


def test_an_ensemble_needs_the_same_classes(tmp_path):
    own_checkpoint(tmp_path / "a.pt", names={0: "a", 1: "b"})
    own_checkpoint(tmp_path / "b.pt", names={0: "b", 1: "a"})
    with pytest.raises(UserError, match="same classes"):
        load_detector([tmp_path / "a.pt", tmp_path / "b.pt"], CPU)
