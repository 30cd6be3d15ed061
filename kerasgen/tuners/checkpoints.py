"""Writes and reads a run's checkpoints: weights, optimizer, step and history, whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from kerasgen import limits
from kerasgen.errors import CheckpointError
from kerasgen.files import atomic, staging
from kerasgen.tuners import sharded_arrays
from kerasgen.tuners.snapshot import Snapshot

if TYPE_CHECKING:
    from kerasgen.tuners.sharding import Share

STATE_FILE = "state.json"
TENSORS_FILE = "state.safetensors"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """State of a run from which it goes on as if it had never stopped.

    Args:
        step: optimizer steps finished; the position in the data follows from it.
        tensors: weights, optimizer and random state by name; or all of them as they are written; or where each process
            reads its part of them.
        state: the rest, as JSON can hold it.
    """

    step: int
    tensors: Mapping[str, NDArray[Any]] | Snapshot | sharded_arrays.Stored
    state: Mapping[str, Any]


def write(directory: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Write the checkpoint and remove all but the newest `keep`.

    The files are written into a folder of another name, flushed to the disk, and renamed: a killed writer leaves the
    checkpoint before it as it was, and what it left is removed by the next one.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: it can't be written (a full disk, no permission).
    """
    assert not isinstance(checkpoint.tensors, sharded_arrays.Stored)
    final = folder(directory, checkpoint.step)
    tensors = _file_of(checkpoint.tensors)
    state = dict(checkpoint.state) | {"step": checkpoint.step}
    state |= {"sha256": _digest(tensors, state)}
    try:
        with staging.staged(final) as stage:
            new = stage / final.name
            new.mkdir()
            (new / TENSORS_FILE).write_bytes(tensors)
            (new / STATE_FILE).write_text(json.dumps(state, allow_nan=False), encoding="utf-8")
            staging.place(stage, final)
    except OSError as cause:
        raise CheckpointError(
            f"The checkpoint of step {checkpoint.step} can't be written to {directory}: {cause}. The one before it is "
            "untouched. Make room or give another directory.",
            step=checkpoint.step,
        ) from cause
    remove_old(directory, keep=keep)
    return final


def remove_old(directory: Path, *, keep: int = 2) -> None:
    """Remove all checkpoints but the newest `keep`."""
    for old in _folders(directory)[:-keep]:
        with suppress(OSError):
            staging.remove(old)


def folder(directory: Path, step: int) -> Path:
    """Return the folder of the checkpoint of a step."""
    return directory / f"step-{step:08d}"


def read_latest(directory: Path, share: Share | None = None) -> Checkpoint | None:
    """Return the newest checkpoint of the run, or None if there is none.

    Args:
        directory: the directory of the run.
        share: the share of this process in a run whose processes read it together, each a part of its files.

    Raises:
        CheckpointError: the newest one is damaged; names the folder, and the one before it if there is one.
    """
    folders = _folders(directory)
    if not folders:
        return None
    try:
        return _read(folders[-1], share)
    except (OSError, ValueError, KeyError) as cause:
        before = f" Remove it to go on from {folders[-2].name}." if len(folders) > 1 else ""
        raise CheckpointError(f"The checkpoint {folders[-1]} is damaged: {cause}.{before}") from cause


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]] | Snapshot) -> None:
    """Write tensors into one file, whole or not at all.

    Raises:
        CheckpointError: they can't be written.
    """
    write_bytes(path, _file_of(tensors))


def write_bytes(path: Path, data: bytes | memoryview, *, then: str = "Make room or give another directory.") -> None:
    """Write a file, whole or not at all.

    Args:
        path: what lies there is replaced.
        data: the data of the whole file.
        then: what to do if it can't be written, for the error.

    Raises:
        CheckpointError: it can't be written.
    """
    try:
        atomic.write(path, data)
    except OSError as cause:
        raise CheckpointError(f"{path} can't be written: {cause}. {then}") from cause


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read a file of `write_tensors`.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(path.read_bytes()))
    except (OSError, SafetensorError) as cause:
        raise CheckpointError(f"{path} can't be read: {cause}") from cause


def _folders(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("step-*") if (path / STATE_FILE).is_file())


def _read(folder: Path, share: Share | None) -> Checkpoint:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if sharded_arrays.is_whole(folder):
        mark = sharded_arrays.read_mark(folder, share)
        return Checkpoint(step=mark["step"], tensors=sharded_arrays.Stored(folder / sharded_arrays.ARRAYS), state=mark)
    state = limits.read_json(folder / STATE_FILE)
    data = (folder / TENSORS_FILE).read_bytes()
    if not isinstance(state, dict):
        raise ValueError(f"{STATE_FILE} is not what was written")
    if _digest(data, state) != state["sha256"]:
        raise ValueError("the files are not what was written")
    try:
        tensors = load(data)
    except SafetensorError as cause:
        raise ValueError(str(cause)) from cause
    return Checkpoint(step=state["step"], tensors=tensors, state=state)


def _file_of(tensors: Mapping[str, NDArray[Any]] | Snapshot) -> memoryview:
    """Return tensors as the bytes of a safetensors file."""
    if isinstance(tensors, Snapshot):
        return tensors.data
    snapshot = Snapshot({name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()})
    snapshot.take(tensors.items())
    return snapshot.data


def _digest(tensors: bytes | memoryview, state: Mapping[str, Any]) -> str:
    hashed = {key: value for key, value in state.items() if key != "sha256"}
    sha256 = hashlib.sha256(tensors)
    sha256.update(json.dumps(hashed, allow_nan=False).encode())
    return sha256.hexdigest()
