"""Where a run keeps its checkpoints: the folder that it was given, or one of the person's that stands for this run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kerasgen.models.base import LanguageModel
from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tuners.base import FineTuner


@contextmanager
def run_directory(
    given: str | os.PathLike[str] | None,
    model: LanguageModel,
    train: EncodedDocuments,
    tuner: FineTuner,
    *,
    seed: int,
    backend: str,
) -> Iterator[Path]:
    """Give a run its folder, and remove it afterwards if nobody asked for it.

    That of an interrupted run stays, and the next run with the same documents, model, settings, seed and backend, and
    with no others, finds it.

    Args:
        given: the folder that was asked for, or None.
        model: that is tuned.
        train: the documents that it is tuned on.
        tuner: with its settings.
        seed: of the run.
        backend: that Keras runs on.
    """
    if given is not None:
        yield Path(given)
        return
    from platformdirs import user_state_path

    said = json.dumps([train.digest(), model.source, repr(tuner), seed, backend])
    folder = user_state_path("kerasgen") / "runs" / hashlib.sha256(said.encode()).hexdigest()[:16]
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
