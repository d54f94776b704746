"""How detect.run is called in tests."""


def options(weights, source, tmp_path, **changes):
    base = {"weights": [str(weights)], "source": str(source), "imgsz": [96], "device": "cpu", "conf_thres": 0.2}
    return base | {"project": str(tmp_path / "runs")} | changes
