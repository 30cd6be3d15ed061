"""`kerasgen evaluate`: how well a model predicts texts."""

from __future__ import annotations

import argparse

from kerasgen.cli import sources
from kerasgen.cli.arguments import add_backend, add_source
from kerasgen.errors import ArgumentError
from kerasgen.terminal import show

NAME = "evaluate"
HELP = "score texts under a saved pipeline or a model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_source(parser)
    parser.add_argument(
        "--corpus",
        help="all of it is scored, such as text:path=poems.txt; - reads paragraphs from standard input (default: the "
        "held-out part of the pipeline's own)",
    )
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="rows scored at once")
    add_backend(parser)


def run(chosen: argparse.Namespace) -> int:
    """Print the figures."""
    pipeline = sources.open_pipeline(chosen.source, backend=chosen.backend)
    if chosen.corpus is None and pipeline.corpus is None:
        raise ArgumentError(f"{chosen.source!r} brings no corpus of its own. Say which texts to score: `corpus`.")
    show(pipeline.evaluate(sources.corpus_of(chosen.corpus), batch_size=chosen.batch_size))
    return 0
