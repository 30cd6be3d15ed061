"""Writes and reads arrays that lie on several processes, each its own part, by orbax.

A folder of them is whole once `MARK` lies in it, which is written last.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasgen.errors import CheckpointError, MissingDependencyError
from kerasgen.files import atomic, staging

if TYPE_CHECKING:
    from kerasgen.tuners.sharding import Share

ARRAYS, MARK = "arrays", "state.json"


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
            if self._share.writes:
                atomic.write(folder / MARK, json.dumps(state, allow_nan=False).encode())
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
    except (OSError, ValueError, KeyError) as cause:
        raise CheckpointError(
            f"The checkpoint in {stored.path} can't be read as this model's state: {cause}"
        ) from cause
    for name, variable in variables.items():
        variable.assign(found[name])


def is_whole(folder: Path) -> bool:
    """Return whether a folder holds arrays that were written to their end."""
    return (folder / MARK).is_file() and (folder / ARRAYS).is_dir()


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
