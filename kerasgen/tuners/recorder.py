"""Records a run: writes its history, checkpoints, best weights and report, when `callbacks` says so.

`checkpoints` writes them, whole or not at all. Imports Keras: import it late.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from kerasgen.errors import CheckpointError
from kerasgen.files import staging
from kerasgen.tuners import checkpoint_contents, checkpoints, sharded_arrays, sharding
from kerasgen.tuners.background_writer import BackgroundWriter
from kerasgen.tuners.callbacks import History
from kerasgen.tuners.report import TuneReport
from kerasgen.tuners.snapshot import Snapshot
from kerasgen.tuners.trainer import Trainer


def checkpoint_to_resume(
    directory: Path, resume: bool | Literal["auto"], share: sharding.Share
) -> checkpoints.Checkpoint | None:
    """Return the checkpoint that a run goes on from, or None for one that starts anew.

    Args:
        directory: the directory of the run.
        resume: as in `TuneJob`.
        share: the share of this process in the run.

    Raises:
        CheckpointError: there is nothing to resume, or it is damaged.
    """
    go_on = resume
    if resume == "auto":
        go_on = sharding.agreed(share, not checkpoint_contents.finished(directory), "whether a run goes on")
    saved = checkpoints.read_latest(directory, share) if go_on else None
    sharding.together(share, "what is there was read")  # before one process changes it
    if resume is True and saved is None:
        raise CheckpointError(f"There is no checkpoint in {directory} to resume from. Start with resume=False.")
    return saved


@dataclass
class _Kept:
    """Variables, and memory for a copy of them.

    Args:
        variables: by the names that a file has for them.
        pending: what is done with the copy meanwhile, or None.
    """

    variables: Mapping[str, Any]
    pending: Future[object] | None = None

    @cached_property
    def snapshot(self) -> Snapshot:
        """The memory, once it is needed."""
        return Snapshot({name: (_dtype(variable), tuple(variable.shape)) for name, variable in self.variables.items()})


class Recorder:
    """Keeps a run's history, checkpoints, best weights and report.

    Args:
        trainer: compiled and seeded; it gets the state of the checkpoint.
        directory: the directory of the run; it is cleared for a run that starts anew.
        share: the share of this process in the run.
        fingerprint: what must be the same for a run to go on.
        saved: the checkpoint that the run goes on from, or None.
        sharded: whether each process writes its own part of the state.
        further: returns what a checkpoint says beside that, as JSON can hold it.

    Raises:
        CheckpointError: the checkpoint is of another run.
    """

    def __init__(
        self,
        trainer: Trainer,
        directory: Path,
        share: sharding.Share,
        fingerprint: Mapping[str, Any],
        saved: checkpoints.Checkpoint | None,
        *,
        sharded: bool = False,
        further: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self.history = History()
        self._trainer = trainer
        self._directory = directory
        self._share = share
        self._fingerprint = fingerprint
        self._further = further
        self._variables = checkpoint_contents.state_variables(trainer)
        if saved is not None:
            checkpoint_contents.restore(saved, trainer, fingerprint, directory)
            self.history = History.from_dict(saved.state["history"])
        elif share.writes:
            checkpoint_contents.clear(directory)
        sharding.together(share, "the run begins")
        self._writer = BackgroundWriter()
        self._state, self._best = _Kept(self._variables), _Kept(self._trained())
        self._sharded = sharded_arrays.ShardedArrays(share) if sharded else None

    def prepare(self) -> None:
        """Begin to get the memory for a copy of the state: as much as the state itself, until the run ends."""
        if self._share.writes and self._sharded is None:
            self._state.pending = self._writer.submit(self._state.snapshot.prepare)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Let what was begun be written before the run ends, however it ends.

        Raises:
            CheckpointError: something could not be written, of which nobody was told before. If the run ends by another
                error, that one has it as a note.
        """
        try:
            yield
        except BaseException as error:
            unsaid = self._closed()
            if unsaid is not None:
                error.add_note(str(unsaid))
            raise
        unsaid = self._closed()
        if unsaid is not None:
            raise unsaid

    def _closed(self) -> BaseException | None:
        unsaid = self._writer.close()
        if self._sharded is not None:
            self._sharded.close()
        return unsaid

    def check(self) -> None:
        """Raise what writing the last checkpoint or the best weights ran into, if it has ended.

        Raises:
            CheckpointError: it could not be written.
        """
        self._writer.check()

    def wait(self) -> None:
        """Wait until everything is written.

        Raises:
            CheckpointError: something can't be written.
        """
        self._writer.wait()

    def save(self) -> Path | None:
        """Begin to write a checkpoint of the run as it is, and return the folder that it will have.

        The run goes on once its state is copied. Of a state with a number that is not finite nothing is written, and
        None is returned.

        Raises:
            CheckpointError: the checkpoint before it could not be written.
        """
        step = len(self.history.losses)
        info = {"fingerprint": self._fingerprint, "history": self.history.to_dict(), **self._further()}
        if self._sharded is not None:
            if not sharded_arrays.is_finite(self._variables):
                return None
            folder = checkpoints.folder(self._directory, step)
            self._begin_sharded(self._state, folder, info | {"step": step}, "step-*", keep=2)
            return folder
        if not self._taken(self._state):
            return None
        if self._share.writes:
            checkpoint = checkpoints.Checkpoint(step, self._state.snapshot, info)
            self._state.pending = self._writer.submit(partial(checkpoints.write, self._directory, checkpoint))
        sharding.together(self._share, f"the checkpoint of step {step}")
        return checkpoints.folder(self._directory, step)

    def _begin_sharded(self, kept: _Kept, folder: Path, state: Mapping[str, Any], others: str, *, keep: int) -> None:
        """Begin to write each process's part of the variables, once what was begun before is written."""
        sharded = self._sharded
        assert sharded is not None
        self.wait()
        sharded.begin(folder, kept.variables)

        def finish() -> None:
            sharded.finish(folder, state)
            if self._share.writes:
                whole = sorted(filter(sharded_arrays.is_whole, self._directory.glob(others)))
                for old in whole[:-keep]:
                    with suppress(OSError):
                        staging.remove(old)

        kept.pending = self._writer.submit(finish)

    def _taken(self, kept: _Kept) -> bool:
        """Copy the variables, once the copy before is written, and return whether all numbers are finite."""
        if kept.pending is not None:
            self._writer.wait(kept.pending)
        sharding.begin_to_gather(kept.variables.values())
        arrays = ((name, sharding.seen(variable)) for name, variable in kept.variables.items())
        if self._share.writes:
            return kept.snapshot.take(arrays)
        finite = [_is_finite(array) for _, array in arrays]  # every process must ask for all of them
        return all(finite)

    def is_finite(self) -> bool:
        """Return whether every number of the run's state is finite."""
        if self._sharded is not None:
            return sharded_arrays.is_finite(self._variables)
        finite = [_is_finite(sharding.seen(variable)) for variable in self._variables.values()]
        return all(finite)

    def digest(self) -> str:
        """Return a digest of the weights."""
        digest = hashlib.blake2b()
        for variable in self._trained().values():
            digest.update(np.ascontiguousarray(sharding.seen(variable)).data)
        return digest.hexdigest()

    def keep_best(self) -> None:
        """Begin to write the weights as the best ones so far.

        Raises:
            CheckpointError: the best ones before could not be written.
        """
        if self._sharded is not None:
            folder = self._directory / f"best-{len(self.history.losses):08d}"
            self._begin_sharded(self._best, folder, {}, "best-*", keep=1)
            return
        self._taken(self._best)
        if self._share.writes:
            path = self._directory / checkpoint_contents.BEST_FILE
            self._best.pending = self._writer.submit(partial(checkpoints.write_tensors, path, self._best.snapshot))
        sharding.together(self._share, "the best weights")

    def take_best(self) -> None:
        """Give the model the best weights, as `keep_best` wrote them last."""
        self.wait()
        sharding.together(self._share, "the best weights are written")
        stored = sorted(filter(sharded_arrays.is_whole, self._directory.glob("best-*")))
        if stored:
            try:
                sharded_arrays.read_mark(stored[-1], self._share)
            except (OSError, ValueError) as cause:
                raise CheckpointError(f"The best weights in {stored[-1]} are damaged: {cause}.") from cause
            sharded_arrays.restore(sharded_arrays.Stored(stored[-1] / sharded_arrays.ARRAYS), self._trained())
            return
        best = checkpoints.read_tensors(self._directory / checkpoint_contents.BEST_FILE)
        checkpoint_contents.assign(self._trained(), best, self._directory)

    def finish(self, report: TuneReport) -> None:
        """Write the report, which says that the run is finished, once everything else is written."""
        self.wait()
        if self._share.writes:
            checkpoint_contents.write_report(self._directory, report)
        sharding.together(self._share, "the report")

    def _trained(self) -> dict[str, Any]:
        return checkpoint_contents.named(self._trainer.trainable_variables)


def _dtype(variable: Any) -> str:
    """Return the name of a variable's numbers as they are held: one of int64 says so on JAX, which has int32 then."""
    return str(keras.backend.standardize_dtype(variable.value.dtype))


def _is_finite(tensor: Any) -> bool:
    # The least and the greatest pass a NaN on, and need no array of truths beside the tensor.
    return tensor.dtype.kind != "f" or not tensor.size or bool(np.isfinite(tensor.min()) and np.isfinite(tensor.max()))
