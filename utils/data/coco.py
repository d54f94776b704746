"""COCO: its classes in the order of the usual 80, the number each has in COCO's own files, and its results format."""

COCO_NAMES = (
    "person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant|stop sign|parking meter|bench|"
    "bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|backpack|umbrella|handbag|tie|suitcase|frisbee|skis|snowboard|"
    "sports ball|kite|baseball bat|baseball glove|skateboard|surfboard|tennis racket|bottle|wine glass|cup|fork|knife|spoon|"
    "bowl|banana|apple|sandwich|orange|broccoli|carrot|hot dog|pizza|donut|cake|chair|couch|potted plant|bed|dining table|"
    "toilet|tv|laptop|mouse|remote|keyboard|cell phone|microwave|oven|toaster|sink|refrigerator|book|clock|vase|scissors|"
    "teddy bear|hair drier|toothbrush"
).split("|")

_UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # numbers that COCO's files leave out between 1 and 90
COCO_IDS = [i for i in range(1, 91) if i not in _UNUSED]


def category_ids(names: dict[int, str]) -> list[int]:
    """The category number of each class in COCO's formats: COCO's own for its 80 classes, else the class itself."""
    return COCO_IDS if list(names.values()) == COCO_NAMES else list(names)


def image_id(stem: str, taken: set[int]) -> int | str:
    """The number or name of an image in COCO's formats, from its file's name without the suffix.

    A number is added to those that are ``taken``, and not given again: 007.jpg beside 7.jpg is «007».
    """
    if not stem.isdecimal() or int(stem) in taken:
        return stem
    taken.add(int(stem))
    return int(stem)


def coco_results(image: int | str, detections: list[list[float]], names: dict[int, str]) -> list[dict]:
    """The detections of an image (x1, y1, x2, y2 in its pixels, confidence, class) in COCO's results format."""
    ids = category_ids(names)
    return [
        {
            "image_id": image,
            "category_id": ids[int(cls)],
            "bbox": [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(conf, 5),
        }
        for x1, y1, x2, y2, conf, cls in detections
    ]
