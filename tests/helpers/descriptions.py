"""The description of a small model, for tests to change and to break."""

# the least that trains: three convolutions and two levels
TINY = {
    "nc": 2,
    "depth_multiple": 1.0,
    "width_multiple": 1.0,
    "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]],
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 4]], [-1, 1, "Conv", [16, 3, 2]]],
    "head": [[[1, 2], 1, "Detect", ["nc", "anchors"]]],
}


def small(**changes) -> dict:
    """The description of a small two-level model."""
    description = {
        "nc": 3,
        "depth_multiple": 0.33,
        "width_multiple": 0.5,
        "anchors": [[10, 13, 16, 30], [33, 23, 30, 61]],
        "backbone": [
            [-1, 1, "Conv", [32, 3, 2]],
            [-1, 1, "Conv", [64, 3, 2]],
            [-1, 3, "C3", [64]],
            [-1, 1, "Conv", [128, 3, 2]],
            [-1, 1, "SPPF", [128, 5]],
        ],
        "head": [
            [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
            [[-1, 2], 1, "Concat", [1]],
            [-1, 1, "Conv", [64, 1, 1]],
            [[7, 4], 1, "Detect", ["nc", "anchors"]],
        ],
        "yaml_file": "small.yaml",
    }
    return description | changes


def with_row(index: int, row: list) -> dict:
    """``small()`` with another row, counted through backbone and head."""
    description = small()
    rows = description["backbone"] + description["head"]
    rows[index] = row
    return description | {"backbone": rows[:5], "head": rows[5:]}
