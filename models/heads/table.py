"""The heads that the last row of a model YAML can name."""

from models.heads.detect import Detect
from models.heads.protocol import Head

# The first is the stock models'.
HEADS: dict[str, type[Head]] = {
    "Detect": Detect,
}
