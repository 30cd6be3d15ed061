"""Records a run: writes its history, checkpoints, best weights and report, when `callbacks` says so.

`checkpoints` writes them, whole or not at all. Imports Keras: import it late.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kerasgen.errors import CheckpointError
from kerasgen.tuners import checkpoint_contents, checkpoints, sharding
from kerasgen.tuners.base import TuneReport
from kerasgen.tuners.callbacks import History
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
    saved = checkpoints.read_latest(directory) if go_on else None
    sharding.together(share, "what is there was read")  # before one process changes it
    if resume is True and saved is None:
        raise CheckpointError(f"There is no checkpoint in {directory} to resume from. Start with resume=False.")
    return saved


class Recorder:
    """Keeps a run's history, checkpoints, best weights and report.

    Args:
        trainer: compiled and seeded; it gets the state of the checkpoint.
        directory: the directory of the run; it is cleared for a run that starts anew.
        share: the share of this process in the run.
        fingerprint: what must be the same for a run to go on.
        saved: the checkpoint that the run goes on from, or None.

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
    ) -> None:
        self.history = History()
        self._trainer = trainer
        self._directory = directory
        self._share = share
        self._fingerprint = fingerprint
        self._variables = checkpoint_contents.state_variables(trainer)
        if saved is not None:
            checkpoint_contents.restore(saved, trainer, fingerprint, directory)
            self.history = History.from_dict(saved.state["history"])
        elif share.writes:
            checkpoint_contents.clear(directory)
        sharding.together(share, "the run begins")

    def save(self) -> Path:
        """Write a checkpoint of the run as it is and return its folder."""
        info = {"fingerprint": self._fingerprint, "history": self.history.to_dict()}
        checkpoint = checkpoints.Checkpoint(len(self.history.losses), _gathered(self._variables), info)
        written = checkpoints.folder(self._directory, checkpoint.step)
        if self._share.writes:
            written = checkpoints.write(self._directory, checkpoint)
        sharding.together(self._share, f"the checkpoint of step {checkpoint.step}")
        return written

    def is_finite(self) -> bool:
        """Return whether every number of the run's state is finite."""
        return all(map(_is_finite, _gathered(self._variables).values()))

    def digest(self) -> str:
        """Return a digest of the weights."""
        digest = hashlib.blake2b()
        for tensor in _gathered(self._trained()).values():
            digest.update(np.ascontiguousarray(tensor).data)
        return digest.hexdigest()

    def keep_best(self) -> None:
        """Write the weights as the best ones so far."""
        best = _gathered(self._trained())
        if self._share.writes:
            checkpoints.write_tensors(self._directory / checkpoint_contents.BEST_FILE, best)
        sharding.together(self._share, "the best weights")

    def take_best(self) -> None:
        """Give the model the best weights, as `keep_best` wrote them last."""
        best = checkpoints.read_tensors(self._directory / checkpoint_contents.BEST_FILE)
        checkpoint_contents.assign(self._trained(), best, self._directory)

    def finish(self, report: TuneReport) -> None:
        """Write the report, which says that the run is finished."""
        if self._share.writes:
            checkpoint_contents.write_report(self._directory, report)
        sharding.together(self._share, "the report")

    def _trained(self) -> dict[str, Any]:
        return checkpoint_contents.named(self._trainer.trainable_variables)


def _is_finite(tensor: Any) -> bool:
    # The least and the greatest pass a NaN on, and need no array of truths beside the tensor.
    return tensor.dtype.kind != "f" or not tensor.size or bool(np.isfinite(tensor.min()) and np.isfinite(tensor.max()))


def _gathered(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of variables on this host, whole however devices share them."""
    return {name: sharding.gathered(variable) for name, variable in variables.items()}
