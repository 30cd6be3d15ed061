"""Finds the directory of a run's checkpoints: the given one, or one in the user's state directory for this run.

Imports Keras: import it late.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from kerasgen.errors import CheckpointError, KerasgenError, LockedError, TuneArgumentError
from kerasgen.files import locking, staging
from kerasgen.files.path_arguments import path_argument
from kerasgen.models.base import LanguageModel
from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tuners import checkpoint_contents, sharding
from kerasgen.tuners.base import FineTuner
from kerasgen.tuners.report import TuneReport


@contextmanager
def run_directory(
    directory: str | os.PathLike[str] | None,
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
        directory: the folder that was asked for, or None.
        model: the model that is tuned.
        train: the documents that it is tuned on.
        tuner: the tuner with its settings.
        seed: the seed of the run.
        backend: the backend that Keras runs on.
    """
    if directory is not None:
        yield path_argument(directory, TuneArgumentError, name="directory")
        return
    from platformdirs import user_state_path

    identity = json.dumps([train.digest(), model.source, repr(tuner), seed, backend], allow_nan=False)
    folder = user_state_path("kerasgen") / "runs" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    yield folder
    with suppress(LockedError, OSError), alone(folder):  # unless the next one has begun there
        staging.remove(folder)


def tell(directory: Path, report: TuneReport) -> None:
    """Write a finished run's report anew, with what the tuner did not know of it: the corpus and the settings.

    Nothing is written where the run wrote none, nor by another process than the one that writes.

    Raises:
        CheckpointError: it can't be written.
    """
    if checkpoint_contents.finished(directory) and sharding.is_first_process():
        checkpoint_contents.write_report(directory, report)


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Be the only run in a directory, and remove what killed ones left there.

    Raises:
        LockedError: another run is going on there.
        CheckpointError: the directory can't be written to.
    """
    with ExitStack() as stack:
        advice = "or let this run have another one, by fit(directory=…)"
        try:
            stack.enter_context(locking.locked(directory, place=directory / ".lock", advice=advice))
        except OSError as cause:
            raise CheckpointError(f"A run can't be kept in {directory}: {cause}. Give another directory.") from cause
        staging.sweep_directory(directory)
        staging.sweep_own(directory)
        yield


@contextmanager
def alone_together(directory: Path, share: sharding.Share) -> Iterator[None]:
    """Let the process that writes be `alone` in a directory, and all of its run know whether it is.

    Raises:
        LockedError: another run is going on there.
        CheckpointError: the directory can't be written to.
    """
    with ExitStack() as stack:
        refused: KerasgenError | None = None
        if share.writes:
            try:
                stack.enter_context(alone(directory))
            except (LockedError, CheckpointError) as cause:
                refused = cause
        if not sharding.agreed(share, refused is None, "the run's directory is free"):
            raise refused or CheckpointError(
                f"The process that writes can't begin a run in {directory}; see its error."
            )
        yield
