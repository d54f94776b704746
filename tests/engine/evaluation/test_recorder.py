"""What a validation writes of images that share a name."""

import json

import torch

from engine.evaluation.recorder import Recorder, with_labels

FOUND = torch.tensor([[1.0, 2, 11, 22, 0.5, 0]])


def test_images_of_one_name_do_not_overwrite_each_other(tmp_path):
    recorder = Recorder(tmp_path, {0: "cat"}, plots=False, save_txt=True, save_json=True)
    for path in ("a/7.jpg", "b/7.jpg", "a/007.jpg", f"a/{'图' * 84}.jpg"):
        recorder.image(path, (100, 100), FOUND, torch.zeros(0, 6))
    assert sorted(p.stem for p in (tmp_path / "labels").iterdir()) == ["007", "7", "7-2", "图" * 66]
    rows = json.loads(recorder.finish().read_text())
    assert [row["image_id"] for row in rows] == [7, "7-2", "007", "图" * 66]


def test_beside_labels_stands_what_they_do_not_name():
    labels = torch.tensor([[0.0, 0, 10, 10, 1, 0], [50, 50, 60, 60, 1, 1]])
    # found again; of another class; overlapping by a third; elsewhere
    found = [[0, 0, 10, 9, 0.9, 0], [50, 50, 60, 60, 0.8, 0], [5, 0, 15, 10, 0.7, 0], [80, 80, 90, 90, 0.6, 1]]
    detections = torch.tensor(found)
    assert with_labels(detections, labels, 0.6).tolist() == [*labels.tolist(), *detections[1:].tolist()]
    assert with_labels(detections, labels, 0.3).tolist() == [*labels.tolist(), *detections[[1, 3]].tolist()]
    none = torch.zeros(0, 6)
    assert torch.equal(with_labels(detections, none, 0.6), detections)
    assert torch.equal(with_labels(none, labels, 0.6), labels)
