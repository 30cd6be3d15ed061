"""Real pipelines and presets that are killed while they are saved: all of the old one is there, or all of the new."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killing import POSIX, killed_at
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen import fork_safety
from kerasgen.models.hub import Hub
from kerasgen.models.saving import save_preset

pytestmark = [*POSIX, pytest.mark.one_backend, pytest.mark.slow]


@pytest.fixture(autouse=True)
def _saving_in_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let children that only copy weights to files do so: it needs no thread of JAX's."""
    monkeypatch.setattr(fork_safety, "check_owner", lambda engine, parent: None)


def weights(model: Any) -> list[Any]:
    return [np.asarray(variable) for variable in model.causal_lm.weights]


def is_one(found: Any, *models: Any) -> bool:
    return any(all(map(np.array_equal, weights(found), weights(model))) for model in models)


def save_pipeline(model: Any, path: Path) -> None:
    pipe = kg.Pipeline(corpus=None)
    pipe._model = model
    pipe.save(path, overwrite=True)


WRITERS: dict[str, tuple[Callable[[Any, Path], Any], Callable[[Path], Any]]] = {
    "preset": (lambda model, path: save_preset(model, path, overwrite=True), lambda path: Hub(str(path)).load()),
    "pipeline": (save_pipeline, lambda path: kg.Pipeline.load(path).model),
}


@pytest.mark.essential
@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("overwrites", [True, False])
def test_killed_at_any_change_of_a_file(tmp_path: Path, kind: str, overwrites: bool) -> None:
    write, read = WRITERS[kind]
    old, new = tiny_gpt2(num_layers=1, seed=1), tiny_gpt2(num_layers=1, seed=2)
    n, step, killed = 1, 3, True
    while killed:
        path = tmp_path / str(n) / "poet"
        path.parent.mkdir()
        if overwrites:
            write(old, path)
        killed = killed_at(n, path.parent, lambda path=path: write(new, path))
        if overwrites:
            assert is_one(read(path), old, new)
        elif path.exists():
            assert is_one(read(path), new)
        write(new, path)
        assert is_one(read(path), new)
        assert [entry.name for entry in path.parent.iterdir()] == ["poet"]
        n += step
    assert n > 20
