"""A checkpoint is there whole or not at all, and a damaged one says so."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import killed_at
from places import SUPPORT

from kerasgen.errors import CheckpointError
from kerasgen.files import locking
from kerasgen.tuners import checkpoints
from kerasgen.tuners.background_writer import BackgroundWriter
from kerasgen.tuners.checkpoints import STATE_FILE, TENSORS_FILE, Checkpoint
from kerasgen.tuners.snapshot import Snapshot


def checkpoint(step: int, *, size: int = 3) -> Checkpoint:
    tensors = {
        "weights/00000": np.linspace(0.0, 1.0, size * 4, dtype=np.float32).reshape(size, 4).T,
        "random/00000": np.asarray([step, 2**31 - 1], np.uint32),
        "optimizer/00000": np.asarray(step, np.int32),
    }
    return Checkpoint(step, tensors, {"history": {"losses": [0.1 + 0.2, 1e-45, 3.0]}, "fingerprint": {"seed": 7}})


def same(found: Checkpoint | None, written: Checkpoint) -> bool:
    return (
        found is not None
        and found.step == written.step
        and {key: found.state[key] for key in written.state} == dict(written.state)
        and found.tensors.keys() == written.tensors.keys()
        and all(np.array_equal(found.tensors[name], written.tensors[name]) for name in written.tensors)
        and all(found.tensors[name].dtype == written.tensors[name].dtype for name in written.tensors)
    )


def test_what_is_read_is_what_was_written_to_the_bit(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "new" / "run", checkpoint(5))
    assert folder == tmp_path / "new" / "run" / "step-00000005"
    assert same(checkpoints.read_latest(tmp_path / "new" / "run"), checkpoint(5))


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (2, 9, 10, 100):
        checkpoints.write(tmp_path, checkpoint(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000100"]
    assert same(checkpoints.read_latest(tmp_path), checkpoint(100))


def test_a_directory_without_checkpoints_has_no_latest(tmp_path: Path) -> None:
    (tmp_path / "step-00000001").mkdir()
    (tmp_path / "notes.txt").write_text("no checkpoint")
    assert checkpoints.read_latest(tmp_path) is None
    assert checkpoints.read_latest(tmp_path / "nowhere") is None


def test_what_a_killed_writer_left_is_never_read_and_goes_with_the_next_write(tmp_path: Path) -> None:
    checkpoints.write(tmp_path, checkpoint(3))
    left = tmp_path / ".step-00000004.0123abcd.partial"
    left.mkdir()
    holder = dataclasses.replace(locking.Holder.this_process(), pid=1)
    locking.place_of(tmp_path / "step-00000004").write_bytes(holder.to_bytes())
    (left / TENSORS_FILE).write_bytes(b"half")
    assert same(checkpoints.read_latest(tmp_path), checkpoint(3))
    checkpoints.write(tmp_path, checkpoint(5))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000005"]


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([STATE_FILE, TENSORS_FILE]), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(
    tmp_path_factory: pytest.TempPathFactory, file: str, where: float, change: int
) -> None:
    """Whatever the byte: it is refused with the folder's name, or it made no difference to what is read."""
    directory = tmp_path_factory.mktemp("run")
    folder = checkpoints.write(directory, checkpoint(8))
    data = bytearray((folder / file).read_bytes())
    data[int(where * len(data))] ^= change
    (folder / file).write_bytes(data)
    refusal, found = "", None
    try:
        found = checkpoints.read_latest(directory)
    except CheckpointError as error:
        refusal = str(error)
    assert str(folder) in refusal or same(found, checkpoint(8))


@pytest.mark.parametrize("file", [STATE_FILE, TENSORS_FILE])
@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_checkpoint_names_its_folder_and_the_one_before(tmp_path: Path, file: str, damage: str) -> None:
    checkpoints.write(tmp_path, checkpoint(4))
    folder = checkpoints.write(tmp_path, checkpoint(8))
    data = (folder / file).read_bytes()
    damaged = {"cut": data[: len(data) // 2], "empty": b"", "other": b"[]"}[damage]
    (folder / file).write_bytes(damaged)
    with pytest.raises(CheckpointError, match="is damaged") as error:
        checkpoints.read_latest(tmp_path)
    assert str(folder) in str(error.value)
    assert "Remove it to go on from step-00000004" in str(error.value)


def test_weights_that_are_missing_are_damage_too(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path, checkpoint(8))
    (folder / TENSORS_FILE).unlink()
    with pytest.raises(CheckpointError, match="is damaged") as error:
        checkpoints.read_latest(tmp_path)
    assert "Remove it" not in str(error.value), "there is none before it"


def test_a_directory_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="step 3 can't be written") as error:
        checkpoints.write(tmp_path / "file" / "run", checkpoint(3))
    assert error.value.step == 3
    with pytest.raises(CheckpointError, match="can't be written"):
        checkpoints.write_tensors(tmp_path / "file" / "best.safetensors", checkpoint(3).tensors)


def test_tensors_alone_are_read_as_written_and_their_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    checkpoints.write_tensors(path, checkpoint(3).tensors)
    found = checkpoints.read_tensors(path)
    assert all(np.array_equal(found[name], tensor) for name, tensor in checkpoint(3).tensors.items())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"best\.safetensors can't be read"):
        checkpoints.read_tensors(path)
    with pytest.raises(CheckpointError, match=r"gone\.safetensors can't be read"):
        checkpoints.read_tensors(tmp_path / "gone.safetensors")


class TestSnapshot:
    def test_it_is_a_safetensors_file(self) -> None:
        """Of numbers of every width, of one number alone, of none, and of more than one thread copies."""
        arrays = {
            "c": np.arange(7, dtype=np.float64)[::-1],
            "a": np.asarray(3, np.int8),
            "none": np.zeros((0, 5), np.float32),
            "b": np.asarray([True, False, True]),
            "d": np.arange(6, dtype=np.float16).reshape(2, 3).T,
            "large": np.random.default_rng(0).standard_normal((17, 1_000_001), np.float32),
        }
        snapshot = Snapshot({name: (array.dtype, array.shape) for name, array in arrays.items()})
        snapshot.prepare()
        for factor in (1, 3):
            scaled = {name: (array * factor).astype(array.dtype) for name, array in arrays.items()}
            assert snapshot.take(scaled.items())
            found = safetensors.numpy.load(bytes(snapshot.data))
            assert found.keys() == scaled.keys()
            for name, array in scaled.items():
                np.testing.assert_array_equal(found[name], array, strict=True)

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    @pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
    def test_one_number_that_is_not_finite_is_found(self, dtype: str, wrong: float) -> None:
        for place in (0, 70_000, 199_999):
            array = np.ones(200_000, dtype)
            snapshot = Snapshot({"array": (dtype, array.shape)})
            assert snapshot.take([("array", array)])
            array[place] = wrong
            assert not snapshot.take([("array", array)])

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_finite_numbers_whose_sum_overflows_are_finite(self, dtype: str) -> None:
        array = np.full(10_000, np.finfo(dtype).max)
        assert Snapshot({"array": (dtype, array.shape)}).take([("array", array)])

    def test_numbers_that_the_format_lacks_are_refused(self) -> None:
        with pytest.raises(TypeError, match="can't hold NumPy's complex64"):
            Snapshot({"array": ("complex64", (2,))})


class TestBackgroundWriter:
    def test_errors_are_raised_in_their_order_and_once(self) -> None:
        writer = BackgroundWriter()
        tasks = [writer.submit(lambda: time.sleep(0.05)), writer.submit(lambda: 1 // 0), writer.submit(lambda: {}["x"])]
        with pytest.raises(ZeroDivisionError):
            writer.wait(tasks[-1])
        with pytest.raises(KeyError):
            writer.check()
        writer.check()
        assert writer.close() is None

    def test_an_error_that_nobody_was_told_of_is_told_at_the_end(self) -> None:
        writer = BackgroundWriter()
        writer.submit(lambda: time.sleep(0.05))
        writer.submit(lambda: 1 // 0)
        assert isinstance(writer.close(), ZeroDivisionError)


@pytest.mark.one_backend
@pytest.mark.essential
@pytest.mark.skipif(not hasattr(os, "fork"), reason="its processes are forked and killed as POSIX does")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning", "ignore:This process:DeprecationWarning")
def test_killed_at_any_change_of_a_file_the_writer_behind_leaves_whole_checkpoints(tmp_path: Path) -> None:
    def write(directory: Path) -> None:
        writer = BackgroundWriter()
        for step in (4, 5):
            writer.submit(partial(checkpoints.write, directory, checkpoint(step)))
        assert writer.close() is None

    n, killed, latest = 1, True, set()
    while killed:
        directory = tmp_path / str(n)
        checkpoints.write(directory, checkpoint(3))
        killed = killed_at(n, directory, partial(write, directory))
        found = checkpoints.read_latest(directory)
        assert found is not None
        assert same(found, checkpoint(found.step))
        latest.add(found.step)
        n += 1
    assert latest == {3, 4, 5}


@pytest.mark.skipif(sys.platform == "win32", reason="limits on a file's size are POSIX's")
def test_a_disk_that_is_full_leaves_the_checkpoint_before_as_it_was(tmp_path: Path) -> None:
    """The system refuses the rest of a file that grows beyond the limit, as it does on a full disk."""
    checkpoints.write(tmp_path, checkpoint(3))
    checkpoints.write_tensors(tmp_path / "best.safetensors", checkpoint(3).tensors)
    code = """
        import json, resource, sys
        from pathlib import Path
        from test_checkpoints import checkpoint
        from kerasgen.errors import CheckpointError
        from kerasgen.tuners import checkpoints

        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        directory, messages = Path(sys.argv[1]), []
        for write in (
            lambda: checkpoints.write(directory, checkpoint(4, size=5000)),
            lambda: checkpoints.write_tensors(directory / "best.safetensors", checkpoint(4, size=5000).tensors),
        ):
            try:
                write()
            except CheckpointError as error:
                messages.append(str(error))
        print(json.dumps(messages))
    """
    child = subprocess.run(
        [sys.executable, "-c", dedent(code), str(tmp_path)],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": str(SUPPORT)},
        capture_output=True,
        text=True,
        check=True,
    )
    whole, best = json.loads(child.stdout)
    assert "step 4 can't be written" in whole
    assert "The one before it is untouched" in whole
    assert "best.safetensors can't be written" in best
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", "step-00000003"]
    assert same(checkpoints.read_latest(tmp_path), checkpoint(3))
    found = checkpoints.read_tensors(tmp_path / "best.safetensors")
    assert all(np.array_equal(found[name], tensor) for name, tensor in checkpoint(3).tensors.items())
