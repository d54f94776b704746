"""bench/scale.py: what a unit of work costs, from little to much."""

import cv2

from bench.scale import draw, grown, scans, step_s, suppression_s


def test_a_unit_of_work_beside_that_of_the_least_scale(tmp_path):
    linear = grown("linear", "µs a box", (10, 100), lambda n: 2e-6 * n)
    worse = grown("worse", "ns a pixel", (10, 20), lambda n: 1e-9 * n**3, power=2, parts=1e9)
    assert [(row.what, round(row.value, 6), round(row.ratio, 6)) for row in linear + worse] == [
        *(("linear: 10", 2.0, 1.0), ("linear: 100", 2.0, 1.0), ("worse: 10", 10.0, 1.0), ("worse: 20", 20.0, 2.0))
    ]
    draw(linear + worse, tmp_path / "scale.png")
    assert cv2.imread(str(tmp_path / "scale.png")).std() > 5


def test_sets_are_made_up_and_read_in_processes_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.scale.MOST_NAMES", 8)
    rows = scans(tmp_path, (5, 20))
    assert [row.what for row in rows] == [
        f"{what}, images: {n}"
        for what in ("scan of new images", "scan of known images", "memory of annotations")
        for n in (5, 20)
    ]
    assert all(row.value > 0 for row in rows[:4])
    labels = list((tmp_path / "images20" / "labels" / "train").iterdir())
    assert len(labels) == 20 and len({label.stat().st_ino for label in labels}) == 3


def test_steps_and_suppression_of_many_classes_can_be_timed():
    assert step_s(3, 4, 64, 1) > 0 and suppression_s(3, 1) > 0
