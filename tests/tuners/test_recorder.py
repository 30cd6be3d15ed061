"""What a run writes beside its checkpoints is there whole or not at all, and a full disk costs no step."""

from __future__ import annotations

import dataclasses
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toys import encode, smallest_gpt2, texts

from kerasgen.errors import TuneError
from kerasgen.tuners.base import TuneReport
from kerasgen.tuners.full import FullTuner

TUNER = FullTuner(batch_size=2, sequence_length=32, max_steps=2, checkpoint_every=1, precision="float32")


@pytest.fixture(scope="module")
def model() -> Any:
    return smallest_gpt2()


def tune(model: Any, directory: Path, **changed: Any) -> TuneReport:
    train = encode(model.tokenizer, texts(12))
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
