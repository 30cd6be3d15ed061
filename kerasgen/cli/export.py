"""`kerasgen export`: a saved pipeline or a model as an artefact."""

from __future__ import annotations

import argparse
from pathlib import Path

from kerasgen.cli import sources
from kerasgen.cli.arguments import add_backend, add_source, add_weights
from kerasgen.terminal import show

NAME = "export"
HELP = "write a saved pipeline's model, or a model, in another format, and prove it equal"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_source(parser)
    parser.add_argument(
        "path",
        metavar="PATH",
        type=Path,
        help="where: NAME.tflite, NAME.litertlm, NAME.gguf, a name that ends in saved_model, or a preset's directory",
    )
    parser.add_argument(
        "--exporter",
        help="such as tflite:cache_length=512,beams=0 or transformers; kerasgen list exporters NAME says what one "
        "takes (default: by the path's ending)",
    )
    parser.add_argument("--quantize", metavar="KIND", help="how weights are stored, such as int8 (default: float32)")
    parser.add_argument("--overwrite", action="store_true", help="replace what the exporter wrote there before")
    add_backend(parser)
    add_weights(parser)


def run(chosen: argparse.Namespace) -> int:
    """Write the artefact and say what it is."""
    from kerasgen.exporters import registry

    target = chosen.path.expanduser()
    settings = {} if chosen.quantize is None else {"quantize": chosen.quantize}
    exporter = registry.choose(chosen.exporter, target, settings)  # what is wrong is said before a model is loaded
    pipeline = sources.open_pipeline(chosen.source, backend=chosen.backend, weights=chosen.weights)
    show(pipeline.export(target, exporter=exporter, overwrite=chosen.overwrite))
    return 0
