"""Writes and reads arrays that lie on several processes, each its own part, by orbax.

A folder of them is whole once `MARK` lies in it, which is written last. It holds the digests of all other files: orbax
would take a changed byte of a weight for another weight.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasgen import limits
from kerasgen.errors import CheckpointError, MissingDependencyError
from kerasgen.files import atomic, staging
from kerasgen.files.digests import sha256_of

if TYPE_CHECKING:
    from kerasgen.tuners.sharding import Share

ARRAYS, MARK = "arrays", "state.json"
_FILES, _DIGEST = "files", "sha256"  # in the mark: the SHA-256 of each file, and that of the mark itself
_SECONDS_UNSEEN = 120.0  # in which a network mount shows what another host has renamed
_questions = itertools.count()  # every process asks the same ones in the same order, each from its own thread


def require() -> None:
    """Check that orbax is installed.

    Raises:
        MissingDependencyError: it is not.
    """
    if importlib.util.find_spec("orbax") is None or importlib.util.find_spec("orbax.checkpoint") is None:
        raise MissingDependencyError(
            "sharded_checkpoints=True needs the package orbax-checkpoint. Run: pip install 'kerasgen[scale]'.",
            package="orbax-checkpoint",
            extra="scale",
        )


@dataclass(frozen=True)
class Stored:
    """Arrays on the disk.

    Args:
        path: of orbax's folder.
    """

    path: Path


class ShardedArrays:
    """Writes arrays behind the training: each process its own part, into one folder that all of them see.

    Args:
        share: the share of this process in the run.
    """

    def __init__(self, share: Share) -> None:
        require()
        self._share = share
        self._written = itertools.count()

    @cached_property
    def _checkpointer(self) -> Any:
        import orbax.checkpoint as ocp

        logging.getLogger("absl").setLevel(logging.ERROR)  # it tells each step of its work
        return ocp.StandardCheckpointer()

    def begin(self, folder: Path, variables: Mapping[str, Any]) -> None:
        """Begin to write variables; the run may go on when this returns. Every process calls it.

        Raises:
            CheckpointError: the folder can't be made.
        """
        from kerasgen.tuners import sharding

        if self._share.writes:
            try:
                if folder.exists():  # what a killed run left
                    staging.remove(folder)
                folder.mkdir(parents=True)
            except OSError as cause:
                raise CheckpointError(f"{folder} can't be written: {cause}. Give another directory.") from cause
        sharding.together(self._share, f"{folder.name} is made")
        self._checkpointer.save(folder.absolute() / ARRAYS, _nested({n: v.value for n, v in variables.items()}))

    def finish(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Wait until all processes have written their parts, and mark the folder as whole. Every process calls it.

        Raises:
            CheckpointError: something can't be written.
        """
        try:
            self._checkpointer.wait_until_finished()
            key = f"files {next(self._written)} of {folder.name}"
            marked = {**state, _FILES: _digests(folder, self._share, _names(folder, self._share, key), key)}
            if self._share.writes:
                content = marked | {_DIGEST: _digest(marked)}
                atomic.write(folder / MARK, json.dumps(content, allow_nan=False).encode())
        except (OSError, ValueError, RuntimeError) as cause:
            raise CheckpointError(
                f"{folder} can't be written: {cause}. The one before it is untouched. Make room or give another "
                "directory."
            ) from cause

    def close(self) -> None:
        """End orbax's threads."""
        if "_checkpointer" in self.__dict__:
            self._checkpointer.close()


def restore(stored: Stored, variables: Mapping[str, Any]) -> None:
    """Give variables what is stored, each process its own parts of them.

    Raises:
        CheckpointError: the arrays are damaged, or of a model of another shape.
    """
    require()
    import jax
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)
    wanted = {
        name: jax.ShapeDtypeStruct(of.value.shape, of.value.dtype, sharding=of.value.sharding)
        for name, of in variables.items()
    }
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            found = _flat(checkpointer.restore(stored.path.absolute(), _nested(wanted)))
    except Exception as cause:  # orbax raises errors of every kind, `Exception` itself too
        raise CheckpointError(
            f"The checkpoint in {stored.path} can't be read as this model's state: {cause}"
        ) from cause
    for name, variable in variables.items():
        variable.assign(found[name])


def is_whole(folder: Path) -> bool:
    """Return whether a folder holds arrays that were written to their end."""
    return (folder / MARK).is_file() and (folder / ARRAYS).is_dir()


def read_mark(folder: Path, share: Share | None) -> dict[str, Any]:
    """Return what the mark of a whole folder says, after each process has compared a part of the files.

    Args:
        folder: the folder.
        share: the share of this process in the run; None compares all files here.

    Raises:
        ValueError: something is not what was written; raised in every process.
        OSError: the mark can't be read.
    """
    mark = limits.read_json(folder / MARK)
    if not isinstance(mark, dict):
        raise ValueError(f"{MARK} is not what was written")
    if _DIGEST not in mark and _FILES not in mark:  # of a version that wrote no digests
        return mark
    if mark.get(_DIGEST) != _digest({name: value for name, value in mark.items() if name != _DIGEST}):
        raise ValueError(f"{MARK} is not what was written")
    files: dict[str, str] = mark[_FILES]
    names = sorted(files)
    if share is not None:
        from kerasgen.tuners import sharding

        names = list(sharding.part_of(share, names))
    damaged = next((name for name in names if _sha256(folder / name) != files[name]), "")
    if share is not None:
        key = f"damage of {folder.name}, {next(_questions)}"
        damaged = next(filter(None, sharding.words_of_all(share, damaged, key)), "")
    if damaged:
        raise ValueError(f"{damaged} is not what was written")
    return mark


def _names(folder: Path, share: Share, key: str) -> list[str]:
    """Return the names of all files below a folder, as the process that writes sees them."""
    from kerasgen.tuners import sharding

    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    told = sharding.words_of_all(share, json.dumps(sorted(found), allow_nan=False) if share.writes else "", key)
    names: list[str] = json.loads(next(filter(None, told)))
    return [name for name in names if name != MARK]


def _digests(folder: Path, share: Share, names: Sequence[str], key: str) -> dict[str, str]:
    """Return the SHA-256 of each file, of which each process reads a part."""
    from kerasgen.tuners import sharding

    own = {name: _seen_sha256(folder / name) for name in sharding.part_of(share, names)}
    told = sharding.words_of_all(share, json.dumps(own, allow_nan=False), f"digests of {key}")
    return {name: sha256 for word in told for name, sha256 in json.loads(word).items()}


def _seen_sha256(path: Path) -> str:
    """Return the SHA-256 of a file that another host may just have moved there."""
    began = time.monotonic()
    while (sha256 := _sha256(path)) is None:
        if time.monotonic() - began > _SECONDS_UNSEEN:
            raise FileNotFoundError(f"{path} is not there")
        time.sleep(0.5)
    return sha256


def _sha256(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except (FileNotFoundError, IsADirectoryError):
        return None


def _digest(mark: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(mark, sort_keys=True, allow_nan=False).encode()).hexdigest()


def is_finite(variables: Mapping[str, Any]) -> bool:
    """Return whether all numbers are finite; each process looks at its own, and all get the same answer."""
    import jax
    import jax.numpy as jnp

    floats = [of.value for of in variables.values() if jnp.issubdtype(of.value.dtype, jnp.floating)]

    @jax.jit  # type: ignore[untyped-decorator]
    def all_finite(arrays: list[Any]) -> Any:
        return jnp.stack([jnp.isfinite(array).all() for array in arrays]).all()

    return bool(all_finite(floats))


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Orbax takes a slash in a name for a folder: `weights/00000` becomes `{"weights": {"00000": …}}`."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        group, _, place = name.rpartition("/")
        nested.setdefault(group or "variables", {})[place] = value
    return nested


def _flat(nested: Mapping[str, Any]) -> dict[str, Any]:
    return {
        place if group == "variables" else f"{group}/{place}": value
        for group, places in nested.items()
        for place, value in places.items()
    }
