"""`kerasgen push`: a saved pipeline on a hub, with artefacts that were proved and a model card."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from kerasgen.cli import sources
from kerasgen.cli.arguments import Backend, Json, Source, Weights, option
from kerasgen.cli.json_output import show_json
from kerasgen.errors import HubArgumentError
from kerasgen.terminal import show

_SETTING = re.compile(r"\s*\w+\s*=")


def run(
    source: Source,
    repository: Annotated[
        str,
        typer.Argument(
            metavar="REPOSITORY", help="name/poet on the Hugging Face hub, or kaggle://user/model/keras/name"
        ),
    ],
    formats: Annotated[
        list[str] | None,
        option(
            "--formats",
            metavar="FORMATS",
            help="exporters' names with commas between them, such as transformers,gguf:dtype=Q8_0 (default: none but "
            "the saved pipeline)",
        ),
    ] = None,
    pipeline: Annotated[bool, option("--pipeline/--no-pipeline", help="push the saved pipeline too")] = True,
    public: Annotated[bool, option("--public", help="let everybody see it (default: a new repository is private)")] = (
        False
    ),
    card: Annotated[
        Path | None,
        option("--card", metavar="PATH", help="a model card to push as it is (default: one made of what is known)"),
    ] = None,
    card_only: Annotated[
        bool,
        option(
            "--card-only",
            "--dry-run",
            help="push nothing; write the model card on standard output, and the list of files on standard error",
        ),
    ] = False,
    revision: Annotated[
        str | None, option("--revision", metavar="BRANCH", help="the branch, which is made if need be (default: main)")
    ] = None,
    message: Annotated[
        str | None, option("--message", "-m", metavar="TEXT", help="message of the commit (default: kerasgen's own)")
    ] = None,
    progress: Annotated[
        bool | None,
        option("--progress/--no-progress", help="show on standard error what is being done (default: in a terminal)"),
    ] = None,
    as_json: Json = False,
    backend: Backend = None,
    weights: Weights = None,
) -> int:
    """Push, and say where it is; the hub's token is that of `hf auth login`, or HF_TOKEN."""
    from kerasgen.publishing import formats as layouts
    from kerasgen.publishing.plan import repository_of

    asked = split_formats(formats or ())
    stem = repository_of(repository).rpartition("/")[2]
    layout = layouts.layout(asked, stem, pipeline=pipeline)  # what is wrong is said before anything is read
    text = _read(card)
    opened = sources.open_pipeline(source, backend=backend, weights=weights)
    if card_only:
        made = opened.model_card(repository, formats=asked)
        places = [*(["pipeline.json and what it names"] if layout.has_pipeline else [])]
        places += [f"{each.place or 'the root'} ({each.name})" for each in layout.formats]
        if as_json:
            show_json({"card": made.content, "metadata": made.metadata, "places": places})
        else:
            show(made.content, end="")
            show("\n".join(f"would go: {place}" for place in ["README.md", *places]), stream=sys.stderr)
        return 0
    pushed = opened.push_to_hub(
        repository,
        formats=asked,
        pipeline=pipeline,
        card=text,
        private=not public,
        revision=revision,
        commit_message=message,
        progress=progress,
    )
    if as_json:
        show_json(pushed.to_dict())
    else:
        show(pushed)
    return 0


def split_formats(values: Sequence[str]) -> list[str]:
    """Return the formats of `--formats`: a comma before `key=` belongs to the settings of the one before it."""
    formats: list[str] = []
    for value in values:
        pieces = value.split(",")
        for number, piece in enumerate(pieces):
            if number and formats and ":" in formats[-1] and _SETTING.match(piece):
                formats[-1] += f",{piece}"
            else:
                formats.append(piece.strip())
    return formats


def _read(card: Path | None) -> str | None:
    if card is None:
        return None
    try:
        return card.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise HubArgumentError(f"The model card {str(card)!r} can't be read: {cause}.") from cause
