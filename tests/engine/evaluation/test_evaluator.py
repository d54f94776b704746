"""Validation on a GPU: how often the host waits for it. The GPU is pretended, see tests/helpers/fake_cuda.py."""

import pytest
import torch

from engine.detection.detector import load_detector
from engine.evaluation.evaluator import evaluate
from tests.helpers.fake_cuda import CUDA, fake_cuda
from tests.helpers.models import make_weights
from tests.helpers.sets import make_set
from tests.helpers.syncs import host_syncs
from utils.data.config import index_split, read_data_yaml
from utils.data.dataset import EvalSet
from utils.data.loader import eval_loader


def test_boxes_leave_the_device_once_per_batch_and_the_figures_stay(tmp_path):
    """Two batches of four images. Only the suppression waits image by image, for how many boxes are left."""
    config = read_data_yaml(make_set(tmp_path / "set", train=1, val=8))
    loader = eval_loader(EvalSet(index_split(config, "val").annotations, 64, 4, 32), 4, 0, False)
    model = load_detector(make_weights(tmp_path / "tiny.pt", seed=0), torch.device("cpu"))
    expected = evaluate(model, loader, torch.device("cpu"), config.names, progress=None)
    # the pretended tensors don't know inference mode
    plain = evaluate.__wrapped__.__wrapped__
    with fake_cuda(), torch.no_grad():
        model.to(CUDA)
        with host_syncs() as found:
            evaluation = plain(model, loader, CUDA, config.names, progress=None)
    own = [place for place in found if not place.startswith("utils/boxes.py")]
    assert len(own) == 2 and len(found) - len(own) <= 3 * 8, found
    assert evaluation.map50_95 == pytest.approx(expected.map50_95, rel=1e-5) and expected.map50_95 > 0
    assert (evaluation.confusion == expected.confusion).all()
