"""Collects what a run's checkpoint holds, and checks that it fits the resumed run. Imports Keras: import it late."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasgen import limits
from kerasgen.errors import CheckpointError
from kerasgen.files import staging
from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tuners import checkpoints, sharded_arrays, sharding
from kerasgen.tuners.report import TuneReport
from kerasgen.tuners.settings import GradientTuner
from kerasgen.tuners.snapshot import Snapshot
from kerasgen.tuners.trainer import Trainer

BEST_FILE = "best.safetensors"
REPORT_FILE = "report.json"
GO_ON = "The run's checkpoints are untouched: make room, and fit again to go on from them."


def reseed(trainer: Trainer, seed: int) -> None:
    """Let dropout draw from the run's seed, whatever was drawn before.

    A Keras generator counts its second word up by one a draw, so generators must not start side by side.
    """
    for index, variable in enumerate(_random_states(trainer)):
        state = np.random.SeedSequence([seed, index]).generate_state(2)
        variable.assign(state.astype(np.uint32) >> 1)  # TensorFlow keeps a signed state


def _random_states(trainer: Trainer) -> list[Any]:
    return [variable for variable in trainer.variables if variable.path.endswith("seed_generator_state")]


def named(variables: Sequence[Any]) -> dict[str, Any]:
    """Return variables by place: their paths count instances in the process, their order does not."""
    return {f"{index:05d}": variable for index, variable in enumerate(variables)}


def state_variables(trainer: Trainer) -> dict[str, Any]:
    """Return all that a step changes, by the names that a checkpoint has for it."""
    groups = {
        "weights": trainer.trainable_variables,
        "random": _random_states(trainer),
        "optimizer": trainer.optimizer.variables,
    }
    return {
        f"{group}/{place}": variable
        for group, variables in groups.items()
        for place, variable in named(variables).items()
    }


def fingerprint_of(
    trainer: Trainer,
    train: EncodedDocuments,
    held_out: EncodedDocuments | None,
    settings: GradientTuner,
    seed: int,
    further: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the fingerprint that a resumed run must share: data, settings, seed, and weights outside checkpoints.

    What the objective needs to be the same is `further`.
    """
    frozen = hashlib.sha256()
    for variable in trainer.causal_lm.non_trainable_variables:
        if not variable.path.endswith("seed_generator_state"):
            frozen.update(sharding.gathered(variable).tobytes())
    chosen = dataclasses.asdict(settings)
    for name in ("checkpoint_every", "sample_every", "steps_per_execution", "sharded_checkpoints"):
        del chosen[name]  # they change no number
    return {
        "documents": train.digest(),
        "held-out documents": None if held_out is None else held_out.digest(),
        "frozen weights": frozen.hexdigest(),
        "tuner": type(settings).__name__,
        "seed": seed,
        "backend": keras.config.backend(),
        **further,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()},
    }


def fingerprint_then(saved: checkpoints.Checkpoint, trainer: Trainer) -> dict[str, Any]:
    """Return the fingerprint of the run that wrote a checkpoint, with what version 0.1.0 left out of it.

    0.1.0 wrote the settings before they were decided, had fewer of them, and did not note its backend.
    """
    then = {"learn": "parts", "masking": "tokens", "mask_rate": 0.15, **saved.state["fingerprint"]}
    if "backend" in then:
        return then
    if then["packing"] == "auto":
        then["packing"] = "best_fit" if trainer.packs else "none"
    if then["sequence_length"] is None:
        then["sequence_length"] = min(
            getattr(getattr(trainer.causal_lm, "backbone", None), "max_sequence_length", None) or 512, 512
        )
    added = {"remat": False, "vocabulary": "keep", "validation_tokens": None, "distribution": None}
    if then["tuner"] == "LoraTuner":
        added |= {"form": "keras", "rank_stabilized": False, "use_dora": False, "quantize": None}
    return then | added | {"backend": keras.config.backend()}


def restore(saved: checkpoints.Checkpoint, trainer: Trainer, fingerprint: Mapping[str, Any], directory: Path) -> None:
    """Bring a checkpoint's state back.

    Raises:
        CheckpointError: it is of another run, or of a model of another shape.
    """
    then = fingerprint_then(saved, trainer)
    different = sorted(key for key in fingerprint.keys() | then.keys() if fingerprint.get(key) != then.get(key))
    if different:
        differences = ", ".join(_difference(key, then.get(key), fingerprint.get(key)) for key in different)
        raise CheckpointError(
            f"The checkpoint in {directory} is of another run: {differences} differ. Ask for the same settings, data "
            "and backend, or start anew with resume=False."
        )
    if isinstance(saved.tensors, sharded_arrays.Stored):
        sharded_arrays.restore(saved.tensors, state_variables(trainer))
        return
    assert not isinstance(saved.tensors, Snapshot)  # it was read
    assign(state_variables(trainer), saved.tensors, directory)


def _difference(key: str, then: Any, now: Any) -> str:
    if key in ("documents", "held-out documents", "frozen weights", "reference"):  # digests mean nothing to a reader
        return key
    return f"{key} ({then!r} there, {now!r} here)"


def assign(variables: Mapping[str, Any], tensors: Mapping[str, Any], directory: Path) -> None:
    """Give the variables the values of the same names.

    Raises:
        CheckpointError: the names or the shapes are others.
    """
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    there = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != there:
        name = min(key for key in shapes.keys() | there.keys() if shapes.get(key) != there.get(key))
        raise CheckpointError(
            f"The checkpoint in {directory} belongs to a model of another shape: {name} is {there.get(name)} there "
            f"and {shapes.get(name)} here."
        )
    for name, variable in variables.items():
        variable.assign(tensors[name])


def finished(directory: Path) -> bool:
    """Say whether the directory holds the report of a run that finished; one that can't be read says nothing."""
    try:
        return isinstance(limits.read_json(directory / REPORT_FILE), dict)
    except (OSError, ValueError):
        return False


def write_report(directory: Path, report: TuneReport) -> None:
    """Write the report, whole or not at all. It says that the run is finished: resume="auto" starts anew after it.

    Raises:
        CheckpointError: it can't be written; the checkpoints are untouched.
    """
    content = json.dumps(report.to_dict(), indent=2, allow_nan=False)
    checkpoints.write_bytes(directory / REPORT_FILE, content.encode(), then=GO_ON)


def clear(directory: Path) -> None:
    """Make room for a new run: an earlier one's checkpoints must not be taken for its own."""
    for old in (
        *sorted(directory.glob("step-*")),
        *directory.glob("best-*"),
    ):  # the newest last: a kill leaves a run that can go on, or none
        with suppress(OSError):
            staging.remove(old)
    for name in (BEST_FILE, REPORT_FILE):
        (directory / name).unlink(missing_ok=True)
