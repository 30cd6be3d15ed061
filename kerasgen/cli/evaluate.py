"""`kerasgen evaluate`: how well a model predicts texts."""

from __future__ import annotations

from typing import Annotated, Any

from kerasgen.cli import sources
from kerasgen.cli.arguments import (
    Assignments,
    Backend,
    Json,
    Source,
    Weights,
    assigned,
    option,
    setting,
    typed,
)
from kerasgen.cli.json_output import show_json
from kerasgen.errors import ArgumentError
from kerasgen.evaluation.base import NEW_TOKENS
from kerasgen.terminal import show

_FURTHER = {"sampler": "str", "seed": "int"}
"""Arguments of `Pipeline.evaluate` without flags, and their kinds."""


def run(
    source: Source,
    corpus: Annotated[
        str | None,
        option(
            "--corpus",
            metavar="CORPUS",
            help="a corpus to score, such as text:path=poems.txt; - reads paragraphs from standard input (default: "
            "the held-out part of the pipeline's own)",
        ),
    ] = None,
    batch_size: Annotated[int, option("--batch-size", metavar="N", help="rows scored at once (default: 16)")] = 16,
    texts: Annotated[
        int,
        option(
            "--texts",
            metavar="N",
            help="texts to write and examine: variety, copies from the training part, forms of verse (default: 0)",
        ),
    ] = 0,
    prompt: Annotated[
        list[str] | None,
        option("--prompt", metavar="TEXT", help="the beginning of those texts; several take turns (default: nothing)"),
    ] = None,
    max_new_tokens: Annotated[
        int | None, setting("max_new_tokens", such_as="for each of those texts", default=str(NEW_TOKENS))
    ] = None,
    self_bleu: Annotated[
        bool,
        option(
            "--self-bleu/--no-self-bleu",
            help="compare the texts with each other too, which needs the extra diversity (default: --self-bleu)",
        ),
    ] = True,
    scores_path: Annotated[
        str | None,
        option(
            "--scores",
            metavar="FILE",
            help="write each document's loss to a .jsonl or .csv file (default: none)",
        ),
    ] = None,
    assignments: Assignments = None,
    as_json: Json = False,
    backend: Backend = None,
    weights: Weights = None,
) -> int:
    """Print the figures."""
    further: dict[str, Any] = typed(assigned(assignments), _FURTHER, call="evaluate")
    pipeline = sources.open_pipeline(source, backend=backend, weights=weights)
    if corpus is None and pipeline.corpus is None:
        raise ArgumentError(f"{source!r} brings no corpus of its own. Say which texts to score: `corpus`.")
    evaluation = pipeline.evaluate(
        sources.corpus_of(corpus),
        batch_size=batch_size,
        texts=texts,
        prompt=list(map(sources.as_text, prompt)) if prompt else "",
        max_new_tokens=NEW_TOKENS if max_new_tokens is None else max_new_tokens,
        self_bleu=self_bleu,
        scores_path=scores_path,
        **further,
    )
    if as_json:
        show_json(evaluation)
    else:
        show(evaluation)
    return 0
