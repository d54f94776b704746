"""The heads that the last row of a model YAML can name."""

from models.heads.detect import Detect
from models.heads.protocol import Head

# The first is the stock models'.
HEADS: dict[str, type[Head]] = {
    "Detect": Detect,
}
# heads of other projects, as their YAMLs name them, and what stands in for each
_SAME_ROW = "Detect takes the same row and decodes boxes alike; without its implicit knowledge it has fewer parameters"
_DECOUPLED = "Detect takes the same layers, as [nc, anchors]; one convolution finds boxes and classes in it"
FOREIGN_HEADS = {
    "IDetect": _SAME_ROW,
    "IBin": _SAME_ROW,
    "IAuxDetect": "Detect takes the first half of its layers: the other half is auxiliary and serves training alone",
    "ASFF_Detect": "Detect takes the same layers, without the fusion of levels before it",
    "Decoupled_Detect": _DECOUPLED,
    "DecoupledDetect": _DECOUPLED,
    "Decouple": _DECOUPLED,
    "DetectX": _DECOUPLED,
    "DetectYoloX": _DECOUPLED,
    "YOLOXHead": _DECOUPLED,
    "Segment": "Detect takes the same layers, as [nc, anchors], and gives boxes without masks",
    "RTDETRDecoder": "Detect takes the same layers, as [nc, anchors]",
}
