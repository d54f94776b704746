"""Write a checkpoint in the formats of other runtimes, beside it.

python export.py --include onnx openvino --imgsz 640    # the newest best.pt
python export.py --weights best.pt --include onnx --nms # suppression inside
python export.py --weights best.pt --include openvino --int8 --data data.yaml
"""

import argparse
from typing import TYPE_CHECKING

from engine.export.formats.table import describe_formats
from engine.export.options import ExportOptions
from utils.errors import UserError, exit_on_user_error

if TYPE_CHECKING:
    from engine.export.exporter import Result


def build_parser() -> argparse.ArgumentParser:
    return ExportOptions.parser(f"{__doc__}\n{describe_formats()}")


def run(**given) -> "list[Result]":
    """Export with the flags given as keywords, the others at their defaults; returns what came of each format."""
    from engine.export.exporter import export

    return export(ExportOptions.of(given))


def main() -> None:
    failed = [result.format for result in run(**vars(build_parser().parse_args())) if not result.ok]
    if failed:
        raise UserError(f"not exported: {', '.join(failed)}; the table says why")


if __name__ == "__main__":
    exit_on_user_error(main)
