"""Arrays that each process writes a part of: what is read is what was written, or their damage is told."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kerasgen import backend
from kerasgen.errors import CheckpointError
from kerasgen.tuners import checkpoints, sharded_arrays
from kerasgen.tuners.sharded_arrays import MARK, ShardedArrays

pytestmark = [pytest.mark.one_backend, pytest.mark.slow]


def variables(seed: int) -> dict[str, Any]:
    import jax.numpy as jnp

    drawn = np.random.default_rng(seed).standard_normal((2, 40, 30), np.float32)
    found = {
        name: SimpleNamespace(value=jnp.asarray(values)) for name, values in zip(("a/0", "b/0"), drawn, strict=True)
    }
    for variable in found.values():
        variable.assign = lambda value, variable=variable: setattr(variable, "value", value)
    return found


def written(directory: Path) -> Path:
    """A checkpoint of step 4, and the one before it."""
    from kerasgen.tuners.sharding import Share

    pytest.importorskip("orbax.checkpoint")
    arrays = ShardedArrays(Share())
    for step in (2, 4):
        folder = checkpoints.folder(directory, step)
        arrays.begin(folder, variables(step))
        arrays.finish(folder, {"step": step, "history": {}})
    arrays.close()
    return folder


@pytest.fixture(autouse=True)
def _jax() -> None:
    if backend.use() != "jax":
        pytest.skip("orbax is JAX's")


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    written(tmp_path)
    found = checkpoints.read_latest(tmp_path)
    assert found is not None
    assert isinstance(found.tensors, sharded_arrays.Stored)
    restored = variables(0)
    sharded_arrays.restore(found.tensors, restored)
    for name, expected in variables(4).items():
        np.testing.assert_array_equal(restored[name].value, expected.value)


def test_no_damaged_byte_of_any_file_goes_unnoticed(tmp_path: Path) -> None:
    """Orbax alone takes a changed byte of a weight for another weight."""
    folder = written(tmp_path)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) > 5
    for path in files:
        data = path.read_bytes()
        damages = [data[:-1], data[: len(data) // 2], b"", b"[]"]
        for place in (0, len(data) // 2, len(data) - 1):
            damages.append(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        for damaged in damages:
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=r"step-00000004 is damaged: .*Remove it to go on from step-0000"):
                checkpoints.read_latest(tmp_path)
        if path.name != MARK:  # without its mark a folder is none
            path.unlink()
            with pytest.raises(CheckpointError, match=f"{path.name} is not what was written"):
                checkpoints.read_latest(tmp_path)
        path.write_bytes(data)
    assert checkpoints.read_latest(tmp_path) is not None


def test_one_of_a_version_without_digests_is_read(tmp_path: Path) -> None:
    mark = written(tmp_path) / MARK
    content = json.loads(mark.read_text())
    mark.write_text(json.dumps({name: content[name] for name in ("step", "history")}))
    found = checkpoints.read_latest(tmp_path)
    assert found is not None
    assert found.step == 4


def test_what_orbax_alone_can_not_read_is_told_as_such(tmp_path: Path) -> None:
    folder = written(tmp_path)
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.unlink()
    with pytest.raises(CheckpointError, match="can't be read as this model's state"):
        sharded_arrays.restore(sharded_arrays.Stored(folder / sharded_arrays.ARRAYS), variables(0))
