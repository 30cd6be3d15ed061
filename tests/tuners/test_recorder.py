"""What a run writes beside its checkpoints is there whole or not at all, and a full disk costs no step."""

from __future__ import annotations

import dataclasses
import errno
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from toys import encode, smallest_gpt2, texts

from kerasgen.errors import CheckpointError, TuneError
from kerasgen.tuners import checkpoints
from kerasgen.tuners.base import TuneReport
from kerasgen.tuners.full import FullTuner

TUNER = FullTuner(batch_size=2, sequence_length=32, max_steps=2, checkpoint_every=1, precision="float32")


@pytest.fixture(scope="module")
def model() -> Any:
    return smallest_gpt2()


def tune(model: Any, directory: Path, **changed: Any) -> TuneReport:
    train = encode(model.tokenizer, texts(60))
    tuner = dataclasses.replace(TUNER, **changed)
    return tuner.tune(model, train, seed=0, directory=directory, resume="auto", verbose=0)


def full_for(name: str) -> Callable[[Path, Path], Path]:
    """Renames as `Path.replace` does, but for a file of this name, for which the disk is full."""
    replace = Path.replace

    def full(source: Path, target: Path) -> Path:
        if name in source.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(source, target)

    return full


def test_a_disk_that_is_full_at_the_end_leaves_the_run_to_go_on_from(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "report.json"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full_for(name))
        with pytest.raises(TuneError, match=rf"{name} can't be written: .*No space left.* room"):
            tune(model, tmp_path)
    assert not [path.name for path in tmp_path.iterdir() if name in path.name], "nothing half is left"
    report = tune(model, tmp_path)
    assert (report.resumed_from, report.steps) == (2, 2)
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["steps"] == 2


def test_a_report_that_breaks_off_says_nothing(model: Any, tmp_path: Path) -> None:
    """An earlier version wrote it so when the disk was full."""
    tune(model, tmp_path)
    (tmp_path / "report.json").write_text('{"steps": 2, "los', encoding="utf-8")
    assert tune(model, tmp_path).resumed_from == 2
    assert tune(model, tmp_path).resumed_from is None


def test_a_checkpoint_that_could_not_be_written_behind_ends_the_run_at_a_later_step(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full_for("step-00000002"))
        with pytest.raises(CheckpointError, match=r"of step 2 can't be written .*No space left.* room"):
            tune(model, tmp_path, max_steps=9)
    assert [path.name for path in tmp_path.iterdir() if "00000002" in path.name] == []
    assert checkpoints.read_latest(tmp_path).step < 9  # type: ignore[union-attr]
    assert tune(model, tmp_path, max_steps=9, checkpoint_every=9).steps == 9


@pytest.mark.parametrize("ends_by_another_error", [False, True])
def test_that_the_last_one_could_not_be_written_is_told_at_the_end(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends_by_another_error: bool
) -> None:
    train = encode(model.tokenizer, texts(60))

    class Fail(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 1 and ends_by_another_error:
                raise RuntimeError("the lights went out")

    def late(directory: Path, checkpoint: Any) -> Path:
        time.sleep(0.3)
        return write(directory, checkpoint)

    write = checkpoints.write
    monkeypatch.setattr(checkpoints, "write", late)
    monkeypatch.setattr(Path, "replace", full_for("step-00000002"))
    expected = RuntimeError if ends_by_another_error else CheckpointError
    tuner = dataclasses.replace(TUNER, checkpoint_every=2)
    with pytest.raises(expected) as raised:
        tuner.tune(model, train, seed=0, directory=tmp_path, callbacks=[Fail()], verbose=0)
    told = raised.value.__notes__[0] if ends_by_another_error else str(raised.value)
    assert "checkpoint of step 2 can't be written" in told
    assert not (tmp_path / "report.json").exists()


def test_what_is_written_late_is_the_state_that_the_step_left(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the steps after it have changed the weights before the writer begins, and the next checkpoint waits."""
    train = encode(model.tokenizer, texts(60))
    left: list[list[Any]] = []
    gone = threading.Event()

    class Keep(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            left.append([np.array(variable) for variable in self.model.trainable_variables])
            if len(left) == 5:
                gone.set()

    def late(directory: Path, checkpoint: Any) -> Path:
        gone.wait(60)
        seen.append(len(left))
        return write(directory, checkpoint, keep=9)

    write, seen = checkpoints.write, []
    monkeypatch.setattr(checkpoints, "write", late)
    tuner = dataclasses.replace(TUNER, max_steps=5, checkpoint_every=3)
    report = tuner.tune(model, train, seed=0, directory=tmp_path, callbacks=[Keep()], verbose=0)
    assert report.steps == 5
    assert seen[0] == 5, "the steps did not wait for the writer"
    saved = checkpoints.read_latest(tmp_path)
    assert saved is not None
    assert saved.step == 3
    assert isinstance(saved.tensors, dict)
    weights = [tensor for name, tensor in sorted(saved.tensors.items()) if name.startswith("weights/")]
    for written, kept in zip(weights, left[2], strict=True):
        np.testing.assert_array_equal(written, kept)
    assert any(map(np.any, map(np.subtract, left[2], left[3])))
