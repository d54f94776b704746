"""What a validation writes of images that share a name."""

import json

import torch

from engine.evaluation.recorder import Recorder

FOUND = torch.tensor([[1.0, 2, 11, 22, 0.5, 0]])


def test_images_of_one_name_do_not_overwrite_each_other(tmp_path):
    recorder = Recorder(tmp_path, {0: "cat"}, plots=False, save_txt=True, save_json=True)
    for path in ("a/7.jpg", "b/7.jpg", "a/007.jpg", f"a/{'图' * 84}.jpg"):
        recorder.image(path, (100, 100), FOUND)
    assert sorted(p.stem for p in (tmp_path / "labels").iterdir()) == ["007", "7", "7-2", "图" * 66]
    rows = json.loads(recorder.finish().read_text())
    assert [row["image_id"] for row in rows] == [7, "7-2", "007", "图" * 66]
