"""Writes what each document costs under a model to a file. Imports no Keras, so that a wrong path is refused early."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kerasgen.corpora.base import Document
from kerasgen.errors import ArgumentError, KerasgenError
from kerasgen.files import atomic, staging
from kerasgen.files.path_arguments import path_argument

if TYPE_CHECKING:
    from kerasgen.models.scoring import Scores


def write(path: Path, scores: Scores, documents: Iterable[Document]) -> None:
    """Write what each document costs into a file, as JSON lines or CSV by its name's ending.

    Args:
        path: the path of the file, which is replaced.
        scores: the scores of the documents.
        documents: the same ones, in their order.

    Raises:
        KerasgenError: it can't be written.
    """
    rows = [
        {
            "id": document.id,
            "bits_per_character": nll / math.log(2.0) / max(characters, 1),
            "nats": nll,
            "tokens": tokens,
            "characters": characters,
            "text": document.text,
        }
        for document, nll, tokens, characters in zip(
            documents, scores.nll.tolist(), scores.tokens.tolist(), scores.characters.tolist(), strict=True
        )
    ]
    stream = io.StringIO()
    if path.suffix.lower() == ".csv":
        table = csv.DictWriter(stream, ["id", "bits_per_character", "nats", "tokens", "characters", "text"])
        table.writeheader()
        table.writerows(rows)
    else:
        for row in rows:
            stream.write(atomic.json_line(row).decode())
    try:
        staging.replace(path, stream.getvalue().encode("utf-8", "surrogatepass"))
    except OSError as cause:
        raise KerasgenError(f"The scores can't be written to {path}: {cause}. Choose another path.") from cause


def check_path(path: str | os.PathLike[str] | None) -> Path | None:
    """Return where scores are to be written.

    Raises:
        ArgumentError: its name ends neither in `.jsonl` nor in `.csv`.
    """
    if path is None:
        return None
    target = path_argument(path, name="scores_path")
    if target.suffix.lower() not in (".jsonl", ".csv"):
        raise ArgumentError(f"`scores_path` must end in .jsonl or .csv. Received: {str(path)!r}.")
    return target
