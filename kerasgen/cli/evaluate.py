"""`kerasgen evaluate`: how well a model predicts texts."""

from __future__ import annotations

import argparse

from kerasgen.cli import sources
from kerasgen.cli.arguments import add_backend, add_source, add_weights
from kerasgen.cli.generation_flags import add_setting
from kerasgen.errors import ArgumentError
from kerasgen.evaluation.base import NEW_TOKENS
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
    parser.add_argument(
        "--texts",
        type=int,
        default=0,
        metavar="N",
        help="texts to write and examine: variety, copies from the training part, forms of verse",
    )
    parser.add_argument(
        "--prompt", action="append", help="what those texts go on from; several take turns (default: nothing)"
    )
    add_setting(parser, "max_new_tokens", such_as="for each of those texts", default=str(NEW_TOKENS))
    parser.add_argument(
        "--self-bleu",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compare the texts with each other too, which needs the extra diversity",
    )
    parser.add_argument(
        "--scores",
        dest="scores_path",
        metavar="FILE",
        help="write what each document costs to a .jsonl or .csv file (default: to none)",
    )
    add_backend(parser)
    add_weights(parser)


def run(chosen: argparse.Namespace) -> int:
    """Print the figures."""
    pipeline = sources.open_pipeline(chosen.source, backend=chosen.backend, weights=chosen.weights)
    if chosen.corpus is None and pipeline.corpus is None:
        raise ArgumentError(f"{chosen.source!r} brings no corpus of its own. Say which texts to score: `corpus`.")
    evaluation = pipeline.evaluate(
        sources.corpus_of(chosen.corpus),
        batch_size=chosen.batch_size,
        texts=chosen.texts,
        prompt=chosen.prompt or "",
        max_new_tokens=NEW_TOKENS if chosen.max_new_tokens is None else chosen.max_new_tokens,
        self_bleu=chosen.self_bleu,
        scores_path=chosen.scores_path,
    )
    show(evaluation)
    return 0
